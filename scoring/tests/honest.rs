//! Honest look-ups that look like a payload at first sight: none of them is refused.

mod session;

use session::{A, AAAA, HEX, MX, PTR, Random, SRV, Session, TXT};
use staunch_scoring::{Answered, Assessment, Band, NameBuf, Reading, Signal, Split};

/// Addresses of networks all over the world, none of which has a name: what a route trace or a log viewer asks.
#[test]
fn a_few_reverse_look_ups_close_nothing() {
    let mut random = Random(0x1b6);
    for (tree, digits) in [("ip6.arpa", 32), ("in-addr.arpa", 0)] {
        let mut session = Session::new();
        for _ in 0..12 {
            let name = match digits {
                0 => (0..4).map(|_| random.below(256).to_string() + ".").collect::<String>() + tree,
                _ => {
                    let own = random.text(HEX, digits - 1).chars().fold(String::new(), |name, c| format!("{name}{c}."));
                    format!("{own}2.{tree}")
                }
            };
            let got = session.ask(&name, PTR);
            assert!(got.band < Band::Sinkhole, "{name}: {got:?}");
            let name = NameBuf::from_text(&name).expect("a name");
            let tenant = Split::of(name.as_ref()).tenant(name.as_ref());
            session.state.observe(tenant, Answered { rcode: 3, octets: 0 });
        }
        assert_eq!(session.state.tenants_sinkholed(), 0);
    }
}

/// What an administrator, a linter or a mail server asks of one domain, one look-up behind the other.
#[test]
fn one_domains_mail_set_up_can_be_looked_at() {
    for domain in ["acme.org", "bobs-bakery.net", "shopify.com", "university-of-x.edu"] {
        let mut session = Session::new();
        session.types = 17;
        for (label, qtype) in [
            ("", MX),
            ("", TXT),
            ("_dmarc.", TXT),
            ("selector1._domainkey.", TXT),
            ("google._domainkey.", TXT),
            ("_mta-sts.", TXT),
            ("_smtp._tls.", TXT),
            ("default._bimi.", TXT),
            ("www.", A),
        ] {
            let got = session.ask(&format!("{label}{domain}"), qtype);
            assert!(got.band < Band::Sinkhole, "{label}{domain}: {got:?}");
            session.now += 1_000;
        }
    }
}

#[test]
fn a_directorys_services_can_be_looked_up() {
    let mut session = Session::new();
    session.types = 17;
    for service in [
        "_ldap._tcp.dc._msdcs",
        "_kerberos._tcp",
        "_ldap._tcp.default-first-site-name._sites.dc._msdcs",
        "_kerberos._udp",
        "_kpasswd._tcp",
        "_gc._tcp",
        "_ldap._tcp.pdc._msdcs",
        "_sip._udp",
        "_sips._tcp",
        "_sipfederationtls._tcp",
    ] {
        let got = session.ask(&format!("{service}.corp.contoso-bank.com"), SRV);
        assert!(got.band < Band::Sinkhole, "{service}: {got:?}");
    }
}

/// Codes of languages and countries are no payload.
#[test]
fn labels_of_two_letters_say_nothing_by_themselves() {
    let mut session = Session::new();
    let languages =
        "en de fr es it ja zh ru pt nl pl sv vi ar uk fa ca no fi hu cs tr ko id ro he bg el da hr sk sr lt et sl";
    for language in languages.split(' ') {
        for qtype in [A, AAAA] {
            let got = session.ask(&format!("{language}.wikipedia.org"), qtype);
            assert!(got.band < Band::Sinkhole, "{language}: {got:?}");
        }
    }
    for country in "us de fr uk jp nl se pl br au ca ch at it es".split(' ') {
        let got = session.ask(&format!("ftp.{country}.mirror.example"), A);
        assert!(got.band < Band::Sinkhole, "{country}: {got:?}");
    }
}

/// Hosts of one place, as a company names them: all end in the same labels, which tell nothing after the first.
#[test]
fn hosts_of_one_place_are_no_payload() {
    let hosts = "www api app shop blog mail vpn git ci status docs cdn static admin portal login auth sso wiki help support dev \
                 staging test beta demo grafana prometheus kibana vault consul nomad web01 web02 proxy ldap smtp files media img";
    for place in [
        "eu-west-1.prod.k8s.acme.com",
        "rack7.fsn1.dc14.acme.net",
        "payments.svc.x7.acme.org",
        "cx1yq8z0.eu-central-1.db.acme.io",
    ] {
        let mut session = Session::new();
        session.types = 17;
        for host in hosts.split_whitespace() {
            for qtype in [A, AAAA] {
                let got = session.ask(&format!("{host}.{place}"), qtype);
                assert!(got.band < Band::Sinkhole, "{host}.{place}: {got:?}");
                session.now += 700;
            }
        }
        let spent = session.state.spent_session().as_f64();
        assert!(spent < 1_500.0, "{place}: {spent} bits");
    }
}

