//! Who serves whom: exact shares, across all workers.
//!
//! covers: src/table/mod, src/table/tests, src/table/round_robin, src/table/rotation

use crate::harness::{
    Backend, Balancer, Machine, PATIENCE, Port, Setup, admitted, exchange, reset, served_by, wait_until,
};
use crate::maintenance::done;

/// The names of the backends that serve `count` clients, one after the other.
fn served_in_turn(balancer: &Balancer, count: usize) -> Vec<String> {
    let address = balancer.address();
    (0..count).map(|_| served_by(address)).collect()
}

fn count_of(names: &[String], name: &str) -> usize {
    names.iter().filter(|served| *served == name).count()
}

#[test]
fn two_backends_alternate_strictly_across_all_workers() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let balancer = machine.start(Setup::new().backend("a", a.address).backend("b", b.address));
    let names = served_in_turn(&balancer, 30);
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "not alternating: {names:?}");
    assert_eq!((count_of(&names, "a"), count_of(&names, "b")), (15, 15));
    balancer.await_number("/services/web/backends/a/total", 15);
    balancer.await_number("/services/web/backends/b/total", 15);
    balancer.stop();
}

#[test]
fn clients_that_arrive_at_once_are_shared_out_exactly() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let setup = Setup::new().backend("a", a.address).backend("b", b.address).backend("c", c.address);
    let balancer = machine.start(setup.workers(4));
    let address = balancer.address();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| (0..30).for_each(|_| drop(served_by(address))));
        }
    });
    assert_eq!([a.total(), b.total(), c.total()], [100; 3]);
    balancer.stop();
}

#[test]
fn weights_share_out_smoothly_not_in_runs() {
    let machine = Machine::shared();
    let (light, heavy) = (Backend::named("light"), Backend::named("heavy"));
    let setup = Setup::new().backend_with("light", light.address, "weight: 1");
    let balancer = machine.start(setup.backend_with("heavy", heavy.address, "weight: 2"));
    let names = served_in_turn(&balancer, 30);
    assert_eq!((count_of(&names, "light"), count_of(&names, "heavy")), (10, 20));
    assert!(!names.windows(3).any(|run| count_of(run, "heavy") == 3), "a run of the heavy one: {names:?}");
    assert!(!names.windows(2).any(|run| count_of(run, "light") == 2), "a run of the light one: {names:?}");
    balancer.stop();
}

#[test]
fn the_turns_of_a_failed_backend_do_not_all_go_to_its_neighbour_and_it_comes_back_without_a_burst() {
    let machine = Machine::shared();
    let (a, port, c) = (Backend::named("a"), Port::refusing(), Backend::named("c"));
    let balancer =
        machine.start(Setup::new().backend("a", a.address).backend("b", port.address).backend("c", c.address));
    let names = served_in_turn(&balancer, 30);
    assert_eq!((count_of(&names, "a"), count_of(&names, "c")), (15, 15), "{names:?}");
    assert!(balancer.of_backend("b", "failures") >= 10);

    let b = Backend::named_on(port.listen(), "b");
    let names = served_in_turn(&balancer, 30);
    assert_eq!([count_of(&names, "a"), count_of(&names, "b"), count_of(&names, "c")], [10; 3], "{names:?}");
    assert!(names.windows(3).all(|turn| count_of(turn, "b") == 1), "a burst: {names:?}");

    drop(b);
    let names = served_in_turn(&balancer, 30);
    assert_eq!((count_of(&names, "a"), count_of(&names, "c")), (15, 15), "{names:?}");
    balancer.stop();
}

#[test]
fn turns_go_on_where_they_were_when_a_backend_goes_or_comes_back() {
    let machine = Machine::shared();
    let all = ["a", "b", "c"].map(Backend::named);
    let setup = ["a", "b", "c"]
        .iter()
        .zip(&all)
        .fold(Setup::new(), |setup, (name, backend)| setup.backend(name, backend.address));
    let balancer = machine.start(setup.workers(2));
    let served = |count| served_in_turn(&balancer, count).concat();
    assert_eq!(served(4), "abca");
    done(&balancer, &["drain", "web/c", "--for", "1h", "--reason", "a test"]);
    assert_eq!(served(6), "bababa");
    done(&balancer, &["restore", "web/c"]);
    balancer.await_state("/services/web/backends/c/state", "up");
    assert_eq!(served(4), "bcab");
    done(&balancer, &["drain", "web/b", "--for", "1h", "--reason", "a test"]);
    assert_eq!(served(3), "cac");
    balancer.stop();
}

