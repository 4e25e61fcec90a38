//! Labels that say nothing by what they are made of.
//!
//! Between [`super`], which prices every label, and what reads how little a name is like a host's: a label here keeps its
//! price, and is no evidence. Short ones have no form to speak of: of the pairs of letters nearly all are codes of
//! countries, languages or places. Labels of the list stand for a protocol, the same under every domain. Whoever tells
//! something by a choice among either pays for each in full.

/// Octets of the longest label that is too short to be like anything.
const SHORT: usize = 2;

/// Labels that standards put in front of a domain, in order: names of the registry of underscored node names (RFC 8552
/// section 4, RFC 8553) and of services in common use below them (RFC 6335).
const REGISTERED: [&[u8]; 49] = [
    b"_acme-challenge",
    b"_adsp",
    b"_autodiscover",
    b"_bimi",
    b"_caldav",
    b"_caldavs",
    b"_carddav",
    b"_carddavs",
    b"_dane",
    b"_dmarc",
    b"_dns",
    b"_dns-sd",
    b"_domainkey",
    b"_gc",
    b"_http",
    b"_https",
    b"_imap",
    b"_imaps",
    b"_jmap",
    b"_kerberos",
    b"_kpasswd",
    b"_ldap",
    b"_ldaps",
    b"_matrix",
    b"_msdcs",
    b"_mta-sts",
    b"_openpgpkey",
    b"_pop3",
    b"_pop3s",
    b"_report",
    b"_sctp",
    b"_sip",
    b"_sipfederationtls",
    b"_sips",
    b"_sites",
    b"_smimecert",
    b"_smtp",
    b"_spf",
    b"_stun",
    b"_submission",
    b"_submissions",
    b"_tcp",
    b"_tls",
    b"_turn",
    b"_turns",
    b"_udp",
    b"_xmpp",
    b"_xmpp-client",
    b"_xmpp-server",
];

/// Whether what a label is made of is evidence.
pub(crate) fn speaks(label: &[u8]) -> bool {
    label.len() > SHORT && !is_registered(label)
}

/// Whether a payload part (wire labels) has a label of the list: a name that is asked for by the types its standard says,
/// TXT most of all.
pub(crate) fn has_registered(payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some((&len, tail)) = rest.split_first() {
        let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
        if is_registered(label) {
            return true;
        }
        rest = next;
    }
    false
}

fn is_registered(label: &[u8]) -> bool {
    label.first() == Some(&b'_') && REGISTERED.binary_search(&label).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_says_nothing() {
        assert!(REGISTERED.is_sorted());
        assert!(REGISTERED.iter().all(|label| !speaks(label)));
        for label in [b"_dmarcx".as_slice(), b"dmarc", b"_k3x9q0vz71bd", b"www"] {
            assert!(speaks(label), "{label:?}");
        }
        assert!(!speaks(b"de") && !speaks(b"7") && !speaks(b""));
    }

    #[test]
    fn registered_labels_are_found_anywhere() {
        assert!(has_registered(b"\x09selector1\x0a_domainkey"));
        assert!(has_registered(b"\x06_dmarc\x03www"));
        assert!(!has_registered(b"\x05dmarc\x03www"));
        assert!(!has_registered(b"") && !has_registered(b"\x20_dm"));
    }
}
