use proptest::prelude::*;
use staunch_scoring::QName;

use super::*;

/// Outcome in words: `-` for a name that is not special, else rcode, records and zone.
fn outcome(text: &str, qtype: &str, search: &[&str]) -> String {
    let qname = QName::from_text(text).expect("test name");
    let search: Vec<NameBuf> = search.iter().map(|s| NameBuf::from_text(s).expect("test suffix")).collect();
    let Some(local) = special(qname.as_ref(), Qtype::from_text(qtype).expect("type"), &search) else {
        return "-".into();
    };
    let zone = local.zone(qname.as_ref());
    match local.records {
        Records::None if local.rcode == 3 => format!("NXDOMAIN {zone}"),
        Records::None => format!("NODATA {zone}"),
        Records::A(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Records::Aaaa(address) => address.to_string(),
        Records::Nat64(_) => unreachable!("no prefix was given"),
        Records::Ptr(wire) => NameRef::from_wire(wire).expect("canonical").to_string(),
        Records::Soa => format!("SOA {zone}"),
    }
}

/// RFC 8880 section 7: who has a NAT64 tells its prefixes at one name, by one type.
#[test]
fn prefixes_of_a_nat64_are_told_where_they_are_looked_for() {
    let prefixes = ["64:ff9b::/96", "2001:db8:122::/48"].map(|text| Nat64::parse(text).expect("prefix"));
    let records = |text: &str, qtype| {
        let name = QName::from_text(text).expect("test name");
        let local = special(name.as_ref(), qtype, &[]).expect("special");
        local.behind(&prefixes, name.as_ref(), qtype).records
    };
    let told = Records::Nat64([Some(prefixes[0]), Some(prefixes[1]), None, None]);
    assert_eq!(records("ipv4only.arpa", Qtype::AAAA), told);
    assert_eq!(records("ipv4only.arpa", Qtype::A), Records::A(&nat64::WELL_KNOWN));
    assert_eq!(records("ipv4only.arpa", Qtype::SOA), Records::Soa);
    assert_eq!(records("x.ipv4only.arpa", Qtype::AAAA), Records::None);
    assert_eq!(records("home.arpa", Qtype::AAAA), Records::None);
    let name = QName::from_text("ipv4only.arpa").expect("name");
    let local = special(name.as_ref(), Qtype::AAAA, &[]).expect("special");
    assert_eq!(local.behind(&[], name.as_ref(), Qtype::AAAA), local, "without one, that there is none");
}

#[test]
fn that_a_zone_is_not_signed_is_for_its_parent_to_prove() {
    for (text, qtype, expected) in [
        ("home.arpa", Qtype::DS, true),
        ("service.arpa", Qtype::DS, true),
        ("home.arpa", Qtype::A, false),
        ("tv.home.arpa", Qtype::DS, false),
        ("resolver.arpa", Qtype::DS, false),
    ] {
        let name = QName::from_text(text).expect("test name");
        let local = special(name.as_ref(), qtype, &[]).expect("special");
        assert_eq!(local.is_for_the_parent(qtype), expected, "{text}");
    }
}

#[test]
fn the_registries_are_honoured() {
    let loopback6 = format!("{}ip6.arpa", format!("1{}", ".0".repeat(31)) + ".");
    let unspecified6 = format!("0{}.ip6.arpa", ".0".repeat(31));
    let two6 = format!("2{}.ip6.arpa", ".0".repeat(31));
    for (name, qtype, expected) in [
        // RFC 6761
        ("localhost", "A", "127.0.0.1"),
        ("localhost", "AAAA", "::1"),
        ("localhost", "MX", "NODATA localhost"),
        ("a.b.localhost", "A", "127.0.0.1"),
        ("a.localhost", "TXT", "NODATA localhost"),
        ("localhost.example.com", "A", "-"),
        ("x.invalid", "A", "NXDOMAIN invalid"),
        ("secret.test", "TXT", "NXDOMAIN test"),
        ("www.example", "A", "-"), // section 6.5: caching servers treat example names as any other
        // RFC 6762, 7686, 9476, and the name reserved for private use
        ("printer.local", "A", "NXDOMAIN local"),
        ("254.169.in-addr.arpa", "PTR", "NODATA 254.169.in-addr.arpa"),
        ("abc.onion", "A", "NXDOMAIN onion"),
        ("x.y.alt", "A", "NXDOMAIN alt"),
        ("db.internal", "A", "NXDOMAIN internal"),
        // RFC 8375, 9665, 9031, 9965
        ("home.arpa", "A", "NODATA home.arpa"),
        ("home.arpa", "SOA", "SOA home.arpa"),
        ("tv.home.arpa", "A", "NXDOMAIN home.arpa"),
        ("default.service.arpa", "SRV", "NXDOMAIN service.arpa"),
        ("x.6tisch.arpa", "A", "NXDOMAIN 6tisch.arpa"),
        ("x.eap.arpa", "A", "NXDOMAIN eap.arpa"),
        ("as112.arpa", "A", "-"),
        // RFC 9462
        ("_dns.resolver.arpa", "TYPE64", "NODATA resolver.arpa"),
        ("_dns.resolver.arpa", "SOA", "NODATA resolver.arpa"),
        ("resolver.arpa", "A", "NODATA resolver.arpa"),
        ("x.resolver.arpa", "A", "NXDOMAIN resolver.arpa"),
        // RFC 7050, 8880
        ("ipv4only.arpa", "A", "192.0.0.170 192.0.0.171"),
        ("ipv4only.arpa", "AAAA", "NODATA ipv4only.arpa"),
        ("x.ipv4only.arpa", "A", "NXDOMAIN ipv4only.arpa"),
        ("170.0.0.192.in-addr.arpa", "PTR", "ipv4only.arpa"),
        ("171.0.0.192.in-addr.arpa", "PTR", "ipv4only.arpa"),
        ("172.0.0.192.in-addr.arpa", "PTR", "-"),
        // Canaries
        ("use-application-dns.net", "A", "NXDOMAIN use-application-dns.net"),
        ("xuse-application-dns.net", "A", "-"),
        ("mask.icloud.com", "AAAA", "NXDOMAIN mask.icloud.com"),
        ("mask-h2.icloud.com", "A", "NXDOMAIN mask-h2.icloud.com"),
        ("www.icloud.com", "A", "-"),
        // RFC 6303 and 7793
        ("1.2.3.10.in-addr.arpa", "PTR", "NXDOMAIN 10.in-addr.arpa"),
        ("10.in-addr.arpa", "SOA", "SOA 10.in-addr.arpa"),
        ("10.in-addr.arpa", "NS", "NODATA 10.in-addr.arpa"),
        ("1.0.16.172.in-addr.arpa", "PTR", "NXDOMAIN 16.172.in-addr.arpa"),
        ("31.172.in-addr.arpa", "PTR", "NODATA 31.172.in-addr.arpa"),
        ("1.32.172.in-addr.arpa", "PTR", "-"),
        ("15.172.in-addr.arpa", "PTR", "-"),
        ("172.in-addr.arpa", "PTR", "-"),
        ("9.9.168.192.in-addr.arpa", "PTR", "NXDOMAIN 168.192.in-addr.arpa"),
        ("9.9.254.169.in-addr.arpa", "PTR", "NXDOMAIN 254.169.in-addr.arpa"),
        ("1.0.0.127.in-addr.arpa", "PTR", "localhost"),
        ("1.0.0.127.in-addr.arpa", "A", "NODATA 127.in-addr.arpa"),
        ("x.1.0.0.127.in-addr.arpa", "PTR", "NXDOMAIN 127.in-addr.arpa"),
        ("0.0.127.in-addr.arpa", "PTR", "NODATA 127.in-addr.arpa"), // RFC 8020: a name exists below
        ("2.0.0.127.in-addr.arpa", "PTR", "NXDOMAIN 127.in-addr.arpa"),
        ("01.0.0.127.in-addr.arpa", "PTR", "NXDOMAIN 127.in-addr.arpa"),
        ("4.0.in-addr.arpa", "PTR", "NXDOMAIN 0.in-addr.arpa"),
        ("1.64.100.in-addr.arpa", "PTR", "NXDOMAIN 64.100.in-addr.arpa"),
        ("127.100.in-addr.arpa", "PTR", "NODATA 127.100.in-addr.arpa"),
        ("128.100.in-addr.arpa", "PTR", "-"),
        ("1.2.0.192.in-addr.arpa", "PTR", "NXDOMAIN 2.0.192.in-addr.arpa"),
        ("1.100.51.198.in-addr.arpa", "PTR", "NXDOMAIN 100.51.198.in-addr.arpa"),
        ("1.113.0.203.in-addr.arpa", "PTR", "NXDOMAIN 113.0.203.in-addr.arpa"),
        ("255.255.255.255.in-addr.arpa", "PTR", "NODATA 255.255.255.255.in-addr.arpa"),
        ("254.255.255.255.in-addr.arpa", "PTR", "-"),
        ("8.8.8.8.in-addr.arpa", "PTR", "-"),
        ("010.in-addr.arpa", "PTR", "-"),
        ("x.in-addr.arpa", "PTR", "-"),
        (&loopback6, "PTR", "localhost"),
        (&unspecified6, "PTR", &format!("NODATA {unspecified6}")),
        (&two6, "PTR", "-"),
        ("0.0.c.f.ip6.arpa", "PTR", "NXDOMAIN c.f.ip6.arpa"),
        ("d.f.ip6.arpa", "SOA", "SOA d.f.ip6.arpa"),
        ("1.b.e.f.ip6.arpa", "PTR", "NXDOMAIN b.e.f.ip6.arpa"),
        ("c.e.f.ip6.arpa", "PTR", "-"),
        ("1.8.b.d.0.1.0.0.2.ip6.arpa", "PTR", "NXDOMAIN 8.b.d.0.1.0.0.2.ip6.arpa"),
        ("1.0.f.f.f.3.ip6.arpa", "PTR", "NXDOMAIN 0.f.f.f.3.ip6.arpa"),
        ("9.b.d.0.1.0.0.2.ip6.arpa", "PTR", "-"),
        // Single labels and the root
        ("redis", "A", "NXDOMAIN redis"),
        ("com", "A", "NODATA com"),
        ("com", "DS", "-"),
        ("redis", "DS", "NXDOMAIN redis"),
        (".", "A", "NODATA ."),
        (".", "DNSKEY", "-"),
        // And the rest of the world
        ("www.example.com", "A", "-"),
        ("arpa", "A", "NODATA arpa"),
    ] {
        assert_eq!(outcome(name, qtype, &[]), expected, "{name} {qtype}");
    }
}

#[test]
fn search_list_expansions_stay_here() {
    let search = ["default.svc.cluster.example", "svc.cluster.example", "corp.example"];
    for (name, expected) in [
        ("www.example.org.default.svc.cluster.example", "NXDOMAIN default.svc.cluster.example"),
        ("example.org.svc.cluster.example", "NXDOMAIN svc.cluster.example"),
        ("db.prod.internal.corp.example", "NXDOMAIN corp.example"),
        ("4.3.2.1.in-addr.arpa.corp.example", "NXDOMAIN corp.example"),
        ("jenkins.corp.example.corp.example", "NXDOMAIN corp.example"),
        ("jenkins.corp.example.svc.cluster.example", "NXDOMAIN svc.cluster.example"),
        ("corp.example.svc.cluster.example", "NXDOMAIN svc.cluster.example"),
        // Hosts of the suffix: one label, or some that are no whole name.
        ("jenkins.corp.example", "-"),
        ("com.corp.example", "-"),
        ("redis.default.svc.cluster.example", "-"),
        ("node-7.rack-2.corp.example", "-"),
        ("corp.example", "NODATA corp.example"), // RFC 8020: a rule may allow a name below
        ("xcorp.example", "-"),
        ("cluster.example", "-"),
    ] {
        assert_eq!(outcome(name, "A", &search), expected, "{name}");
    }
    assert_eq!(outcome("www.example.com", "A", &["."]), "-", "the root as a suffix would swallow every name");
}

proptest! {
    #[test]
    fn any_name_is_judged(octets in proptest::collection::vec(any::<u8>(), 0..256), qtype in any::<u16>()) {
        if let Ok((qname, _)) = QName::read(&octets)
            && let Some(local) = special(qname.as_ref(), Qtype(qtype), &[])
        {
            prop_assert!(qname.as_ref().is_at_or_below(local.zone(qname.as_ref())));
            prop_assert!(local.rcode == 0 || local.records == Records::None);
        }
    }

    #[test]
    fn any_reverse_name_is_judged(
        labels in proptest::collection::vec("[0-9a-f]{1,3}|[a-z]{1,5}", 0..36),
        six in any::<bool>(),
    ) {
        let text = labels.iter().map(|l| format!("{l}.")).collect::<String>() + if six { "ip6.arpa" } else { "in-addr.arpa" };
        if let Ok(qname) = QName::from_text(&text)
            && let Some(local) = special(qname.as_ref(), Qtype::PTR, &[])
        {
            prop_assert!(usize::from(local.zone_labels) <= qname.as_ref().label_count());
        }
    }
}

#[test]
fn a_zone_with_servers_of_its_own_takes_back_what_it_names() {
    let zone = |text: &str| NameBuf::from_text(text).expect("a zone");
    let search = [zone("team.corp.example")];
    for (name, forwarded, yields) in [
        ("db.corp.internal", "corp.internal", true),
        ("db.corp.internal", "internal", true),
        ("tv.home.arpa", "home.arpa", true),
        ("3.2.1.10.in-addr.arpa", "10.in-addr.arpa", true),
        ("3.2.1.10.in-addr.arpa", "1.10.in-addr.arpa", true),
        ("3.2.1.10.in-addr.arpa", "arpa", false),
        ("3.2.1.10.in-addr.arpa", "in-addr.arpa", false),
        ("mask.icloud.com", "com", false),
        ("use-application-dns.net", "net", false),
        ("wiki", "wiki", true),
        ("www.site.org.team.corp.example", "corp.example", true),
        ("team.corp.example", "corp.example", true),
    ] {
        let qname = QName::from_text(name).expect("a name");
        let local = special(qname.as_ref(), Qtype::A, &search).unwrap_or_else(|| panic!("{name} is special"));
        assert_eq!(local.yields_to(Some(zone(forwarded).as_ref())), yields, "{name} in {forwarded}");
        assert!(!local.yields_to(None));
    }
}

/// RFC 8020 section 2: a name that is denied takes all below it along.
#[test]
fn a_name_above_others_that_exist_is_not_denied() {
    let at = |text: &str, qtype| {
        let name = QName::from_text(text).expect("test name");
        special(name.as_ref(), qtype, &[]).expect("special")
    };
    for text in ["corp.internal", "cluster.local", "corp", "20.10.in-addr.arpa", "a.home.arpa"] {
        let denied = at(text, Qtype::A);
        let above = denied.above_others(|| true);
        let expected = Local { rcode: NOERROR, ttl: VOLATILE_TTL, ..denied };
        assert_eq!((denied.rcode, above, denied.above_others(|| false)), (NXDOMAIN, expected, denied), "{text}");
    }
    let apex = at("home.arpa", Qtype::SOA);
    assert_eq!(apex.above_others(|| unreachable!("it is not denied")), apex);
}

#[test]
fn a_whole_name_in_front_of_a_domain_is_seen() {
    let at = |text: &str| {
        let name = QName::from_text(text).expect("a name");
        behind_a_whole_name(name.as_ref()).map(|suffix| suffix.to_string())
    };
    for (text, suffix) in [
        ("www.site.com.corp.acme.com", Some("corp.acme.com")),
        ("www.site.co.uk.acme.com", Some("acme.com")),
        ("www.site.org.floor7.acme.com", Some("floor7.acme.com")),
        ("git.corp.acme.com", None),
        ("corp.acme.com", None),
        ("site.com.br", None),
        ("com", None),
    ] {
        assert_eq!(at(text).as_deref(), suffix, "{text}");
    }
}

/// A stub that is told that a name is not there asks for it below each suffix of its search list.
#[test]
fn a_refused_name_is_refused_with_a_suffix_behind_it_too() {
    let refused = ["x7f3.saas.example.com", "ads.example.org", "site.com", "wiki", "k3.evil.example.co.uk"]
        .map(|text| NameBuf::from_text(text).expect("a name"));
    let at = |text: &str| {
        let name = QName::from_text(text).expect("a name");
        retried(name.as_ref(), refused.iter().map(NameBuf::as_ref)).map(|local| {
            assert_eq!((local.rcode, local.records), (NXDOMAIN, Records::None), "{text}");
            assert!(local.note().is_some() && !local.yields_to(Some(local.zone(name.as_ref()))), "{text}");
            local.zone(name.as_ref()).to_string()
        })
    };
    for (text, zone) in [
        ("x7f3.saas.example.com.corp.acme.com", "corp.acme.com"),
        ("ads.example.org.acme.com", "acme.com"),
        ("ads.example.org.eu-west-1.corp.acme.co.uk", "eu-west-1.corp.acme.co.uk"),
        ("k3.evil.example.co.uk.lan", "lan"),
        ("site.com.corp.acme.com", "corp.acme.com"),
    ] {
        assert_eq!(at(text).as_deref(), Some(zone), "{text}");
    }
    for text in [
        // The name itself, what stands below it, and others that begin like it.
        "ads.example.org",
        "x.ads.example.org.acme.com",
        "ads.example.organisation.acme.com",
        // Another owner's, as far as a name can tell.
        "site.com.br",
        "site.com.com",
        "ads.example.org.uk",
        // One label may be a host of the suffix.
        "wiki.corp.acme.com",
        "git.corp.acme.com",
    ] {
        assert_eq!(at(text), None, "{text}");
    }
    let nothing = QName::from_text("ads.example.org.acme.com").expect("a name");
    assert!(retried(nothing.as_ref(), std::iter::empty()).is_none());
    assert!(retried(nothing.as_ref(), std::iter::once(NameRef::ROOT)).is_none(), "the root stands in front of nothing");
}
