//! Bytes arrive: all of them, once, in order, both ways, whatever the sizes.
//!
//! covers: src/forward/flow, src/forward/session, src/sys/buffers, src/sys/receive, src/sys/ring
//! kernel features: big_pipes, buffer_ring, multishot_receive, poll_first

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use socket2::SockRef;

use crate::harness::{
    Acceptor, Backend, Blackhole, Bytes, End, Machine, PATIENCE, Setup, echo, exchange, exchange_bytes, read_to_end,
    receive, receive_to_end, reset, seed, send, send_in, wait_until,
};

const MIB: u64 = 1 << 20;

/// Sends and receives `count` bytes each way at once; each side finishes when it has sent, and both see a clean end.
fn both_ways(client: &TcpStream, backend: &TcpStream, seed: u64, count: u64) {
    let (up, down) = (seed, !seed);
    let sender = |stream: &TcpStream, seed| {
        send(stream, seed, count).expect("sending");
        stream.shutdown(Shutdown::Write).expect("finishing");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| sender(client, up));
        scope.spawn(|| sender(backend, down));
        let at_backend = scope.spawn(|| receive_to_end(backend, up));
        assert_eq!(receive_to_end(client, down), (count, End::Clean), "what the client received");
        assert_eq!(at_backend.join().expect("receiving"), (count, End::Clean), "what the backend received");
    });
}

#[test]
fn an_urgent_byte_stays_in_its_place_among_small_messages_and_in_bulk() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (client, at_backend) = balancer.session(&backend);
    for (from, to) in [(&client, &at_backend), (&at_backend, &client)] {
        // The reader takes urgent bytes in their place, too: what is compared is what came through.
        SockRef::from(to).set_out_of_band_inline(true).expect("an option");
        for around in [5, 16 * MIB] {
            let (before, after) = (seed(), !seed());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    send(from, before, around).expect("sending");
                    assert_eq!(SockRef::from(from).send_out_of_band(b"!").expect("sending"), 1);
                    send(from, after, around).expect("sending");
                });
                receive(to, &mut Bytes::new(before), around);
                let mut urgent = [0];
                (&mut &*to).read_exact(&mut urgent).expect("the urgent byte");
                assert_eq!(&urgent, b"!");
                receive(to, &mut Bytes::new(after), around);
            });
        }
    }
    drop(at_backend);
    balancer.stop_after(client);
}

#[test]
fn a_backend_that_speaks_first_is_heard_then_both_directions_work() {
    let machine = Machine::shared();
    let backend = Backend::new(|mut stream| {
        stream.write_all(b"220 ready\r\n").expect("greeting");
        echo(stream);
    });
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let mut client = balancer.connect();
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).expect("the greeting");
    assert_eq!(&greeting, b"220 ready\r\n");
    exchange_bytes(&client, b"HELO there\r\n");
    balancer.stop_after(client);
}

#[test]
fn streams_up_to_a_gibibyte_arrive_exactly_both_ways_at_once() {
    let machine = Machine::alone();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let mut total = 0;
    for count in [1, MIB, 16 * MIB + 7, 1024 * MIB] {
        let (client, at_backend) = balancer.session(&backend);
        both_ways(&client, &at_backend, seed(), count);
        total += count;
    }
    balancer.await_no_session();
    assert_eq!(balancer.of_backend("a", "bytes_in"), total, "bytes from client to backend are counted exactly");
    assert_eq!(balancer.of_backend("a", "bytes_out"), total, "bytes from backend to client are counted exactly");
    balancer.stop();
}

