//! Who finishes sending is heard to finish, and the other side may go on: half-close, both ways.
//!
//! covers: src/forward/session
//! kernel features: multishot_receive

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::harness::{
    Acceptor, Balancer, Bytes, End, Machine, Setup, exchange_bytes, read_to_end, receive, receive_to_end, seed, send,
};

const MIB: u64 = 1 << 20;

fn start(machine: &Machine) -> (Acceptor, Balancer) {
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    (backend, balancer)
}

/// One side sends and finishes; the other sees the end, and its later answer arrives whole.
fn finishes_first(first: &TcpStream, second: &TcpStream, request: u64, answer: u64) {
    let seed = seed();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send(first, seed, request).expect("sending");
            first.shutdown(Shutdown::Write).expect("finishing");
        });
        assert_eq!(receive_to_end(second, seed), (request, End::Clean));
    });
    // The answer comes later, and in two parts: the half that stays open stays open.
    std::thread::sleep(Duration::from_millis(100));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&mut &*second).write_all(b"-").expect("answering");
            std::thread::sleep(Duration::from_millis(50));
            send(second, !seed, answer).expect("sending");
            second.shutdown(Shutdown::Write).expect("finishing");
        });
        let mut mark = [0];
        (&mut &*first).read_exact(&mut mark).expect("the first byte of the answer");
        assert_eq!(receive_to_end(first, !seed), (answer, End::Clean));
    });
}

#[test]
fn a_client_that_finishes_sending_still_gets_the_whole_answer() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    for (request, answer) in [(0, 10), (10, 0), (1, MIB), (8 * MIB, 8 * MIB + 1)] {
        let (client, at_backend) = balancer.session(&backend);
        finishes_first(&client, &at_backend, request, answer);
    }
    balancer.await_closed("client", 4);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_backend_that_finishes_sending_still_gets_the_whole_rest() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    for (request, answer) in [(0, 10), (10, 0), (1, MIB), (8 * MIB, 8 * MIB + 1)] {
        let (client, at_backend) = balancer.session(&backend);
        finishes_first(&at_backend, &client, request, answer);
    }
    balancer.await_closed("backend", 4);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn an_end_after_a_long_talk_is_clean_on_both_sides() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    let (client, mut at_backend) = balancer.session(&backend);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|size| exchange_bytes(&client, &vec![b'.'; 1 + size * 97])));
        let mut buffer = vec![0; 16 * 1024];
        let mut left: usize = (0..100).map(|size| 1 + size * 97).sum();
        while left > 0 {
            let count = at_backend.read(&mut buffer).expect("a request");
            at_backend.write_all(&buffer[..count]).expect("answering");
            left -= count;
        }
    });
    drop(client);
    assert_eq!(read_to_end(&at_backend), (Vec::new(), End::Clean));
    drop(at_backend);
    balancer.await_closed("client", 1);
    balancer.stop();
}

#[test]
fn the_end_arrives_behind_all_data_for_a_reader_that_was_slow() {
    let machine = Machine::shared();
    let (backend, balancer) = start(&machine);
    for reader_is_client in [true, false] {
        let (client, at_backend) = balancer.session(&backend);
        let (reader, writer) = if reader_is_client { (client, at_backend) } else { (at_backend, client) };
        let seed = seed();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(&writer, seed, 32 * MIB).expect("sending");
                writer.shutdown(Shutdown::Write).expect("finishing");
            });
            let mut bytes = Bytes::new(seed);
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(30));
                receive(&reader, &mut bytes, MIB);
            }
            receive(&reader, &mut bytes, 22 * MIB);
            assert_eq!(read_to_end(&reader), (Vec::new(), End::Clean));
        });
    }
    balancer.await_no_session();
    balancer.stop();
}
