//! Rules, packs, lists, zones, and evidence of what was decided.

use super::Case;

pub const CASES: &[Case] = &[
    // Rules.
    (
        "version = 1\n[[rule]]\n",
        &[
            (2, "rule[0].id", "missing", "1 to 64"),
            (2, "rule[0].owner", "owner is missing", "who answers"),
            (2, "rule[0].reason", "reason is missing", "why"),
            (2, "rule[0].names", "without names", "=index"),
            (2, "rule[0].action", "missing", "\"deny\""),
        ],
    ),
    // A field of wrong shape is told once, not again as missing.
    (
        "version = 1\n[[rule]]\nid = \"r\"\naction = \"allow\"\nowner = 3\nreason = \"r\"\nnames = [\"=a.example\", 5]\n",
        &[
            (5, "rule[0].owner", "integer `3`", "double quotes"),
            (7, "rule[0].names[1]", "integer `5`", "double quotes"),
        ],
    ),
    (
        "version = 1\n[[rule]]\nid = \"r\"\naction = \"allow\"\nowner = \"o\"\nreason = \"r\"\nnames = [\"=a.example\"]\n\
         [[rule]]\nid = \"r\"\naction = \"deny\"\nowner = \"o\"\nreason = \"r\"\nnames = [\"=b.example\"]\nprofiles = [\"bulk\"]\nmode = \"canary\"\n",
        &[(9, "rule[1].id", "line 3", "own id"), (14, "rule[1].profiles[0]", "`bulk`", "batch")],
    ),
    (
        "version = 1\n[[rule]]\nid = \"r\"\naction = \"allow\"\nowner = \"o\"\nreason = \"r\"\nnames = [\"a.example\"]\n\
         expires = \"2150-01-01\"\n",
        &[(8, "rule[0].expires", "later than 2149-06-06", "earlier")],
    ),
    // Packs.
    (
        "version = 1\n[[pack]]\nid = \"p\"\npath = \"no/such/pack\"\n",
        &[(4, "pack[0].path", "cannot be read", "relative to")],
    ),
    (
        "version = 1\n[[pack]]\nid = \"p\"\npath = \"builtin:everything\"\nprofiles = [\"bulk\"]\n",
        &[(4, "pack[0].path", "no shipped pack", "builtin:look-alikes"), (5, "pack[0].profiles[0]", "`bulk`", "batch")],
    ),
    (
        "version = 1\n[[list]]\nid = \"one\"\npath = \"builtin:doh-resolvers\"\n[[pack]]\nid = \"one\"\npath = \"builtin:look-alikes\"\n",
        &[(6, "pack[0].id", "another pack, list or rule", "own id")],
    ),
    (
        "version = 1\n[profile.batch]\npack_session_bits = -1\n",
        &[(3, "profile.batch.pack_session_bits", "out of range", "use 0 to")],
    ),
    // Lists.
    (
        "version = 1\n[[list]]\nid = \"l\"\npath = \"no/such/list\"\n",
        &[(4, "list[0].path", "cannot be read", "relative to")],
    ),
    (
        "version = 1\n[[list]]\nid = \"l\"\npath = \"builtin:everything\"\n",
        &[(4, "list[0].path", "no shipped list", "builtin:doh-resolvers")],
    ),
    (
        "version = 1\n[[list]]\nid = \"l\"\npath = \"builtin:doh-resolvers\"\nformat = \"hosts\"\n",
        &[(4, "list[0].path", "is refused", "format")],
    ),
    (
        "version = 1\n[[list]]\npath = \"builtin:doh-resolvers\"\naction = \"age\"\ndate = \"yesterday\"\n",
        &[
            (2, "list[0].id", "missing", "1 to 64"),
            (4, "list[0].action", "newly registered", "nrd"),
            (5, "list[0].date", "registration", "nrd"),
            (5, "list[0].date", "not a day", "YYYY-MM-DD"),
        ],
    ),
    (
        "version = 1\n[[list]]\nid = \"l\"\npath = \"builtin:doh-resolvers\"\nformat = \"rpz\"\n",
        &[(5, "list[0].format", "`rpz`", "`adblock`")],
    ),
    (
        "version = 1\n[[list]]\nid = \"l\"\npath = \"x.txt\"\nurl = \"http://lists.example/x\"\ncategory = \"a b\"\n",
        &[
            (4, "list[0].path", "both a path and a url", "keep the one"),
            (5, "list[0].url", "http to a name", "https://host/path"),
            (6, "list[0].category", "no good as category", "A-Z"),
        ],
    ),
    (
        "version = 1\n[[list]]\nid = \"l\"\nurl = \"ftp://lists.example/x\"\nrefresh_hours = 0\nmax_mib = 4096\n\
         max_growth = 0.5\nmin_share = 2\ntimeout_seconds = 0\n",
        &[
            (4, "list[0].url", "not an https URL", "https://host/path"),
            (5, "list[0].refresh_hours", "out of range", "1 to 720"),
            (6, "list[0].max_mib", "out of range", "1 to 1024"),
            (7, "list[0].max_growth", "out of range", "1 to"),
            (8, "list[0].min_share", "out of range", "0 to 1"),
            (9, "list[0].timeout_seconds", "out of range", "1 to 3600"),
        ],
    ),
    (
        "version = 1\n[[list]]\nid = \"l\"\nurl = \"https://user:key@lists.example/x\"\n",
        &[(4, "list[0].url", "no URL of a host", "https://host/path")],
    ),
    (
        "version = 1\n[[zone]]\nname = \"corp.test\"\nfile = \"no.zone\"\n[[zone]]\nname = \".\"\n",
        &[
            (4, "zone[0].file", "cannot be read", "relative to"),
            (5, "zone[1].file", "missing", "zone file"),
            (6, "zone[1].name", "root", "apex"),
        ],
    ),
    // Evidence.
    (
        "version = 1\n[events]\nrotate_bytes = 1\nfile = \"\"\n",
        &[(3, "events.rotate_bytes", "1 is", "65536"), (4, "events.file", "empty", "\"off\"")],
    ),
    (
        "version = 1\n[[alert]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"ftp://x/\"\nsecret_file = \"none.key\"\naddress = \"udp://x\"\n\
         [[alert]]\nname = \"a\"\nkind = \"syslog\"\naddress = \"udp://siem.example:514\"\n\
         [[alert]]\nname = \"b\"\nkind = \"file\"\n[[alert]]\nname = \"c\"\n[[alert]]\nname = \"d\"\nkind = \"webhook\"\n",
        &[
            (5, "alert[0].url", "`ftp://x/`", "https://"),
            (6, "alert[0].secret_file", "cannot be read", "relative"),
            (7, "alert[0].address", "only a syslog", "kind"),
            (9, "alert[1].name", "second", "own name"),
            (11, "alert[1].address", "`udp://siem.example:514`", "look-up"),
            (12, "alert[2].path", "missing", "state directory"),
            (15, "alert[3].kind", "missing", "webhook"),
            (17, "alert[4].url", "missing", "https://"),
        ],
    ),
    (
        "version = 1\n[[alert]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"https://soc.example/\"\nca_file = \"none.pem\"\n\
         [[alert]]\nname = \"b\"\nkind = \"webhook\"\nurl = \"https://soc.example/\"\nca_file = \"/etc/passwd\"\n\
         [[alert]]\nname = \"c\"\nkind = \"file\"\npath = \"x\"\nca_file = \"none.pem\"\n\
         [[alert]]\nname = \"d\"\nkind = \"webhook\"\nurl = \"http://10.77.9.9/\"\nca_file = \"none.pem\"\n",
        &[
            (6, "alert[0].ca_file", "`none.pem` cannot be read", "relative to"),
            (11, "alert[1].ca_file", "no certificate in it", "PEM file"),
            (16, "alert[2].ca_file", "only a webhook", "kind"),
            (21, "alert[3].ca_file", "cannot be read", "relative to"),
            (21, "alert[3].ca_file", "without TLS", "https"),
        ],
    ),
    // What the start would refuse.
    (
        "version = 1\n[[alert]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"https://user:hush@soc.example/\"\n",
        &[(5, "alert[0].url", "user name or password", "secret_file")],
    ),
];
