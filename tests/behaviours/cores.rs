//! A connection stays on the core that received it, and yet no core serves them all.
//!
//! covers: src/forward/listener, src/sys/socket
//! kernel features: incoming_cpu

use std::net::TcpStream;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::harness::{Backend, Balancer, Machine, Setup, exchange};

/// The cores that this process may use: as many workers, each on its own.
fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the cores of this thread");
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

fn start(machine: &Machine) -> (Backend, Balancer) {
    let backend = Backend::echo();
    let workers = cores().len().try_into().expect("not so many cores");
    let balancer = machine.start(Setup::new().workers(workers).backend("a", backend.address));
    (backend, balancer)
}

/// Clients on one core, and how often each worker has gone to sleep meanwhile.
fn on_core<T: Send>(balancer: &Balancer, core: usize, work: impl FnOnce() -> T + Send) -> (T, Vec<u64>) {
    let sleeps = || {
        let all = balancer.process().sleeps();
        (0..cores().len()).map(|worker| all[&format!("worker-{worker}")]).collect::<Vec<_>>()
    };
    let before = sleeps();
    let pinned = || {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).expect("keeping to a core");
        work()
    };
    let result = std::thread::scope(|scope| scope.spawn(pinned).join().expect("the clients"));
    (result, sleeps().iter().zip(before).map(|(after, before)| after - before).collect())
}

fn session(balancer: &Balancer) -> TcpStream {
    let client = balancer.connect();
    exchange(&client);
    client
}

/// Clients one by one, on one core after the other: each core's worker serves those that arrive there.
fn each_serves_its_own(balancer: &Balancer) {
    for (worker, core) in cores().into_iter().enumerate() {
        let one_by_one = || {
            for _ in 0..100 {
                drop(session(balancer));
                balancer.await_no_session();
            }
        };
        let ((), sleeps) = on_core(balancer, core, one_by_one);
        let others = sleeps.iter().sum::<u64>() - sleeps[worker];
        if balancer.uses("incoming_cpu") {
            assert!(others < 30 && sleeps[worker] >= 100, "clients on core {core}: {sleeps:?}");
        } else {
            assert!(sleeps.iter().all(|&sleeps| sleeps >= 10), "clients on core {core}: {sleeps:?}");
        }
    }
}

#[test]
fn a_connection_is_served_by_the_worker_of_the_core_that_receives_it() {
    let machine = Machine::alone();
    let (_backend, balancer) = start(&machine);
    each_serves_its_own(&balancer);
    balancer.stop();
}

#[test]
fn connections_that_one_core_receives_alone_are_served_by_all_workers() {
    let machine = Machine::alone();
    let (_backend, balancer) = start(&machine);
    for core in cores() {
        let (clients, sleeps) = on_core(&balancer, core, || (0..400).map(|_| session(&balancer)).collect::<Vec<_>>());
        let fewest = 400 / cores().len() as u64 / 2;
        assert!(sleeps.iter().all(|&sleeps| sleeps >= fewest), "clients on core {core}: {sleeps:?}");
        drop(clients);
        balancer.await_no_session();
    }
    // And when they have gone, it is as before.
    each_serves_its_own(&balancer);
    balancer.stop();
}
