//! One element in the packet filter: what a lease opens of an address.

use std::fmt;

use super::Port;

/// What one lease opens of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Opening {
    /// Every TCP and UDP port.
    Any,
    /// [`Opening::WEB`] together: what nearly every lease is for, in one element of the packet filter instead of three.
    Web,
    /// One port.
    One(Port),
}

impl Opening {
    /// What opens a web page or an API over it, HTTP/3 included (RFC 9110, RFC 9114).
    pub const WEB: [Port; 3] = [Port::tcp(80), Port::tcp(443), Port::udp(443)];

    /// Whether `other` is open where this is.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (Self::Web, Self::Web) => true,
            (Self::Web, Self::One(port)) => Self::WEB.contains(&port),
            (Self::One(port), Self::One(other)) => port == other,
            (_, Self::Any) | (Self::One(_), Self::Web) => false,
        }
    }

    /// Every opening that a flow to `port` may pass by.
    pub fn of(port: Port) -> impl Iterator<Item = Self> {
        [Self::Web, Self::One(port), Self::Any].into_iter().filter(move |opening| opening.covers(Self::One(port)))
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Web => f.write_str("web"),
            Self::One(port) => fmt::Display::fmt(port, f),
        }
    }
}

impl serde::Serialize for Opening {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Opening {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Opening;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`any`, `web` or a port such as `tcp/443`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Opening, E> {
                match text {
                    "any" => Ok(Opening::Any),
                    "web" => Ok(Opening::Web),
                    port => Port::from_text(port)
                        .map(Opening::One)
                        .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        d.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ports;
    use super::*;

    #[test]
    fn the_ports_of_a_page_are_one_opening() {
        let openings = |ports: &Ports| {
            let all: Vec<_> = ports.openings().collect();
            assert_eq!(all.len(), ports.opening_count(), "{ports}");
            all
        };
        let these = |ports: &[Port]| Ports::these(ports.iter().copied()).expect("a set");
        let (ssh, web) = (Port::tcp(22), Opening::WEB);
        assert_eq!(openings(&Ports::Any), [Opening::Any]);
        assert_eq!(openings(&Ports::web()), [Opening::Web]);
        assert_eq!(openings(&these(&[&web[..], &[ssh]].concat())), [Opening::Web, Opening::One(ssh)]);
        assert_eq!(openings(&these(&web[..2])), [Opening::One(web[0]), Opening::One(web[1])]);
        let (page, both) = (Ports::web(), these(&[&web[..], &[ssh]].concat()));
        assert!(page.stands_in(&both) && these(&[ssh]).stands_in(&both) && page.stands_in(&page));
        assert!(!these(&web[..2]).stands_in(&page) && !page.stands_in(&Ports::Any), "other elements");
    }

    #[test]
    fn an_opening_covers_what_is_open_by_it() {
        let [one, other] = [Port::tcp(443), Port::udp(80)].map(Opening::One);
        assert!(Opening::Any.covers(Opening::Web) && Opening::Any.covers(other) && Opening::Any.covers(Opening::Any));
        assert!(Opening::Web.covers(one) && Opening::Web.covers(Opening::Web) && one.covers(one));
        assert!(!Opening::Web.covers(other) && !Opening::Web.covers(Opening::Any));
        assert!(!one.covers(Opening::Web) && !one.covers(Opening::Any) && !one.covers(other));
        assert_eq!(Opening::of(Port::tcp(443)).collect::<Vec<_>>(), [Opening::Web, one, Opening::Any]);
        assert_eq!(Opening::of(Port::udp(80)).collect::<Vec<_>>(), [other, Opening::Any]);
    }

    #[test]
    fn openings_are_written_as_they_are_read() {
        for (opening, text) in [(Opening::Any, "any"), (Opening::Web, "web"), (Opening::One(Port::udp(53)), "udp/53")] {
            let written = serde_json::to_string(&opening).expect("written");
            assert_eq!(written, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Opening>(&written).expect("read"), opening);
        }
        let error = serde_json::from_str::<Opening>("\"tcp/0\"").expect_err("no port");
        assert!(error.to_string().contains("`any`, `web` or a port"), "{error}");
    }
}
