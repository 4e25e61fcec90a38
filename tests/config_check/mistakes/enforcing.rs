//! Modes, the packet filter, the lockdown, and what is opened.

use super::Case;

pub const CASES: &[Case] = &[
    // Modes and the packet filter.
    (
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"off\"\n[upstream]\nservers = [\"192.0.2.53\"]\n",
        &[(5, "enforce.backend", "nothing would be enforced", "\"nft\"")],
    ),
    (
        "version = 1\n[policy]\nmode = \"canary\"\n[enforce]\nbackend = \"off\"\n[upstream]\nservers = [\"192.0.2.53\"]\n",
        &[(5, "enforce.backend", "nothing would be enforced", "monitor")],
    ),
    (
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\ntable = \"x\"\n[upstream]\nservers = [\"192.0.2.53\"]\n",
        &[(4, "enforce.backend", "no backend", "enforce.backend = \"nft\"")],
    ),
    ("version = 1\n[policy]\ncanary_percent = 10\n", &[(3, "policy.canary_percent", "without a canary", "canary")]),
    (
        "version = 1\n[policy]\nmode = \"canary\"\ncanary_percent = 100\n[enforce]\nbackend = \"nft\"\n[upstream]\nservers = [\"192.0.2.53\"]\n",
        &[(4, "policy.canary_percent", "100", "1 to 99")],
    ),
    (
        "version = 1\n[enforce]\ntable = \"a b\"\ninterfaces = [\"veth/0\", \"veth-0123456789abc\"]\nmin_pin_seconds = 30\n",
        &[
            (2, "enforce.pin_grace_seconds", "leaves nothing", "less than"),
            (3, "enforce.table", "`a b`", "letters"),
            (4, "enforce.interfaces[0]", "`veth/0`", "1 to 15"),
            (4, "enforce.interfaces[1]", "not an interface", "1 to 15"),
        ],
    ),
    ("version = 1\n[enforce]\nlease_journal = \"\"\n", &[(3, "enforce.lease_journal", "empty", "\"off\"")]),
    (
        "version = 1\n[enforce]\nbackend = \"nft\"\nenforcer_socket = \"run/e.sock\"\nenforcer_group = \"a:b\"\nresolver_user = \"\"\n",
        &[
            (4, "enforce.enforcer_socket", "`run/e.sock` is not the path", "absolute"),
            (5, "enforce.enforcer_group", "`a:b` is not a group", "its number"),
            (6, "enforce.resolver_user", "`` is not a user", "leave it out"),
        ],
    ),
    (
        "version = 1\n[enforce]\nenforcer_socket = \"/run/e.sock\"\nhook = [\"/bin/x\"]\nhook_deadline_ms = 1\n",
        &[
            (3, "enforce.enforcer_socket", "without backend", "\"nft\""),
            (4, "enforce.hook", "never run", "\"hook\""),
            (5, "enforce.hook_deadline_ms", "1 is out of range", "10 to"),
        ],
    ),
    ("version = 1\n[enforce]\nbackend = \"hook\"\n", &[(2, "enforce.hook", "no command", "for example")]),
    (
        "version = 1\n[enforce]\nbackend = \"hook\"\nhook = [\"hook.sh\"]\n",
        &[(4, "enforce.hook[0]", "not an absolute path", "whole path")],
    ),
    (
        "version = 1\n[enforce]\nmin_pin_seconds = 90\nmax_pin_seconds = 80\n",
        &[(3, "enforce.min_pin_seconds", "more than", "longest")],
    ),
    (
        "version = 1\n[enforce]\npins_per_name = 0\ncapacity = 0\ndeadline_ms = 9000\n",
        &[
            (3, "enforce.pins_per_name", "0 is out of range", "1 to"),
            (4, "enforce.capacity", "0 is out of range", "1 to"),
            (5, "enforce.deadline_ms", "9000 is out of range", "1 to 5000"),
        ],
    ),
    // What is wanted of the lockdown.
    (
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\nlockdown = \"require\"\n\
         [upstream]\nservers = [\"192.0.2.53\"]\n",
        &[(6, "enforce.lockdown", "nothing", "\"nft\"")],
    ),
    (
        "version = 1\n[enforce]\ntable = \"mine\"\nlockdown_table = \"mine\"\nlockdown = \"warn\"\n",
        &[(4, "enforce.lockdown_table", "own table", "another")],
    ),
    ("version = 1\n[enforce]\nlockdown = \"always\"\n", &[(3, "enforce.lockdown", "always", "require")]),
    ("version = 1\n[enforce]\nlockdown_table = \"a b\"\n", &[(3, "enforce.lockdown_table", "a b", "letter")]),
    // What is opened.
    (
        "version = 1\n[profile.batch]\nports = [\"tcp/443\", \"443\", \"any\"]\n\
         [profile.batch.volume]\nwarn_bytes = 2000\ncut_bytes = 1000\n",
        &[
            (3, "profile.batch.ports[1]", "`443`", "tcp/443"),
            (5, "profile.batch.volume.warn_bytes", "more than", "cut_bytes"),
        ],
    ),
    (
        "version = 1\n[[range]]\n",
        &[
            (2, "range[0].id", "missing", "1 to 64"),
            (2, "range[0].owner", "owner is missing", "who answers"),
            (2, "range[0].reason", "reason is missing", "why"),
            (2, "range[0].review_by", "without a day", "review_by"),
            (2, "range[0].ranges", "no range", "192.0.2.0/24"),
            (2, "range[0].ports", "no port", "tcp/22"),
        ],
    ),
    (
        "version = 1\n[[range]]\nid = \"r\"\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\nports = [\"icmp/8\"]\n\
         ranges = [\"192.0.2.0/24\", \"169.254.169.254/32\", \"fe80::/64\", \"0.0.0.0/0\", \"192.0.2.1/24\", \
         \"::ffff:198.51.100.0/120\", \"::fffe:0:0/95\"]\n",
        &[
            (7, "range[0].ports[0]", "`icmp/8`", "udp/"),
            (8, "range[0].ranges[3]", "every address", "name the ranges"),
            (8, "range[0].ranges[4]", "behind its prefix", "192.0.2.0/24"),
            (8, "range[0].ranges[5]", "of IPv4 in IPv6's form", "`198.51.100.0/24`"),
            (8, "range[0].ranges[1]", "169.254.0.0/16, which is never opened", "routed to"),
            (8, "range[0].ranges[2]", "fe80::/10, which is never opened", "routed to"),
            (8, "range[0].ranges[6]", "::ffff:0.0.0.0/96, which is never opened", "routed to"),
        ],
    ),
];
