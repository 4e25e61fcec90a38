//! Refusals, answers, signatures, sessions and profiles.

use super::Case;

pub const CASES: &[Case] = &[
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
];
