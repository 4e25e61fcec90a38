//! Response policy zones at the wire: the real daemon beside Debian's BIND and unbound, as oracles and as a primary, in
//! namespaces of their own.

mod rpz {
    pub mod differential;
    pub mod over_tls;
    pub mod policy;
    pub mod servers;
    pub mod transfer;
}
mod world;
