//! What of an unbound configuration refuses names.

use std::net::IpAddr;

use super::{Found, leads_nowhere, list_name, refuse_registry};
use crate::lists::form::Reach;
use crate::lists::skip::SkipReason;

pub(super) fn read_line<'l>(
    line: &'l str,
    mut sink: impl FnMut(Found<'_, 'l>) -> Result<(), SkipReason>,
) -> Result<(), SkipReason> {
    let (setting, rest) = line.split_once(':').ok_or(SkipReason::Directive)?;
    let (first, rest) = word(rest);
    match setting.trim_end() {
        // The clause that the others stand in.
        "server" if first.is_empty() => Ok(()),
        "local-zone" => {
            let (kind, _) = word(rest);
            let exception = match kind {
                "deny" | "refuse" | "static" | "redirect" | "block_a" | "inform_deny" | "inform_redirect"
                | "always_deny" | "always_refuse" | "always_nxdomain" | "always_nodata" | "always_null" => false,
                "transparent" | "typetransparent" | "always_transparent" => true,
                _ => return Err(SkipReason::ZoneType),
            };
            if first == "." {
                return Err(SkipReason::Everything);
            }
            let name = list_name(first)?;
            if !exception {
                refuse_registry(name.name.as_ref())?;
            }
            sink(name.longest(Reach::AtOrBelow, exception))
        }
        "local-data" => {
            // A record: name, perhaps TTL and class, type, data.
            let mut fields = first.split_ascii_whitespace();
            let owner = fields.next().unwrap_or_default();
            let mut fields = fields
                .skip_while(|field| field.eq_ignore_ascii_case("IN") || field.bytes().all(|b| b.is_ascii_digit()));
            let host = fields.next().is_some_and(|t| t.eq_ignore_ascii_case("A") || t.eq_ignore_ascii_case("AAAA"));
            let address = fields.next().and_then(|data| data.parse::<IpAddr>().ok());
            if !host || !address.is_some_and(leads_nowhere) {
                return Err(SkipReason::Rewrite);
            }
            sink(list_name(owner)?.denied(Reach::Exact))
        }
        _ => Err(SkipReason::Directive),
    }
}

/// The next word, which may stand in quotes, and what follows.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            return rest.split_once(quote).unwrap_or((rest, ""));
        }
    }
    text.split_once([' ', '\t']).unwrap_or((text, ""))
}
