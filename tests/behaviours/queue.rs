//! Clients that wait for a place: first come, first served, none forgotten, none too many.
//!
//! covers: src/forward/pending, src/table/queue

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::harness::{
    Backend, Balancer, Machine, PATIENCE, Port, Setup, Stopwatch, admitted, assert_ends_with_reset, assert_took,
    connect, exchange, patient, reset, served_by, wait_until,
};

/// Clients that have arrived one after the other, and wait; `inside` are in the service already.
fn line_up(balancer: &Balancer, inside: usize, count: usize) -> Vec<TcpStream> {
    let address = balancer.address();
    let arrive = |number| {
        let client = connect(address);
        balancer.await_number("/services/web/connections", (inside + number) as u64);
        client
    };
    (1..=count).map(arrive).collect()
}

/// The name that the backend says to a client which has waited.
#[track_caller]
fn name_for(mut client: &TcpStream) -> String {
    let (mut name, mut byte) = (String::new(), [0]);
    loop {
        client.read_exact(&mut byte).expect("a client that waits must be served");
        if byte == *b"\n" {
            return name;
        }
        name.push(char::from(byte[0]));
    }
}

/// Fails if a client has been served or refused.
#[track_caller]
fn assert_waits(client: &TcpStream) {
    client.set_nonblocking(true).expect("O_NONBLOCK");
    let error = client.peek(&mut [0]).expect_err("neither an end nor a byte is due");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    client.set_nonblocking(false).expect("no O_NONBLOCK");
}

/// One service with one backend of so many places, and a queue.
fn setup(backend: &Backend, places: usize, queue: &str) -> Setup {
    let setup = Setup::new().backend_with("a", backend.address, &format!("max_connections: {places}"));
    setup.setting(&format!("queue: {{ {queue} }}"))
}

#[test]
fn those_who_wait_are_served_in_the_order_of_their_arrival_one_for_each_freed_place() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(setup(&a, 1, "size: 100, timeout: 30s").workers(4));
    let (mut serving, _) = admitted(balancer.address()).expect("served");
    let mut waiting = line_up(&balancer, 1, 20);
    while !waiting.is_empty() {
        drop(serving);
        serving = waiting.remove(0);
        assert_eq!(name_for(&serving), "a");
        exchange(&serving);
        waiting.iter().for_each(assert_waits);
    }
    assert_eq!((a.peak(), a.total()), (1, 21));
    balancer.stop_after(serving);
}

/// A client from this port, which the kernel gives to the same worker each time; of an address that only this test uses, so that no
/// other connection has the port.
fn connect_from(port: u16, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 77], port)).into())?;
    socket.connect(&address.into())?;
    Ok(patient(socket.into()))
}

/// A client from one of these ports, which is used up then.
fn connect_again(ports: &mut Vec<u16>, address: SocketAddr) -> TcpStream {
    std::iter::from_fn(|| ports.pop()).find_map(|port| connect_from(port, address).ok()).expect("a port that is free")
}

/// Whether something has come for a client.
fn is_answered(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("O_NONBLOCK");
    client.peek(&mut [0]).is_ok()
}

