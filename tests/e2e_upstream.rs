//! The upstream side of the daemon, against upstreams that forge, fail, flood, or speak TLS.

mod daemon;

#[path = "e2e_upstream/bailiwick.rs"]
mod bailiwick;
#[path = "e2e_upstream/beyond.rs"]
mod beyond;
#[path = "e2e_upstream/cookies.rs"]
mod cookies;
#[path = "e2e_upstream/denials.rs"]
mod denials;
#[path = "e2e_upstream/dot.rs"]
mod dot;
#[path = "e2e_upstream/fake.rs"]
mod fake;
#[path = "e2e_upstream/flight.rs"]
mod flight;
#[path = "e2e_upstream/nat64.rs"]
mod nat64;
#[path = "e2e_upstream/privacy.rs"]
mod privacy;
#[path = "e2e_upstream/rides.rs"]
mod rides;
#[path = "e2e_upstream/server.rs"]
mod server;
#[path = "world/skip.rs"]
mod skip;
#[path = "e2e_upstream/stale.rs"]
mod stale;
