//! What registries say: answers of RDAP servers, the bootstrap file, and URLs that are told to us.

use staunch::rdap::{BaseUrl, Bootstrap, redirect, registered};
use staunch_scoring::NameBuf;

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

/// Takes an octet that says what it is, and that.
pub fn run(octets: &[u8]) {
    let Some((kind, body)) = octets.split_first() else { return };
    let domain = NameBuf::from_text("shop.example").expect("a name");
    match kind % 4 {
        0 | 1 => {
            if let Ok(Some(at)) = registered(body, domain.as_ref(), NOW) {
                assert!(at <= NOW + DAY, "registered in days to come");
                let other = NameBuf::from_text("other.test").expect("a name");
                // A date is for the domain that is named, or for whoever asked where none is.
                assert!(registered(body, other.as_ref(), NOW).is_err() || !names_a_domain(body));
            }
        }
        2 => {
            if let Ok(bootstrap) = Bootstrap::parse(body) {
                let again = Bootstrap::parse(body).expect("the same");
                assert_eq!(bootstrap, again);
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(body) else { return };
            if let Ok(url) = BaseUrl::parse(text) {
                assert!(url.to_string().ends_with('/'));
                assert_eq!(BaseUrl::parse(&url.to_string()), Ok(url.clone()), "written and read again");
                assert!(url.domain(domain.as_ref()).is_none_or(|whole| whole.ends_with("/domain/shop.example")));
            }
            for from in ["https://rdap.example/domain/shop.example", "http://rdap.example:8080/x"] {
                let Ok(to) = redirect(from, text) else { continue };
                let secure = to.to_ascii_lowercase().starts_with("https://");
                assert!(secure || from.starts_with("http:"), "from {from} to {to}");
                assert!(
                    !to.contains(['#', ' ', '\r', '\n'])
                        && !to.split(['/', '?']).nth(2).unwrap_or_default().contains('@'),
                    "{to}"
                );
                assert_eq!(redirect(from, &to), Ok(to.clone()), "read again");
            }
        }
    }
}

fn names_a_domain(body: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    value.is_some_and(|value| value.get("ldhName").is_some_and(serde_json::Value::is_string))
}