/// A job that runs all day asks the same names again as their time is up. What each of these answers brings was there before, so
/// nothing of it speaks against the next name.
#[test]
fn a_name_that_is_asked_all_day_is_no_download() {
    let tenant = NameBuf::from_text("vendor-cloud.com").expect("a name");
    let next = "rel-7f3k9x2q.vendor-cloud.com";
    let after = |answers: usize| {
        let mut session = Session::new();
        for name in ["api.vendor-cloud.com", "www.vendor-cloud.com"] {
            for qtype in [A, AAAA] {
                session.ask(name, qtype);
            }
        }
        for _ in 0..answers {
            // An alias or two and some addresses.
            session.state.observe(tenant.as_ref(), Answered { rcode: 0, octets: 160 });
        }
        session.now += 8 * 3_600_000;
        session.assess(next, A)
    };
    let (fresh, old) = (after(4), after(480));
    let volume = |got: &Assessment| reading(got, Signal::AnswerVolume);
    assert!(volume(&old).contribution < 0.0, "{:?}", volume(&old));
    assert!(fresh.band < Band::Sinkhole && old.band == fresh.band, "{fresh:?}\n{old:?}");
    // New names that bring as much each are what a download looks like.
    let mut session = Session::new();
    for n in 0..60 {
        session.watch(&format!("n{n}.vendor-cloud.com"), TXT);
        session.state.observe(tenant.as_ref(), Answered { rcode: 0, octets: 160 });
    }
    assert!(volume(&session.assess(next, TXT)).contribution > 2.0);
    // So are long ones to one name that is polled.
    let mut session = Session::new();
    session.watch("next.vendor-cloud.com", TXT);
    for _ in 0..60 {
        session.state.observe(tenant.as_ref(), Answered { rcode: 0, octets: 1_000 });
    }
    assert!(volume(&session.assess(next, TXT)).contribution > 2.0);
}

/// What is asked again, and when, tells something and is charged. A session that has spent its ledger on that is refused what it
/// asks anew; it is not closed, and what it knows is answered as before.
#[test]
fn work_that_goes_on_for_days_is_not_closed_for_it() {
    let mut session = Session::new();
    session.types = 17;
    let known: Vec<String> = (0..30).map(|n| format!("api.service{n}-vendor.com")).collect();
    let (mut refused, mut random) = (0, Random(7));
    for round in 0..600 {
        for name in &known {
            for qtype in [A, AAAA] {
                let got = session.ask(name, qtype);
                assert!(got.band <= Band::Hold, "round {round}, {name}: {got:?}");
            }
            session.now += 5_000 + random.below(10_000) as u64;
        }
        if round % 10 == 0 {
            let got = session.ask(&format!("www.new-site{round}.org"), A);
            assert!(got.band < Band::Quarantine, "round {round}: {got:?}");
            refused += u32::from(got.band == Band::Sinkhole);
        }
    }
    assert!(refused > 10, "the ledger was never spent: {} bits", session.state.spent_session());
    assert!(session.state.spent_session() <= session.budgets.session);
    assert_eq!(session.state.tenants_sinkholed(), 0);
    // New names that take the ledger are what it is for.
    let mut session = Session::new();
    let closed = (0..900).any(|n| session.ask(&format!("www.other-site{n}.org"), A).band == Band::Quarantine);
    assert!(closed, "{} bits", session.state.spent_session());
}

/// A connection is noted once a name, its answers are many: by each type, and again when their time is up.
#[test]
fn names_that_were_connected_to_are_not_held_against_a_session() {
    let tenant = NameBuf::from_text("vendor-cloud.com").expect("a name");
    let unconnected = |names: usize, connected: usize, answers: usize| {
        let mut session = Session::new();
        for n in 0..names {
            session.ask(&format!("web{n}.vendor-cloud.com"), A);
            for _ in 0..answers {
                session.state.observe(tenant.as_ref(), Answered { rcode: 0, octets: 4 });
            }
        }
        // Somewhere something was connected to: the packet filter tells.
        session.state.connected(NameBuf::from_text("elsewhere.org").expect("a name").as_ref());
        (0..connected).for_each(|_| session.state.connected(tenant.as_ref()));
        reading(&session.assess("web0.vendor-cloud.com", A), Signal::Unconnected)
    };
    for answers in [1, 3, 300] {
        assert_eq!(unconnected(8, 8, answers).value, Some(0.0), "{answers}");
        assert_eq!(unconnected(2, 2, answers).value, None, "too few names, {answers}");
        assert_eq!(unconnected(8, 2, answers).value, Some(0.75), "{answers}");
        assert!(unconnected(40, 0, answers).contribution > 1.0, "{answers}");
    }
}

fn reading(got: &Assessment, signal: Signal) -> Reading {
    *got.readings.iter().find(|reading| reading.signal == signal).expect("every signal has a reading")
}
