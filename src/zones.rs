//! (temporary)
use staunch_scoring::{NameBuf, NameRef};
use std::net::{IpAddr, SocketAddr};
/// z
pub struct Zones;
impl Zones {
    /// z
    pub fn load(_: Vec<(NameBuf, std::path::PathBuf)>) -> Result<Self, std::io::Error> {
        Ok(Self)
    }
    /// z
    pub fn covers(&self, _: NameRef<'_>) -> bool {
        false
    }
    /// z
    pub async fn answer(&self, _: &[u8], _: SocketAddr, _: crate::model::Transport) -> (Vec<u8>, Vec<IpAddr>) {
        (Vec::new(), Vec::new())
    }
}
