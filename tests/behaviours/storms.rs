//! Much at once: few places, clients that leave, backends that come and go, thousands that wait. Nobody is forgotten, nothing leaks.
//!
//! covers: src/forward/pending, src/table/queue

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::harness::{
    Backend, Balancer, Machine, PATIENCE, Port, Setup, connect, is_reset, patient, reset, seed, served_by, wait_until,
};
use crate::probing::{answer, hear};

/// A client that comes, does one of many things, and must be served or refused where it stays. Answers whether it was heard of.
fn visit(address: SocketAddr, random: &mut fastrand::Rng) -> bool {
    let mut client = match TcpStream::connect(address) {
        Ok(client) => patient(client),
        // The reset that refuses it can overtake the connect's own return.
        Err(error) => return is_reset(&error),
    };
    let pause = Duration::from_millis(random.u64(0..30));
    match random.u8(0..4) {
        // It leaves at some moment: while it waits, while it is connected, or later.
        0 => {
            std::thread::sleep(pause);
            reset(client);
        }
        // It has finished sending before anybody serves it.
        1 => {
            let _ = client.write_all(b"x").and_then(|()| client.shutdown(Shutdown::Write));
            ends(&client);
        }
        // It stays for a while, and ends well or with a reset.
        kind => {
            let mut name = [0; 2];
            match client.read_exact(&mut name) {
                Ok(()) => {}
                Err(error) if is_reset(&error) => return true,
                Err(error) => panic!("neither served nor refused: {error}"),
            }
            std::thread::sleep(pause);
            if kind == 3 {
                reset(client);
            }
        }
    }
    true
}

/// Reads on to the end, of whatever kind, which must come.
fn ends(mut client: &TcpStream) {
    match client.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert!(is_reset(&error), "neither served nor refused: {error}"),
    }
}

/// Every place and every gauge is as before the first client, and each client was counted once.
#[track_caller]
fn assert_all_gone(balancer: &Balancer, backends: &[&str], clients: u64) {
    balancer.await_no_session();
    let status = balancer.status();
    let of_backends = backends.iter().map(|name| format!("/services/web/backends/{name}/connections"));
    for gauge in of_backends.chain(["/services/web/connections", "/services/web/queued"].map(str::to_owned)) {
        assert_eq!(status.number(&gauge), 0, "{gauge}");
    }
    let (closed, refused) = (status.sum("/services/web/closed"), status.sum("/services/web/refused_by"));
    assert_eq!(closed + refused, clients, "{closed} served and {refused} refused");
}

#[test]
fn clients_that_queue_and_reset_while_a_backend_flaps_are_all_served_or_refused_and_leave_nothing_behind() {
    const FLAPS: usize = 4;
    let machine = Machine::shared();
    let (a, probed, port) = (Backend::named("a"), Backend::echo(), Port::refusing());
    let mut flapping = Some(Backend::named_on(port.listen(), "b"));
    // Probed elsewhere, so that its connections are sessions.
    let places = format!("max_connections: 3, probe_address: \"{}\"", probed.address);
    let setup = Setup::new().workers(4).backend_with("a", a.address, &places);
    let setup = setup.backend_with("b", port.address, "max_connections: 3");
    let setup = setup.setting("health: { interval: 100ms, timeout: 100ms, rise: 1, fall: 1, passive: 2 }");
    let balancer = machine.start(setup.setting("queue: { size: 8, timeout: 300ms }"));
    let state = "/services/web/backends/b/state";
    balancer.await_state(state, "up");
    let descriptors = balancer.process().descriptors();
    let (address, seed, over) = (balancer.address(), seed(), AtomicBool::new(false));
    let visits: u64 = std::thread::scope(|scope| {
        let clients = (0..24).map(|number| {
            let over = &over;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed ^ number);
                std::iter::from_fn(|| (!over.load(SeqCst)).then(|| u64::from(visit(address, &mut random)))).sum::<u64>()
            })
        });
        let clients: Vec<_> = clients.collect();
        for _ in 0..FLAPS {
            drop(flapping.take());
            balancer.await_state(state, "down");
            flapping = Some(Backend::named_on(port.listen(), "b"));
            balancer.await_state(state, "up");
        }
        over.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().expect("served or refused")).sum()
    });
    assert_all_gone(&balancer, &["a", "b"], visits);
    assert!(balancer.refused("backend_limit") + balancer.refused("queue_timeout") > 0, "the queue was never full");
    assert!(a.peak() <= 3, "{} of 3 places were taken", a.peak());
    wait_until("both serve", PATIENCE, || {
        let names = [(); 2].map(|()| served_by(address));
        names.contains(&"a".to_owned()) && names.contains(&"b".to_owned())
    });
    balancer.await_no_session();
    wait_until("no descriptor has leaked", PATIENCE, || balancer.process().descriptors() <= descriptors);
    balancer.stop();
}

