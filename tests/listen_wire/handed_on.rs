//! Sockets that outlive the process that served them before.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use socket2::{SockFilter, SockRef};

use super::*;

/// Starts on a socket for datagrams and one for connections that stay open here too.
fn handed_on() -> (Rig, UdpSocket, TcpListener) {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = tcp.local_addr().expect("address");
    let udp = UdpSocket::bind(address).expect("bound");
    // Drops everything, as the bar of a flood nearly does with what its source sends.
    SockRef::from(&udp).attach_filter(&[SockFilter::new(6, 0, 0, 0)]).expect("taken");
    let descriptors: [OwnedFd; 2] = [udp.try_clone().expect("a copy").into(), tcp.try_clone().expect("a copy").into()];
    let inherited = Inherited::from_descriptors(descriptors.map(|fd| (fd, "dns".to_owned()))).expect("sorted");
    let rig = Rig::start_with(&config(&address.to_string()), inherited);
    (rig, udp, tcp)
}

#[test]
fn a_bar_that_was_left_on_a_socket_holds_nobody_back() {
    let (rig, _udp, _tcp) = handed_on();
    let stub = rig.stub();
    let query = query(1, "fast.example");
    stub.send(&query).expect("send");
    assert_refusal(&receive(&stub), &query);
}

#[test]
fn connections_of_a_socket_that_was_handed_on_have_no_more_room_in_the_kernel_than_it_needs() {
    let (_rig, _udp, tcp) = handed_on();
    let room =
        |socket: SockRef<'_>| (socket.send_buffer_size().expect("told"), socket.recv_buffer_size().expect("told"));
    let own = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (send, receive) = room(SockRef::from(&tcp));
    assert!(
        send <= 128 << 10 && receive <= 32 << 10,
        "{send} {receive}, without limits {:?}",
        room(SockRef::from(&own))
    );
}
