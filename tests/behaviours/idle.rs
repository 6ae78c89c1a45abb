//! Where nothing is due, nothing happens.

use std::time::Duration;

use crate::harness::{Backend, Bytes, Machine, Setup, exchange, receive, seed, send};

/// A session looks once more when a deadline that it has already met would have been due; with short ones that is soon over.
fn quick(setup: Setup) -> Setup {
    setup.setting("connect: { timeout: 300ms }").setting("timeouts: { idle: 1h, unresponsive: 500ms }")
}

/// After this long all such looks are over, spare pipes are closed and what was asked over the admin socket is put away.
const SETTLING: Duration = Duration::from_millis(2500);

#[test]
fn an_idle_balancer_is_not_woken_once() {
    let machine = Machine::alone();
    let backend = Backend::echo();
    let balancer = machine.start(quick(Setup::new().backend("a", backend.address)));
    let clients: Vec<_> = (0..10).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    balancer.await_number("/sessions", 10);
    std::thread::sleep(SETTLING);
    let (sleeps, used) = (balancer.process().sleeps(), balancer.process().processor_time());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(balancer.process().sleeps(), sleeps);
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
    let balancer = machine.start(quick(Setup::new().backend("a", backend.address)));
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
    std::thread::sleep(SETTLING);
    let sleeps = balancer.process().sleeps();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(balancer.process().sleeps(), sleeps);
    assert_eq!(balancer.process().ring_workers(), 0);
    balancer.stop_after(client);
}
