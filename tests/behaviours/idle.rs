//! Where nothing is due, nothing happens.

use std::time::Duration;

use crate::harness::{Backend, Bytes, Machine, Setup, exchange, receive, seed, send};

#[test]
fn an_idle_balancer_is_not_woken_once() {
    let machine = Machine::alone();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let clients: Vec<_> = (0..10).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    balancer.await_number("/sessions", 10);
    // What was asked over the admin socket may still be put away.
    std::thread::sleep(Duration::from_millis(300));
    let (switches, used) = (balancer.process().switches(), balancer.process().processor_time());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(balancer.process().switches() - switches, 0, "threads {:?}", balancer.process().threads());
    assert_eq!(balancer.process().processor_time(), used);
    assert_eq!(balancer.process().ring_workers(), 0);
    clients.iter().for_each(exchange);
    drop(clients);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn it_is_not_woken_after_it_has_been_busy_either() {
    let machine = Machine::alone();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address).setting("timeouts: { idle: 1m }"));
    let seed = seed();
    for _ in 0..3 {
        let client = balancer.connect();
        std::thread::scope(|scope| {
            scope.spawn(|| send(&client, seed, 32 << 20).expect("sending"));
            receive(&client, &mut Bytes::new(seed), 32 << 20);
        });
    }
    let client = balancer.connect();
    exchange(&client);
    balancer.await_number("/sessions", 1);
    std::thread::sleep(Duration::from_secs(1));
    let switches = balancer.process().switches();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(balancer.process().switches() - switches, 0, "threads {:?}", balancer.process().threads());
    assert_eq!(balancer.process().ring_workers(), 0);
    balancer.stop_after(client);
}
