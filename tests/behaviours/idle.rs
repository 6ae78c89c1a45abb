//! Where nothing is due, nothing happens.
//!
//! covers: src/forward/worker, src/sys/channel, src/sys/enter
//! kernel features: coop_taskrun, defer_taskrun, no_iowait, registered_ring

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{
    Backend, Bytes, Machine, PATIENCE, Process, Setup, connect, exchange, receive, reset, seed, send, wait_until,
};

/// A session looks once more when a deadline that it has already met would have been due; with short ones that is soon over.
fn quick(setup: Setup) -> Setup {
    setup.setting("connect: { timeout: 300ms }").setting("timeouts: { idle: 1h, unresponsive: 500ms }")
}

/// Waits until all such looks are over, spare pipes are closed and what was asked over the admin socket is put away: until nothing
/// has been woken for longer than any of them takes. How often each thread has gone to sleep by then.
#[track_caller]
pub(crate) fn settled(process: Process) -> BTreeMap<String, u64> {
    let (mut last, mut since) = (process.sleeps(), Instant::now());
    wait_until("nothing is due any more", PATIENCE, || {
        let now = process.sleeps();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(1500)
    });
    last
}

#[test]
fn an_idle_balancer_is_not_woken_once() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(quick(Setup::new().backend("a", backend.address)));
    let clients: Vec<_> = (0..10).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    balancer.await_number("/sessions", 10);
    let (sleeps, used) = (settled(balancer.process()), balancer.process().processor_time());
    std::thread::sleep(Duration::from_secs(10));
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
    let machine = Machine::shared();
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
    let sleeps = settled(balancer.process());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(balancer.process().sleeps(), sleeps);
    assert_eq!(balancer.process().ring_workers(), 0);
    balancer.stop_after(client);
}

#[test]
fn clients_that_wait_for_a_place_in_two_services_keep_no_worker_awake() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let (one, queue) = ("max_connections: 1", "queue: { size: 50, timeout: 1m }");
    let setup = Setup::new().backend_with("a", a.address, one).setting(queue);
    let balancer = machine.start(setup.service("other").backend_with("b", b.address, one).setting(queue));
    let addresses = [balancer.address(), balancer.address_of("other")];
    // Which worker a client is given to is chance: over eight clients of each, the two in front are often on two workers.
    let mut lines = addresses.map(|address| (0..8).map(|_| connect(address)).collect::<Vec<TcpStream>>());
    lines.iter_mut().flatten().for_each(|client| client.set_nonblocking(true).expect("O_NONBLOCK"));
    for turn in 0..8 {
        for line in &lines {
            wait_until("one of the line is served", PATIENCE, || line.iter().any(is_served));
        }
        let line = &mut lines[turn % 2];
        let served = line.iter().position(is_served).expect("one is served");
        reset(line.swap_remove(served));
        wait_until("the next in line is served", PATIENCE, || line.iter().any(is_served));
        let wakes = balancer.number("/wakes");
        // Long enough for thousands of turns, if two workers woke each other.
        std::thread::sleep(Duration::from_millis(100));
        let wakes = balancer.number("/wakes") - wakes;
        assert!(wakes < 100, "{wakes} turns in 100 ms in which nobody came or went");
    }
    drop(lines);
    balancer.await_no_session();
    balancer.stop();
}

/// Its backend has said its name.
fn is_served(client: &TcpStream) -> bool {
    matches!(client.peek(&mut [0]), Ok(1))
}

/// Ticks that all cores have been idle, and that they have been idle while somebody waited for a disk (proc(5)).
fn idle_ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").expect("the kernel counts");
    let ticks = stat.lines().next().expect("all cores in one line").split_whitespace().skip(4);
    let mut ticks = ticks.map(|ticks| ticks.parse().expect("a number"));
    (ticks.next().expect("idle"), ticks.next().expect("iowait"))
}

#[test]
fn a_balancer_with_nothing_to_do_does_not_look_like_one_that_waits_for_a_disk() {
    let machine = Machine::alone();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let client = balancer.connect();
    exchange(&client);
    let used = balancer.uses("no_iowait");
    // Others on this machine may wait for a disk for a moment.
    let (mut least, mut looks) = (100, 0);
    while least >= 30 && looks < if used { 5 } else { 1 } {
        let before = idle_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let after = idle_ticks();
        let (idle, waiting) = (after.0 - before.0, after.1 - before.1);
        (least, looks) = (least.min(100 * waiting / (idle + waiting).max(1)), looks + 1);
    }
    // Each worker would make a core look so, all of the time.
    assert!(least < 30 || !used, "{least} % of the idle time is said to be waiting for a disk");
    balancer.stop_after(client);
}
