mod flows;
mod plan;
mod script;
mod standing;

use super::*;
use crate::range::IpRange;

/// Settings with one interface and nothing else said.
fn settings(interfaces: &[&str]) -> Settings {
    Settings {
        table: DEFAULT_TABLE.into(),
        service_table: "staunch".into(),
        mode: Mode::Enforce,
        interfaces: interfaces.iter().map(|name| name.parse().expect(name)).collect(),
        bridges: Vec::new(),
        binds: Vec::new(),
        resolvers: Vec::new(),
        refused: Vec::new(),
        sources: Vec::new(),
        dhcp: false,
    }
}

fn bind(text: &str) -> Bind {
    text.parse().expect(text)
}

fn bridge(text: &str) -> Bridge {
    text.parse().expect(text)
}

fn resolver(text: &str) -> Resolver {
    text.parse().expect(text)
}

fn range(text: &str) -> IpRange {
    IpRange::parse(text).expect(text)
}

fn planned(settings: Settings) -> Plan {
    Plan::new(settings).expect("a plan")
}
