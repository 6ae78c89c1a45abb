//! Each way to choose a backend does what its name says, and shares are right when backends come and go.
//!
//! covers: src/table/algorithm, src/table/first, src/table/least_connections, src/table/maglev, src/table/mixing, src/table/random_two, src/table/source_hash

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::harness::{
    Backend, Balancer, Machine, PATIENCE, Port, Setup, admitted, exchange, patient, served_by, wait_until,
};

/// Quick probes: up and down at once.
const PROBED: &str = "health: { probe: tcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 1 }";

fn served_in_turn(balancer: &Balancer, count: usize) -> Vec<String> {
    let address = balancer.address();
    (0..count).map(|_| served_by(address)).collect()
}

fn count_of(names: &[String], name: &str) -> usize {
    names.iter().filter(|served| *served == name).count()
}

fn await_backend(balancer: &Balancer, name: &str, state: &str) {
    balancer.await_state(&format!("/services/web/backends/{name}/state"), state);
}

/// Who serves a client that comes from this address.
fn served_from(source: Ipv4Addr, address: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("binding to an address of the loopback");
    socket.connect_timeout(&address.into(), PATIENCE).expect("connecting");
    let (stream, mut name) = (patient(TcpStream::from(socket)), String::new());
    let mut line = std::io::BufReader::new(&stream);
    std::io::BufRead::read_line(&mut line, &mut name).expect("a name");
    assert!(name.ends_with('\n'), "refused or cut short: {name:?}");
    name.trim_end().into()
}

#[test]
fn a_backend_that_goes_down_and_comes_back_has_its_exact_share_from_the_next_connection_on() {
    let machine = Machine::shared();
    let (a, port) = (Backend::named("a"), Port::refusing());
    let b = Backend::named_on(port.listen(), "b");
    let setup = Setup::new().backend("a", a.address).backend("b", port.address).workers(4);
    let balancer = machine.start(setup.setting(PROBED));
    ["a", "b"].iter().for_each(|name| await_backend(&balancer, name, "up"));
    let equal = |balancer: &Balancer| {
        let names = served_in_turn(balancer, 30);
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "not alternating: {names:?}");
        assert_eq!((count_of(&names, "a"), count_of(&names, "b")), (15, 15));
    };
    equal(&balancer);
    drop(b);
    await_backend(&balancer, "b", "down");
    assert_eq!(served_in_turn(&balancer, 30), ["a"; 30]);
    let _b = Backend::named_on(port.listen(), "b");
    await_backend(&balancer, "b", "up");
    balancer.await_number("/services/web/connections", 0);
    equal(&balancer);
    balancer.stop();
}

/// Two backends, the second of which is down until it listens on the port; then it starts slowly.
fn starting_slowly(machine: &Machine, a: &Backend, port: &Port, slow_start: &str) -> Balancer {
    let setup = Setup::new().backend("a", a.address).backend("b", port.address);
    let balancer = machine.start(setup.setting(&PROBED.replace(" }", &format!(", slow_start: {slow_start} }}"))));
    await_backend(&balancer, "a", "up");
    await_backend(&balancer, "b", "down");
    balancer
}

#[test]
fn the_share_of_a_backend_that_starts_slowly_grows_until_it_is_whole() {
    let machine = Machine::shared();
    let (a, port) = (Backend::named("a"), Port::refusing());
    let balancer = starting_slowly(&machine, &a, &port, "4s");
    let start = Instant::now();
    let _b = Backend::named_on(port.listen(), "b");
    await_backend(&balancer, "b", "up");
    let mut counts = Vec::new();
    wait_until("it has its whole share", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        counts.push(count_of(&served_in_turn(&balancer, 32), "b"));
        counts.ends_with(&[16, 16])
    });
    // It weighs as much as 15/16 of the other, with which 16 of 32 can be its own, after 14/16 of the time.
    assert!(start.elapsed() >= Duration::from_millis(3500), "it was whole after {:?}: {counts:?}", start.elapsed());
    assert!(counts.windows(2).all(|pair| pair[0] <= pair[1] + 2), "it does not grow steadily: {counts:?}");
    assert!(counts.iter().any(|count| (5..=14).contains(count)), "it grows all at once: {counts:?}");
    balancer.stop();
}

