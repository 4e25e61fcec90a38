//! A publisher of one list that sends what it is told to, true or broken.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::daemon::ENFORCE;

/// What a publisher sends.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The list, with the word for its version.
    List(Vec<u8>, &'static str),
    Status(u16),
    Redirect(String),
    /// More octets are announced than sent.
    Cut(Vec<u8>),
    /// Without an announced length, for ever.
    Endless,
    /// In an encoding that nobody asked for.
    Zipped,
    /// Nothing, for longer than anybody waits.
    Silent,
}

/// A server of one list.
pub struct Publisher {
    pub address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Publisher {
    pub fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("address");
        let publisher = Self { address, reply: Arc::new(Mutex::new(reply)), heads: Arc::default() };
        let (reply, heads) = (publisher.reply.clone(), publisher.heads.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (reply, heads) = (reply.clone(), heads.clone());
                std::thread::spawn(move || serve(stream, &reply, &heads));
            }
        });
        publisher
    }

    pub fn says(&self, reply: Reply) {
        *self.reply.lock().expect("sound") = reply;
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("sound").clone()
    }

    pub fn config(&self, settings: &str) -> String {
        let list = "\n[[list]]\nid = \"feed\"\ncategory = \"malware\"\ntimeout_seconds = 2\nmax_mib = 1\n";
        format!("{ENFORCE}{list}url = \"http://{}/list.txt?key=secret\"\n{settings}", self.address)
    }
}

fn serve(mut stream: TcpStream, reply: &Mutex<Reply>, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).is_ok_and(|n| n == 1) {
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).expect("ASCII");
    heads.lock().expect("sound").push(head.clone());
    let reply = reply.lock().expect("sound").clone();
    let mut send = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    match reply {
        Reply::List(_, etag) if head.contains(&format!("\"{etag}\"")) => send("304 Not Modified", "", b""),
        Reply::List(body, etag) => {
            let date = "Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT";
            send("200 OK", &format!("ETag: \"{etag}\"\r\n{date}\r\nContent-Length: {}\r\n", body.len()), &body);
        }
        Reply::Status(status) => send(&format!("{status} No"), "Content-Length: 0\r\n", b""),
        // A path that ends so is answered by a list, so that who follows gets one.
        Reply::Redirect(_) if head.starts_with("GET /moved") => {
            send("200 OK", "", b"moved.example\nbad0.example\nbad1.example\nbad2.example\nbad3.example\nbad4.example\n")
        }
        Reply::Redirect(to) => send("302 Found", &format!("Location: {to}\r\nContent-Length: 0\r\n"), b""),
        Reply::Cut(body) => send("200 OK", &format!("Content-Length: {}\r\n", body.len() + 1000), &body),
        Reply::Endless => {
            send("200 OK", "", b"");
            while stream.write_all(b"endless.example\n").is_ok() {}
        }
        Reply::Zipped => send("200 OK", "Content-Encoding: gzip\r\nContent-Length: 3\r\n", b"\x1f\x8b\x08"),
        Reply::Silent => std::thread::sleep(Duration::from_secs(20)),
    }
}
