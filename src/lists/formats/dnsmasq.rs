//! What of a dnsmasq configuration refuses names.

use std::net::IpAddr;

use super::{Found, each, leads_nowhere, list_name, refuse_registry};
use crate::lists::form::Reach;
use crate::lists::skip::SkipReason;

pub(super) fn read_line<'l>(
    line: &'l str,
    mut sink: impl FnMut(Found<'_, 'l>) -> Result<(), SkipReason>,
) -> Result<(), SkipReason> {
    // `#` is a remark behind any blank; elsewhere it is an address of its own.
    let is_remark = |pair: &[u8]| matches!(pair, [before, b'#'] if before.is_ascii_whitespace());
    let remark = line.as_bytes().windows(2).position(is_remark);
    let line = remark.and_then(|at| line.get(..at)).unwrap_or(line);
    let (setting, value) = line.split_once('=').ok_or(SkipReason::Directive)?;
    let is_address = match setting.trim() {
        "address" => true,
        "server" | "local" => false,
        _ => return Err(SkipReason::Directive),
    };
    let Some(names) = value.trim().strip_prefix('/') else {
        return Err(if is_address { SkipReason::Directive } else { SkipReason::Server });
    };
    let (names, target) = names.rsplit_once('/').ok_or(SkipReason::Directive)?;
    let exception = match target {
        "" => false,
        "#" => !is_address,
        _ if !is_address => return Err(SkipReason::Server),
        address if address.parse::<IpAddr>().is_ok_and(leads_nowhere) => false,
        _ => return Err(SkipReason::Rewrite),
    };
    each(names.split('/'), |word| {
        let (reach, word) = match word.strip_prefix("*.") {
            Some(below) => (Reach::Below, below),
            None => (Reach::AtOrBelow, word.strip_prefix('.').unwrap_or(word)),
        };
        match word {
            "#" | "" => return Err(SkipReason::Everything),
            _ if word.contains('*') => return Err(SkipReason::Pattern),
            _ => {}
        }
        let name = list_name(word)?;
        if !exception {
            refuse_registry(name.name.as_ref())?;
        }
        sink(name.longest(reach, exception))
    })
}
