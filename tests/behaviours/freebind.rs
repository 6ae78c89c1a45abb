//! Addresses that this machine does not have, or not yet: a standby's, and IPv6 addresses that are still checked for duplicates.
//!
//! covers: src/control/listeners/open, src/control/tentative_address

use crate::harness::{Backend, Machine, NEAR, Namespaces, PATIENCE, Setup, connect, exchange, wait_until};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;

/// An address of each family that the near side of the wire has not got.
const MISSING: [(&str, &str); 2] = [("10.77.0.9:8080", "10.77.0.9/24"), ("[fd77::9]:8080", "fd77::9/64 nodad")];

fn echo(inside: &Arc<Namespaces>) -> Backend {
    inside.near().run(|| Backend::on(std::net::TcpListener::bind((NEAR, 0)).expect("a port"), crate::harness::echo))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A client is served at an address that the near side has just got: the kernel knows the way to it a moment later.
fn serves(inside: &Namespaces, listen: &str) {
    inside.near().run(|| {
        wait_until("a way leads to the address", PATIENCE, || TcpStream::connect(listen).is_ok());
        exchange(&connect(address(listen)));
    });
}

/// Both ways out are named, and nothing untrue is.
fn names_the_ways_out(said: &str, listen: &str) {
    let nonlocal = if listen.starts_with('[') { "net.ipv6.ip_nonlocal_bind" } else { "net.ipv4.ip_nonlocal_bind" };
    let ip = address(listen).ip().to_string();
    for words in ["no interface of this machine has this address", "freebind: true", nonlocal, "ip address", &ip] {
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[test]
fn an_address_that_this_machine_does_not_have_is_bound_only_where_the_file_asks_for_it() {
    let machine = Machine::shared();
    let inside = Namespaces::new();
    let backend = echo(&inside);
    for (listen, added) in MISSING {
        let setup = || Setup::new().inside(&inside).backend("a", backend.address);
        let said = machine.start_fails(&setup().listen(listen));
        names_the_ways_out(&said, listen);
        let (code, said) = machine.check(&setup().listen(listen));
        assert_eq!(code, Some(0), "it may be another machine's file: {said}");
        names_the_ways_out(&said, listen);
        let freebind = setup().listen_on(&[listen, "0.0.0.0:8081"]).setting("freebind: true");
        assert_eq!(machine.check(&freebind), (Some(0), String::new()));
        let mut balancer = machine.start(freebind);
        inside.near().add_address(added);
        let serves = || serves(&inside, listen);
        serves();
        balancer.upgrade();
        serves();
        inside.near().remove_address(added);
        balancer.reload();
        inside.near().add_address(added);
        serves();
        balancer.await_no_session();
        balancer.stop();
    }
}

#[test]
fn a_reload_that_lists_one_is_refused_with_the_same_reason_and_applied_with_the_key() {
    let machine = Machine::shared();
    let inside = Namespaces::new();
    let backend = echo(&inside);
    for (listen, added) in MISSING {
        let setup = Setup::new().inside(&inside).listen("0.0.0.0:8081").backend("a", backend.address);
        let balancer = machine.start(setup.setting("freebind: false"));
        balancer.edit("\"0.0.0.0:8081\"", &format!("[\"0.0.0.0:8081\", \"{listen}\"]"));
        names_the_ways_out(&balancer.reload_refused(), listen);
        balancer.edit("freebind: false", "freebind: true");
        let changes = balancer.reload();
        assert!(changes.contains("web: freebind false → true"), "{changes}");
        inside.near().add_address(added);
        serves(&inside, listen);
        balancer.await_no_session();
        balancer.stop();
    }
}

/// The near side gets an address that stays tentative for two to three seconds.
fn tentative(inside: &Namespaces, ip: Ipv6Addr) -> SocketAddr {
    inside.near().tentative_for(2);
    inside.near().add_address(&format!("{ip}/64"));
    let bound = inside.near().run(|| std::net::TcpListener::bind((ip, 0)));
    assert!(bound.is_err(), "it is tentative");
    (ip, 8080).into()
}

#[test]
fn an_ipv6_address_that_is_still_checked_for_duplicates_is_waited_for_at_the_start() {
    let machine = Machine::shared();
    let inside = Namespaces::new();
    let backend = echo(&inside);
    let listen = tentative(&inside, "fd77::1".parse().expect("an address"));
    let balancer = machine.start(Setup::new().inside(&inside).listen(listen).backend("a", backend.address));
    balancer.await_logged("still checks it for a duplicate");
    inside.near().run(|| exchange(&connect(listen)));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn it_is_waited_for_by_a_reload_too_and_nothing_else_waits_meanwhile() {
    let machine = Machine::shared();
    let inside = Namespaces::new();
    let backend = echo(&inside);
    let setup = Setup::new().inside(&inside).listen("0.0.0.0:8081").backend("a", backend.address);
    let balancer = machine.start(setup.setting("health: { probe: tcp, interval: 100ms, timeout: 100ms }"));
    balancer.await_state("/services/web/backends/a/state", "up");
    let listen = tentative(&inside, "fd77::1".parse().expect("an address"));
    balancer.edit("\"0.0.0.0:8081\"", &format!("[\"0.0.0.0:8081\", \"{listen}\"]"));
    let before = balancer.probes("a", "passed");
    let mut passed = before;
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| balancer.reload());
        wait_until("the reload is applied", PATIENCE, || {
            passed = balancer.probes("a", "passed");
            reload.is_finished()
        });
        reload.join().expect("applied");
    });
    assert!(passed > before + 3, "{} probes in two seconds, one is due each tenth of a second", passed - before);
    inside.near().run(|| exchange(&connect(listen)));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn one_that_another_machine_has_is_said_to_be_a_duplicate() {
    let machine = Machine::shared();
    let inside = Namespaces::new();
    let backend = echo(&inside);
    inside.far().add_address("fd77::1/64 nodad");
    inside.near().add_address("fd77::1/64");
    let listen = address("[fd77::1]:8080");
    let flags =
        || inside.near().run(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6").expect("the addresses"));
    wait_until("the kernel has found the duplicate", PATIENCE, || {
        flags().lines().any(|line| line.starts_with("fd77") && line.split_whitespace().nth(4) == Some("c8"))
    });
    let said = machine.start_fails(&Setup::new().inside(&inside).listen(listen).backend("a", backend.address));
    assert!(said.contains("another machine on its link has this address, too"), "{said}");
    assert!(!said.contains("no interface of this machine has"), "{said}");
}
