//! At its limits the balancer stays calm: exact, quick to refuse, and well again as soon as there is room.
//!
//! covers: src/forward/resources, src/forward/slot, src/table/backend
//! kernel features: buffer_ring, multishot_accept, ring_close

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::idle::settled;
use crate::harness::{
    Acceptor, Backend, Machine, PATIENCE, Setup, admitted, connect, exchange, raise_descriptor_limit, reset, seed,
    wait_until,
};

#[test]
fn without_descriptors_it_stays_idle_and_quiet_and_recovers_within_a_second_of_the_first_free_one() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let address = balancer.address();
    let mut held: Vec<TcpStream> = (0..10).map(|_| balancer.connect()).collect();
    held.iter().for_each(exchange);
    balancer.process().limit_descriptors(balancer.process().descriptors() as u64 + 2);

    let lines = balancer.log_lines();
    let waiting: Vec<TcpStream> = (0..120).filter_map(|_| TcpStream::connect(address).ok()).collect();
    for client in &waiting {
        client.set_nonblocking(true).expect("O_NONBLOCK");
        let _ = (&mut &*client).write_all(b"x");
    }
    std::thread::sleep(Duration::from_millis(200));
    let used = balancer.process().processor_time();
    std::thread::sleep(Duration::from_secs(3));
    let used = balancer.process().processor_time() - used;
    assert!(used <= Duration::from_millis(100), "{used:?} of processor time in 3 s of waiting");
    let lines = balancer.log_lines() - lines;
    assert!((1..=5).contains(&lines), "{lines} lines logged in a little over 3 s");
    held.iter().for_each(exchange);

    let mut watch = balancer.stopwatch();
    held.drain(..4).for_each(reset);
    wait_until("a client is served", PATIENCE, || {
        waiting.iter().any(|mut client| matches!(client.read(&mut [0]), Ok(1))) || is_echoed(address)
    });
    let took = watch.took();
    assert!(took.own() < Duration::from_secs(1), "{took:?}");
    drop(waiting);
    let mut watch = balancer.stopwatch();
    wait_until("new clients are served", PATIENCE, || is_echoed(address));
    let took = watch.took();
    assert!(took.own() < Duration::from_secs(1), "{took:?}");
    held.iter().for_each(exchange);
    drop(held);
    balancer.await_no_session();
    assert_eq!(balancer.of_backend("a", "failures"), 0);
    balancer.stop();
}

fn is_echoed(address: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect(address) else { return false };
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("a read timeout");
    client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
}

/// Clients that arrive at once from many threads: those that are admitted.
fn arrive(address: SocketAddr, count: usize) -> Vec<(TcpStream, String)> {
    std::thread::scope(|scope| {
        let arriving: Vec<_> = (0..count).map(|_| scope.spawn(|| admitted(address))).collect();
        arriving.into_iter().filter_map(|client| client.join().expect("served or refused")).collect()
    })
}

