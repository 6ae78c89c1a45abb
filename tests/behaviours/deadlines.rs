//! Sessions that nothing moves in are ended on time; sessions that live are left alone.
//!
//! covers: src/forward/deadlines
//! kernel features: coop_taskrun, defer_taskrun

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{
    Acceptor, Backend, Balancer, Bytes, End, Machine, Setup, Stopwatch, Took, assert_ends_with_reset, assert_punctual,
    await_reset, exchange, patient, read_to_end, receive, receive_to_end, seed, send, send_in,
};

const IDLE: Duration = Duration::from_millis(700);
const HALF_CLOSED: Duration = Duration::from_millis(500);

fn start(machine: &Machine) -> (Acceptor, Balancer) {
    let backend = Acceptor::new();
    let setup = Setup::new().backend("a", backend.address).setting("timeouts: { idle: 700ms, half_closed: 500ms }");
    let balancer = machine.start(setup);
    (backend, balancer)
}

#[test]
fn a_session_without_bytes_either_way_is_reset_at_idle() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let mut closed = 0;
    assert_punctual(IDLE, || {
        let mut watch = balancer.stopwatch();
        let (mut silent, at_silent) = balancer.session(&backend);
        assert_ends_with_reset(&silent);
        let took = watch.took();
        await_reset(&at_silent, Duration::from_secs(1));
        assert!(silent.write_all(b"x").is_err());
        closed += 1;
        [took]
    });
    // The clock starts anew with each byte.
    assert_punctual(IDLE, || {
        let (mut talked, at_talked) = balancer.session(&backend);
        std::thread::sleep(IDLE / 2);
        let mut watch = balancer.stopwatch();
        talked.write_all(b"x").expect("sending");
        (&at_talked).read_exact(&mut [0]).expect("a byte");
        assert_ends_with_reset(&talked);
        closed += 1;
        [watch.took()]
    });
    balancer.await_closed("idle", closed);
    balancer.stop();
}

#[test]
fn one_byte_now_and_then_in_either_direction_keeps_a_session_alive() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let sessions: Vec<_> = (0..2).map(|_| balancer.session(&backend)).collect();
    let start = Instant::now();
    while start.elapsed() < IDLE * 4 {
        let ways = [(&sessions[0].0, &sessions[0].1), (&sessions[1].1, &sessions[1].0)];
        for (mut from, mut to) in ways {
            from.write_all(b"x").expect("sending");
            to.read_exact(&mut [0]).expect("a byte");
        }
        std::thread::sleep(IDLE / 4);
    }
    assert_eq!((balancer.number("/sessions"), balancer.closed("idle")), (2, 0));
    drop(sessions);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn an_answer_that_still_leaves_the_kernels_queue_for_a_slow_client_is_not_cut_at_half_closed() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("SO_RCVBUF");
    socket.connect(&balancer.address().into()).expect("connecting");
    let (mut client, at_backend) = (patient(socket.into()), backend.accept());
    // The balancer's kernel takes the whole answer and its end at once; the client takes four times `half_closed` to read it.
    let answer = vec![b'a'; 300_000];
    (&at_backend).write_all(&answer).expect("the balancer takes the whole answer");
    at_backend.shutdown(Shutdown::Write).expect("the end");
    let (start, mut got, mut part) = (Instant::now(), 0, vec![0; answer.len() / 40]);
    while got < answer.len() {
        let most = part.len().min(answer.len() - got);
        let count = client.read(&mut part[..most]).expect("the answer goes on");
        assert!(count > 0, "the answer ends after {got} bytes");
        got += count;
        std::thread::sleep(HALF_CLOSED / 10);
    }
    assert!(start.elapsed() > HALF_CLOSED * 3, "the client was not slow");
    assert_eq!(read_to_end(&client), (Vec::new(), End::Clean));
    assert_eq!(balancer.closed("half_closed"), 0);
    drop((client, at_backend));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_stream_that_goes_on_longer_than_idle_is_not_idle() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let (client, at_backend) = balancer.session(&backend);
    let seed = seed();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut bytes, start) = (Bytes::new(seed), Instant::now());
            while start.elapsed() < IDLE * 3 {
                send_in(&at_backend, &mut bytes, 4 << 20, 1 << 20).expect("sending");
                std::thread::sleep(IDLE / 10);
            }
            at_backend.shutdown(Shutdown::Write).expect("finishing");
        });
        assert_eq!(receive_to_end(&client, seed).1, End::Clean);
    });
    balancer.stop_after(client);
}