#[test]
fn free_places_are_for_those_who_came_first_also_while_their_worker_is_busy() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    // By their ports clients are told apart here, not by the core that they are on.
    let balancer = machine.start(setup(&a, 30, "size: 100, timeout: 60s").without("incoming_cpu"));
    let address = balancer.address();
    // Which ports the kernel gives to which worker: those of the one that is held hear nothing.
    let base = fastrand::u16(12_000..30_000);
    let clients: Vec<_> = (base..base + 100).filter_map(|port| connect_from(port, address).ok()).take(24).collect();
    clients.iter().for_each(|client| assert_eq!(name_for(client), "a"));
    let held = balancer.process().hold("worker-1");
    let (mut busy, mut free) = (Vec::new(), Vec::new());
    clients.iter().for_each(|mut client| client.write_all(b"x").expect("speaking"));
    // Who is served at all is served within a moment of the others.
    let mut answered = 0;
    wait_until("those of the other worker are served", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        let before = std::mem::replace(&mut answered, clients.iter().filter(|client| is_answered(client)).count());
        answered > 0 && answered == before
    });
    for client in &clients {
        let port = client.local_addr().expect("an address").port();
        if is_answered(client) { free.push(port) } else { busy.push(port) }
    }
    assert!(busy.len() >= 2 && free.len() >= 6, "the kernel gives all to one worker: {busy:?} {free:?}");
    drop(held);
    clients.into_iter().for_each(reset);
    balancer.await_no_session();
    balancer.edit("max_connections: 30", "max_connections: 2");
    balancer.reload();

    let inside = [(); 2].map(|()| connect_again(&mut free, address));
    inside.iter().for_each(|client| assert_eq!(name_for(client), "a"));
    let first = connect_again(&mut busy, address);
    balancer.await_number("/services/web/queued", 1);
    let held = balancer.process().hold("worker-1");
    inside.into_iter().for_each(reset);
    balancer.await_number("/services/web/backends/a/connections", 0);
    let late = [(); 2].map(|()| connect_again(&mut free, address));
    balancer.await_number("/services/web/queued", 3);
    assert!((balancer.metric("balancer_queued") - 3.0).abs() < 0.1);
    late.iter().for_each(assert_waits);
    drop(held);
    assert_eq!(name_for(&first), "a");
    // Both places were told to the first of the line alone. His worker passes the other one on.
    assert_eq!(name_for(&late[0]), "a");
    assert_waits(&late[1]);
    drop((first, late));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn no_more_wait_than_may_and_the_surplus_is_refused_at_once() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(setup(&a, 1, "size: 3, timeout: 30s"));
    let (serving, _) = admitted(balancer.address()).expect("served");
    let waiting = line_up(&balancer, 1, 3);
    for number in 1..=5 {
        let (address, mut watch) = (balancer.address(), balancer.stopwatch());
        assert!(admitted(address).is_none(), "a fourth one waits or is served");
        assert_took(watch.took(), Duration::ZERO);
        balancer.await_refused("backend_limit", number);
    }
    waiting.iter().for_each(assert_waits);
    drop(serving);
    assert_eq!(name_for(&waiting[0]), "a");
    // The one that is served has left a place in the line.
    let last = line_up(&balancer, 3, 1);
    last.iter().for_each(assert_waits);
    drop((waiting, last));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn who_has_waited_for_the_whole_time_is_refused_then() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(setup(&a, 1, "size: 100, timeout: 700ms"));
    let (serving, _) = admitted(balancer.address()).expect("served");
    let (address, process) = (balancer.address(), balancer.process());
    std::thread::scope(|scope| {
        for number in 0..5 {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(100 * number));
                let mut watch = Stopwatch::start(process);
                assert_ends_with_reset(&connect(address));
                assert_took(watch.took(), Duration::from_millis(700));
            });
        }
    });
    balancer.await_refused("queue_timeout", 5);
    exchange(&serving);
    balancer.await_number("/services/web/connections", 1);
    drop(serving);
    balancer.await_no_session();
    assert_eq!(served_by(address), "a");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_client_that_resets_while_it_waits_leaves_the_line_and_the_next_is_not_forgotten() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(setup(&a, 1, "size: 4, timeout: 30s"));
    let (serving, _) = admitted(balancer.address()).expect("served");
    let mut waiting = line_up(&balancer, 1, 4);
    // The one in front and one in the middle.
    reset(waiting.remove(2));
    reset(waiting.remove(0));
    balancer.await_number("/services/web/connections", 3);
    waiting.append(&mut line_up(&balancer, 3, 2));
    let mut serving = serving;
    while !waiting.is_empty() {
        drop(serving);
        serving = waiting.remove(0);
        assert_eq!(name_for(&serving), "a");
    }
    assert_eq!(a.total(), 5);
    balancer.stop_after(serving);
}

