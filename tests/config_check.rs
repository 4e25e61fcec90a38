//! What `staunch check` stands on: every mistake is told by file, line, field and remedy, and no input is a panic.

use std::path::Path;

use staunch::config::{
    AlertSinkKind, Environment, Loaded, Server, SinkholeAction, SyslogTarget, Warning, defaults_in, load_in, load_text,
};
use staunch::enforce::BackendKind;
use staunch::forward::Way;
use staunch::lists::{Reach, Scope};
use staunch::model::Ede;
use staunch::model::{Mode, Phase, Qtype, SessionType, Wall};
use staunch::policy::{UnknownSource, Unlisted};
use staunch::rpz::Override;
use staunch::transfer::Source;
use staunch::validate::Anchors;
use staunch_scoring::{Bits, NameBuf};

const EXAMPLE: &str = include_str!("../deploy/staunch.example.toml");

/// 2026-11-21T12:00:00Z.
const WALL: u64 = 1_795_262_400_000;

fn environment() -> Environment {
    Environment {
        resolv_conf: Some(
            "search example.org\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n".into(),
        ),
        state_home: "/home/user/.local/state".into(),
        state_dir: None,
        wall: WALL,
        entropy: [7; 24],
        keep_tables: false,
    }
}

fn read(text: &str) -> Result<(Loaded, Vec<Warning>), Vec<String>> {
    load_text(Path::new("policy.toml"), text, &environment())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> (Loaded, Vec<Warning>) {
    read(text).unwrap_or_else(|errors| panic!("{}\n{text}", errors.join("\n")))
}

fn name(text: &str) -> NameBuf {
    text.parse().expect("name")
}

/// A file, and for each mistake in it: line, field, part of the problem, part of the remedy.
type Case = (&'static str, &'static [(u32, &'static str, &'static str, &'static str)]);

const RULE: &str = "version = 1\n[[rule]]\nid = \"r\"\naction = \"allow\"\nowner = \"o\"\nreason = \"r\"\n";

#[test]
fn a_server_says_how_it_is_asked() {
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\", \"udp://192.0.2.54:5353\", \"tcp://[2001:db8::53]\",\n\
                \"tls://192.0.2.55#dns.example\", \"tls://dns.example\", \"tls://dns.example:443#front.example\",\n\
                { server = \"192.0.2.56\", mix_case = false }]\nbootstrap = [\"192.0.2.1\"]\n";
    let (loaded, _) = load_text(Path::new("dir/policy.toml"), text, &environment()).expect("no mistake");
    let servers: Vec<_> = loaded.upstream.servers.iter().map(Server::to_string).collect();
    let expected = [
        "192.0.2.53:53",
        "192.0.2.54:5353",
        "tcp://[2001:db8::53]:53",
        "tls://192.0.2.55:853#dns.example",
        "tls://dns.example:853#dns.example",
        "tls://dns.example:443#front.example",
        "192.0.2.56:53",
    ];
    assert_eq!(servers, expected);
    let ways = loaded.upstream.servers.iter().map(|server| &server.way);
    let mixed: Vec<_> =
        ways.filter_map(|way| if let Way::Udp { mix_case } = way { Some(*mix_case) } else { None }).collect();
    assert_eq!(mixed, [true, true, false]);
}

#[test]
fn every_mistake_is_told_by_line_field_and_remedy() {
    let cases: &[Case] = &[
        // The document.
        ("version = ", &[(1, "", "not TOML", "put this line right")]),
        ("", &[(1, "version", "no version", "version = 1")]),
        ("version = 2", &[(1, "version", "version 2", "version = 1")]),
        ("version = 1\n[sevrer]\n", &[(2, "sevrer", "unknown field `sevrer`", "`server`")]),
        (
            "version = 1\n[server]\nlissen = []\nworkers = -1\n",
            &[(3, "server.lissen", "unknown field", "`listen`"), (4, "server.workers", "-1", "0 or more")],
        ),
        ("version = 1\n[policy]\nmode = \"on\"\n", &[(3, "policy.mode", "`on`", "`enforce`")]),
        // Response policy zones.
        ("version = 1\n[[rpz]]\nfile = \"z\"\n", &[(2, "rpz[0].name", "empty", "write a name")]),
        ("version = 1\n[[rpz]]\nname = \"z.test\"\n", &[(2, "rpz[0]", "from nowhere", "`primaries`")]),
        (
            "version = 1\n[[rpz]]\nname = \"z.test\"\nprimaries = [\"udp://192.0.2.1\", \"tls://192.0.2.1\", \"192.0.2.1#x.test\", \
             \"tls://x.test#x.test\", { server = \"192.0.2.2\", pins = [\"x\"], mix_case = true }, \
             { server = \"tls://192.0.2.2#x.test\", ca_file = \"none.pem\" }]\n",
            &[
                (4, "rpz[0].primaries[0]", "no way to transfer", "tls://"),
                (4, "rpz[0].primaries[1]", "whose certificate", "#primary.example"),
                (4, "rpz[0].primaries[2]", "without TLS", "tls://"),
                (4, "rpz[0].primaries[3]", "not the address", "not looked up"),
                (4, "rpz[0].primaries[4].mix_case", "datagrams only", "remove"),
                (4, "rpz[0].primaries[4].pins", "without TLS", "tls://"),
                (4, "rpz[0].primaries[5].ca_file", "cannot be read", "relative"),
            ],
        ),
        (
            "version = 1\n[[rpz]]\nname = \"z.test\"\nfile = \"nowhere.zone\"\nrequired = true\npassthru = \"trust\"\n",
            &[
                (2, "rpz[0].owner", "owner is missing", "who answers"),
                (2, "rpz[0].reason", "reason is missing", "why"),
                (4, "rpz[0].file", "cannot be read", "relative"),
                (5, "rpz[0].required", "only zones that are transferred", "remove"),
            ],
        ),
        (
            "version = 1\n[[rpz]]\nname = \"z.test\"\nfile = \"z\"\nprimaries = [\"192.0.2.1\"]\npolicy = \"cname\"\n",
            &[(2, "rpz[0].cname", "no name to lead to", "garden"), (5, "rpz[0].primaries", "a file and from", "keep")],
        ),
        (
            "version = 1\n[[rpz]]\nname = \"z.test\"\nprimaries = [\"primary.test\"]\ncname = \"x.test\"\n\
             tsig = { name = \"k\", algorithm = \"hmac-md5\", secret_file = \"nowhere\" }\nmax_transfer_octets = 1\n",
            &[
                (4, "rpz[0].primaries[0]", "not the address", "not looked up"),
                (5, "rpz[0].cname", "never used", "policy = \"cname\""),
                (6, "rpz[0].tsig.algorithm", "hmac-md5", "hmac-sha256"),
                (6, "rpz[0].tsig.secret_file", "cannot be read", "relative"),
            ],
        ),
        // Addresses.
        (
            "version = 1\n[server]\nlisten = [\n \"127.0.0.1\",\n \"::1\",\n \"localhost:53\",\n]\n",
            &[
                (4, "server.listen[0]", "no port", "`127.0.0.1:53`"),
                (5, "server.listen[1]", "no port", "`[::1]:53`"),
                (6, "server.listen[2]", "not an address", "not looked up"),
            ],
        ),
        ("version = 1\n[server]\nlisten = []\n", &[(3, "server.listen", "no address", "127.0.0.1:53")]),
        (
            "version = 1\n[server]\nlisten = [\"127.0.0.1:53\", \"127.0.0.1:53\"]\n",
            &[(3, "server.listen[1]", "twice", "remove")],
        ),
        ("version = 1\n[server]\nmetrics = \"0.0.0.0:9153\"\n", &[(3, "server.metrics", "from outside", "loopback")]),
        (
            "version = 1\n[decoy]\nper_session_hour = 0\nbits = 0.5\nscore = nan\n",
            &[
                (3, "decoy.per_session_hour", "0 is out of range", "1 to"),
                (4, "decoy.bits", "0.5 is out of range", "1 to"),
                (5, "decoy.score", "NaN", "0 to"),
            ],
        ),
        (
            "version = 1\n[limits]\ntcp_connections = 0\nqueue = 99999999\n",
            &[(3, "limits.tcp_connections", "0 is out of range", "1 to"), (4, "limits.queue", "out of range", "1 to")],
        ),
        // Upstreams.
        (
            "version = 1\n[upstream]\nservers = [\"127.0.0.1:5300\"]\n",
            &[(3, "upstream.servers[0]", "our own", "behind us")],
        ),
        (
            "version = 1\n[upstream]\nservers = [\"resolver.example.net\"]\n",
            &[(3, "upstream.servers", "by name", "bootstrap")],
        ),
        (
            "version = 1\n[upstream]\nservers = [\"https://192.0.2.53\", \"tls://192.0.2.53\", \"tls://[2001:db8::53]:5353\",\n\
             \"192.0.2.53#dns.example\", \"tls://192.0.2.53#two words\",\n\
             { server = \"tcp://192.0.2.54\", pins = [\"x\"], ca_file = \"no.pem\", mix_case = false },\n\
             { server = \"tls://192.0.2.55#dns.example\", pins = [\"short\"], ca_file = \"no.pem\" }]\n",
            &[
                (3, "upstream.servers[0]", "`https` is no way", "tls://"),
                (3, "upstream.servers[1]", "whose certificate", "tls://192.0.2.53#"),
                (3, "upstream.servers[2]", "whose certificate", "tls://[2001:db8::53]#"),
                (4, "upstream.servers[3]", "without TLS", "write tls://"),
                (4, "upstream.servers[4]", "`two words`", "behind `#`"),
                (5, "upstream.servers[5].pins", "without TLS", "write tls://"),
                (5, "upstream.servers[5].ca_file", "without TLS", "write tls://"),
                (5, "upstream.servers[5].mix_case", "datagrams only", "remove"),
                (6, "upstream.servers[6].pins[0]", "`short` is no SHA-256", "44 characters"),
                (6, "upstream.servers[6].ca_file", "`no.pem` cannot be read", "relative to"),
            ],
        ),
        (
            "version = 1\n[upstream]\nservers = [{ server = \"192.0.2.56\", case = true },\n{ pins = [] }]\n",
            &[
                (3, "upstream.servers[0].case", "unknown field", "mix_case"),
                (4, "upstream.servers[1]", "missing field `server`", ""),
            ],
        ),
        (
            "version = 1\n[upstream]\nservers = [7]\n",
            &[(3, "upstream.servers[0]", "invalid type: integer `7`", "a server as text, or a table")],
        ),
        (
            "version = 1\n[upstream]\nservers = [\"a b\", \"x:99999\"]\nbootstrap = [\"ns.example\"]\n",
            &[
                (3, "upstream.servers[0]", "not a server", "host name"),
                (3, "upstream.servers[1]", "not a server", "`:port`"),
                (4, "upstream.bootstrap[0]", "is a name", "an address"),
            ],
        ),
        (
            "version = 1\n[upstream]\ntry_timeout_ms = 2000\ntotal_timeout_ms = 1000\nudp_payload = 100\n",
            &[
                (4, "upstream.total_timeout_ms", "less than", "one try"),
                (5, "upstream.udp_payload", "100", "512 to 4096"),
            ],
        ),
        (
            "version = 1\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"a0\"]\n[policy]\nmode = \"enforce\"\n",
            &[(1, "upstream.servers", "monitor mode only", "name the resolvers")],
        ),
        (
            "version = 1\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"a0\"]\n[policy]\nmode = \"canary\"\n[upstream]\nservers = []\n",
            &[(8, "upstream.servers", "monitor mode only", "name the resolvers")],
        ),
        (
            "version = 1\n[[forward]]\nzone = \"corp.example\"\n",
            &[
                (2, "forward[0].servers", "nobody else is ever asked", "name the resolvers"),
                (2, "forward[0].owner", "owner is missing", "who answers"),
                (2, "forward[0].reason", "reason is missing", "why"),
                (2, "forward[0].review_by", "without a day", "review_by"),
            ],
        ),
        (
            "version = 1\n[[forward]]\nzone = \".\"\nservers = [\"127.0.0.1:5300\", \"0.0.0.0\"]\n\
             owner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n\
             [[forward]]\nzone = \"x.localhost\"\nservers = [\"10.0.0.53\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"soon\"\n\
             [[forward]]\nzone = \"a.example\"\nservers = [\"dns.a.example\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n\
             [[forward]]\nzone = \"A.example\"\nservers = [\"10.0.0.53\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n",
            &[
                (3, "forward[0].zone", "root", "[upstream]"),
                (4, "forward[0].servers[0]", "our own", "behind us"),
                (4, "forward[0].servers[1]", "cannot be asked", "address"),
                (9, "forward[1].zone", "never asked", "RFC 6761"),
                (13, "forward[1].review_by", "`soon`", "YYYY-MM-DD"),
                (16, "forward[2].servers", "by name", "bootstrap"),
                (21, "forward[3].zone", "a second zone", "remove"),
            ],
        ),
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
             ranges = [\"192.0.2.0/24\", \"169.254.169.254/32\", \"fe80::/64\", \"0.0.0.0/0\", \"192.0.2.1/24\"]\n",
            &[
                (7, "range[0].ports[0]", "`icmp/8`", "udp/"),
                (8, "range[0].ranges[3]", "every address", "name the ranges"),
                (8, "range[0].ranges[4]", "behind its prefix", "192.0.2.0/24"),
                (8, "range[0].ranges[1]", "169.254.0.0/16, which is never opened", "routed to"),
                (8, "range[0].ranges[2]", "fe80::/10, which is never opened", "routed to"),
            ],
        ),
        // Refusals.
        ("version = 1\n[sinkhole]\nkind = \"address\"\n", &[(3, "sinkhole.kind", "no address", "sinkhole.ipv4")]),
        ("version = 1\n[sinkhole]\nipv4 = \"192.0.2.80\"\n", &[(3, "sinkhole.ipv4", "NXDOMAIN", "kind")]),
        (
            "version = 1\n[sinkhole]\nkind = \"address\"\nipv4 = \"0.0.0.0\"\nipv6 = \"192.0.2.1\"\n",
            &[(4, "sinkhole.ipv4", "themselves", "listener"), (5, "sinkhole.ipv6", "family", "2001:db8::80")],
        ),
        (
            "version = 1\n[sinkhole]\nnegative_ttl_seconds = 0\ncontact = \"a\\nb\"\n",
            &[(3, "sinkhole.negative_ttl_seconds", "0", "1 to 60"), (4, "sinkhole.contact", "does not fit", "control")],
        ),
        // Answers.
        (
            "version = 1\n[answer]\nfloor_seconds = 7200\nfailure_seconds = 0\nhold_stale_seconds = 300000\njitter_ms = 5000\n",
            &[
                (3, "answer.floor_seconds", "out of range", "0 to 3600"),
                (4, "answer.failure_seconds", "out of range", "1 to 300"),
                (5, "answer.hold_stale_seconds", "out of range", "0 to 259200"),
                (6, "answer.jitter_ms", "out of range", "0 to 2000"),
            ],
        ),
        (
            "version = 1\n[answer]\nfloor_seconds = 0\nprivate_timing = true\nprefetch = true\ncache_shared_by = \"group\"\n",
            &[
                (4, "answer.private_timing", "every question waits", "floor_seconds"),
                (5, "answer.prefetch", "none of them sees", "cache_shared_by"),
            ],
        ),
        (
            "version = 1\n[answer]\ncache_shared_by = \"owner\"\n",
            &[(3, "answer.cache_shared_by", "unknown word `owner`", "`group`")],
        ),
        (
            "version = 1\n[answer]\nnat64_prefixes = [\"10.0.0.0/8\", \"64:ff9b::1/96\", \"2001:db8::/95\"]\n",
            &[
                (3, "answer.nat64_prefixes[0]", "not a NAT64 prefix", "of length 32"),
                (3, "answer.nat64_prefixes[1]", "bits set", "write `64:ff9b::/96`"),
                (3, "answer.nat64_prefixes[2]", "not a NAT64 prefix", "64:ff9b::/96"),
            ],
        ),
        (
            "version = 1\n[answer]\nnat64_prefixes = [\"64:ff9b::/96\", \"a\", \"b\", \"c\", \"d\"]\n",
            &[
                (3, "answer.nat64_prefixes", "5 prefixes", "at most 4"),
                (3, "answer.nat64_prefixes[1]", "not an address range", "write for example"),
                (3, "answer.nat64_prefixes[2]", "not an address range", "write for example"),
                (3, "answer.nat64_prefixes[3]", "not an address range", "write for example"),
            ],
        ),
        (
            "version = 1\n[[answer.allow_range]]\nname = \"com\"\nranges = [\"10.0.0.1/8\", \"x\", \"0.0.0.0/0\"]\n",
            &[
                (2, "answer.allow_range[0].owner", "owner is missing", "who answers"),
                (2, "answer.allow_range[0].reason", "reason is missing", "why"),
                (2, "answer.allow_range[0].review_by", "without a day", "review_by"),
                (3, "answer.allow_range[0].name", "public suffix", "owner.com"),
                (4, "answer.allow_range[0].ranges[0]", "behind its prefix", "10.0.0.0/8"),
                (4, "answer.allow_range[0].ranges[1]", "not an address range", "10.20.0.0/16"),
                (4, "answer.allow_range[0].ranges[2]", "every address", "name the ranges"),
            ],
        ),
        // Signatures.
        (
            "version = 1\n[dnssec]\nmax_failures = 0\nmax_nsec3_iterations = 501\nmax_nsec3_hashes = 7\nmax_lookups = 3\n\
             timeout_ms = 99\nvalidate = true\ntrust_anchors = \"no-such-file\"\n",
            &[
                (3, "dnssec.max_failures", "out of range", "1 to 64"),
                (4, "dnssec.max_nsec3_iterations", "out of range", "0 to 500"),
                (5, "dnssec.max_nsec3_hashes", "out of range", "8 to 1024"),
                (6, "dnssec.max_lookups", "out of range", "4 to 128"),
                (7, "dnssec.timeout_ms", "out of range", "100 to 10000"),
                (9, "dnssec.trust_anchors", "cannot be read", "DS or DNSKEY"),
            ],
        ),
        (
            "version = 1\n[[dnssec.negative_trust_anchor]]\nzone = \".\"\n\
             [[dnssec.negative_trust_anchor]]\nzone = \"a b\"\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-06-01\"\n",
            &[
                (2, "dnssec.negative_trust_anchor[0].owner", "owner is missing", "who answers"),
                (2, "dnssec.negative_trust_anchor[0].reason", "reason is missing", "why"),
                (2, "dnssec.negative_trust_anchor[0].review_by", "without a day", "review_by"),
                (3, "dnssec.negative_trust_anchor[0].zone", "every zone", "validate = false"),
                (5, "dnssec.negative_trust_anchor[1].zone", "a b", ""),
            ],
        ),
        (
            "version = 1\n[[answer.show_loopback]]\nzone = \"co.uk\"\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2027-13-01\"\n",
            &[
                (3, "answer.show_loopback[0].zone", "many owners", "dnsbl.example"),
                (6, "answer.show_loopback[0].review_by", "not a day", "YYYY-MM-DD"),
            ],
        ),
        // Sessions and profiles.
        (
            "version = 1\n[[session]]\nid = \"a b\"\naddresses = [\"10.0.0.0/8\", \"0.0.0.0\"]\n",
            &[
                (2, "session[0].type", "missing", "interactive"),
                (3, "session[0].id", "`a b`", "1 to 64"),
                (4, "session[0].addresses[0]", "not an address", "prefix"),
                (4, "session[0].addresses[1]", "nobody's", "own address"),
            ],
        ),
        (
            "version = 1\n[[session]]\nid = \"a\"\ntype = \"batch\"\naddresses = [\"10.0.0.1\"]\n\
             [[session]]\nid = \"a\"\ntype = \"unannounced\"\naddresses = [\"::ffff:10.0.0.1\"]\nsearch = [\"x..y\"]\n",
            &[
                (7, "session[1].id", "line 2", "own id"),
                (8, "session[1].type", "announced", "interactive"),
                (9, "session[1].addresses[0]", "10.0.0.1 belongs to", "of its own"),
                (10, "session[1].search[0]", "empty label", "labels"),
            ],
        ),
        (
            "version = 1\n[[session]]\nid = \"a\"\ntype = \"batch\"\n",
            &[(2, "session[0].addresses", "no address", "name the address")],
        ),
        (
            "version = 1\n[profile.\"batch.deploy\"]\nunlisted = \"score\"\n",
            &[(2, "profile.\"batch.deploy\"", "no session", "batch.build")],
        ),
        (
            "version = 1\n[profile.batch]\nqtypes = [\"A\", \"BOGUS\", \"ANY\", \"NULL\"]\n",
            &[
                (3, "profile.batch.qtypes[1]", "unknown record type `BOGUS`", "mnemonic"),
                (3, "profile.batch.qtypes[2]", "ANY is never forwarded", "remove"),
                (3, "profile.batch.qtypes[3]", "NULL is never forwarded", "remove"),
            ],
        ),
        (
            "version = 1\n[profile.batch.budgets]\ntenant = 9000\nsession = nan\n",
            &[
                (3, "profile.batch.budgets.tenant", "more than icann", "tenant_soft <= tenant"),
                (4, "profile.batch.budgets.session", "NaN", "1 to"),
            ],
        ),
        (
            "version = 1\n[profile.batch.params]\nwatch = 5\nquarantine_tenants = 0\n",
            &[
                (3, "profile.batch.params.watch", "more than sinkhole", "no more"),
                (4, "profile.batch.params.quarantine_tenants", "0", "1 to"),
            ],
        ),
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
        // Packs.
        (
            "version = 1\n[[pack]]\nid = \"p\"\npath = \"no/such/pack\"\n",
            &[(4, "pack[0].path", "cannot be read", "relative to")],
        ),
        (
            "version = 1\n[[pack]]\nid = \"p\"\npath = \"builtin:everything\"\nprofiles = [\"bulk\"]\n",
            &[
                (4, "pack[0].path", "no shipped pack", "builtin:look-alikes"),
                (5, "pack[0].profiles[0]", "`bulk`", "batch"),
            ],
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
    ];
    for (text, expected) in cases {
        let errors = load_text(Path::new("dir/policy.toml"), text, &environment()).err().unwrap_or_default();
        let told: Vec<_> = errors.iter().map(|e| (e.line, e.field.as_str())).collect();
        let wanted: Vec<_> = expected.iter().map(|(line, field, ..)| (*line, *field)).collect();
        assert_eq!(told, wanted, "{text}\n{errors:#?}");
        for (error, (line, field, problem, remedy)) in errors.iter().zip(*expected) {
            assert_eq!(error.file, "dir/policy.toml");
            assert!(error.problem.contains(problem), "{text}\n{error}");
            assert!(error.remedy.contains(remedy), "{text}\n{error}");
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("dir/policy.toml:{line}: {field}")), "{shown}");
        }
    }
}

#[test]
fn names_of_rules_are_checked_one_by_one() {
    for (names, line, field, problem, remedy) in [
        ("\"com\"", 7, "names[0]", "public suffix (ICANN)", "`=com`"),
        ("\"=ok.example\",\n \"*.github.io\"", 8, "names[1]", "public suffix (private)", "owner.github.io"),
        ("\"https://a.example/\"", 7, "names[0]", "bare host name", "`a.example`"),
        ("\"a.*.example\"", 7, "names[0]", "leftmost", "`*.x`"),
        ("\"\"", 7, "names[0]", "empty", "=index"),
        ("\"b\u{fc}ro.example\"", 7, "names[0]", "ASCII", "xn--"),
    ] {
        let text = format!("{RULE}names = [{names}]\nreview_by = \"2027-06-01\"\n");
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).expect_err(names);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert_eq!((errors[0].line, errors[0].field.as_str()), (line, format!("rule[0].{field}").as_str()));
        assert!(errors[0].problem.contains(problem) && errors[0].remedy.contains(remedy), "{}", errors[0]);
    }
    for (more, good) in [
        ("names = [\"a.example\"]\n", false),
        ("names = [\"*.a.example\"]\n", false),
        ("names = [\"=a.example\"]\n", true),
        ("names = [\"a.example\"]\nexpires = \"2027-06-01\"\n", true),
        ("names = [\"*.a.example\"]\nreview_by = \"2027-06-01\"\n", true),
    ] {
        let outcome = read(&format!("{RULE}{more}"));
        assert_eq!(outcome.is_ok(), good, "{more}: {:?}", outcome.err());
    }
}

#[test]
fn what_a_deny_rule_opens_is_told_to_be_nothing() {
    let deny = RULE.replace("allow", "deny");
    let (_, warnings) =
        good(&format!("{deny}names = [\"=a.example\"]\nports = [\"any\"]\nranges = [\"192.0.2.0/24\"]\n"));
    let told: Vec<_> = warnings.iter().map(|w| (w.line, w.field.as_str(), w.problem.as_str())).collect();
    let why = "has no effect on a rule that denies";
    assert_eq!(told, [(8, "rule[0].ports", why), (9, "rule[0].ranges", why)]);
}

#[test]
fn reviews_and_expiries_warn_ahead() {
    for (more, expected) in [
        ("review_by = \"2026-12-06\"", None),
        ("review_by = \"2026-12-05\"", Some("review is due on 2026-12-05")),
        ("review_by = \"2026-11-20\"", Some("review was due on 2026-11-20")),
        ("expires = \"2026-12-05\"", Some("expires on 2026-12-05")),
        ("expires = \"2026-11-22\"", Some("expires on 2026-11-22")),
        ("expires = \"2026-11-21\"", Some("expired on 2026-11-21: it no longer matches")),
    ] {
        let (loaded, warnings) = good(&format!("{RULE}names = [\"a.example\"]\n{more}\n"));
        let told = warnings.first().map(|w| (w.file.as_str(), w.line, w.problem.as_str()));
        assert_eq!(told, expected.map(|problem| ("policy.toml", 8, problem)), "{more}");
        assert_eq!(warnings.len(), usize::from(expected.is_some()));
        let found = loaded.lists.rules.look_up(
            name("x.a.example").as_ref(),
            Scope::of(SessionType::Batch, None),
            Wall::at(WALL),
        );
        assert_eq!(found.is_some(), !more.contains("expires = \"2026-11-21\""), "{more}");
    }
}

#[test]
fn mistakes_and_warnings_have_a_stable_json_form() {
    let errors = load_text(Path::new("p.toml"), "version = 1\n[server]\nmetrics = \"1.2.3.4:1\"\n", &environment())
        .expect_err("not loopback");
    assert_eq!(
        serde_json::to_value(&errors).expect("JSON"),
        serde_json::json!([{
            "file": "p.toml",
            "line": 3,
            "field": "server.metrics",
            "problem": "1.2.3.4:1 can be reached from outside",
            "remedy": "use a loopback address such as 127.0.0.1:9153, or \"off\"",
        }])
    );
    let (_, warnings) = good("version = 1\n[enforce]\nbackend = \"nft\"\n");
    let json = serde_json::to_value(&warnings).expect("JSON");
    assert_eq!((&json[0]["line"], &json[0]["field"]), (&2.into(), &"enforce.interfaces".into()));
}

#[test]
fn the_example_loads_without_a_word() {
    let (loaded, warnings) = good(EXAMPLE);
    assert_eq!(warnings, []);
    assert_eq!(loaded.policy.mode, Mode::Monitor);
    assert_eq!(loaded.policy.unknown_source, UnknownSource::Profile);
    assert_eq!(loaded.assumptions(), [] as [&str; 0]);
    assert_eq!(loaded.upstream.addresses().expect("addresses").len(), 3);
    assert_eq!(loaded.list_reports.len(), 2);
    assert!(loaded.lists.deny.look_up(name("x.oast.fun").as_ref()).is_some());
    // What the example says of interactive sessions is the built-in default.
    let (bare, _) = good("version = 1\n");
    let interactive = |loaded: &Loaded| loaded.profiles.of(SessionType::Interactive, Some(Phase::Run)).clone();
    assert_eq!(interactive(&loaded), interactive(&bare));
    // Written defaults are defaults: taking the plain ones out changes nothing but the digest's input.
    assert_eq!(loaded.pins, bare.pins);
    assert_eq!(loaded.events.rotate_bytes, bare.events.rotate_bytes);
    assert_eq!((loaded.listen.queue, loaded.listen.tcp_idle), (bare.listen.queue, bare.listen.tcp_idle));
}

#[test]
fn packs_ship_are_switched_off_and_are_replaced() {
    let rules = |loaded: &Loaded| loaded.lists.packs.rules().len();
    let (shipped, _) = good("version = 1\n");
    assert_eq!(shipped.pack_reports.len(), 1);
    assert!(rules(&shipped) > 50 && shipped.assumptions().iter().any(|said| said.contains("look-alikes")));
    let (off, warnings) = good("version = 1\npack = []\n");
    assert_eq!((rules(&off), off.pack_reports.len(), &warnings[..]), (0, 0, &[][..]));
    assert_ne!(off.digest(), shipped.digest());

    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let entry = "version = 1\n[[entry]]\nid = \"own\"\nclass = \"reputation\"\nnames = [\"*.hash.example.org\"]\nbudget_bits = 900\n\
                 owner = \"team\"\nreason = \"our scanner\"\nreview_by = \"2026-01-01\"\n";
    std::fs::write(dir.path().join("own.toml"), entry).expect("written");
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n[[pack]]\nid = \"mine\"\npath = \"own.toml\"\nprofiles = [\"batch\"]\n";
    let (own, warnings) = load_text(&file, text, &environment()).expect("loads");
    let wanted = name("a.hash.example.org");
    let found =
        |kind| own.lists.packs.look_up(wanted.as_ref(), Scope::of(kind, None), Wall::at(0)).map(|hit| hit.reference());
    let by = found(SessionType::Batch).expect("for batch sessions");
    assert_eq!((&*by.id, &*by.file, by.line), ("mine/own", "own.toml", 5));
    assert!(found(SessionType::Interactive).is_none(), "and for no others");
    let due: Vec<_> = warnings.iter().filter(|warning| warning.file == "own.toml").collect();
    assert_eq!(due.iter().map(|w| (w.line, w.field.as_str())).collect::<Vec<_>>(), [(3, "own.review_by")]);

    std::fs::write(dir.path().join("own.toml"), entry.replace("900", "0")).expect("written");
    let errors = load_text(&file, text, &environment()).expect_err("no budget");
    let told: Vec<_> = errors.iter().map(|e| (e.file.as_str(), e.line, e.field.as_str())).collect();
    assert_eq!(told, [("own.toml", 6, "entry[0].budget_bits")]);
}

#[test]
fn every_setting_takes_effect() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect(file);
    write("bad.txt", "# list\nbad.example\n||skip.example^\nworse.example\nlast.example\nbest.example\n");
    write("hosts.txt", "0.0.0.0 one.example two.example\n");
    write("nrd.txt", "new.example\nolder.example,2026-11-11\n");
    write("corp.test.zone", "$ORIGIN corp.test.\n@ 60 IN SOA ns hostmaster 1 60 60 60 60\n");
    write("hmac.key", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(dir.path().join("hmac.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let text = r#"version = 1
[server]
listen = ["0.0.0.0:53", "[::]:53"]
workers = 2
state_dir = "/srv/staunch"
admin_group = "staunch"
metrics = "off"
[policy]
mode = "canary"
canary_percent = 25
[upstream]
servers = ["192.0.2.53", "[2001:db8::53]:5353", "resolver.example.net:54"]
bootstrap = ["192.0.2.1"]
[answer]
floor_seconds = 30
failure_seconds = 5
hold_stale_seconds = 3600
jitter_ms = 100
refresh_held = false
[[answer.allow_range]]
name = "*.corp.example"
ranges = ["10.20.0.0/16"]
owner = "net-team"
reason = "internal wiki"
review_by = "2027-06-01"
[[answer.show_loopback]]
zone = "dnsbl.example"
owner = "mail-team"
reason = "block list"
review_by = "2027-06-01"
[dnssec]
validate = true
allow_cd = false
max_failures = 8
max_nsec3_iterations = 100
max_nsec3_hashes = 40
max_lookups = 20
timeout_ms = 1500
[[dnssec.negative_trust_anchor]]
zone = "broken.example"
owner = "net-team"
reason = "keys rolled too soon"
review_by = "2027-06-01"
[enforce]
backend = "nft"
interfaces = ["veth-agent"]
deadline_ms = 70
min_pin_seconds = 40
max_pin_seconds = 80
pin_grace_seconds = 10
pins_per_name = 9
capacity = 7000
[sinkhole]
kind = "address"
ipv6 = "2001:db8::80"
contact = "security@example.com"
[[session]]
id = "agent-1"
addresses = ["10.77.1.2", "fd00::2"]
type = "batch"
phase = "build"
owner = "team-a"
search = ["svc.cluster.local"]
[profile.batch]
qtypes = ["a", "AAAA", "TYPE65", "A"]
ports = ["tcp/8443", "udp/8443"]
[profile.batch.budgets]
tenant = 1536
[profile.batch.volume]
warn_bytes = 1000
cut_bytes = 9000
[profile."batch.build"]
unlisted = "refuse"
[profile.unannounced.params]
sinkhole = 3.5
[[rule]]
id = "index"
action = "allow"
names = ["=index.example.org", "files.example.org"]
profiles = ["batch"]
qtypes = ["TXT"]
budget_bits = 65536
ports = ["any"]
ranges = ["192.0.2.0/24"]
owner = "platform"
reason = "installs"
review_by = "2027-06-01"
mode = "enforce"
[[range]]
id = "mirrors"
ranges = ["198.51.100.0/24", "2001:db8::/64"]
ports = ["tcp/9418"]
profiles = ["batch"]
owner = "platform"
reason = "known by address only"
review_by = "2027-06-01"
expires = "2027-06-01"
[[list]]
id = "doh-resolvers"
path = "bad.txt"
source = "https://example.net/list"
reviewed = "2026-11-01"
[[list]]
id = "tunnel-services"
path = "hosts.txt"
format = "hosts"
[[list]]
id = "fresh"
path = "nrd.txt"
format = "nrd"
date = "2026-11-20"
[[zone]]
name = "corp.test"
file = "corp.test.zone"
[events]
file = "off"
[[alert]]
name = "soc"
kind = "webhook"
url = "http://10.77.9.9:8080/alerts"
secret_file = "hmac.key"
[[alert]]
name = "siem"
kind = "syslog"
address = "unix:///dev/log"
[[alert]]
name = "copy"
kind = "file"
path = "alerts.jsonl"
[[forward]]
zone = "Corp.Internal"
servers = ["10.20.0.53", "dns.corp.example:5353"]
owner = "net-team"
reason = "served inside only"
review_by = "2027-06-01"
"#;
    write("policy.toml", text);
    let path = dir.path().join("policy.toml");
    let (loaded, warnings) = load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}"));

    // The one thing to look at is the line of a list that is of another format.
    let told: Vec<_> = warnings.iter().map(|w| (w.file.as_str(), w.line)).collect();
    assert_eq!(told, [("bad.txt", 3)], "{warnings:#?}");

    assert_eq!(loaded.listen.addresses.len(), 2);
    assert_eq!((loaded.listen.workers, loaded.metrics), (2, None));
    assert_eq!(loaded.admin.socket, Path::new("/srv/staunch/admin.sock"));
    assert_eq!(loaded.admin.group.as_deref(), Some("staunch"));
    assert_eq!((loaded.policy.mode, loaded.policy.canary_percent), (Mode::Canary, 25));
    assert_eq!(loaded.policy.unknown_source, UnknownSource::Profile);
    let servers: Vec<_> = loaded.upstream.servers.iter().map(Server::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:5353", "resolver.example.net:54"]);
    assert_eq!(loaded.upstream.addresses(), None, "one has to be looked up");
    let own = &loaded.upstream.zones[0];
    assert_eq!((own.zone.to_string().as_str(), own.owner.as_str()), ("corp.internal", "net-team"));
    let servers: Vec<_> = own.servers.iter().map(Server::to_string).collect();
    assert_eq!(servers, ["10.20.0.53:53", "dns.corp.example:5353"]);
    assert_eq!(loaded.upstream.forward_config(vec![], vec![]).udp_payload, 1232);
    assert!(loaded.answer.allow_ranges[0].ranges[0].contains("10.20.3.4".parse().expect("address")));
    assert_eq!(loaded.answer.allow_ranges[0].reference.line, 20);
    let repeats = loaded.answer.repeats;
    assert_eq!((repeats.floor.as_secs(), repeats.failure.as_secs()), (30, 5));
    assert_eq!((repeats.hold_stale.as_secs(), repeats.jitter.as_millis()), (3600, 100));
    assert!(!repeats.refresh);
    assert_eq!(loaded.answer.show_loopback[0].zone, name("dnsbl.example"));
    let (dnssec, limits) = (&loaded.dnssec, loaded.dnssec.limits);
    assert!(dnssec.validate && !dnssec.allow_cd);
    assert_eq!((limits.failures, limits.iterations, limits.hashes, limits.lookups), (8, 100, 40, 20));
    assert_eq!(limits.time.as_millis(), 1500);
    let apart = [own.zone.clone()];
    assert_eq!(dnssec.anchors, Anchors::default().without([name("broken.example")]).apart(apart));
    assert_eq!(loaded.enforce.backend, BackendKind::Nft);
    assert_eq!((loaded.enforce.deadline.as_millis(), loaded.enforce.capacity), (70, 7000));
    let seconds = [loaded.pins.min, loaded.pins.max, loaded.pins.grace].map(|time| time.as_secs());
    assert_eq!((seconds, loaded.pins.per_name), ([40, 80, 10], 9));
    let range = &loaded.ranges[0];
    assert_eq!((range.ranges.len(), range.ports.to_string(), &*range.reference.id), (2, "tcp/9418".into(), "mirrors"));
    assert!(range.scopes.contains(Scope::of(SessionType::Batch, Some(Phase::Run))));
    assert!(!range.scopes.contains(Scope::of(SessionType::Interactive, None)) && range.expires > WALL);
    assert_eq!(
        loaded.sinkhole.action,
        SinkholeAction::Address { ipv4: None, ipv6: Some("2001:db8::80".parse().expect("address")) }
    );
    assert_eq!(loaded.sessions[0].addresses.len(), 2);
    assert_eq!(loaded.sessions[0].search, [name("svc.cluster.local")]);

    // Phase over type over built-in.
    let batch = loaded.profiles.of(SessionType::Batch, Some(Phase::Run));
    let build = loaded.profiles.of(SessionType::Batch, Some(Phase::Build));
    assert_eq!((batch.name.as_str(), build.name.as_str()), ("batch", "batch.build"));
    assert_eq!((batch.unlisted, build.unlisted), (Unlisted::Score, Unlisted::Refuse));
    assert_eq!(build.qtypes, [Qtype::A, Qtype::AAAA, Qtype::HTTPS]);
    assert_eq!(
        (build.ports.to_string(), batch.ports.to_string()),
        ("tcp/8443 udp/8443".into(), build.ports.to_string())
    );
    assert_eq!((build.volume.warn, build.volume.cut), (Some(1000), Some(9000)));
    assert!(build.answers(Qtype::HTTPS) && !build.answers(Qtype::SRV));
    assert_eq!((build.budgets.tenant, build.budgets.session), (Bits::whole(1536), Bits::whole(8192)));
    let unannounced = loaded.profiles.of(SessionType::Unannounced, None);
    assert_eq!((unannounced.params.sinkhole, unannounced.budgets.tenant), (3.5, Bits::whole(1024)));
    assert_eq!(loaded.profiles.of(SessionType::Interactive, None).qtypes, staunch::policy::Profile::ORDINARY_TYPES);

    // Rules and lists, found in one walk.
    let scope = Scope::of(SessionType::Batch, Some(Phase::Build));
    let line = text.lines().zip(1..).find(|(l, _)| l.contains("files.example.org")).map_or(0, |(_, n)| n);
    let found =
        loaded.lists.look_up(name("a.files.example.org").as_ref(), scope, Wall::at(WALL)).rule.expect("covered");
    assert_eq!(
        (found.reach, found.rule.budget, found.rule.mode),
        (Reach::AtOrBelow, Bits::whole(65536), Some(Mode::Enforce))
    );
    assert_eq!((found.rule.qtypes.as_slice(), found.reference().line), ([Qtype::TXT].as_slice(), line));
    let opened = found.rule.ports.as_ref().map(ToString::to_string);
    assert_eq!((opened.as_deref(), found.rule.expected.len()), (Some("any"), 1));
    let other = Scope::of(SessionType::Interactive, None);
    assert!(loaded.lists.look_up(name("index.example.org").as_ref(), other, Wall::at(WALL)).rule.is_none());
    let denied =
        loaded.lists.look_up(name("x.worse.example").as_ref(), scope, Wall::at(WALL)).deny.expect("listed").reference();
    assert_eq!((&*denied.id, &*denied.file, denied.line), ("doh-resolvers", "bad.txt", 4));
    assert!(loaded.lists.deny.look_up(name("x.two.example").as_ref()).is_none(), "hosts entries are exact");
    assert_eq!(loaded.lists.age.days(name("new.example").as_ref(), WALL), Some(1.5));
    assert_eq!(loaded.lists.age.days(name("older.example").as_ref(), WALL), Some(10.5));
    let skipped: Vec<_> = loaded.list_reports.iter().map(|r| (r.report.entries, r.report.skipped)).collect();
    assert_eq!(skipped, [(4, 1), (2, 0), (2, 0)]);

    assert!(loaded.zones.covers(name("www.corp.test").as_ref()) && loaded.zones.len() == 1);
    assert_eq!(loaded.events.file, None);
    match &loaded.alerts[0].kind {
        AlertSinkKind::Webhook { secret: Some(secret), .. } => {
            assert_eq!(secret.expose(), b"0123456789abcdef0123456789abcdef");
            assert!(!format!("{loaded:?}").contains("0123456789abcdef"), "keys are never shown");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(loaded.alerts[1].kind, AlertSinkKind::Syslog { target: SyslogTarget::Unix("/dev/log".into()) });
    assert_eq!(loaded.alerts[2].kind, AlertSinkKind::File { path: "/srv/staunch/alerts.jsonl".into() });

    // The digest follows what is in force, lists included, and nothing else.
    let digest = |_: ()| load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}")).0.digest().to_owned();
    let before = digest(());
    assert_eq!((before.len(), before.as_str()), (64, loaded.digest()));
    write("policy.toml", &format!("# a comment\n{text}"));
    assert_eq!(digest(()), before);
    write("hosts.txt", "0.0.0.0 one.example three.example\n");
    let changed_list = digest(());
    assert_ne!(changed_list, before);
    write("policy.toml", &text.replace("sinkhole = 3.5", "sinkhole = 3.4"));
    assert_ne!(digest(()), changed_list);
}

#[test]
fn policy_zones_are_read_in_their_order_and_their_mistakes_told_by_their_lines() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect(file);
    let head = "$TTL 60\n@ SOA . . 7 1 1 1 1\n";
    write("first.zone", &format!("{head}a.example CNAME .\n"));
    write("third.zone", &format!("{head}x.rpz-nsip CNAME .\na.example CNAME .\n"));
    write("key", "c2l4dGVlbiBvciBtb3JlIG9jdGV0cw==\n");
    std::fs::set_permissions(dir.path().join("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let path = dir.path().join("policy.toml");
    let load = |text: &str| {
        write("policy.toml", text);
        load_in(&path, &environment())
    };
    let text = "version = 1\n[server]\nnotify_listen = [\"192.0.2.1:5353\"]\n\
        [[rpz]]\nname = \"first.test\"\nfile = \"first.zone\"\npolicy = \"cname\"\ncname = \"*.garden.test\"\nede = \"filtered\"\n\
        [[rpz]]\nname = \"second.test.\"\nprimaries = [\"192.0.2.53\", \"[2001:db8::53]:5353\", \"tls://192.0.2.54#primary.example\"]\nrequired = true\non_expire = \"disable\"\n\
        tsig = { name = \"Transfer.\", algorithm = \"HMAC-SHA512\", secret_file = \"key\" }\n\
        [[rpz]]\nname = \"third.test\"\nfile = \"third.zone\"\nunsupported = \"ignore\"\nlog = false\n\
        [[rpz]]\nname = \"off.test\"\nfile = \"first.zone\"\nenabled = false\n";
    let (loaded, warnings) = load(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let names: Vec<_> = loaded.rpz.iter().map(|zone| zone.settings.id.to_string()).collect();
    assert_eq!(names, ["first.test", "second.test", "third.test"]);
    assert_eq!(loaded.rpz[0].settings.policy, Override::Cname(name("*.garden.test")));
    assert_eq!((loaded.rpz[0].settings.ede, loaded.rpz[2].settings.log), (Ede::Filtered, false));
    let Source::Primaries(primaries) = &loaded.rpz[1].source else { panic!("{:?}", loaded.rpz[1]) };
    let address = |n: usize| (primaries.servers[n].address.to_string(), primaries.servers[n].tls.is_some());
    assert_eq!(address(1), ("[2001:db8::53]:5353".into(), false));
    assert_eq!(address(2), ("192.0.2.54:853".into(), true));
    assert_eq!(primaries.servers[2].to_string(), "tls://192.0.2.54:853#primary.example");
    assert!(primaries.required && !primaries.keep_expired && primaries.tsig.is_some());
    assert_eq!(loaded.notify_listen, ["192.0.2.1:5353".parse().expect("address")]);
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|warning| warning.starts_with("third.zone: 1 records")), "{told:?}");

    let mut errors = load(&text.replace("\"ignore\"", "\"refuse\"")).expect_err("refused");
    let error = errors.pop().expect("one");
    assert_eq!((error.file.as_str(), error.line, errors.len()), ("third.zone", 3, 0));
    assert!(error.problem.contains("rpz-nsip") && error.remedy.contains("remove it"), "{error}");
    // What a zone says is part of what is in force.
    let digest = loaded.digest().to_owned();
    write("first.zone", &format!("{head}b.example CNAME .\n"));
    assert_ne!(load(text).unwrap_or_else(|errors| panic!("{errors:#?}")).0.digest(), digest);
}

#[test]
fn own_lists_that_leave_a_shipped_one_out_are_told_of() {
    let (_, warnings) = good("version = 1\n[[list]]\nid = \"d\"\npath = \"builtin:doh-resolvers\"\n");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].problem.contains("tunnel-services"), "{}", warnings[0]);
}

#[test]
fn a_list_that_is_to_be_fetched_loads_without_a_copy_and_says_so() {
    let text = "version = 1\n[[list]]\nid = \"doh-resolvers\"\nurl = \"https://lists.example/doh?key=secret\"\n\
                [[list]]\nid = \"tunnel-services\"\nurl = \"http://192.0.2.7:8080/tunnels\"\nrefresh_hours = 6\n";
    let (loaded, warnings) = good(text);
    assert!(warnings.len() == 2 && warnings.iter().all(|w| w.problem == "not fetched yet"), "{warnings:?}");
    assert!(warnings.iter().all(|w| !w.to_string().contains("secret")), "{warnings:?}");
    let hours: Vec<_> = loaded.feeds.sources.iter().map(|s| (s.id.as_str(), s.refresh.as_secs() / 3600)).collect();
    assert_eq!(hours, [("doh-resolvers", 24), ("tunnel-services", 6)]);
    assert!(loaded.lists.deny.is_empty());
}

#[test]
fn a_format_that_is_not_written_is_told_by_the_first_lines() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("policy.toml");
    std::fs::write(dir.path().join("hosts.txt"), "0.0.0.0 a.example\n").expect("written");
    let text = "version = 1\n[[list]]\nid = \"l\"\npath = \"hosts.txt\"\n";
    std::fs::write(&path, text).expect("written");
    let (loaded, _) = load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}"));
    let said = loaded.assumptions().iter().any(|said| said.starts_with("List l is read as hosts"));
    assert!(said && loaded.list_reports[0].detected, "{:?}", loaded.assumptions());
    std::fs::write(&path, format!("{text}format = \"hosts\"\n")).expect("written");
    let (loaded, _) = load_in(&path, &environment()).unwrap_or_else(|e| panic!("{e:#?}"));
    assert!(!loaded.list_reports[0].detected);
    assert!(loaded.assumptions().iter().all(|said| !said.contains("List l")), "{:?}", loaded.assumptions());
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_like_any_other() {
    let dir = tempfile::tempdir().expect("directory");
    let errors = load_in(&dir.path().join("none.toml"), &environment()).expect_err("not there");
    assert!(errors[0].line == 0 && errors[0].problem.contains("cannot be read"), "{}", errors[0]);
    let errors = load_in(dir.path(), &environment()).expect_err("a directory");
    assert!(errors[0].problem.contains("not a regular file"), "{}", errors[0]);
    let file = dir.path().join("latin1.toml");
    std::fs::write(&file, b"version = 1\n# caf\xe9\n").expect("write");
    let errors = load_in(&file, &environment()).expect_err("not UTF-8");
    assert_eq!((errors[0].line, errors[0].problem.as_str()), (2, "not UTF-8"));
}

#[test]
fn mistakes_in_a_local_zone_are_told_by_its_own_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let (policy, zone) = (dir.path().join("policy.toml"), dir.path().join("corp.zone"));
    std::fs::write(&policy, "version = 1\n[[zone]]\nname = \"corp.test\"\nfile = \"corp.zone\"\n").expect("written");
    const GOOD: &[u8] = b"@ 60 IN SOA ns hostmaster 1 60 60 60 60\nwww 60 IN A 192.0.2.1\n";
    for (more, line, problem) in [
        (&b"x 60 IN A 192.0.2.300\n"[..], 3, "IPv4 address"),
        (b"x 60 IN TXT \xff\n", 3, "not UTF-8"),
        (b"x 60 IN NS ns.elsewhere.test.\n", 0, "delegated away"),
    ] {
        std::fs::write(&zone, [GOOD, more].concat()).expect("written");
        let errors = load_in(&policy, &environment()).expect_err("a mistake");
        let told: Vec<_> = errors.iter().map(|e| (e.file.as_str(), e.line, e.problem.contains(problem))).collect();
        assert_eq!(told, [("corp.zone", line, true)], "{errors:?}");
        assert!(!errors[0].remedy.is_empty());
    }
    std::fs::write(&zone, GOOD).expect("written");
    assert!(load_in(&policy, &environment()).is_ok());
}

#[test]
fn trust_anchors_are_read_where_they_are_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("anchors.zone");
    let text = |validate| format!("version = 1\n[dnssec]\nvalidate = {validate}\ntrust_anchors = {path:?}\n");
    std::fs::write(&path, "; ours\ncorp.example. IN DS 4711 13 2 00ff\n").expect("written");
    let (with, _) = good(&text(true));
    assert!(with.dnssec.validate && with.dnssec.allow_cd);
    std::fs::write(&path, "corp.example. IN DS 4711 13 2 00fe\n").expect("written");
    let (other, _) = good(&text(true));
    assert_ne!(with.dnssec.anchors, other.dnssec.anchors);
    assert_ne!(with.digest(), other.digest(), "another file is another configuration");
    std::fs::write(&path, "\ncorp.example. IN DS 4711 5 2 00ff\n").expect("written");
    let told = read(&text(true)).expect_err("nothing can be checked by it").join("\n");
    assert!(told.contains("dnssec.trust_anchors") && told.contains("line 2") && told.contains("10, 13"), "{told}");
    // Whoever does not validate needs no file.
    assert_eq!(good(&text(false)).0.dnssec.anchors, good("version = 1\n").0.dnssec.anchors);
}

