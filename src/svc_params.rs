//! Parameters of SVCB and HTTPS records, as they leave the text of a zone.
//!
//! In text they may stand in any order and none twice (RFC 9460 section 2.1); in a message they stand by their numbers, and so
//! do those that are mandatory (sections 2.2 and 8). The library keeps the order of the text, and then cannot write it.
//!
//! Pure.

use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamKey, SvcParamValue};

/// Puts the parameters of such a record in the order of their numbers; others stay as they are.
///
/// # Errors
/// Which parameter is there twice.
pub fn put_in_order(data: &mut RData) -> Result<(), String> {
    let SVCB { svc_params, .. } = match data {
        RData::HTTPS(https) => &mut https.0,
        RData::SVCB(svcb) => svcb,
        _ => return Ok(()),
    };
    svc_params.sort_by_key(|(key, _)| u16::from(*key));
    none_twice(svc_params.iter().map(|(key, _)| *key))?;
    for (_, value) in svc_params {
        if let SvcParamValue::Mandatory(keys) = value {
            keys.0.sort_by_key(|key| u16::from(*key));
            none_twice(keys.0.iter().copied())?;
        }
    }
    Ok(())
}

fn none_twice(keys: impl Iterator<Item = SvcParamKey>) -> Result<(), String> {
    let mut before = None;
    for key in keys {
        let number = u16::from(key);
        if before.replace(number) == Some(number) {
            return Err(format!("the parameter `{key}` is given twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;
    use hickory_proto::serialize::binary::BinEncodable;

    use super::*;

    #[test]
    fn parameters_stand_by_their_numbers_and_none_twice() {
        for (text, sound) in [
            ("1 . no-default-alpn alpn=h3", true),
            ("1 . ipv6hint=2001:db8::1 port=443 alpn=h2,h3 mandatory=port,alpn", true),
            ("1 . key65300=x key65280=y", true),
            ("0 www.example.", true),
            ("1 . alpn=h2 alpn=h3", false),
            ("1 . port=1 alpn=h2 port=1", false),
            ("1 . key1=x alpn=h2", false),
            ("1 . alpn=h2 mandatory=alpn,alpn", false),
        ] {
            for rtype in [RecordType::HTTPS, RecordType::SVCB] {
                let mut data = RData::try_from_str(rtype, text).expect(text);
                let outcome = put_in_order(&mut data);
                assert_eq!(outcome.is_ok(), sound, "{text}: {outcome:?}");
                assert!(outcome.is_err() || data.to_bytes().is_ok(), "{text}");
            }
        }
    }
}
