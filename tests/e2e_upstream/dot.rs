//! TLS towards unbound, with a root that the test makes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};

use crate::daemon::port::free_port;
use crate::daemon::{Daemon, ENFORCE};
use crate::fake::{A, Answer, Fake, Reply, ask};
use crate::server::{Server, metric};

/// unbound that speaks TLS alone, on a port of its own.
struct Unbound {
    port: u16,
    dir: tempfile::TempDir,
    server: Option<Server>,
    /// Of its key, Base64.
    pin: String,
}

impl Unbound {
    fn start(name: &str) -> Option<Self> {
        Server::is_there("unbound")?;
        let dir = tempfile::tempdir().expect("directory");
        let root_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).expect("a root").pem();
        let issuer = Issuer::new(params, root_key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let shown = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let pin = BASE64_STANDARD.encode(Sha256::digest(key.subject_public_key_info()));
        let port = free_port();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("root.pem"), root).expect("written");
        std::fs::write(path("server.pem"), shown).expect("written");
        std::fs::write(path("server.key"), key.serialize_pem()).expect("written");
        let config = format!(
            "server:\n interface: 127.0.0.1@{port}\n tls-port: {port}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
             directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n num-threads: 1\n module-config: \"iterator\"\n \
             access-control: 127.0.0.0/8 allow\n tcp-idle-timeout: 700\n tls-service-key: \"{}\"\n tls-service-pem: \"{}\"\n \
             local-zone: \"site.example.\" redirect\n local-data: \"site.example. 300 IN A 203.0.113.5\"\n \
             local-zone: \".\" static\nremote-control:\n control-enable: no\n",
            dir.path().display(),
            path("server.key"),
            path("server.pem"),
        );
        std::fs::write(path("unbound.conf"), config).expect("written");
        let mut unbound = Self { port, dir, server: None, pin };
        unbound.run();
        Some(unbound)
    }

    fn run(&mut self) {
        let config = self.dir.path().join("unbound.conf");
        self.server = Some(Server::start("unbound", &["-d", "-c"], &config, self.port));
    }

    fn stop(&mut self) {
        self.server = None;
    }

    fn root(&self) -> String {
        self.dir.path().join("root.pem").display().to_string()
    }
}

fn is_true(answer: &Answer) -> bool {
    answer.addresses() == [IpAddr::from([203, 0, 113, 5])]
}

#[test]
fn questions_go_to_unbound_over_one_connection_that_is_resumed() {
    let Some(mut unbound) = Unbound::start("dns.example") else { return };
    let servers = format!(
        "servers = [{{ server = \"tls://127.0.0.1:{}#dns.example\", ca_file = \"{}\", pins = [\"{}\"] }}]",
        unbound.port,
        unbound.root(),
        unbound.pin,
    );
    let metrics = free_port();
    let daemon = Daemon::start_by(&servers, &format!("127.0.0.1:{metrics}"), ENFORCE);
    for n in 0..30 {
        let answer = ask(daemon.address, "127.0.0.1", &format!("n{n}.site.example"), A);
        assert!(is_true(&answer), "{n}: {answer:?}");
    }
    let read = |name| metric(metrics, name);
    let (handshakes, resumed) = (read("upstream_tls_handshakes_total"), read("upstream_tls_resumed_total"));
    println!("FIGURE: 30 questions over TLS, {handshakes} handshakes in full, {resumed} resumed");
    // A connection that unbound has closed meanwhile is opened again.
    assert!(handshakes <= 2.0 && handshakes + resumed < 15.0, "{handshakes} and {resumed}");
    // The server closes idle connections, and the session is taken up again.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(is_true(&ask(daemon.address, "127.0.0.1", "later.site.example", A)));
    assert_eq!(read("upstream_tls_handshakes_total"), handshakes);
    assert!(read("upstream_tls_resumed_total") > resumed);

    // Killed and started again: nobody waits long, and it is in use within moments.
    unbound.stop();
    let begun = Instant::now();
    let answer = ask(daemon.address, "127.0.0.1", "dead.site.example", A);
    assert_eq!(answer.rcode, 2, "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    unbound.run();
    let until = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while !is_true(&ask(daemon.address, "127.0.0.1", &format!("back{n}.site.example"), A)) {
        assert!(Instant::now() < until, "it is not asked again");
        std::thread::sleep(Duration::from_millis(100));
        n += 1;
    }
}

#[test]
fn who_cannot_prove_its_name_is_told_and_nobody_else_is_asked() {
    let Some(unbound) = Unbound::start("other.example") else { return };
    let at = format!("tls://127.0.0.1:{}", unbound.port);
    let root = unbound.root();
    let wrong_pin = BASE64_STANDARD.encode([7; 32]);
    let rows = [
        (format!("{{ server = \"{at}#dns.example\", ca_file = \"{root}\" }}"), "tls-wrong-name"),
        (format!("\"{at}#other.example\""), "tls-untrusted"),
        (
            format!("{{ server = \"{at}#other.example\", ca_file = \"{root}\", pins = [\"{wrong_pin}\"] }}"),
            "tls-wrong-key",
        ),
    ];
    for (server, kind) in rows {
        // A plain resolver at hand for another zone must not be asked either.
        let plain = Fake::start(|query| vec![Reply::to(query).answer(&query.name, A, &[203, 0, 113, 5]).done()]);
        let forward = format!(
            "[[forward]]\nzone = \"corp.example\"\nservers = [\"{}\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2099-01-01\"\n",
            plain.address
        );
        let daemon = Daemon::start_by(&format!("servers = [{server}]"), "off", &format!("{forward}{ENFORCE}"));
        let answer = ask(daemon.address, "127.0.0.1", "www.site.example", A);
        let told = answer.errors.first().cloned().unwrap_or_default();
        assert_eq!((answer.rcode, told.0), (2, 23), "{kind}: {answer:?}");
        assert!(told.1.contains(&format!("127.0.0.1:{} {kind}", unbound.port)), "{}", told.1);
        assert!(is_true(&ask(daemon.address, "127.0.0.1", "www.corp.example", A)), "the control");
        assert_eq!(plain.asked("www.site.example"), 0);
        let status = String::from_utf8(daemon.run(&["status"]).stdout).expect("UTF-8");
        let told = format!("upstream       tls://127.0.0.1:{}#", unbound.port);
        let line = status.lines().find(|line| line.starts_with(&told)).unwrap_or_else(|| panic!("{status}"));
        assert!(line.ends_with(&format!("no connection ({kind})")), "{line}");
    }
}

#[test]
fn a_server_of_tcp_alone_gets_no_datagram() {
    let upstream = Fake::start(|query| vec![Reply::to(query).answer(&query.name, A, &[203, 0, 113, 5]).done()]);
    let daemon = Daemon::start_by(&format!("servers = [\"tcp://{}\"]", upstream.address), "off", ENFORCE);
    for n in 0..20 {
        assert!(is_true(&ask(daemon.address, "127.0.0.1", &format!("n{n}.site.example"), A)));
    }
    assert!(upstream.seen().iter().all(|query| query.tcp));
    assert_eq!(upstream.seen().len(), 20);
}