#[test]
fn serving_without_a_file_says_what_is_assumed() {
    let loaded = defaults_in(&environment());
    assert_eq!(loaded.listen.addresses, ["127.0.0.1:5300".parse().expect("address")]);
    assert_eq!(loaded.policy.mode, Mode::Monitor);
    assert_eq!(loaded.enforce.backend, BackendKind::DryRun);
    assert_eq!(loaded.state_dir, Path::new("/home/user/.local/state/staunch"));
    let servers = loaded.upstream.addresses().expect("addresses");
    assert_eq!(servers, ["192.0.2.1:53".parse().expect("address"), "[2001:db8::1]:53".parse().expect("address")]);
    let told = loaded.assumptions().join("\n");
    for word in [
        "127.0.0.1:5300",
        "192.0.2.1:53",
        "Monitor mode",
        "dry-run",
        "/home/user/.local/state/staunch",
        "tunnel-services",
    ] {
        assert!(told.contains(word), "{word} in\n{told}");
    }

    // Whatever the environment, there are settings.
    for resolv_conf in [
        None,
        Some(""),
        Some("nameserver"),
        Some("nameserver ::1%lo\nnameserver 1.2.3\n\u{0}"),
        Some("nameserver 127.0.0.1"),
    ] {
        let loaded = defaults_in(&Environment {
            resolv_conf: resolv_conf.map(Into::into),
            state_home: "/long".repeat(40).into(),
            ..environment()
        });
        assert_eq!(loaded.upstream.servers.is_empty(), resolv_conf != Some("nameserver 127.0.0.1"), "{resolv_conf:?}");
    }
    let loaded = defaults_in(&Environment { state_dir: Some("/tmp/state".into()), ..environment() });
    assert_eq!(loaded.admin.socket, Path::new("/tmp/state/admin.sock"));
}