#[test]
fn a_services_limit_is_exact_across_workers_and_the_surplus_is_refused_at_once() {
    let machine = Machine::shared();
    let backend = Backend::named("a");
    let setup = Setup::new().workers(4).backend("a", backend.address).setting("max_connections: 10");
    let balancer = machine.start(setup);
    let (address, mut watch) = (balancer.address(), balancer.stopwatch());
    let mut held = arrive(address, 50);
    let took = watch.took();
    assert!(took.own() < Duration::from_secs(2), "refusing took {took:?}");
    assert_eq!((held.len(), backend.open()), (10, 10));
    balancer.await_refused("service_limit", 40);
    assert_eq!((balancer.number("/services/web/connections"), balancer.number("/services/web/refused")), (10, 40));

    held.truncate(7);
    balancer.await_number("/services/web/connections", 7);
    assert_eq!(arrive(balancer.address(), 20).len(), 3);
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn the_process_limit_is_exact_across_services_and_the_admin_interface_still_answers() {
    let machine = Machine::shared();
    let backend = Backend::named("a");
    let setup = Setup::new().process("max_connections: 12").workers(4).backend("a", backend.address);
    let balancer = machine.start(setup.service("other").backend("a", backend.address));
    let (web, other) = (balancer.address(), balancer.address_of("other"));
    let held = std::thread::scope(|scope| {
        let to_other = scope.spawn(|| arrive(other, 30));
        let mut held = arrive(web, 30);
        held.append(&mut to_other.join().expect("arriving"));
        held
    });
    assert_eq!((held.len(), backend.open()), (12, 12));
    assert_eq!((balancer.number("/sessions"), balancer.number("/max_connections")), (12, 12));
    wait_until("every refusal is counted", PATIENCE, || {
        balancer.refused("process_limit") + balancer.number("/services/other/refused_by/process_limit") == 48
    });
    drop(held);
    balancer.await_no_session();
    assert_eq!(arrive(web, 12).len(), 12);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn after_a_storm_of_connects_and_resets_every_gauge_is_zero_and_the_counts_add_up() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = Setup::new().backend("a", a.address).backend("b", b.address);
    let balancer = machine.start(setup);
    let (address, seed) = (balancer.address(), seed());
    std::thread::scope(|scope| {
        let storm: Vec<_> = (0..8).map(|thread| scope.spawn(move || storm(address, seed ^ thread))).collect();
        while storm.iter().any(|thread| !thread.is_finished()) {
            // A gauge below zero is not a count, or a huge one.
            let status = balancer.status();
            for gauge in ["/sessions", "/services/web/connections", "/services/web/backends/a/connections"] {
                assert!(status.number(gauge) < 10_000, "{gauge} is {}", status.number(gauge));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    balancer.await_no_session();
    let status = balancer.status();
    let of_backends = |number| ["a", "b"].map(|name| status.number(&format!("/services/web/backends/{name}/{number}")));
    assert_eq!((status.number("/services/web/connections"), of_backends("connections")), (0, [0, 0]));
    let (closed, refused) = (status.sum("/services/web/closed"), status.sum("/services/web/refused_by"));
    assert_eq!(closed, of_backends("total").iter().sum::<u64>(), "every session that was established has ended once");
    assert_eq!(closed + refused, status.number("/services/web/total"), "every client was served or refused, once");
    assert_eq!(status.number("/services/web/closed/error"), 0);
    exchange(&balancer.connect());
    balancer.await_no_session();
    balancer.stop();
}

/// Clients that do all kinds of things; half of them reset at a random moment.
fn storm(address: SocketAddr, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut buffer = [0; 4096];
    for _ in 0..300 {
        let Ok(mut client) = TcpStream::connect(address) else { continue };
        client.set_read_timeout(Some(Duration::from_millis(20))).expect("a read timeout");
        for _ in 0..random.u32(0..3) {
            let _ = client.write_all(&vec![b'.'; random.usize(1..100_000)]);
            if random.bool() {
                let _ = client.read(&mut buffer);
            }
            if random.bool() {
                std::thread::sleep(Duration::from_micros(random.u64(0..2000)));
            }
        }
        match random.u32(0..6) {
            0..3 => reset(client),
            3 => {
                let _ = client.shutdown(Shutdown::Write);
                while matches!(client.read(&mut buffer), Ok(1..)) {}
            }
            // Whatever has not been read makes this a reset too.
            _ => drop(client),
        }
    }
}

#[test]
fn nine_thousand_idle_sessions_cost_little_memory_no_wake_and_do_not_grow() {
    let machine = Machine::alone();
    // Each session takes two descriptors in the balancer and two in this process.
    let count = ((raise_descriptor_limit() - 1500) / 2).min(9000);
    assert!(count >= 4000, "the hard descriptor limit leaves room for only {count} sessions");
    let backend = Acceptor::new();
    let setup = Setup::new().backend("a", backend.address).setting("connect: { timeout: 500ms }");
    let balancer = machine.start(setup.setting("timeouts: { unresponsive: 1s }"));
    let address = balancer.address();
    exchange_once(&balancer.session(&backend));
    balancer.await_no_session();
    let memory = balancer.process().resident();
    let sessions: Vec<(TcpStream, TcpStream)> = (0..count).map(|_| (connect(address), backend.accept())).collect();
    sessions.iter().for_each(exchange_once);
    balancer.await_number("/sessions", count);

    let each = (balancer.process().resident() - memory) / count;
    eprintln!("{each} resident bytes for each of {count} idle sessions");
    assert!(each < 1800, "{each} resident bytes for each idle session");
    let (sleeps, memory) = (settled(balancer.process()), balancer.process().resident());
    std::thread::sleep(Duration::from_secs(3));
    let later = balancer.process().resident();
    assert!(later <= memory + 64 * 1024, "resident memory grew from {memory} to {later} with nothing happening");
    assert_eq!(balancer.process().sleeps(), sleeps, "nothing was due, and yet threads were woken");

    drop(sessions);
    balancer.await_no_session();
    balancer.stop();
}

/// One byte from client to backend, one back.
fn exchange_once((client, at_backend): &(TcpStream, TcpStream)) {
    for (mut from, mut to) in [(client, at_backend), (at_backend, client)] {
        from.write_all(b"x").expect("sending");
        to.read_exact(&mut [0]).expect("a byte");
    }
}

#[test]
fn hundreds_of_services_start_and_serve() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let names: Vec<String> = (0..400).map(|number| format!("s{number}")).collect();
    let setup = names.iter().fold(Setup::new().backend("a", backend.address), |setup, name| {
        setup.service(name).backend("a", backend.address)
    });
    let balancer = machine.start(setup);
    exchange(&connect(balancer.address_of("s0")));
    exchange(&connect(balancer.address_of("s399")));
    balancer.stop();
}
