//! Nothing stays behind: descriptors, pipes, memory and gauges return to where they began.
//!
//! covers: src/forward/pipes, src/forward/slot
//! kernel features: big_pipes, buffer_ring, ring_close

use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::harness::{
    Backend, Balancer, Bytes, End, Machine, Setup, connect, exchange, exchange_bytes, read_to_end, receive, reset,
    seed, send,
};

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    sessions: u64,
    connections: u64,
    backend_connections: u64,
}

/// What it holds once nothing is open any more.
fn held(balancer: &Balancer) -> Held {
    balancer.await_no_session();
    // Spare pipes are kept for a while.
    balancer.await_number("/pipes", 0);
    let status = balancer.status();
    // The admin interface puts its own connections away a moment later: the least of some readings is without them.
    let reading = |_| {
        std::thread::sleep(Duration::from_millis(10));
        balancer.process().descriptors()
    };
    Held {
        descriptors: (0..10).map(reading).min().unwrap_or_default(),
        sessions: status.number("/sessions"),
        connections: status.number("/services/web/connections"),
        backend_connections: status.number("/services/web/backends/a/connections"),
    }
}

fn many_exchanges_on_one_session(address: SocketAddr) {
    let client = connect(address);
    for size in 1..3000 {
        exchange_bytes(&client, &vec![b'.'; size % 700 + 1]);
    }
    client.shutdown(Shutdown::Write).expect("finishing");
    assert_eq!(read_to_end(&client), (Vec::new(), End::Clean));
}

fn thousands_of_sessions(address: SocketAddr) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0..700 {
                    let client = connect(address);
                    exchange(&client);
                    // Ends of all kinds: polite, abrupt, and just gone.
                    match (thread + number) % 3 {
                        0 => {
                            client.shutdown(Shutdown::Write).expect("finishing");
                            assert_eq!((&client).read(&mut [0]).expect("a clean end"), 0);
                        }
                        1 => reset(client),
                        _ => {}
                    }
                }
            });
        }
    });
}

fn bulk(address: SocketAddr, seed: u64) {
    let client = connect(address);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&client, seed, 16 << 20).expect("sending"));
        receive(&client, &mut Bytes::new(seed), 16 << 20);
    });
}

/// Has every receive buffer of every worker used to its last page: they take turns, so that otherwise each round of bulk would find
/// some that had only carried small messages.
fn use_every_buffer(address: SocketAddr, seed: u64) {
    for _ in 0..300 {
        let client = connect(address);
        std::thread::scope(|scope| {
            scope.spawn(|| send(&client, seed, 96 << 10).expect("sending"));
            receive(&client, &mut Bytes::new(seed), 96 << 10);
        });
    }
}

#[test]
fn after_thousands_of_sessions_everything_is_as_at_the_beginning() {
    let machine = Machine::alone();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let (address, seed) = (balancer.address(), seed());
    let began = held(&balancer);
    use_every_buffer(address, seed);
    let round = || {
        many_exchanges_on_one_session(address);
        thousands_of_sessions(address);
        (0..4).for_each(|_| bulk(address, seed));
        let now = held(&balancer);
        assert_eq!(now, began);
        balancer.process().resident()
    };
    // The first round fills what is kept for reuse, and a later one may yet find a worker busier than before; what is lost, is
    // lost in each.
    let resident = [(); 4].map(|()| round());
    let grown = resident.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min();
    assert!(grown < Some(64 << 10), "resident memory grows in each round: {resident:?}");
    assert_eq!(backend.total(), 300 + 4 * (1 + 4 * 700 + 4));
    balancer.stop();
}

#[test]
fn a_session_that_was_bulk_and_is_idle_holds_no_pipe() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().workers(1).backend("a", backend.address));
    let (mut clients, seed) = (Vec::new(), seed());
    // One after the other they are bulk for a while, then idle: one pair of pipes serves them all.
    for _ in 0..20 {
        let client = balancer.connect();
        std::thread::scope(|scope| {
            scope.spawn(|| send(&client, seed, 4 << 20).expect("sending"));
            receive(&client, &mut Bytes::new(seed), 4 << 20);
        });
        clients.push(client);
    }
    let pipes = balancer.number("/pipes");
    assert!(pipes <= 4, "{pipes} pipes for 20 idle sessions");
    drop(clients);
    balancer.await_no_session();
    balancer.stop();
}
