//! The document, policy zones, addresses, and who is asked.

use super::Case;

pub const CASES: &[Case] = &[
    // The document.
    ("version = ", &[(1, "", "not TOML", "put this line right")]),
    ("", &[(1, "version", "no version", "version = 1")]),
    ("version = 2", &[(1, "version", "version 2", "version = 1")]),
    ("version = 1\n[sevrer]\n", &[(2, "sevrer", "unknown field `sevrer`", "`server`")]),
    (
        "version = 1\n[server]\nlissen = []\nworkers = -1\n",
        &[(3, "server.lissen", "unknown field", "`listen`"), (4, "server.workers", "-1", "0 to 256")],
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
        &[(4, "upstream.total_timeout_ms", "less than", "one try"), (5, "upstream.udp_payload", "100", "512 to 4096")],
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
];
