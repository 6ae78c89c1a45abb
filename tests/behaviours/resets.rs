//! A reset stays a reset, in every state of the session, and comes behind the data that was there before it.
//!
//! covers: src/forward/session/ending, src/forward/token, src/sys/socket
//! kernel features: buffer_ring, multishot_receive, ring_close

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::{
    Acceptor, Bytes, End, Machine, Setup, all_acknowledged, assert_ends_with_reset, await_reset, is_reset, read_to_end,
    receive, receive_to_end, reset, seed, send, send_in,
};

const MIB: u64 = 1 << 20;

/// What promptly means here.
const SOON: Duration = Duration::from_secs(1);

/// Runs a scenario twice: the client is the one that resets, then the backend is.
fn each_way(scenario: impl Fn(TcpStream, TcpStream)) {
    each_way_with(Setup::new(), scenario);
}

fn each_way_with(setup: Setup, scenario: impl Fn(TcpStream, TcpStream)) {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(setup.backend("a", backend.address));
    let session = |number| {
        let session = balancer.session(&backend);
        // The backend has it before the balancer knows that its connect has succeeded.
        balancer.await_number("/services/web/total", number);
        session
    };
    let (client, at_backend) = session(1);
    scenario(client, at_backend);
    balancer.await_closed("client_reset", 1);
    let (client, at_backend) = session(2);
    scenario(at_backend, client);
    balancer.await_closed("backend_reset", 1);
    balancer.await_no_session();
    balancer.stop();
}

fn both_have_spoken(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let seed = seed();
        send(from, seed, 10).expect("sending");
        receive(to, &mut Bytes::new(seed), 10);
    }
}

#[test]
fn a_reset_of_a_session_that_never_spoke_reaches_the_other_side() {
    each_way(|resetting, other| {
        reset(resetting);
        await_reset(&other, SOON);
    });
}

#[test]
fn a_reset_between_exchanges_reaches_the_other_side() {
    each_way(|resetting, other| {
        both_have_spoken(&resetting, &other);
        reset(resetting);
        let start = Instant::now();
        assert_ends_with_reset(&other);
        assert!(start.elapsed() < SOON);
    });
}

#[test]
fn a_reset_in_the_middle_of_sending_bulk_reaches_the_reader_never_as_an_end() {
    each_way(|resetting, other| {
        let seed = seed();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| receive_to_end(&other, seed));
            send(&resetting, seed, 20 * MIB).expect("sending");
            reset(resetting);
            let (count, end) = reader.join().expect("reading");
            assert_eq!(end, End::Reset, "after {count} bytes");
        });
    });
}

#[test]
fn a_reset_by_a_reader_of_bulk_reaches_the_sender() {
    each_way(|resetting, other| {
        let seed = seed();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(&other, seed, 1 << 40));
            receive(&resetting, &mut Bytes::new(seed), 20 * MIB);
            reset(resetting);
            let start = Instant::now();
            let (_, error) = sender.join().expect("sending").expect_err("nobody reads any more");
            assert!(is_reset(&error), "{error}");
            assert!(start.elapsed() < SOON);
        });
    });
}

#[test]
fn a_reset_by_a_reader_that_had_stopped_reading_reaches_the_sender() {
    each_way(|resetting, other| {
        fill(&other);
        reset(resetting);
        await_reset(&other, SOON);
    });
}

#[test]
fn a_reset_reaches_a_side_that_had_finished_sending() {
    each_way(|resetting, other| {
        both_have_spoken(&resetting, &other);
        other.shutdown(Shutdown::Write).expect("finishing");
        assert_eq!(receive_to_end(&resetting, 0), (0, End::Clean));
        reset(resetting);
        assert_ends_with_reset(&other);
    });
}

#[test]
fn a_reset_by_the_side_that_had_finished_sending_reaches_the_other() {
    each_way(|resetting, other| {
        both_have_spoken(&resetting, &other);
        resetting.shutdown(Shutdown::Write).expect("finishing");
        assert_eq!(receive_to_end(&other, 0), (0, End::Clean));
        reset(resetting);
        await_reset(&other, SOON);
    });
}

