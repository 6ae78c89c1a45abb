//! Backups serve what the backends cannot, and no more than that.
//!
//! covers: src/table/service, src/observe/condition

use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Backend, Balancer, Machine, PATIENCE, Port, Setup, admitted, exchange, served_by, wait_until};

/// Quick probes: up and down at once.
const PROBED: &str = "health: { probe: tcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 1 }";

/// Clients that are served one after the other and stay, and by whom.
fn stay(balancer: &Balancer, count: usize) -> (Vec<TcpStream>, Vec<String>) {
    let address = balancer.address();
    (0..count).map(|_| admitted(address).expect("served")).unzip()
}

/// Waits until a backend is in this state.
fn await_backend(balancer: &Balancer, name: &str, state: &str) {
    balancer.await_state(&format!("/services/web/backends/{name}/state"), state);
}

#[test]
fn while_all_backends_are_down_the_backups_serve_in_their_order_each_until_it_is_full() {
    let machine = Machine::shared();
    let (a, b) = (Port::refusing(), Port::refusing());
    let (x, y) = (Backend::named("x"), Backend::named("y"));
    let setup = Setup::new().backend("a", a.address).backend("b", b.address).setting(PROBED);
    let first = format!("x: {{ address: \"{}\", max_connections: 3 }}", x.address);
    let balancer = machine.start(setup.setting(&format!("backups: {{ {first}, y: \"{}\" }}", y.address)));
    ["a", "b"].iter().for_each(|name| await_backend(&balancer, name, "down"));
    ["x", "y"].iter().for_each(|name| await_backend(&balancer, name, "up"));
    balancer.await_state("/services/web/state", "degraded");
    let (mut held, names) = stay(&balancer, 6);
    assert_eq!(names, ["x", "x", "x", "y", "y", "y"]);
    // A place that is free again in the first one is taken first.
    drop(held.remove(0));
    balancer.await_number("/services/web/backends/x/connections", 2);
    let (mut more, names) = stay(&balancer, 2);
    assert_eq!(names, ["x", "y"]);
    held.append(&mut more);

    let b = Backend::named_on(b.listen(), "b");
    await_backend(&balancer, "b", "up");
    assert_eq!(stay(&balancer, 5).1, ["b"; 5]);
    // Those on the backups live on.
    held.iter().for_each(exchange);
    balancer.await_state("/services/web/state", "degraded");
    let _a = Backend::named_on(a.listen(), "a");
    await_backend(&balancer, "a", "up");
    held.iter().for_each(exchange);
    assert!(b.total() >= 5);
    // Not whole again while a backup carries sessions.
    balancer.await_state("/services/web/state", "degraded");
    drop(held);
    balancer.await_no_session();
    balancer.await_state("/services/web/state", "ok");
    balancer.stop();
}

#[test]
fn while_all_backends_are_full_the_surplus_alone_goes_to_the_backup() {
    let machine = Machine::shared();
    let (a, b, x) = (Backend::named("a"), Backend::named("b"), Backend::named("x"));
    let setup = Setup::new().backend_with("a", a.address, "max_connections: 2");
    let setup = setup.backend_with("b", b.address, "max_connections: 2");
    let balancer = machine.start(setup.setting(&format!("backups: {{ x: \"{}\" }}", x.address)));
    let (mut held, names) = stay(&balancer, 7);
    assert!(names[..4].iter().all(|name| name != "x"), "the backup served before its time: {names:?}");
    assert_eq!(names[4..], ["x", "x", "x"]);
    let surplus = held.split_off(4);
    // As soon as there is room again, who is new goes there.
    drop(held.remove(0));
    balancer.await_number("/services/web/connections", 6);
    let (more, names) = stay(&balancer, 2);
    assert!(names[0] != "x" && names[1] == "x", "{names:?}");
    surplus.iter().for_each(exchange);
    assert_eq!(x.total(), 4);
    drop((held, surplus, more));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_service_is_ok_then_degraded_then_down_and_ok_again() {
    let machine = Machine::shared();
    let (a, b, x) = (Port::refusing(), Port::refusing(), Port::refusing());
    let setup = Setup::new().backend("a", a.address).backend("b", b.address).setting(PROBED);
    let serving = (Backend::named_on(a.listen(), "a"), Backend::named_on(b.listen(), "b"));
    let backup = Backend::named_on(x.listen(), "x");
    let balancer = machine.start(setup.setting(&format!("backups: {{ x: \"{}\" }}", x.address)));
    let state = |state| balancer.await_state("/services/web/state", state);
    state("ok");
    let (on_a, on_b) = serving;
    drop(on_a);
    state("degraded");
    assert_eq!(served_by(balancer.address()), "b");
    drop(on_b);
    await_backend(&balancer, "b", "down");
    state("degraded");
    assert_eq!(served_by(balancer.address()), "x");
    drop(backup);
    state("down");
    assert!(admitted(balancer.address()).is_none());
    balancer.await_refused("no_backend", 1);
    let _serving = [Backend::named_on(a.listen(), "a"), Backend::named_on(b.listen(), "b")];
    ["a", "b"].iter().for_each(|name| await_backend(&balancer, name, "up"));
    assert!(["a", "b"].contains(&&*served_by(balancer.address())));
    let _backup = Backend::named_on(x.listen(), "x");
    await_backend(&balancer, "x", "up");
    state("ok");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn the_timeline_says_of_a_service_what_the_status_says_while_backups_have_sessions() {
    let machine = Machine::shared();
    let (a, x) = (Port::refusing(), Backend::named("x"));
    let setup = Setup::new().backend_with("a", a.address, "max_connections: 1").setting(PROBED);
    let balancer = machine.start(setup.setting(&format!("backups: {{ x: \"{}\" }}", x.address)));
    await_backend(&balancer, "a", "down");
    await_backend(&balancer, "x", "up");
    let told = || {
        let json: Value = serde_json::from_str(&balancer.command(&["timeline", "--json"]).1).expect("JSON");
        let events = json["events"].as_array().expect("events");
        events.iter().rev().find_map(|event| event["state"].as_str()).unwrap_or_default().to_owned()
    };
    let agree = |state: &str| {
        balancer.await_state("/services/web/state", state);
        wait_until(&format!("the timeline has {state}"), PATIENCE, || told() == state);
        let page = balancer.command(&["timeline", "--markdown"]).1;
        assert!(page.contains(&format!("| {state} |")), "{page}");
    };
    let (held, names) = stay(&balancer, 1);
    assert_eq!(names, ["x"]);
    let _a = Backend::named_on(a.listen(), "a");
    await_backend(&balancer, "a", "up");
    balancer.await_logged("backend a (");
    balancer.await_logged("down -> up");
    assert_eq!(told(), "degraded", "a backup has a session still");
    agree("degraded");
    drop(held);
    agree("ok");
    // The surplus.
    let (held, names) = stay(&balancer, 2);
    assert_eq!(names, ["a", "x"]);
    agree("degraded");
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}