#[test]
fn turns_go_on_where_they_were_when_a_reload_changes_who_serves() {
    let machine = Machine::shared();
    let [a, b, c, x] = ["a", "b", "c", "x"].map(Backend::named);
    let setup = Setup::new().process("reload: { guard: 0% }").workers(2);
    let balancer = machine.start(setup.backend("a", a.address).backend("b", b.address).backend("c", c.address));
    let served = |count| served_in_turn(&balancer, count).concat();
    assert_eq!(served(4), "abca");
    // b is gone, x stands before the others.
    let line = |name: &str, address| format!("      {name}: \"{address}\"\n");
    let (first, gone) = (line("a", a.address), line("b", b.address));
    let configuration = balancer.configuration().replace(&gone, "").replace(&first, &(line("x", x.address) + &first));
    balancer.configure(&configuration);
    balancer.reload();
    assert_eq!(served(5), "cxacx");
    balancer.stop();
}

#[test]
fn two_that_serve_share_exactly_while_a_third_dies_and_comes_back() {
    let machine = Machine::shared();
    let (a, port, c) = (Backend::named("a"), Port::refusing(), Backend::named("c"));
    let setup = Setup::new().backend("a", a.address).backend("b", port.address).backend("c", c.address);
    // Traffic and probes take the third one down and bring it back, at moments that nobody chooses.
    let balancer = machine
        .start(setup.setting("health: { interval: 100ms, timeout: 100ms, rise: 1, fall: 2, passive: 2 }").workers(2));
    for round in 0..4 {
        let names = served_in_turn(&balancer, 30);
        assert_eq!((count_of(&names, "a"), count_of(&names, "c")), (15, 15), "round {round}: {names:?}");
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "round {round}: {names:?}");
        let b = Backend::named_on(port.listen(), "b");
        let mut names = Vec::new();
        while count_of(&names, "b") < 2 {
            names.push(served_by(balancer.address()));
        }
        drop(b);
        let (a, c) = (count_of(&names, "a"), count_of(&names, "c"));
        assert!(a.abs_diff(c) <= 1, "round {round}: {names:?}");
        // The next round begins with a's turn.
        if names.iter().rfind(|name| *name != "b").is_some_and(|last| last == "a") {
            assert_eq!(served_by(balancer.address()), "c");
        }
    }
    balancer.stop();
}

#[test]
fn a_full_backend_is_passed_over_and_its_surplus_spread() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let setup = Setup::new().backend("a", a.address).backend_with("b", b.address, "max_connections: 2");
    let balancer = machine.start(setup.backend("c", c.address));
    let address = balancer.address();
    let held: Vec<_> = (0..30).map(|_| admitted(address).expect("served")).collect();
    assert_eq!([a.open(), b.open(), c.open()], [14, 2, 14]);
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_backends_limit_is_exact_across_workers() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::new().backend_with("a", a.address, "max_connections: 5");
    let balancer = machine.start(setup.backend_with("b", b.address, "max_connections: 7").workers(4));
    let address = balancer.address();
    let held: Vec<_> = std::thread::scope(|scope| {
        let arriving: Vec<_> = (0..60).map(|_| scope.spawn(|| admitted(address))).collect();
        arriving.into_iter().filter_map(|client| client.join().expect("served or refused")).collect()
    });
    assert_eq!((held.len(), a.open(), b.open()), (12, 5, 7));
    balancer.await_refused("backend_limit", 48);
    assert_eq!((balancer.of_backend("a", "connections"), balancer.of_backend("b", "connections")), (5, 7));
    drop(held);
    balancer.await_no_session();

    // Coming and going from many threads never overshoots.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..40 {
                    if let Some((client, _)) = admitted(address) {
                        exchange(&client);
                        reset(client);
                    }
                }
            });
        }
    });
    assert!(a.peak() <= 5 && b.peak() <= 7, "overshot: {} of 5, {} of 7", a.peak(), b.peak());
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_freed_place_admits_exactly_one() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(Setup::new().backend_with("a", a.address, "max_connections: 3"));
    let address = balancer.address();
    let mut held: Vec<_> = (0..3).map(|_| admitted(address).expect("served")).collect();
    for _ in 0..5 {
        drop(held.pop());
        balancer.await_number("/services/web/backends/a/connections", 2);
        let mut served: Vec<_> = (0..4).filter_map(|_| admitted(address)).collect();
        assert_eq!(served.len(), 1);
        held.append(&mut served);
    }
    wait_until("three are open", PATIENCE, || a.open() == 3);
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}
