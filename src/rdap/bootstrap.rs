//! Which servers answer for a domain: the bootstrap registry (RFC 9224) read from a file.
//!
//! Pure: octets in, a table out. The file is the operator's copy of the registry's `dns.json`; it is never fetched.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use staunch_scoring::{NameBuf, NameRef};

use super::url::BaseUrl;

/// Most octets of a bootstrap file. The registry's own has about 100,000.
pub const MAX_OCTETS: u64 = 8 << 20;
/// Most services of a file; the registry's own has about 600.
const MAX_SERVICES: usize = 16_384;
/// Servers of one service that are used.
const MAX_SERVERS: usize = 4;

/// Why a bootstrap file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Not JSON, or not the shape of RFC 9224 section 3.
    #[error("line {line}: not a bootstrap file (RFC 9224): {what}")]
    Shape {
        /// Where, from 1.
        line: usize,
        /// What the reader says.
        what: String,
    },
    /// Another version than 1.0.
    #[error("version `{0}` is not known; RFC 9224 has \"1.0\"")]
    Version(String),
    /// One of the services is not a list of names and a list of URLs.
    #[error("service {0} is not a list of names and a list of URLs")]
    Service(usize),
    /// An entry is no domain name.
    #[error("service {service}: `{name}` is not a domain name")]
    Name {
        /// Which, from 1.
        service: usize,
        /// The entry, escaped.
        name: String,
    },
    /// No URL of a service can be used.
    #[error("service {service}: `{url}`: {why}")]
    Url {
        /// Which, from 1.
        service: usize,
        /// The last URL that was refused, escaped.
        url: String,
        /// Why.
        why: &'static str,
    },
    /// Too many services.
    #[error("more than {MAX_SERVICES} services")]
    TooLarge,
    /// None at all.
    #[error("no services")]
    Empty,
}

/// A bootstrap file, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Service by entry, in wire form.
    entries: HashMap<Box<[u8]>, usize>,
    /// URLs of each service: those of https alone where there is one.
    services: Vec<Vec<BaseUrl>>,
    /// Day of publication, as the file says.
    publication: Option<String>,
}

#[derive(Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    publication: Option<String>,
    services: Vec<Value>,
}

impl Bootstrap {
    /// Reads a file. Members that RFC 9224 does not name are passed over, as it asks.
    ///
    /// # Errors
    /// [`BootstrapError`]; one bad service refuses the file, since its domains would silently have no age.
    pub fn parse(octets: &[u8]) -> Result<Self, BootstrapError> {
        let file: File = serde_json::from_slice(octets)
            .map_err(|error| BootstrapError::Shape { line: error.line(), what: error.to_string() })?;
        if file.version != "1.0" {
            return Err(BootstrapError::Version(file.version.escape_debug().to_string()));
        }
        if file.services.len() > MAX_SERVICES {
            return Err(BootstrapError::TooLarge);
        }
        let mut all = Self { entries: HashMap::new(), services: Vec::new(), publication: file.publication };
        for (service, written) in (1..).zip(&file.services) {
            let (names, urls) = read_service(written).ok_or(BootstrapError::Service(service))?;
            let at = all.services.len();
            all.services.push(read_urls(service, &urls)?);
            for name in names {
                let read = NameBuf::from_text(name).ok().filter(|_| name.is_ascii());
                let read =
                    read.ok_or_else(|| BootstrapError::Name { service, name: name.escape_debug().to_string() })?;
                // Where two services name one entry the first stays: the file is in the registry's order.
                all.entries.entry(read.as_ref().as_wire().into()).or_insert(at);
            }
        }
        if all.services.is_empty() { Err(BootstrapError::Empty) } else { Ok(all) }
    }

    /// Number of the service whose entry matches most labels of `domain` (RFC 9224 section 4); `None` where no registry
    /// answers for it.
    pub fn service(&self, domain: NameRef<'_>) -> Option<usize> {
        domain.ancestors().find_map(|suffix| self.entries.get(suffix.as_wire()).copied())
    }

    /// URLs of every service, in the file's order. Where one is https none of its are http: whoever keeps us from the one would
    /// be asked in the clear otherwise (RFC 9224 section 3 prefers https).
    pub fn services(&self) -> &[Vec<BaseUrl>] {
        &self.services
    }

    /// Entries, such as top-level domains.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no domain can be asked for.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the file was published, as it says.
    pub fn publication(&self) -> Option<&str> {
        self.publication.as_deref()
    }