#[test]
fn a_slow_start_begins_with_a_sixteenth_and_ends_at_a_reload_that_switches_it_off() {
    let machine = Machine::shared();
    let (a, port) = (Backend::named("a"), Port::refusing());
    let balancer = starting_slowly(&machine, &a, &port, "1h");
    // The other one was up from the first probe on: that is no return, and it carries all of its weight.
    let _b = Backend::named_on(port.listen(), "b");
    await_backend(&balancer, "b", "up");
    let names = served_in_turn(&balancer, 34);
    assert_eq!((count_of(&names, "a"), count_of(&names, "b")), (32, 2), "{names:?}");
    balancer.edit("slow_start: 1h", "slow_start: 0s");
    balancer.reload();
    let names = served_in_turn(&balancer, 30);
    assert_eq!((count_of(&names, "a"), count_of(&names, "b")), (15, 15), "{names:?}");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn least_connections_evens_out_what_long_sessions_have_made_uneven() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::new().backend("a", a.address).backend("b", b.address).workers(4);
    let balancer = machine.start(setup.setting("balance: least_connections"));
    let address = balancer.address();
    let stay = |count: usize| -> Vec<_> { (0..count).map(|_| admitted(address).expect("served")).collect() };
    let (long, short): (Vec<_>, Vec<_>) = stay(20).into_iter().partition(|(_, name)| name == "a");
    assert_eq!((long.len(), short.len()), (10, 10));
    drop(short);
    balancer.await_number("/services/web/backends/b/connections", 0);
    // The next ten all go to the empty one, and from then on each has the same.
    let mut new = stay(10);
    assert!(new.iter().all(|(_, name)| name == "b"), "not to the emptier one: {new:?}");
    new.append(&mut stay(10));
    assert_eq!(["a", "b"].map(|name| balancer.of_backend(name, "connections")), [15, 15]);
    long.iter().for_each(|(client, _)| exchange(client));
    drop((long, new));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn two_random_choices_keep_the_load_close_together() {
    let machine = Machine::shared();
    let names = ["a", "b", "c", "d"];
    let backends = names.map(Backend::named);
    let setup =
        backends.iter().zip(names).fold(Setup::new(), |setup, (backend, name)| setup.backend(name, backend.address));
    let balancer = machine.start(setup.setting("balance: random_two").workers(4));
    let address = balancer.address();
    let held: Vec<_> = (0..200).map(|_| admitted(address).expect("served")).collect();
    let open = names.map(|name| balancer.of_backend(name, "connections"));
    // 50 each on the average. One random choice strays by 6 (one standard deviation); the lesser of two by 1 or 2.
    assert!(open.iter().all(|open| (47..=53).contains(open)), "{open:?}");
    let order: Vec<String> = held.iter().map(|(_, name)| name.clone()).collect();
    let period = |pair: &[String]| pair.windows(5).filter(|run| run[0] == run[4]).count();
    assert!(period(&order) < 180, "in turns rather than at random");
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn source_hash_keeps_a_client_on_its_backend_and_one_that_goes_moves_its_own_clients_only() {
    let machine = Machine::shared();
    let (a, port, c) = (Backend::named("a"), Port::refusing(), Backend::named("c"));
    let b = Backend::named_on(port.listen(), "b");
    let setup = Setup::new().backend("a", a.address).backend("b", port.address).backend("c", c.address).workers(4);
    let balancer = machine.start(setup.setting("balance: source_hash").setting(PROBED));
    ["a", "b", "c"].iter().for_each(|name| await_backend(&balancer, name, "up"));
    let address = balancer.address();
    let serve_all = || -> Vec<String> {
        (0..90).map(|number| served_from(Ipv4Addr::new(127, 0, 1 + number / 30, 1 + number), address)).collect()
    };
    let before = serve_all();
    assert_eq!(serve_all(), before, "the same client to the same backend");
    // 30 each on the average, one standard deviation is 4.5.
    for name in ["a", "b", "c"] {
        assert!((8..=52).contains(&count_of(&before, name)), "{name} has {} of 90", count_of(&before, name));
    }
    drop(b);
    await_backend(&balancer, "b", "down");
    let during = serve_all();
    for (before, during) in before.iter().zip(&during) {
        assert!(during != "b" && (before == "b" || before == during), "{before} became {during}");
    }
    let orphans: Vec<_> = before.iter().zip(during).filter(|(before, _)| *before == "b").map(|(_, now)| now).collect();
    assert!(["a", "c"].iter().all(|name| count_of(&orphans, name) > 0), "all to one neighbour: {orphans:?}");
    let _b = Backend::named_on(port.listen(), "b");
    await_backend(&balancer, "b", "up");
    assert_eq!(serve_all(), before, "its clients return to it");
    balancer.stop();
}

#[test]
fn first_fills_one_after_the_other() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let setup = Setup::new().backend_with("a", a.address, "max_connections: 3");
    let setup = setup.backend_with("b", b.address, "max_connections: 2").backend("c", c.address);
    let balancer = machine.start(setup.setting("balance: first").workers(4));
    let address = balancer.address();
    let mut held: Vec<_> = (0..8).map(|_| admitted(address).expect("served")).collect();
    let names: Vec<&str> = held.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["a", "a", "a", "b", "b", "c", "c", "c"]);
    held.remove(0);
    balancer.await_number("/services/web/backends/a/connections", 2);
    assert_eq!([admitted(address), admitted(address)].map(|client| client.expect("served").1), ["a", "c"]);
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}
