//! Web servers outside, the SOC's receiver, and the attacker's file drop.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ns::Ns;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// When.
    pub at: Instant,
    /// Address it was sent to.
    pub to: IpAddr,
    /// `GET`, `POST`.
    pub method: String,
    /// Path.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

/// Web servers on every address of the internet: `/` is a page, `/endless` a download that does not end by itself.
#[derive(Clone)]
pub struct Web {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    /// Listens on all addresses of `ns`, both families.
    pub fn start(ns: &Ns, port: u16) -> Self {
        let web = Self { requests: Arc::default() };
        let listener = listen(ns, SocketAddr::from(([0u16; 8], port)));
        let requests = web.requests.clone();
        ns.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(stream, requests.clone()));
            }
        });
        web
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<Mutex<Vec<Request>>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let page = format!("a page from {}\n", request.to);
    let endless = request.path == "/endless";
    requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(request);
    if !endless {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
        let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
        return;
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
    // Four minutes at most, so that a forgotten client cannot keep it for ever.
    for _ in 0..12_000 {
        if stream.write_all(&[b'.'; 1000]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How the SOC's receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Takes everything.
    Up,
    /// Answers 503 and takes nothing.
    Busy,
    /// Nothing listens.
    Down,
}

/// The SOC's webhook receiver; keeps what it took.
pub struct Soc {
    requests: Arc<Mutex<Vec<Request>>>,
    health: watch::Sender<Health>,
    /// Where it listens.
    pub url: String,
}

impl Soc {
    /// Starts it up and well.
    pub fn start(ns: &Ns, address: SocketAddr) -> Self {
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (health, mut seen) = watch::channel(Health::Up);
        let kept = requests.clone();
        let first = listen(ns, address);
        ns.spawn(async move {
            let mut listener = Some(first);
            loop {
                let now = *seen.borrow_and_update();
                if now == Health::Down {
                    listener = None;
                    if seen.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                let open = match listener.take() {
                    Some(open) => open,
                    None => match TcpListener::bind(address).await {
                        Ok(open) => open,
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        }
                    },
                };
                tokio::select! {
                    changed = seen.changed() => if changed.is_err() { return },
                    accepted = open.accept() => if let Ok((stream, _)) = accepted {
                        tokio::spawn(receive(stream, now, kept.clone()));
                    },
                }
                listener = Some(open);
            }
        });
        Self { requests, health, url: format!("http://{address}/alerts") }
    }

    /// Changes how it behaves from now on.
    pub fn set(&self, health: Health) {
        let _ = self.health.send(health);
    }

    /// Requests it took (answered 200), in order.
    pub fn taken(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Bodies it took that are JSON objects; a CloudEvents envelope is opened.
    pub fn alerts(&self) -> Vec<serde_json::Value> {
        let open = |request: Request| {
            let body: serde_json::Value = serde_json::from_slice(&request.body).ok()?;
            Some(if body.get("specversion").is_some() { body.get("data")?.clone() } else { body })
        };
        self.taken().into_iter().filter_map(open).collect()
    }
}

async fn receive(mut stream: TcpStream, health: Health, requests: Arc<Mutex<Vec<Request>>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let status = match health {
        Health::Up => "200 OK",
        Health::Busy | Health::Down => "503 Service Unavailable",
    };
    if health == Health::Up {
        requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(request);
    }
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(reply.as_bytes()).await;
}

/// The attacker's file drop: counts and keeps what arrives, and says `GOT` after each whole file.
#[derive(Clone)]
pub struct Drop {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Drop {
    /// Listens on all addresses of `ns` for files of `size` octets.
    pub fn start(ns: &Ns, port: u16, size: usize) -> Self {
        let drop = Self { bytes: Arc::default() };
        let listener = listen(ns, SocketAddr::from(([0u16; 8], port)));
        let bytes = drop.bytes.clone();
        ns.spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                let bytes = bytes.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                        let total = {
                            let mut kept = bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            kept.extend(&buffer[..n]);
                            kept.len()
                        };
                        if total >= size {
                            let _ = stream.write_all(b"GOT").await;
                        }
                    }
                });
            }
        });
        drop
    }

    /// What has arrived.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Fetches a page: status line and body together.
pub async fn fetch(to: SocketAddr, host: &str, path: &str) -> std::io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        Ok(page)
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

fn listen(ns: &Ns, address: SocketAddr) -> TcpListener {
    ns.run(async move { TcpListener::bind(address).await.unwrap_or_else(|e| panic!("listen on {address}: {e}")) })
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let to = match stream.local_addr().ok()?.ip() {
        IpAddr::V6(a) => a.to_canonical(),
        a => a,
    };
    let mut raw = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.ok()?.ok()?;
        raw.extend(&buffer[..n]);
        let head = raw.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&raw[..end]).into_owned();
            let mut lines = text.split("\r\n");
            let mut first = lines.next()?.split(' ');
            let headers: HashMap<String, String> = lines
                .filter_map(|l| l.split_once(':'))
                .map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned()))
                .collect();
            let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            if raw.len() >= end + 4 + length {
                return Some(Request {
                    at: Instant::now(),
                    to,
                    method: first.next()?.to_owned(),
                    path: first.next()?.to_owned(),
                    headers,
                    body: raw[end + 4..end + 4 + length].to_vec(),
                });
            }
        }
        if n == 0 || raw.len() > 1 << 20 {
            return None;
        }
    }
}
