//! URLs of look-ups: `<base>domain/<name>` (RFC 9082 section 3.1.3), and where redirects may lead (RFC 7480 section
//! 5.2).
//!
//! Pure. The name that goes into a URL is made of letters, digits and hyphens alone, so nothing needs an escape and
//! nothing but a registrable domain can be written here.

use std::fmt;

use staunch_scoring::NameRef;
use ureq::http::Uri;

/// Longest URL that is used, octets.
const MAX_URL: usize = 1024;

/// A server's base URL: `http` or `https`, a host, a path that ends in `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    text: String,
    authority: String,
    https: bool,
}

impl BaseUrl {
    /// Reads one. A missing slash at the end is added.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri = read(text)?;
        if uri.query().is_some() {
            return Err("a base URL has no query");
        }
        let slash = if text.ends_with('/') { "" } else { "/" };
        Ok(Self { text: format!("{text}{slash}"), authority: authority(&uri), https: is_https(&uri) })
    }

    /// Whether answers come authenticated.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Scheme, host and port: what limits and pauses are kept for.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// URL of a domain's entry; `None` for a name that is no host name of at least two labels, or too long for a URL.
    pub fn domain(&self, domain: NameRef<'_>) -> Option<String> {
        let text = is_askable(domain).then(|| format!("{}domain/{domain}", self.text))?;
        (text.len() <= MAX_URL).then_some(text)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a name can be asked for: at least two labels, all of letters, digits and hyphens (A-labels are), and not
/// part of the address tree.
pub fn is_askable(domain: NameRef<'_>) -> bool {
    let host = |label: &[u8]| label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    domain.label_count() >= 2 && domain.labels().all(host) && domain.labels().last().is_some_and(|top| top != b"arpa")
}

/// Where a redirect from `from` leads: an absolute URL of the same scheme, or from http to https. What is relative (RFC 9110
/// section 10.2.2, RFC 3986 section 5.2) stays on the same server, unless it names another.
///
/// # Errors
/// Why it is not followed.
pub fn redirect(from: &str, location: &str) -> Result<String, &'static str> {
    let origin = read(from)?;
    // The fragment is never sent, and `Uri` would not take it.
    let location = location.split('#').next().unwrap_or_default();
    let target = if let Some(path) = location.strip_prefix("//") {
        format!("{}://{path}", scheme(&origin))
    } else if has_scheme(location) || location.is_empty() {
        location.to_owned()
    } else {
        let (path, query) = location.find('?').map_or((location, ""), |at| location.split_at(at));
        let (above, last) = origin.path().rsplit_once('/').unwrap_or_default();
        let path = match path {
            "" => format!("{above}/{last}"),
            absolute if absolute.starts_with('/') => without_dots(absolute),
            relative => without_dots(&format!("{above}/{relative}")),
        };
        format!("{}{path}{query}", authority(&origin))
    };
    let uri = read(&target)?;
    if is_https(&origin) && !is_https(&uri) { Err("a redirect from https to http") } else { Ok(target) }
}

/// Scheme, host and port of a URL, as [`BaseUrl::authority`] gives it.
pub fn authority_of(url: &str) -> Option<String> {
    read(url).ok().map(|uri| authority(&uri))
}

fn read(text: &str) -> Result<Uri, &'static str> {
    if text.len() > MAX_URL {
        return Err("the URL is too long");
    }
    let uri: Uri = text.parse().map_err(|_| "not a URL")?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("the URL carries a user name")
        }
        (Some("http" | "https"), Some(authority)) if !authority.host().is_empty() => Ok(uri),
        (Some("http" | "https"), _) => Err("the URL names no host"),
        _ => Err("the URL is neither http nor https"),
    }
}

