//! Honest look-ups that look like a payload at first sight: none of them is refused.

mod session;

use session::{A, AAAA, HEX, MX, PTR, Random, SRV, Session, TXT};
use staunch_scoring::{Answered, Band, NameBuf, Split};

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
