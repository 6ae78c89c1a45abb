//! What the wire carries: no packet more than is needed.
//!
//! covers: src/forward/flow, src/forward/session/ending
//! kernel features: multishot_receive

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::harness::{Acceptor, End, Machine, NEAR, Namespaces, Setup, connect, read_to_end, send};

#[test]
fn last_bytes_and_an_end_that_come_together_leave_in_one_packet() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a backend's port");
    let backend = Acceptor::on(namespaces.near().run(bind));
    let listen = SocketAddr::from((NEAR, 8080));
    let setup = Setup::new().inside(&namespaces).listen(listen).backend("a", backend.address);
    let balancer = machine.start(setup);
    // Receives that stay armed bring both in one turn; else the end is met after the bytes have left.
    let most = if balancer.uses("multishot_receive") { 1 } else { 2 };
    for _ in 0..10 {
        let client = namespaces.far().run(|| connect(listen));
        let at_backend = backend.accept();
        exchange_with(&client, &at_backend);
        // The receive that waits for the last words is armed.
        balancer.process().await_rest();
        let before = namespaces.far().packets();
        let frozen = balancer.process().freeze();
        (&at_backend).write_all(b"the last words").expect("sending");
        at_backend.shutdown(Shutdown::Write).expect("finishing");
        drop(frozen);
        assert_eq!(read_to_end(&client), (b"the last words".to_vec(), End::Clean));
        let came = namespaces.far().packets() - before;
        assert!((1..=most).contains(&came), "the last bytes and the end came in {came} packets");
    }
    balancer.await_closed("backend", 10);
    balancer.stop();
}

/// A byte each way: whatever was to be acknowledged is, with the answer.
fn exchange_with(mut client: &TcpStream, mut at_backend: &TcpStream) {
    for _ in 0..2 {
        client.write_all(b"?").expect("asking");
        at_backend.read_exact(&mut [0]).expect("hearing");
        at_backend.write_all(b"!").expect("answering");
        client.read_exact(&mut [0]).expect("an answer");
    }
}

#[test]
fn where_clients_speak_first_the_backend_gets_their_first_bytes_with_the_end_of_the_handshake() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let bind = || TcpListener::bind("10.77.0.2:0").expect("a backend's port");
    let backend = Acceptor::on(namespaces.far().run(bind));
    let listen = SocketAddr::from((NEAR, 8080));
    let balancer = machine.start(Setup::new().inside(&namespaces).listen(listen).backend("a", backend.address));
    let came = [(); 20].map(|()| {
        let before = namespaces.far().packets();
        let frozen = balancer.process().freeze();
        let client = namespaces.near().run(|| connect(listen));
        send(&client, 1, 1).expect("speaking first");
        drop(frozen);
        let at_backend = backend.accept();
        (&at_backend).read_exact(&mut [0]).expect("hearing the client");
        let came = namespaces.far().packets() - before;
        drop((client, at_backend));
        balancer.await_no_session();
        came
    });
    // SYN, acknowledgement, first bytes; and without the lone acknowledgement as soon as the service is known.
    assert_eq!((came[0], came[10..].iter().min()), (3, Some(&2)), "packets until the first bytes were there: {came:?}");
    balancer.stop();
}
