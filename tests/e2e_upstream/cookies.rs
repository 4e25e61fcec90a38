//! Cookies (RFC 7873) towards named, one that has them and one that insists on them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::daemon::port::free_port;
use crate::daemon::{Daemon, ENFORCE};
use crate::fake::{A, ask};
use crate::server::{Server, metric};

#[test]
fn named_knows_us_by_our_cookie() {
    if Server::is_there("named").is_none() {
        return;
    }
    for insists in ["no", "yes"] {
        let dir = tempfile::tempdir().expect("directory");
        let port = free_port();
        let zone = "$TTL 300\n@ IN SOA ns hostmaster 1 7200 900 86400 60\n@ IN NS ns\nns IN A 203.0.113.53\n* IN A 203.0.113.5\n";
        std::fs::write(dir.path().join("site.zone"), zone).expect("written");
        let config = format!(
            "options {{ directory \"{}\"; pid-file none; session-keyfile none; listen-on port {port} {{ 127.0.0.1; }}; \
             listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; require-server-cookie {insists}; }};\n\
             controls {{ }};\nzone \"site.example\" {{ type primary; file \"site.zone\"; }};\n",
            dir.path().display(),
        );
        std::fs::write(dir.path().join("named.conf"), config).expect("written");
        let _named = Server::start("named", &["-f", "-c"], &dir.path().join("named.conf"), port);
        let page = free_port();
        let servers = format!("servers = [\"127.0.0.1:{port}\"]");
        let daemon = Daemon::start_by(&servers, &format!("127.0.0.1:{page}"), ENFORCE);
        let until = Instant::now() + Duration::from_secs(30);
        while metric(page, "upstreams_with_cookies") < 1.0 {
            assert!(Instant::now() < until, "named has cookies");
            std::thread::sleep(Duration::from_millis(50));
        }
        for n in 0..20 {
            let answer = ask(daemon.address, "127.0.0.1", &format!("n{n}.site.example"), A);
            assert_eq!(answer.addresses(), [IpAddr::from([203, 0, 113, 5])], "{insists}: {answer:?}");
        }
        // Its cookie was known from the trial, so that nothing had to go over TCP.
        let read = |name| metric(page, name);
        assert_eq!((read("upstream_connections_total"), read("upstream_doubted_total")), (0.0, 0.0), "{insists}");
        assert_eq!(read("upstream_questions_total"), 20.0);
        assert_eq!(read("upstreams_folding_case"), 0.0, "named keeps letter case");
    }
}
