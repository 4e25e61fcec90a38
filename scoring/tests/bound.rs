//! The ledger bounds what a session tells, whatever the encoding (small form: a few thousand random sessions).
//!
//! A reader that received n names, and knew beforehand how they were to be read, learned at most the bits charged plus
//! log2(n + 1) for how many came. Each scheme here sends random bits, so that what was told is known exactly.

mod session;

use session::{A, AAAA, BASE32, HEX, HTTPS, Random, Session};
use staunch_scoring::{Band, Budgets};

/// Name and type for the next piece of payload, and how many random bits went into it. `None` ends the session.
type Scheme = fn(&mut Random, usize) -> (String, u16, f64);

const BASE64_FOLDED: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_";
const WORDS: [&str; 64] = [
    "mail", "www", "api", "cdn", "shop", "news", "blog", "img", "dev", "test", "app", "web", "ftp", "login", "help",
    "docs", "static", "media", "video", "forum", "store", "data", "cloud", "home", "my", "new", "m", "en", "de", "fr",
    "us", "uk", "ns1", "ns2", "mx", "smtp", "pop", "imap", "vpn", "git", "wiki", "map", "ads", "assets", "beta",
    "stage", "prod", "admin", "portal", "support", "status", "search", "files", "down", "up", "old", "go", "s1", "s2",
    "s3", "a", "b", "c", "d",
];

fn base(random: &mut Random, alphabet: &[u8], len: usize, domain: &str) -> (String, u16, f64) {
    (format!("{}.{domain}", random.text(alphabet, len)), A, len as f64 * (alphabet.len() as f64).log2())
}

fn words(random: &mut Random, count: usize) -> (String, f64) {
    let picked: Vec<_> = (0..count).map(|_| WORDS[random.below(WORDS.len())]).collect();
    (picked.join("."), 6.0 * count as f64)
}

const SCHEMES: [(&str, Scheme); 11] = [
    ("base16", |r, _| base(r, HEX, 24, "leak.example")),
    ("base32", |r, _| base(r, BASE32, 20, "leak.example")),
    ("base64 folded", |r, _| base(r, BASE64_FOLDED, 40, "leak.example")),
    ("three characters", |r, _| base(r, BASE32, 3, "leak.example")),
    ("words", |r, _| {
        let (text, bits) = words(r, 3);
        (format!("{text}.leak.example"), A, bits)
    }),
    ("one word", |r, _| {
        let (text, bits) = words(r, 1);
        (format!("{text}.leak.example"), A, bits)
    }),
    ("a label in the middle", |r, i| (format!("www.{}.v{}.leak.example", r.text(BASE32, 12), i % 3), A, 60.0)),
    ("many domains", |r, _| {
        let domain = r.below(256);
        (format!("{}.d{domain}.example", r.text(BASE32, 8)), A, 48.0)
    }),
    ("many domains alone", |r, _| (format!("d{}.example", r.below(256)), A, 8.0)),
    ("tenants of a platform", |r, _| (format!("{}.github.io", r.text(BASE32, 10)), A, 50.0)),
    ("repetition and types", |r, _| {
        let name = r.below(16);
        let qtype = [A, AAAA, HTTPS][r.below(3)];
        (format!("h{name}.leak.example"), qtype, 4.0 + 3f64.log2())
    }),
];

#[test]
fn no_session_tells_more_than_it_was_charged() {
    for (number, (what, scheme)) in SCHEMES.iter().enumerate() {
        let (mut told_all, mut charged_all, mut closest) = (0.0, 0.0, f64::INFINITY);
        for run in 0..300u64 {
            let mut random = Random(run * 1_000 + number as u64 + 1);
            let mut session = Session::new();
            // Limits out of the way: the bound is the ledger's, not the score's.
            session.params.sinkhole = f32::INFINITY;
            session.budgets = loose();
            let queries = 1 + random.below(120);
            let mut told = 0.0;
            for i in 0..queries {
                let (name, qtype, bits) = scheme(&mut random, i);
                assert!(session.ask(&name, qtype).band < Band::Sinkhole, "{what}: {name}");
                told += bits;
            }
            let charged = session.state.spent_session().as_f64();
            let slack = ((queries + 1) as f64).log2();
            assert!(told <= charged + slack, "{what}, run {run}: told {told:.1}, charged {charged:.1}");
            told_all += told;
            charged_all += charged;
            closest = closest.min(charged + slack - told);
        }
        println!("| {what} | {:.2} bits charged a bit told | {closest:.1} |", charged_all / told_all);
    }
}

/// The same for the account of one tenant, whose reader sees nothing else of the session.
#[test]
fn no_tenant_is_told_more_than_its_account_says() {
    for run in 0..500u64 {
        let mut random = Random(run + 7);
        let mut session = Session::new();
        session.params.sinkhole = f32::INFINITY;
        session.budgets = loose();
        let (mut told, mut queries, mut charged) = (0.0, 0, 0.0);
        for i in 0..random.below(100) + 1 {
            if random.below(2) == 0 {
                session.ask(&format!("host{i}.other.example"), A);
                continue;
            }
            let (name, qtype, bits) = match random.below(3) {
                0 => base(&mut random, BASE32, 6, "leak.example"),
                1 => (SCHEMES[4].1)(&mut random, i),
                _ => (SCHEMES[10].1)(&mut random, i),
            };
            // Which of the three is the encoder's choice too.
            told += bits + 3f64.log2();
            queries += 1;
            charged = session.ask(&name, qtype).after.tenant.as_f64();
        }
        let slack = f64::from(queries + 1).log2();
        assert!(told <= charged + slack, "run {run}: told {told:.1}, charged {charged:.1}");
    }
}

/// In enforce mode nobody gets past the limits: the promise of a kilobyte a session and 256 octets a tenant.
#[test]
fn default_limits_hold_for_every_scheme() {
    for (number, (what, scheme)) in SCHEMES.iter().enumerate() {
        let (mut most, mut most_bits) = (0, 0.0f64);
        for run in 0..40u64 {
            let mut random = Random(run * 31 + number as u64 + 5);
            let mut session = Session::new();
            let (mut told, mut forwarded) = (0.0, 0);
            for i in 0..3_000 {
                let (name, qtype, bits) = scheme(&mut random, i);
                let got = session.ask(&name, qtype);
                if got.band == Band::Quarantine {
                    break;
                }
                if got.band < Band::Hold {
                    told += bits;
                    forwarded += 1;
                }
            }
            let budgets = Budgets::default();
            let slack = f64::from(forwarded + 1).log2();
            assert!(session.state.spent_session() <= budgets.session);
            assert!(told <= budgets.session.as_f64() + slack, "{what}: {told}");
            most = most.max(forwarded);
            most_bits = most_bits.max(told);
        }
        println!("| {what} | at most {most} queries forwarded | {:.0} octets told |", (most_bits / 8.0).ceil());
    }
}

fn loose() -> Budgets {
    let most = staunch_scoring::Bits::MAX;
    Budgets {
        tenant_soft: most,
        tenant: most,
        icann: most,
        session: most,
        group: most,
        echo: most,
        ..Budgets::default()
    }
}