fn has_scheme(reference: &str) -> bool {
    let before = reference.split_once(':').map(|(before, _)| before);
    before.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

/// A path with `.` and `..` carried out (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn scheme(uri: &Uri) -> &'static str {
    if is_https(uri) { "https" } else { "http" }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

fn authority(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 });
    format!("{}://{}:{port}", scheme(uri), uri.host().unwrap_or_default().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use staunch_scoring::{NameBuf, QName};

    use super::*;

    #[test]
    fn a_domain_becomes_a_path_segment() {
        for (base, url) in [
            ("https://rdap.example.net", "https://rdap.example.net/domain/shop.xn--fiqs8s"),
            ("https://rdap.example.net/v1/", "https://rdap.example.net/v1/domain/shop.xn--fiqs8s"),
            ("http://127.0.0.1:8080/rdap", "http://127.0.0.1:8080/rdap/domain/shop.xn--fiqs8s"),
        ] {
            let name = NameBuf::from_text("Shop.XN--fiqs8s").unwrap();
            assert_eq!(BaseUrl::parse(base).unwrap().domain(name.as_ref()).as_deref(), Some(url));
        }
        assert_eq!(BaseUrl::parse("https://RDAP.example:8443/x/").unwrap().authority(), "https://rdap.example:8443");
        for bad in
            ["", "rdap.example", "ftp://x.example/", "https://u@x.example/", "https:///x", "https://x.example/?a="]
        {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_but_a_host_name_is_written_into_a_url() {
        let base = BaseUrl::parse("https://rdap.example/").unwrap();
        for bad in [
            ".",
            "com",
            "a/b.example",
            "a\\.b.example",
            "a?b.example",
            "a%2f.example",
            "_x.example",
            "\\000.example",
            "1.in-addr.arpa",
        ] {
            let name = NameBuf::from_text(bad).unwrap();
            assert_eq!(base.domain(name.as_ref()), None, "{bad}");
        }
        let (name, _) = QName::read(b"\x03a\xffb\x07example\x00").unwrap();
        assert_eq!(base.domain(name.as_ref()), None);
    }

    #[test]
    fn redirects_stay_on_http_or_go_to_https() {
        let from = "http://a.example:81/rdap/domain/x.example";
        for (location, expected) in [
            ("/other/domain/x.example", Ok("http://a.example:81/other/domain/x.example")),
            ("https://b.example/domain/x.example#frag", Ok("https://b.example/domain/x.example")),
            ("http://b.example/x", Ok("http://b.example/x")),
            ("//b.example/x", Ok("http://b.example/x")),
            ("ftp://b.example/x", Err("the URL is neither http nor https")),
            ("http://u:p@b.example/", Err("the URL carries a user name")),
            ("javascript:alert(1)", Err("the URL is neither http nor https")),
            ("", Err("not a URL")),
            ("y.example", Ok("http://a.example:81/rdap/domain/y.example")),
            ("y.example?x=a/../b:c#frag", Ok("http://a.example:81/rdap/domain/y.example?x=a/../b:c")),
            ("./1.2/y", Ok("http://a.example:81/rdap/domain/1.2/y")),
            ("../y", Ok("http://a.example:81/rdap/y")),
            ("../../../../y/./z/..", Ok("http://a.example:81/y/")),
            ("/a/../b", Ok("http://a.example:81/b")),
            ("?x=1", Ok("http://a.example:81/rdap/domain/x.example?x=1")),
            ("b/c:d", Ok("http://a.example:81/rdap/domain/b/c:d")),
            ("b:c", Err("the URL is neither http nor https")),
        ] {
            let got = redirect(from, location);
            assert_eq!(got.as_deref().map_err(|why| *why), expected, "{location}");
        }
        assert_eq!(redirect("https://a.example?q", "good.txt").as_deref(), Ok("https://a.example:443/good.txt"));
        assert!(redirect("https://a.example/", "http://a.example/x").is_err(), "never back to plain text");
        assert!(redirect(from, &format!("https://b.example/{}", "x".repeat(2_000))).is_err());
    }
}
