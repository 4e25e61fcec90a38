//! The lease journal as its reader sees it: who might reach what, and when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

/// A time in microseconds since the Unix epoch.
pub type Micros = i64;

/// One lease: from the moment the packet filter was told of it until the moment it had taken that it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// From.
    pub from: Micros,
    /// To.
    pub to: Micros,
}

/// What a journal tells.
#[derive(Debug, Default)]
pub struct Leases {
    /// By session address, destination and port (`tcp/80`).
    all: HashMap<(IpAddr, IpAddr, String), Vec<Lease>>,
    /// When the packet filter had been put back.
    pub restored: Vec<Micros>,
    /// Lines that were lost.
    pub lost: u64,
    /// Lines of each kind.
    pub lines: HashMap<String, usize>,
}

impl Leases {
    /// Reads a whole journal.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the lease journal");
        let mut leases = Self::default();
        for line in text.lines() {
            leases.line(&serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
        }
        leases
    }

    fn line(&mut self, line: &Value) {
        assert_eq!(line["schema"], 1, "{line}");
        let time: jiff::Timestamp = line["time"].as_str().expect("a time").parse().expect("RFC 3339");
        let from = time.as_microsecond();
        let taken = from + line["took_us"].as_i64().expect("took_us");
        let op = line["order"].as_str().or(line["fact"].as_str()).expect("an order or a fact").to_owned();
        let session = || address(&line["session"]);
        self.lost += line["lost"].as_u64().unwrap_or(0);
        match op.as_str() {
            // Without another process in between, a pin that failed was never open.
            "pin" if line.get("error").is_some() => {}
            "pin" => {
                let to = taken + 1000 * line["lifetime_ms"].as_i64().expect("lifetime_ms");
                for destination in line["destinations"].as_array().expect("destinations") {
                    for port in words(&line["ports"]) {
                        self.open((session(), address(destination), port), Lease { from, to });
                    }
                }
            }
            "unpin" => {
                let gone: Vec<_> = line["destinations"].as_array().expect("destinations").iter().map(address).collect();
                self.close(session(), taken, |destination, _| gone.contains(&destination));
            }
            "renew" => {
                let keep: Vec<(IpAddr, Vec<String>)> =
                    line["keep"].as_array().expect("keep").iter().map(kept).collect();
                self.close(session(), taken, |destination, port| {
                    !keep.iter().any(|(to, ports)| *to == destination && ports.iter().any(|p| p == port || p == "any"))
                });
            }
            "quarantine" | "remove" => self.close(session(), taken, |_, _| true),
            "restored" => {
                self.restored.push(taken);
                // What is left of a lease is reckoned when it is written and counts from when it was taken, as a pin's does.
                let living = self.all.values_mut().flatten().filter(|lease| lease.to > from);
                living.for_each(|lease| lease.to += taken - from);
            }
            _ => {}
        }
        *self.lines.entry(op).or_default() += 1;
    }

    fn open(&mut self, key: (IpAddr, IpAddr, String), lease: Lease) {
        let leases = self.all.entry(key).or_default();
        match leases.last_mut() {
            Some(last) if last.to >= lease.from => last.to = last.to.max(lease.to),
            _ => leases.push(lease),
        }
    }

    fn close(&mut self, session: IpAddr, at: Micros, goes: impl Fn(IpAddr, &str) -> bool) {
        for ((of, destination, port), leases) in &mut self.all {
            if *of == session
                && goes(*destination, port)
                && let Some(last) = leases.last_mut()
            {
                last.to = last.to.min(at);
            }
        }
    }

    /// Whether a lease lived within `slack` of this moment.
    pub fn live(&self, session: IpAddr, destination: IpAddr, port: &str, at: Micros, slack: Micros) -> bool {
        let leases = self.all.get(&(session, destination, port.to_owned()));
        leases.is_some_and(|all| all.iter().any(|lease| lease.from <= at + slack && at <= lease.to + slack))
    }

    /// What there was of such a lease nearest to a moment, and the last time before it that the packet filter was put back.
    pub fn nearest(&self, session: IpAddr, destination: IpAddr, port: &str, at: Micros) -> String {
        let leases = self.all.get(&(session, destination, port.to_owned())).map_or(&[][..], Vec::as_slice);
        let near = leases.iter().min_by_key(|lease| (at - lease.to).abs().min((lease.from - at).abs()));
        let ago = |then: Micros| format!("{} us before", at - then);
        let lease = near.map_or("none ever".into(), |lease| format!("from {} to {}", ago(lease.from), ago(lease.to)));
        let restored = self.restored.iter().copied().filter(|restored| *restored <= at).max();
        format!("lease {lease}; put back {}", restored.map_or("never".into(), ago))
    }

    /// Leases in all.
    pub fn count(&self) -> usize {
        self.all.values().map(Vec::len).sum()
    }
}

fn kept(kept: &Value) -> (IpAddr, Vec<String>) {
    let ports = kept["ports"].as_array().expect("ports").iter().flat_map(words);
    (address(&kept["destination"]), ports.collect())
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

fn address(text: &Value) -> IpAddr {
    text.as_str().expect("an address").parse().expect("an address")
}