#[test]
fn a_half_closed_session_whose_other_side_is_silent_is_reset_at_half_closed() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let mut closed = 0;
    for client_finishes in [true, false] {
        assert_punctual(HALF_CLOSED, || {
            let (client, at_backend) = balancer.session(&backend);
            let (finished, silent) = if client_finishes { (client, at_backend) } else { (at_backend, client) };
            let mut watch = balancer.stopwatch();
            finished.shutdown(Shutdown::Write).expect("finishing");
            assert_eq!(receive_to_end(&silent, 0), (0, End::Clean));
            assert_ends_with_reset(&finished);
            let took = watch.took();
            await_reset(&silent, Duration::from_secs(1));
            closed += 1;
            [took]
        });
    }
    balancer.await_closed("half_closed", closed);
    balancer.stop();
}

#[test]
fn a_half_closed_session_that_still_moves_lives_until_it_is_done() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let (client, mut at_backend) = balancer.session(&backend);
    client.shutdown(Shutdown::Write).expect("finishing");
    for _ in 0..10 {
        std::thread::sleep(HALF_CLOSED / 3);
        at_backend.write_all(b"x").expect("sending");
    }
    drop(at_backend);
    assert_eq!(read_to_end(&client), (vec![b'x'; 10], End::Clean));
    balancer.await_closed("client", 1);
    balancer.stop();
}

#[test]
fn a_slow_reader_is_alive_as_long_as_bytes_move() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let (client, at_backend) = balancer.session(&backend);
    let (seed, count) = (seed(), 64 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send(&at_backend, seed, count).expect("sending");
            at_backend.shutdown(Shutdown::Write).expect("finishing");
        });
        let mut bytes = Bytes::new(seed);
        for _ in 0..16 {
            receive(&client, &mut bytes, 4 << 20);
            std::thread::sleep(IDLE / 5);
        }
        assert_eq!(read_to_end(&client), (Vec::new(), End::Clean));
    });
    balancer.stop_after(client);
}

#[test]
fn many_deadlines_are_each_kept() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let mut closed = 0;
    assert_punctual(IDLE, || {
        let sessions: Vec<(TcpStream, TcpStream, Stopwatch)> = (0..100)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(4));
                let watch = balancer.stopwatch();
                let (client, at_backend) = balancer.session(&backend);
                (client, at_backend, watch)
            })
            .collect();
        closed += 100;
        std::thread::scope(|scope| {
            let wait_for = |(client, _at_backend, mut watch): (TcpStream, TcpStream, Stopwatch)| {
                assert_ends_with_reset(&client);
                watch.took()
            };
            let waiting: Vec<_> = sessions.into_iter().map(|session| scope.spawn(move || wait_for(session))).collect();
            waiting.into_iter().map(|thread| thread.join().expect("a reset")).collect::<Vec<Took>>()
        })
    });
    balancer.await_closed("idle", closed);
    balancer.stop();
}

#[test]
fn an_established_session_does_not_know_the_connect_timeout() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address).setting("connect: { timeout: 200ms }"));
    let (silent, client) = (balancer.connect(), balancer.connect());
    exchange(&client);
    std::thread::sleep(Duration::from_millis(800));
    exchange(&client);
    exchange(&silent);
    drop(silent);
    balancer.stop_after(client);
}