#[test]
fn of_five_hundred_who_wait_none_is_forgotten() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(setup(&a, 4, "size: 500, timeout: 60s").workers(4));
    let address = balancer.address();
    let mut serving: Vec<_> = (0..4).map(|_| admitted(address).expect("served").0).collect();
    let mut waiting: Vec<_> = (0..500).map(|_| connect(address)).collect();
    balancer.await_number("/services/web/connections", 504);
    for number in 0..500 {
        match serving.remove(0) {
            last if number % 2 == 0 => reset(last),
            last => drop(last),
        }
        // Several workers accept at once: the order of arrival is theirs to say.
        let mut next = None;
        wait_until("a freed place is taken", PATIENCE, || {
            next = waiting.iter().position(|client| {
                client.set_nonblocking(true).expect("O_NONBLOCK");
                matches!(client.peek(&mut [0]), Ok(1))
            });
            next.is_some()
        });
        let client = waiting.swap_remove(next.expect("found"));
        client.set_nonblocking(false).expect("no O_NONBLOCK");
        assert_eq!(name_for(&client), "a");
        serving.push(client);
    }
    assert_eq!((a.total(), a.peak()), (504, 4));
    drop(serving);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn in_a_storm_over_few_places_everyone_is_served_and_no_place_is_given_twice() {
    let machine = Machine::shared();
    for workers in [2, 4] {
        let a = Backend::named("a");
        let balancer = machine.start(setup(&a, 4, "size: 1000, timeout: 30s").workers(workers));
        let address = balancer.address();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for number in 0..200 {
                        let (client, _) = admitted(address).expect("served");
                        exchange(&client);
                        if (thread + number) % 2 == 0 {
                            reset(client);
                        }
                    }
                });
            }
        });
        balancer.await_no_session();
        assert!(a.peak() <= 4, "{} of 4 places were taken", a.peak());
        assert_eq!(a.total(), 1600);
        let status = balancer.status();
        let gauges = ["/services/web/connections", "/services/web/backends/a/connections", "/services/web/refused"];
        assert_eq!(gauges.map(|gauge| status.number(gauge)), [0; 3]);
        balancer.stop();
    }
}

#[test]
fn those_who_wait_are_served_at_once_by_a_backend_or_a_backup_that_comes_up() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::named("a"), Port::refusing(), Port::refusing());
    let setup = setup(&a, 1, "size: 100, timeout: 30s").backend_with("b", b.address, "max_connections: 1");
    let setup = setup.setting(&format!("backups: {{ c: \"{}\" }}", c.address));
    let setup = setup.setting("health: { probe: tcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 1 }");
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/backends/b/state", "down");
    balancer.await_state("/services/web/backends/c/state", "down");
    let (serving, name) = admitted(balancer.address()).expect("served");
    assert_eq!(name, "a");
    let waiting = line_up(&balancer, 1, 3);
    waiting.iter().for_each(assert_waits);

    let _b = Backend::named_on(b.listen(), "b");
    assert_eq!(name_for(&waiting[0]), "b");
    waiting[1..].iter().for_each(assert_waits);
    let _c = Backend::named_on(c.listen(), "c");
    assert_eq!([name_for(&waiting[1]), name_for(&waiting[2])], ["c", "c"]);
    exchange(&serving);
    drop((serving, waiting));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn nobody_waits_behind_one_whom_the_backend_that_has_room_has_failed() {
    let machine = Machine::shared();
    let (port, b) = (Port::refusing(), Backend::named("b"));
    // Nothing takes a down: it is as a server that has just died, and comes back before that is seen.
    let setup = Setup::new().backend("a", port.address).backend_with("b", b.address, "max_connections: 1");
    let balancer = machine.start(setup.setting("queue: { size: 100, timeout: 30s }").workers(4));
    let (serving, _) = admitted(balancer.address()).expect("served by b");
    let waiting = line_up(&balancer, 1, 1);
    balancer.await_number("/services/web/backends/a/failures", 2);

    let _a = Backend::named_on(port.listen(), "a");
    let late: Vec<_> = (0..20).map(|_| connect(balancer.address())).collect();
    late.iter().for_each(|client| assert_eq!(name_for(client), "a"));
    // He who was failed waits on, and has what becomes free elsewhere.
    waiting.iter().for_each(assert_waits);
    drop(serving);
    assert_eq!(name_for(&waiting[0]), "b");
    drop((late, waiting));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_stop_still_serves_those_who_wait_and_refuses_the_rest_after_drain() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let setup = setup(&a, 1, "size: 100, timeout: 30s").process("drain: 3s");
    let log = setup.directory().join("access.log");
    let mut balancer = machine.start(setup.process(&format!("access_log: {}", log.display())));
    let (serving, _) = admitted(balancer.address()).expect("served");
    let waiting = line_up(&balancer, 1, 3);
    balancer.signal(Signal::TERM);
    let mut watch = balancer.stopwatch();
    drop(serving);
    assert_eq!(name_for(&waiting[0]), "a");
    exchange(&waiting[0]);
    waiting[1..].iter().for_each(assert_waits);
    waiting[1..].iter().for_each(assert_ends_with_reset);
    assert_took(watch.took(), Duration::from_secs(3));
    let (code, _) = balancer.wait(PATIENCE);
    assert_eq!(code, Some(0));
    let log = std::fs::read_to_string(&log).expect("an access log");
    assert_eq!(log.lines().filter(|line| line.contains("stopping")).count(), 2, "{log}");
}
