//! Connecting to backends: the next one is tried, in good time, and nothing is left behind.
//!
//! covers: src/forward/connecting, src/table/first_speaker
//! kernel features: poll_first, ring_close, submit_all

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{
    Acceptor, Backend, Blackhole, End, Machine, PATIENCE, Port, Setup, admitted, assert_punctual, assert_within,
    exchange, read_to_end, receive_to_end, reset, seed, send, served_by, wait_until,
};

#[test]
fn a_client_whose_backend_refuses_is_served_by_the_next_and_sees_nothing_of_it() {
    let machine = Machine::shared();
    let (one, two, backend) = (Port::refusing(), Port::refusing(), Backend::named("up"));
    let setup = Setup::new().backend("one", one.address).backend("two", two.address);
    let balancer = machine.start(setup.backend("up", backend.address));
    let (address, mut watch) = (balancer.address(), balancer.stopwatch());
    for _ in 0..20 {
        assert_eq!(served_by(address), "up");
    }
    assert!(watch.took().own() < Duration::from_secs(5), "a refusal is no reason to wait");
    balancer.await_number("/services/web/backends/up/total", 20);
    assert!(balancer.of_backend("one", "failures") > 0 && balancer.of_backend("two", "failures") > 0);
    assert_eq!(balancer.status().sum("/services/web/refused_by"), 0);
    balancer.stop();
}

#[test]
fn what_a_client_has_sent_already_reaches_the_backend_that_serves_it_in_the_end() {
    let machine = Machine::shared();
    let (refusing, blackhole, backend) = (Port::refusing(), Blackhole::new(), Acceptor::new());
    let setup = Setup::new().backend("refusing", refusing.address).backend("blackhole", blackhole.address);
    let balancer = machine.start(setup.backend("up", backend.address).setting("connect: { timeout: 300ms }"));
    let (client, seed) = (balancer.connect(), seed());
    send(&client, seed, 5000).expect("sending");
    client.shutdown(Shutdown::Write).expect("finishing");
    let at_backend = backend.accept();
    assert_eq!(receive_to_end(&at_backend, seed), (5000, End::Clean));
    drop(at_backend);
    assert_eq!(read_to_end(&client), (Vec::new(), End::Clean));
    balancer.stop_after(client);
}

