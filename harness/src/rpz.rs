//! Response policy zones as text, and what they answer.

use std::net::IpAddr;
use std::sync::Arc;

use staunch::answer::{AnswerRules, Asked, vet_behind};
use staunch::lists::HashKey;
use staunch::model::{Ede, Qtype};
use staunch::rpz::{Errors, Override, Settings, Snapshot, Target, Zone, parse};
use staunch_scoring::NameBuf;

/// What the zone's records live for at most, seconds.
const MAX_TTL: u32 = 60;

/// Takes a zone's text, its own name being `rpz.test`.
pub fn run(octets: &[u8]) {
    let (origin, key) = (NameBuf::from_text("rpz.test").expect("a name"), HashKey::from_random([7; 24]));
    let strict = parse(octets, origin.as_ref(), "zone", &key, false);
    let lenient = parse(octets, origin.as_ref(), "zone", &key, true);
    let rules = match (strict, lenient) {
        (Ok(strict), Ok(lenient)) => {
            assert!(lenient.left_out() == 0 && lenient.len() == strict.len(), "what is good is left out by nobody");
            strict
        }
        (Err(errors), Ok(lenient)) => {
            assert!(lenient.left_out() > 0 && errors.first.iter().all(|problem| problem.unsupported), "{errors}");
            lenient
        }
        (Ok(_), Err(errors)) => panic!("refused by the lenient reader alone: {errors}"),
        (Err(errors), Err(_)) => {
            assert!(!errors.is_empty() && errors.first.len() <= Errors::KEPT);
            return;
        }
    };
    assert!(rules.octets() <= 64 * octets.len() + 4096, "{} octets of {}", rules.octets(), octets.len());
    let settings = Settings {
        id: "rpz.test".into(),
        policy: Override::Given,
        log: true,
        trusted: false,
        max_ttl: MAX_TTL,
        ede: Ede::Blocked,
    };
    let zones = Snapshot::new([Zone { settings, rules: Arc::new(rules), counters: Arc::default(), awaited: false }]);
    let answers = AnswerRules::default();
    let client: IpAddr = [192, 0, 2, 1].into();
    let words = octets.split(|b| b.is_ascii_whitespace()).filter_map(|word| std::str::from_utf8(word).ok()).take(64);
    for name in words.filter_map(|word| NameBuf::from_text(word).ok()) {
        let name = name.as_ref();
        let Some(hit) = zones.question(name, client).hit else { continue };
        if let Target::Name(target, ttl) = hit.target(name) {
            assert!(target.as_ref().wire_len() <= 255 && ttl <= MAX_TTL);
        }
        for qtype in [Qtype::A, Qtype::AAAA, Qtype::TXT, Qtype::HTTPS, Qtype(999)] {
            let (response, _) = hit.response(name, qtype);
            let asked = Asked { qname: name, qtype, dnssec_ok: false };
            if let Ok(vetted) = vet_behind(&response, &[], asked, &answers) {
                assert!(
                    vetted.answer.ttl <= answers.max_ttl
                        && vetted.answer.pins.iter().all(|ip| staunch::answer::is_public(*ip))
                );
            }
        }
    }
}