/// A backend for probes that answers them when it may.
struct Gate {
    backend: Backend,
    open: Arc<RwLock<()>>,
}

impl Gate {
    /// It answers `status` as soon as nobody holds [`Gate::open`].
    fn new(status: &'static str) -> Self {
        let open = Arc::new(RwLock::new(()));
        let gate = Arc::clone(&open);
        let backend = Backend::new(move |stream| {
            hear(stream);
            drop(gate.read());
            answer(stream, status);
        });
        Self { backend, open }
    }
}

/// Thousands wait for the first probe; half of them leave before it is answered with `status`. What becomes of the rest is `then`'s.
fn thousands_wait(machine: &Machine, status: &'static str, then: impl FnOnce(&Balancer, Vec<TcpStream>)) {
    const CLIENTS: usize = 3000;
    let (a, gate) = (Backend::named("a"), Gate::new(status));
    let shut = gate.open.write().expect("the gate");
    let setup = Setup::new().backend_with("a", a.address, &format!("probe_address: \"{}\"", gate.backend.address));
    let balancer = machine.start(setup.setting("health: { probe: { http: {} }, interval: 1m, timeout: 1m }"));
    let (address, descriptors) = (balancer.address(), balancer.process().descriptors());
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
    balancer.await_number("/services/web/connections", CLIENTS as u64);
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 { leaving.push(client) } else { staying.push(client) }
    }
    leaving.into_iter().for_each(reset);
    balancer.await_number("/services/web/connections", staying.len() as u64);
    balancer.await_closed("client_reset", (CLIENTS / 2) as u64);
    // Some have finished sending, which nobody can tell from one who waits for an answer: they are served as well.
    let (mut finished, mut staying) = (staying.split_off(CLIENTS / 2 - 200), staying);
    finished.drain(..100).for_each(drop);
    finished.iter().for_each(|client| client.shutdown(Shutdown::Write).expect("finishing"));
    assert_eq!(
        (a.total(), balancer.number("/services/web/refused")),
        (0, 0),
        "served before anybody was known to serve"
    );
    drop(shut);
    staying.append(&mut finished);
    then(&balancer, staying);
    assert_all_gone(&balancer, &["a"], CLIENTS as u64);
    wait_until("no descriptor has leaked", PATIENCE, || balancer.process().descriptors() <= descriptors);
    balancer.stop();
}

#[test]
fn of_thousands_who_wait_for_the_first_probe_those_who_stay_are_all_served_and_those_who_leave_are_gone() {
    thousands_wait(&Machine::shared(), "200 OK", |balancer, staying| {
        for mut client in &staying {
            client.read_exact(&mut [0; 2]).expect("served");
        }
        assert_eq!(balancer.number("/services/web/refused"), 0);
    });
}

#[test]
fn of_thousands_who_wait_for_the_first_probe_those_who_stay_are_all_refused_where_it_fails() {
    thousands_wait(&Machine::shared(), "503 Service Unavailable", |balancer, staying| {
        for client in &staying {
            ends(client);
        }
        balancer.await_refused("no_backend", 1500);
    });
}