#[test]
fn what_a_client_sends_before_its_backend_is_connected_arrives_once_and_in_order() {
    let machine = Machine::shared();
    let blackhole = Blackhole::new();
    let setup = Setup::new().backend("a", blackhole.address).setting("connect: { timeout: 10s }");
    let balancer = machine.start(setup);
    let seed = seed();
    let (client, small) = (balancer.connect(), balancer.connect());
    std::thread::scope(|scope| {
        // The first sends more than fits anywhere on the way; the second little, and is done before it is connected.
        let sender = scope.spawn(|| {
            send(&client, seed, 24 * MIB).expect("sending");
            client.shutdown(Shutdown::Write).expect("finishing");
        });
        send(&small, seed, 100).expect("sending");
        small.shutdown(Shutdown::Write).expect("finishing");
        balancer.await_number("/sessions", 2);
        let backend = blackhole.wake();
        let sessions = [backend.accept(), backend.accept()];
        let receivers = sessions.map(|mut stream| {
            scope.spawn(move || {
                let (count, end) = receive_to_end(&stream, seed);
                assert_eq!(end, End::Clean);
                stream.write_all(b"thank you").expect("answering");
                count
            })
        });
        let mut received = receivers.map(|receiver| receiver.join().expect("receiving"));
        received.sort_unstable();
        assert_eq!(received, [100, 24 * MIB]);
        sender.join().expect("sending");
    });
    for client in [client, small] {
        assert_eq!(read_to_end(&client), (b"thank you".to_vec(), End::Clean));
    }
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn switching_between_tiny_messages_and_bulk_never_stalls_and_stays_exact() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (client, seed) = (balancer.connect(), seed());
    let (mut sent, mut received) = (Bytes::new(seed), Bytes::new(seed));
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        for _ in 0..random.usize(0..4) {
            let size = random.u64(1..=100);
            send_in(&client, &mut sent, size, 64).unwrap_or_else(|(_, e)| panic!("round {round}: {e}"));
            receive(&client, &mut received, size);
        }
        // Sizes around powers of two: the edges of buffers, and the places where a path is changed.
        let size = (1 << random.u32(13..=20)) + random.u64(0..=2) - 1;
        std::thread::scope(|scope| {
            scope.spawn(|| send_in(&client, &mut sent, size, 1 << 18).expect("sending"));
            receive(&client, &mut received, size);
        });
    }
    balancer.stop_after(client);
}

#[test]
fn the_two_directions_switch_paths_independently() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (client, at_backend) = balancer.session(&backend);
    let seed = seed();
    std::thread::scope(|scope| {
        for (from, to, seed) in [(&client, &at_backend, seed), (&at_backend, &client, !seed)] {
            let sizes = move || {
                let mut random = fastrand::Rng::with_seed(seed);
                (0..400).map(move |_| if random.bool() { random.u64(1..=300) } else { random.u64(1..=MIB) })
            };
            scope.spawn(move || {
                let mut bytes = Bytes::new(seed);
                for size in sizes() {
                    send_in(from, &mut bytes, size, 1 << 20).expect("sending");
                    if size <= 300 {
                        // Quiet long enough for the stream to turn small.
                        std::thread::sleep(std::time::Duration::from_micros(200));
                    }
                }
                from.shutdown(Shutdown::Write).expect("finishing");
            });
            scope.spawn(move || assert_eq!(receive_to_end(to, seed), (sizes().sum(), End::Clean)));
        }
    });
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn no_byte_crosses_over_between_fifty_sessions() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let seed = seed();
    let sessions: Vec<_> = (0..50).map(|_| balancer.session(&backend)).collect();
    std::thread::scope(|scope| {
        for (number, (client, at_backend)) in sessions.iter().enumerate() {
            let seed = seed.wrapping_add(number as u64);
            scope.spawn(move || both_ways(client, at_backend, seed, 2 * MIB + number as u64));
        }
    });
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn no_byte_of_a_session_that_was_cut_in_full_flow_reaches_the_next() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().workers(1).backend("a", backend.address));
    let seed = seed();
    for round in 1..=5 {
        let (client, at_backend) = balancer.session(&backend);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(&at_backend, seed, 1 << 40).expect_err("it must be cut"));
            receive(&client, &mut Bytes::new(seed), 20 * MIB);
            // Nobody reads now: the pipe is soon full. It is a spare one for a second after it was lent.
            let (mut last, moved) = (0, || balancer.of_backend("a", "bytes_out"));
            wait_until("nothing moves", PATIENCE, || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                std::mem::replace(&mut last, moved()) == last
            });
            reset(client);
            sender.join().expect("sending");
        });
        balancer.await_no_session();
        let (client, at_backend) = balancer.session(&backend);
        both_ways(&client, &at_backend, seed.wrapping_add(round), 8 * MIB);
    }
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn no_ring_worker_thread_exists_while_sessions_idle_talk_and_stream() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let idle: Vec<TcpStream> = (0..20).map(|_| balancer.connect()).collect();
    idle.iter().for_each(exchange);
    let (small, bulk, seed) = (balancer.connect(), balancer.connect(), seed());
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&bulk, seed, 256 * MIB).expect("sending"));
        scope.spawn(|| receive(&bulk, &mut Bytes::new(seed), 256 * MIB));
        while !sender.is_finished() {
            exchange(&small);
            assert_eq!(balancer.process().ring_workers(), 0, "{:?}", balancer.process().threads());
        }
    });
    drop((idle, small));
    balancer.stop_after(bulk);
}
