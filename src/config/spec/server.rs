//! A server to ask: text alone, or a table where more is to be said.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// `"192.0.2.53"`, or `{ server = "tls://192.0.2.53#dns.example", pins = [...] }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpstreamServer {
    /// Address or name, with or without port, after `udp://` (the default), `tcp://` or `tls://`; with TLS the name in the
    /// certificate behind `#`.
    pub server: String,
    /// Roots in PEM that the certificate must be issued by. Default: those that browsers trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// SHA-256 of public keys in Base64; the certificate's must be one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// Whether letter case is drawn for datagrams, where the server keeps it. Default: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix_case: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    server: String,
    ca_file: Option<String>,
    #[serde(default)]
    pins: Vec<String>,
    mix_case: Option<bool>,
}

impl<'de> Deserialize<'de> for UpstreamServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = UpstreamServer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server as text, or a table with `server`")
            }

            fn visit_str<E>(self, text: &str) -> Result<UpstreamServer, E> {
                Ok(UpstreamServer { server: text.into(), ..UpstreamServer::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UpstreamServer, A::Error> {
                let Table { server, ca_file, pins, mix_case } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(UpstreamServer { server, ca_file, pins, mix_case })
            }
        }
        deserializer.deserialize_any(Either)
    }
}
