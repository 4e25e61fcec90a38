//! Expiry, while primaries are asked.

use std::sync::mpsc;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::model::Ede;
use crate::rpz::{Override, Settings};
use crate::transfer::{Keeper, Source, ZoneConfig};

const COPY: &str = "rpz.test. 60 IN SOA ns.test. h.test. 7 3600 600 60 60\nbad.rpz.test. 60 IN CNAME .\n";

/// A primary that takes questions, and says nothing or refuses each.
async fn primary(refuses: bool) -> Primary {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; stream.read_u16().await.expect("a length").into()];
            stream.read_exact(&mut request).await.expect("a request");
            if refuses {
                request[2..4].copy_from_slice(&[0x80, 5]);
                let length = (request.len() as u16).to_be_bytes();
                stream.write_all(&[&length, &*request].concat()).await.expect("sent");
            }
            kept.push(stream);
        }
    });
    Primary { address, tls: None }
}

/// What is told of a zone that has a second left when its primary is asked first.
async fn told(refuses: bool) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rpz/rpz.test.zone");
    std::fs::create_dir(dir.path().join("rpz")).and_then(|()| std::fs::write(&file, COPY)).expect("written");
    let heard = SystemTime::now() - Duration::from_secs(59);
    std::fs::File::options().append(true).open(&file).and_then(|file| file.set_modified(heard)).expect("its time set");
    let settings = Settings {
        id: "rpz.test".into(),
        policy: Override::Given,
        log: true,
        trusted: false,
        max_ttl: 60,
        ede: Ede::Blocked,
    };
    let primaries = Primaries {
        servers: vec![primary(refuses).await],
        tsig: None,
        required: false,
        keep_expired: true,
        lenient: false,
        max_octets: 1 << 20,
    };
    let name = NameBuf::from_text("rpz.test").expect("name");
    let keeper = Keeper::new(dir.path());
    let (alarms, heard) = mpsc::channel();
    keeper.tell(Box::new(|_| {}), Box::new(move |text| drop(alarms.send(text.to_owned()))));
    keeper.configure(&[ZoneConfig { name, settings, source: Source::Primaries(primaries) }], |_| ());
    keeper.start();
    // A message is waited for longer than this.
    let told = tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(10))).await.expect("it runs");
    assert!(keeper.status()[0].expired);
    keeper.stop();
    told.expect("an alarm in time")
}

#[tokio::test]
async fn a_zone_expires_while_its_primary_keeps_us_waiting_and_the_alarm_says_what_is_true() {
    let (silent, refusing) = tokio::join!(told(false), told(true));
    for text in [&silent, &refusing] {
        assert!(text.starts_with("policy zone rpz.test has expired: no primary has confirmed it"), "{text}");
        assert!(text.ends_with("its last copy stays in force"), "{text}");
    }
    assert!(!silent.contains("response code") && refusing.contains("response code 5"), "{silent} {refusing}");
}