#[test]
fn no_damage_to_the_example_is_a_panic() {
    // A plain generator, so that a failure can be run again.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound.max(1)
    };
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let tokens = [
        "[",
        "]",
        "\"",
        "=",
        "\n",
        "[[",
        "{",
        "}",
        ",",
        "-1",
        "1e999",
        "nan",
        "\"\"",
        "'''",
        "\\u0000",
        "*",
        "..",
        "2026-02-30",
        "true",
        "\u{202e}",
    ];
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..1000 {
        let mut text = EXAMPLE.to_owned();
        for _ in 0..=next(3) {
            let at = (0..=next(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            match next(5) {
                0 => text.insert_str(at, tokens[next(tokens.len())]),
                1 => text.truncate(at),
                2 => {
                    let end = (at + next(40)..=text.len()).find(|e| text.is_char_boundary(*e)).unwrap_or(text.len());
                    text.replace_range(at..end, "");
                }
                3 => {
                    let line = lines[next(lines.len())];
                    text.insert_str(at, &format!("\n{line}\n"));
                }
                _ => {
                    if let Some(c) = text[at..].chars().next() {
                        text.replace_range(at..at + c.len_utf8(), tokens[next(tokens.len())]);
                    }
                }
            }
        }
        match load_text(Path::new("policy.toml"), &text, &environment()) {
            Ok(_) => accepted += 1,
            Err(errors) => {
                refused += 1;
                let count = text.lines().count() as u32 + 1;
                assert!(!errors.is_empty(), "round {round}");
                for error in errors {
                    assert!(
                        error.line <= count && !error.problem.is_empty() && !error.remedy.is_empty(),
                        "round {round}: {error}"
                    );
                }
            }
        }
    }
    assert!(accepted > 20 && refused > 200, "{accepted} accepted, {refused} refused");
}

#[test]
fn deep_nesting_is_refused_and_not_a_crash() {
    for text in [
        format!("version = 1\nx = {}", "[".repeat(100_000)),
        format!("version = 1\nx = {}1{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("version = 1\n[{}a]\nb = 1\n", "a.".repeat(20_000)),
        format!("version = 1\n{}a = 1\n", "a.".repeat(20_000)),
        format!("version = 1\nx = {}", "{a=".repeat(20_000)),
    ] {
        let errors = load_text(Path::new("policy.toml"), &text, &environment()).expect_err("deep");
        assert!(!errors.is_empty() && errors[0].line <= 3, "{}", errors[0]);
    }
}

#[test]
fn the_enforcer_and_a_hook_are_settings_like_others() {
    let (loaded, _) = good(
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"veth0\"]\n\
         enforcer_socket = \"/run/staunch-enforcer/enforcer.sock\"\nenforcer_group = \"staunch\"\nresolver_user = \"4711\"\n\
         [upstream]\nservers = [\"192.0.2.53\"]\n",
    );
    assert_eq!(loaded.enforce.outside.enforcer.as_deref(), Some(Path::new("/run/staunch-enforcer/enforcer.sock")));
    let (loaded, warnings) = good(
        "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"hook\"\nhook = [\"/bin/x\", \"--y\"]\n\
         hook_deadline_ms = 250\n[upstream]\nservers = [\"192.0.2.53\"]\n",
    );
    assert_eq!(loaded.enforce.outside.hook, ["/bin/x", "--y"]);
    assert_eq!(loaded.enforce.outside.hook_deadline, std::time::Duration::from_millis(250));
    assert!(warnings.iter().any(|warning| warning.to_string().contains("hook's hands")), "{warnings:?}");
}

#[test]
fn who_enforces_behind_interfaces_needs_the_lockdown_unless_it_says_otherwise() {
    use staunch::readiness::Need;
    let upstream = "[upstream]\nservers = [\"192.0.2.53\"]\n";
    for (mode, backend, interfaces, written, need) in [
        ("enforce", "nft", "\"a0\"", "", Need::Require),
        ("canary\"\ncanary_percent = 5\n#\"", "nft", "\"a0\"", "", Need::Warn),
        ("monitor", "nft", "\"a0\"", "", Need::Warn),
        ("enforce", "nft", "\"a0\"", "lockdown = \"warn\"\n", Need::Warn),
        ("enforce", "nft", "\"a0\"", "lockdown = \"off\"\n", Need::Off),
        ("enforce", "nft", "", "", Need::Off),
        ("enforce", "dry-run", "\"a0\"", "", Need::Off),
    ] {
        let text = format!(
            "version = 1\n[policy]\nmode = \"{mode}\"\n{upstream}[enforce]\nbackend = \"{backend}\"\n\
             interfaces = [{interfaces}]\n{written}"
        );
        assert_eq!(good(&text).0.lockdown.need, need, "{text}");
    }
}

#[test]
fn the_enforcer_reads_its_section_and_none_of_the_files_named() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let load = |text: &str, socket: Option<&str>| {
        std::fs::write(&file, text).expect("written");
        staunch::config::load_enforcer(&file, socket.map(Into::into))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let text = "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"nft\"\ninterfaces = [\"veth0\"]\n\
                enforcer_socket = \"/run/e.sock\"\nresolver_user = \"4711\"\n\
                [[list]]\nid = \"gone\"\npath = \"no-such-file\"\nformat = \"domains\"\n";
    let (settings, _) = load(text, None).expect("loads");
    assert_eq!(settings.socket, Path::new("/run/e.sock"));
    assert!(settings.enforce.guard_unknown && settings.peers.admit(4711) && !settings.peers.admit(0));
    // A mistake elsewhere keeps the resolver from starting, not the enforcer from coming back.
    assert!(load(&format!("{text}[[rule]]\nid = 7\n"), None).is_ok());
    let error = load(&format!("{text}[[rule\n"), None).map(drop).expect_err("not TOML");
    assert!(error.contains("not TOML"), "{error}");
    let (settings, _) = load(text, Some("/run/other.sock")).expect("loads");
    assert_eq!(settings.socket, Path::new("/run/other.sock"), "the command line goes before the file");
    let error = load(&text.replace("4711", "no-such-user"), None).expect_err("nobody");
    assert!(
        error.contains("staunch.toml:8: enforce.resolver_user: this machine has no user `no-such-user`"),
        "{error}"
    );
    let error = load("version = 1\n[enforce]\nbackend = \"nft\"\n", None).expect_err("no socket");
    assert!(error.contains("enforce.enforcer_socket") && error.contains("/run/staunch-enforcer"), "{error}");
    let error = load("version = 1\n[enforce]\nbackend = \"hook\"\nhook = [\"/bin/x\"]\n", None).expect_err("no nft");
    assert!(error.contains("enforce.backend"), "{error}");
}