#[test]
fn a_reset_by_the_side_that_had_finished_reaches_a_sender_in_full_flow() {
    each_way(|resetting, other| {
        let seed = seed();
        resetting.shutdown(Shutdown::Write).expect("finishing");
        assert_eq!(receive_to_end(&other, 0), (0, End::Clean));
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(&other, seed, 1 << 40));
            receive(&resetting, &mut Bytes::new(seed), 20 * MIB);
            reset(resetting);
            sender.join().expect("sending").expect_err("nobody reads any more");
        });
    });
}

#[test]
fn data_that_reached_the_balancer_is_delivered_before_the_reset() {
    for count in [1, 1000, 100_000, MIB] {
        each_way(|resetting, other| {
            let seed = seed();
            send(&resetting, seed, count).expect("sending");
            all_acknowledged(&resetting);
            reset(resetting);
            // The reader begins only now; it must miss nothing and must not take the cut for an end.
            assert_eq!(receive_to_end(&other, seed), (count, End::Reset));
        });
    }
}

#[test]
fn bulk_that_reached_the_balancer_is_delivered_to_a_busy_reader_before_the_reset() {
    each_way(|resetting, other| {
        let (seed, count) = (seed(), 64 * MIB + 5);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| receive_to_end(&other, seed));
            send(&resetting, seed, count).expect("sending");
            all_acknowledged(&resetting);
            reset(resetting);
            assert_eq!(reader.join().expect("reading"), (count, End::Reset));
        });
    });
}

#[test]
fn a_last_word_and_a_reset_arrive_in_this_order_a_hundred_times() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    for _ in 0..100 {
        let (client, mut at_backend) = balancer.session(&backend);
        at_backend.write_all(b"-ERR go away\r\n").expect("sending");
        all_acknowledged(&at_backend);
        reset(at_backend);
        assert_eq!(read_to_end(&client), (b"-ERR go away\r\n".to_vec(), End::Reset));
    }
    balancer.await_closed("backend_reset", 100);
    balancer.stop();
}

#[test]
fn a_reset_that_a_waiting_send_takes_off_the_socket_is_not_passed_on_as_an_end() {
    // Bulk is read by direct calls, which overtake the completion of the send; without the optional features all is.
    for (disabled, count) in [("", 4 * MIB), ("all", 100), ("all", 4 * MIB)] {
        each_way_with(Setup::new().variable("BALANCER_DISABLE", disabled), |resetting, other| {
            // Small words, so that no pipe but a send waits for the side that does not read.
            SockRef::from(&resetting).set_recv_buffer_size(1 << 12).expect("SO_RCVBUF");
            fill_with(&other, &[b'.'; 5000]);
            // What waits last is woken first: bytes the other way have it look for more again, behind the send.
            let seed = seed();
            std::thread::scope(|scope| {
                scope.spawn(|| send_in(&resetting, &mut Bytes::new(seed), count, 1 << 20).expect("sending"));
                receive(&other, &mut Bytes::new(seed), count);
            });
            reset(resetting);
            assert_ends_with_reset(&other);
        });
    }
}

#[test]
fn a_reset_behind_data_that_nobody_reads_frees_the_session_at_half_closed() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let setup = Setup::new().backend("a", backend.address).setting("timeouts: { half_closed: 500ms }");
    let balancer = machine.start(setup);
    let (client, at_backend) = balancer.session(&backend);
    fill(&client);
    reset(client);
    balancer.await_no_session();
    await_reset(&at_backend, SOON);
    balancer.stop();
}

/// Writes until nothing more fits on the way to a side that does not read.
fn fill(stream: &TcpStream) {
    fill_with(stream, &[b'.'; 1 << 16]);
}

/// The same in writes of `chunk`, with a moment after each.
fn fill_with(mut stream: &TcpStream, chunk: &[u8]) {
    stream.set_nonblocking(true).expect("O_NONBLOCK");
    let mut full = 0;
    while full < 20 {
        match stream.write(chunk) {
            Ok(_) => {
                full = 0;
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                full += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("filling: {error}"),
        }
    }
    stream.set_nonblocking(false).expect("O_NONBLOCK");
}