    /// Services that have no https URL: what they answer can be changed on the way.
    pub fn insecure(&self) -> usize {
        self.services.iter().filter(|urls| urls.iter().all(|url| !url.is_https())).count()
    }
}

/// Names and URLs of a service. Further elements are passed over.
fn read_service(written: &Value) -> Option<(Vec<&str>, Vec<&str>)> {
    let parts = written.as_array()?;
    Some((strings(parts.first()?)?, strings(parts.get(1)?)?))
}

fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn read_urls(service: usize, written: &[&str]) -> Result<Vec<BaseUrl>, BootstrapError> {
    let mut urls = Vec::new();
    let mut refused = ("", "the service has no URL");
    for text in written {
        match BaseUrl::parse(text) {
            Ok(url) => urls.push(url),
            Err(why) => refused = (text, why),
        }
    }
    if urls.iter().any(BaseUrl::is_https) {
        urls.retain(BaseUrl::is_https);
    }
    urls.truncate(MAX_SERVERS);
    let (url, why) = refused;
    if urls.is_empty() {
        return Err(BootstrapError::Url { service, url: url.escape_debug().to_string(), why });
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(services: &str) -> Vec<u8> {
        format!(r#"{{"version":"1.0","publication":"2026-11-01T00:00:00Z","description":"x","services":{services}}}"#)
            .into_bytes()
    }

    fn servers(bootstrap: &Bootstrap, domain: &str) -> Option<Vec<String>> {
        let service = bootstrap.service(NameBuf::from_text(domain).unwrap().as_ref())?;
        Some(bootstrap.services()[service].iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_longest_match_answers_and_where_there_is_https_nothing_else_is_asked() {
        let octets = file(
            r#"[[["example","TEST"],["http://rdap.example.net/","https://rdap.example.net/v1"]],
                [["co.example"],["https://co.example.org/"],{"later":"versions"}],
                [["xn--fiqs8s"],["gopher://x/","http://only.example.org/rdap/"]]]"#,
        );
        let bootstrap = Bootstrap::parse(&octets).expect("a file");
        assert_eq!((bootstrap.len(), bootstrap.insecure()), (4, 1));
        assert_eq!(bootstrap.publication(), Some("2026-11-01T00:00:00Z"));
        let secret = ["https://rdap.example.net/v1/".to_owned()];
        assert_eq!(servers(&bootstrap, "shop.example").as_deref(), Some(&secret[..]));
        assert_eq!(servers(&bootstrap, "a.b.test").as_deref(), Some(&secret[..]));
        assert_eq!(servers(&bootstrap, "shop.co.example"), Some(vec!["https://co.example.org/".into()]));
        assert_eq!(servers(&bootstrap, "x.xn--fiqs8s"), Some(vec!["http://only.example.org/rdap/".into()]));
        assert_eq!(servers(&bootstrap, "notexample"), None, "whole labels only");
        assert_eq!(servers(&bootstrap, "x.invalid"), None);
    }

    #[test]
    fn an_entry_for_the_root_answers_for_the_rest() {
        let octets = file(r#"[[["com"],["https://a.example/"]],[[""],["https://b.example/"]]]"#);
        let bootstrap = Bootstrap::parse(&octets).expect("a file");
        assert_eq!(servers(&bootstrap, "x.net"), Some(vec!["https://b.example/".into()]));
        assert_eq!(servers(&bootstrap, "x.com"), Some(vec!["https://a.example/".into()]));
    }

    #[test]
    fn what_is_no_bootstrap_file_is_refused_with_its_place() {
        let error = |octets: &[u8]| Bootstrap::parse(octets).expect_err("refused").to_string();
        assert!(error(b"{\n\"version\": \"1.0\",\n]").starts_with("line 3: not a bootstrap file"));
        assert!(error(b"<html>").contains("line 1"));
        assert!(error(br#"{"version":"1.0"}"#).contains("services"));
        assert!(error(br#"{"version":"2.0","services":[]}"#).contains("`2.0`"));
        assert_eq!(error(&file("[]")), "no services");
        assert_eq!(error(&file("[[[\"com\"]]]")), "service 1 is not a list of names and a list of URLs");
        assert_eq!(
            error(&file("[[[7],[\"https://x.example/\"]]]")),
            "service 1 is not a list of names and a list of URLs"
        );
        assert!(error(&file("[[[\"a..b\"],[\"https://x.example/\"]]]")).contains("`a..b`"));
        assert!(error(&file("[[[\"com\"],[\"ftp://x.example/\"]]]")).contains("`ftp://x.example/`"));
        assert!(error(&file("[[[\"com\"],[]]]")).contains("no URL"));
    }
}
