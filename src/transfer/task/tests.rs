//! Expiry, while primaries are asked, and copies that cannot be written.

use std::sync::mpsc;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::transfer::Keeper;
use crate::transfer::zone_for_test::{primaries, zone};

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
    let primaries = primaries(vec![primary(refuses).await]);
    let keeper = Keeper::new(dir.path());
    let (alarms, heard) = mpsc::channel();
    keeper.tell(Box::new(|_| {}), Box::new(move |text| drop(alarms.send(text.to_owned()))));
    keeper.configure(&[zone(primaries)], |_| ());
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

#[tokio::test]
async fn a_copy_that_could_not_be_written_is_written_later_and_the_older_one_does_not_pass_for_fresh() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, in_the_way) = (dir.path().join("rpz/rpz.test.zone"), dir.path().join("rpz/rpz.test.new"));
    std::fs::create_dir(dir.path().join("rpz")).and_then(|()| std::fs::write(&file, COPY)).expect("written");
    let before = SystemTime::now() - Duration::from_secs(30);
    std::fs::File::options().append(true).open(&file).and_then(|file| file.set_modified(before)).expect("its time set");
    let time = || std::fs::metadata(&file).and_then(|data| data.modified()).expect("a time");
    let name = NameBuf::from_text("rpz.test").expect("name");
    let server = Primary { address: "127.0.0.1:9".parse().expect("an address"), tls: None };
    let primaries = primaries(vec![server.clone()]);
    let keeper = Keeper::new(dir.path());
    let configure = |primaries: &Primaries| keeper.configure(&[zone(primaries.clone())], |_| ());
    configure(&primaries);
    let task =
        Task { shared: keeper.shared.clone(), zone: name.clone(), primaries: primaries.clone(), told: Arc::default() };
    assert!(!task.is_unwritten(), "it was read from there");

    std::fs::create_dir(&in_the_way).expect("made");
    let newer = COPY.replace(" 7 ", " 8 ");
    let copy = Copy::read(newer.as_bytes(), name.as_ref(), 1 << 20).expect("a copy");
    assert!(task.take(&server, copy).await.is_ok_and(|is_new| is_new));
    let now = clock::now().wall.steady;
    task.heard(now, true).await;
    assert!(!task.write().await);
    task.heard(now, false).await;
    assert_eq!(time(), before, "what is there was not confirmed");
    // With other settings another task goes on.
    configure(&Primaries { lenient: true, ..primaries });
    assert!(task.is_unwritten());
    task.heard(now - 5_000, false).await;
    std::fs::remove_dir(&in_the_way).expect("removed");
    assert!(task.write().await && !task.is_unwritten());
    let written = Copy::read(&std::fs::read(&file).expect("a copy"), name.as_ref(), 1 << 20).expect("a copy");
    assert_eq!(crate::rpz::soa_of(&written.soa).map(|soa| soa.serial), Some(8));
    let age = SystemTime::now().duration_since(time()).expect("a time before now");
    assert!(age >= Duration::from_secs(5) && age < Duration::from_secs(25), "when the primary was heard last: {age:?}");
    task.heard(now, false).await;
    assert!(SystemTime::now().duration_since(time()).expect("a time before now") < Duration::from_secs(5));
}

/// A primary of a zone that has one trigger, by its serial.
async fn primary_at(address: &str, serial: u32) -> Primary {
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut soa = b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x21\x02ns\x04test\0\x01h\x04test\0".to_vec();
    for number in [serial, 3600, 600, 86_400, 60] {
        soa.extend(number.to_be_bytes());
    }
    soa[11] = (soa.len() - 12) as u8;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; stream.read_u16().await.expect("a length").into()];
            stream.read_exact(&mut request).await.expect("a request");
            let question = &request[12..12 + 14];
            let mut reply = request[..2].to_vec();
            reply.extend([0x84, 0, 0, 1, 0, 3, 0, 0, 0, 0]);
            reply.extend_from_slice(question);
            reply.extend_from_slice(&soa);
            reply.extend_from_slice(b"\x03bad\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x01\0");
            reply.extend_from_slice(&soa);
            let length = (reply.len() as u16).to_be_bytes();
            stream.write_all(&[&length, &*reply].concat()).await.expect("sent");
        }
    });
    Primary { address, tls: None }
}

#[tokio::test]
async fn a_primary_that_is_behind_hides_no_newer_copy_of_another() {
    const SECOND: &str = "127.0.0.2";
    for (serials, by, expected) in [
        ([7, 8], None, Ok(8)),
        ([8, 7], None, Ok(8)),
        ([7, 7], None, Ok(7)),
        ([6, 7], None, Ok(7)),
        ([6, 5], None, Err(())),
        // Whoever has said that there is something is asked first.
        ([8, 9], None, Ok(8)),
        ([8, 9], Some(SECOND), Ok(9)),
        ([8, 9], Some("127.0.0.1"), Ok(8)),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("rpz/rpz.test.zone");
        std::fs::create_dir(dir.path().join("rpz")).and_then(|()| std::fs::write(&file, COPY)).expect("written");
        let primaries =
            primaries(vec![primary_at("127.0.0.1", serials[0]).await, primary_at(SECOND, serials[1]).await]);
        let keeper = Keeper::new(dir.path());
        let config = zone(primaries.clone());
        keeper.configure(std::slice::from_ref(&config), |_| ());
        let task = Task { shared: keeper.shared.clone(), zone: config.name, primaries, told: Arc::default() };
        if let Some(by) = by {
            task.told.ring(by.parse().expect("an address"));
        }
        let outcome = task.ask_all().await.map_err(drop);
        assert_eq!(outcome, expected.map(|serial| serial > 7), "{serials:?}");
        assert_eq!(keeper.status()[0].serial, Some(expected.unwrap_or(7)), "{serials:?}");
        assert_eq!(task.told.take_by(), None, "once");
    }
}
