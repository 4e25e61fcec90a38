//! Sockets of one file that cannot all be had: the service would load it and not start.

use std::net::{IpAddr, SocketAddr};

use super::Context;
use crate::config::document::Path;

/// A socket that the file asks for.
struct Socket {
    path: Path,
    field: &'static str,
    address: SocketAddr,
    /// Whether `[::]` takes IPv4 as well: those that serve questions do not.
    both_families: bool,
}

impl Socket {
    /// Whether the kernel gives one of them alone.
    fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (self.address.ip().to_canonical(), other.address.ip().to_canonical());
        let takes_in = |socket: &Self, ip: IpAddr| {
            let own = socket.address.ip();
            own.is_unspecified() && (own.is_ipv4() == ip.is_ipv4() || (own.is_ipv6() && socket.both_families))
        };
        let same = if one.is_ipv6() && two.is_ipv6() { self.address == other.address } else { one == two };
        self.address.port() == other.address.port() && (same || takes_in(self, two) || takes_in(other, one))
    }
}

impl Context<'_, '_> {
    /// Tells of addresses that are in each other's way, and of ports that nobody would know.
    pub(super) fn sockets(&mut self) {
        let section = Path::of("server");
        let server = &self.spec.server;
        let (listen, notify) = (section.key("listen"), section.key("notify_listen"));
        // What is told of is the later one: the page's address is a default mostly, and stands nowhere.
        let metrics = [(section.key("metrics"), "server.metrics", &server.metrics, false)];
        let listen = server.listen.iter().enumerate().map(|(i, text)| (listen.at(i), "server.listen", text, false));
        let notify =
            server.notify_listen.iter().enumerate().map(|(i, text)| (notify.at(i), "server.notify_listen", text, true));
        let written = metrics.into_iter().chain(listen).chain(notify);
        let mut sockets: Vec<Socket> = Vec::new();
        for (path, field, text, both_families) in written {
            // What is no address has been told of.
            let Ok(address) = text.parse::<SocketAddr>() else { continue };
            let socket = Socket { path, field, address, both_families };
            if address.port() == 0 {
                self.problems.warn(
                    &socket.path,
                    "port 0 stands for any free port, another one at every start",
                    "name the port that is to be asked: 53 mostly, for sandboxes",
                );
                continue;
            }
            if let Some(first) = sockets.iter().find(|first| first.overlaps(&socket)) {
                self.in_the_way(first, &socket);
            }
            sockets.push(socket);
        }
    }

    fn in_the_way(&mut self, first: &Socket, second: &Socket) {
        let Socket { path, field, address, .. } = second;
        let problem = match (first.address == *address, first.field == *field) {
            // The list of addresses served tells of these itself.
            (true, true) if *field == "server.listen" => return,
            (true, true) => format!("{address} stands here twice"),
            (true, false) => format!("{address} is the address of {}, too", first.field),
            (false, _) => format!("{address} and {} of {} cannot both be opened", first.address, first.field),
        };
        let remedy = match first.field {
            "server.metrics" => "use another port, or another for server.metrics, which may be \"off\"",
            _ if first.field == *field => "remove one of them: 0.0.0.0 and [::] take in every address of their kind",
            _ => "use another port for one of them, or an address that the other does not take in",
        };
        self.problems.error(path, problem, remedy);
    }
}
