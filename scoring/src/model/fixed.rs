//! Labels that say nothing by what they are made of.
//!
//! Between [`super`], which prices every label, and what reads how little a name is like a host's: a label here keeps its
//! price, and is no evidence. Short ones have no form to speak of: of the pairs of letters nearly all are codes of
//! countries, languages or places. Labels of the list stand for a protocol, the same under every domain. Whoever tells
//! something by a choice among either pays for each in full.

/// Octets of the longest label that is too short to be like anything.
const SHORT: usize = 2;

/// Short labels of one name that say nothing; those behind are read like any label.
const FEW: u32 = 4;

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

/// Whether what a label is made of is evidence; `short` counts the short ones of its name, this one among them.
#[inline]
pub(crate) fn speaks(label: &[u8], short: u32) -> bool {
    (label.len() > SHORT || short > FEW) && !is_registered(label)
}

/// 1 for a label that counts as short.
#[inline]
pub(crate) fn is_short(label: &[u8]) -> u32 {
    u32::from(label.len() <= SHORT)
}

/// Whether a payload part (wire labels) has a label of the list and at most `most` octets in labels beside: a name that is
/// asked for by the types its standard says, TXT most of all.
pub(crate) fn is_registered_name(payload: &[u8], most: usize) -> bool {
    let (mut found, mut beside, mut rest) = (false, 0, payload);
    while let Some((&len, tail)) = rest.split_first() {
        let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
        if is_registered(label) {
            found = true;
        } else {
            beside += label.len();
        }
        rest = next;
    }
    found && beside <= most
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
        assert!(REGISTERED.iter().all(|label| !speaks(label, 1)));
        for label in [b"_dmarcx".as_slice(), b"dmarc", b"_k3x9q0vz71bd", b"www"] {
            assert!(speaks(label, 1), "{label:?}");
        }
        assert!((1..).zip([b"de".as_slice(), b"7", b"", b"k3"]).all(|(short, label)| !speaks(label, short)));
        assert!(speaks(b"x9", 5), "many of them are a payload in small pieces");
    }

    #[test]
    fn registered_labels_are_found_anywhere() {
        assert!(is_registered_name(b"\x09selector1\x0a_domainkey", 12));
        assert!(is_registered_name(b"\x06_dmarc\x03www", 12));
        assert!(!is_registered_name(b"\x05dmarc\x03www", 12));
        assert!(!is_registered_name(b"", 12) && !is_registered_name(b"\x20_dm", 12));
        assert!(!is_registered_name(b"\x0dk3x9q0vz71bda\x04_tcp", 12), "a payload in front of one");
    }
}