#[test]
fn at_most_as_many_different_backends_are_tried_as_configured() {
    let machine = Machine::shared();
    let (one, two, backend) = (Port::refusing(), Port::refusing(), Backend::named("up"));
    let setup = Setup::new().backend("one", one.address).backend("two", two.address).backend("up", backend.address);
    let balancer = machine.start(setup.setting("connect: { attempts: 2 }"));
    let address = balancer.address();
    // The turns go one, two, up: the first client tries the two that refuse, the second begins with the one that serves.
    assert!(admitted(address).is_none());
    assert_eq!(served_by(address), "up");
    assert!(admitted(address).is_none());
    balancer.await_refused("connect_failed", 2);
    assert_eq!((balancer.of_backend("one", "failures"), balancer.of_backend("two", "failures")), (2, 2));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn no_backend_is_tried_twice_for_one_client() {
    let machine = Machine::shared();
    let (one, two) = (Port::refusing(), Port::refusing());
    let setup = Setup::new().backend_with("one", one.address, "weight: 5").backend("two", two.address);
    let balancer = machine.start(setup.setting("connect: { attempts: 8 }"));
    for clients in 1..=5 {
        assert!(admitted(balancer.address()).is_none());
        wait_until("both failures are counted", PATIENCE, || {
            (balancer.of_backend("one", "failures"), balancer.of_backend("two", "failures")) == (clients, clients)
        });
    }
    balancer.stop();
}

#[test]
fn when_all_refuse_the_client_is_reset_at_once_and_counted() {
    let machine = Machine::shared();
    let ports: Vec<Port> = (0..3).map(|_| Port::refusing()).collect();
    let setup = (0..3).fold(Setup::new(), |setup, n| setup.backend(&format!("b{n}"), ports[n].address));
    let balancer = machine.start(setup);
    let (address, mut refused) = (balancer.address(), 0);
    assert_within(Duration::from_secs(1), || {
        let mut watch = balancer.stopwatch();
        for _ in 0..20 {
            assert!(admitted(address).is_none());
        }
        refused += 20;
        [watch.took()]
    });
    balancer.await_refused("connect_failed", refused);
    assert_eq!((balancer.number("/services/web/refused"), balancer.number("/sessions")), (refused, 0));
    assert_eq!(balancer.of_backend("b0", "connections"), 0);
    balancer.stop();
}

#[test]
fn a_backend_that_swallows_connects_is_given_up_at_the_timeout_then_the_next_serves() {
    let machine = Machine::shared();
    let (blackhole, backend) = (Blackhole::new(), Backend::named("up"));
    let setup = Setup::new().backend("blackhole", blackhole.address).backend("up", backend.address);
    let balancer = machine.start(setup.setting("connect: { timeout: 400ms }"));
    let mut given_up = 0;
    assert_punctual(Duration::from_millis(400), || {
        let address = balancer.address();
        let mut watch = balancer.stopwatch();
        assert_eq!(served_by(address), "up");
        let took = watch.took();
        given_up += 1;
        assert_eq!(balancer.of_backend("blackhole", "failures"), given_up);
        [took]
    });
    balancer.stop();
}

#[test]
fn when_all_swallow_connects_the_client_is_reset_after_all_timeouts() {
    let machine = Machine::shared();
    let (one, two) = (Blackhole::new(), Blackhole::new());
    let setup = Setup::new().backend("one", one.address).backend("two", two.address);
    let balancer = machine.start(setup.setting("connect: { timeout: 300ms, attempts: 2 }"));
    let mut refused = 0;
    assert_punctual(Duration::from_millis(600), || {
        let address = balancer.address();
        let mut watch = balancer.stopwatch();
        assert!(admitted(address).is_none());
        refused += 1;
        [watch.took()]
    });
    balancer.await_refused("connect_failed", refused);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_client_that_leaves_while_it_is_being_connected_takes_the_connect_with_it() {
    let machine = Machine::shared();
    let blackhole = Blackhole::new();
    let balancer = machine.start(Setup::new().backend("a", blackhole.address).setting("connect: { timeout: 60s }"));
    let mut descriptors = balancer.process().descriptors();
    for round in 0..3 {
        let clients: Vec<TcpStream> = (0..60).map(|_| balancer.connect()).collect();
        balancer.await_number("/sessions", 60);
        for (number, client) in clients.into_iter().enumerate() {
            // Some have said something already.
            if number % 2 == 0 {
                (&client).write_all(b"hello?").expect("sending");
            }
            reset(client);
        }
        balancer.await_no_session();
        assert_eq!(balancer.of_backend("a", "connections"), 0);
        wait_until("the descriptors are back", PATIENCE, || balancer.process().descriptors() <= descriptors + 2);
        if round == 0 {
            descriptors = balancer.process().descriptors();
        }
    }
    assert_eq!(balancer.of_backend("a", "failures"), 0, "it is not the backend's fault");
    // The connects are gone, not only forgotten: nobody comes when the backend begins to hear.
    let backend = blackhole.wake();
    assert!(backend.accept_within(Duration::from_millis(1500)).is_none(), "a connect without a client");
    let client = balancer.connect();
    drop(backend.accept());
    assert!(read_to_end(&client).0.is_empty());
    balancer.stop_after(client);
}

#[test]
fn other_clients_are_served_while_a_connect_hangs() {
    let machine = Machine::shared();
    let (blackhole, backend) = (Blackhole::new(), Backend::echo());
    let setup = Setup::new().workers(1).backend("a", backend.address);
    let balancer = machine.start(setup.service("slow").backend("blackhole", blackhole.address));
    let slow: Vec<TcpStream> = (0..50).map(|_| crate::harness::connect(balancer.address_of("slow"))).collect();
    let client = balancer.connect();
    assert_within(Duration::from_secs(1), || {
        let mut watch = balancer.stopwatch();
        (0..100).for_each(|_| exchange(&client));
        [watch.took()]
    });
    slow.into_iter().for_each(reset);
    balancer.stop_after(client);
}

#[test]
fn where_clients_speak_first_a_silent_one_is_connected_only_a_moment_later_and_the_next_at_once() {
    let machine = Machine::alone();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("up", backend.address));
    let silent_client = || {
        let start = Instant::now();
        let (client, at_backend) = balancer.session(&backend);
        let waited = start.elapsed();
        send(&at_backend, 7, 100).expect("speaking first");
        at_backend.shutdown(Shutdown::Write).expect("finishing");
        assert_eq!(receive_to_end(&client, 7), (100, End::Clean));
        waited
    };
    let mut waits = [Duration::MAX; 2];
    for _ in 0..3 {
        for _ in 0..10 {
            let client = balancer.connect();
            send(&client, 1, 1).expect("speaking first");
            let at_backend = backend.accept();
            (&at_backend).read_exact(&mut [0]).expect("hearing the client");
        }
        waits = [0, 1].map(|index| waits[index].min(silent_client()));
    }
    // Left to the kernel, the first would wait for 200 ms. What the machine takes for the rest, both have: an emulated one, some
    // tens of milliseconds.
    let moment = Duration::from_millis(10)..Duration::from_millis(150);
    assert!(moment.contains(&waits[0]) && waits[1] + moment.start < waits[0], "connected after {waits:?}");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn where_clients_speak_first_a_server_that_answers_in_pieces_is_not_kept_waiting() {
    let machine = Machine::alone();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("up", backend.address));
    let mut fastest = Duration::MAX;
    for session in 0..30 {
        let client = balancer.connect();
        send(&client, 1, 1).expect("speaking first");
        let at_backend = backend.accept();
        (&at_backend).read_exact(&mut [0]).expect("hearing the client");
        // The server's kernel keeps the second piece until the first is acknowledged (Nagle, RFC 896).
        at_backend.set_nodelay(false).expect("Nagle's algorithm");
        let start = Instant::now();
        for piece in [b"1", b"2"] {
            (&at_backend).write_all(piece).expect("answering");
        }
        (&client).read_exact(&mut [0; 2]).expect("the answer");
        // Eight sessions in a row make it a service where clients speak first.
        if session > 10 {
            fastest = fastest.min(start.elapsed());
        }
    }
    // A delayed acknowledgement takes 40 ms; 20 ms after the connect at the latest it is prompt again.
    assert!(fastest < Duration::from_millis(10), "the second piece came after {fastest:?}");
    balancer.stop();
}
