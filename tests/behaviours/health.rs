//! When a backend goes down and comes back: after exactly so many probes, with one line each, or by the word of traffic.
//!
//! covers: src/control/health, src/control/fleet/tracked, src/observe/condition

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Acceptor, Backend, Balancer, Machine, PATIENCE, Port, SLACK, Setup, admitted, assert_ends_with_reset, served_by,
    wait_until,
};
use crate::probing::{answer, hear};
use crate::real_servers::redis;

/// What the status says of a backend: `state`, `reason`.
fn of(balancer: &Balancer, backend: &str, key: &str) -> String {
    balancer.status().text(&format!("/services/web/backends/{backend}/{key}"))
}

/// Waits until a backend is in this state.
fn await_state(balancer: &Balancer, backend: &str, state: &str) {
    balancer.await_state(&format!("/services/web/backends/{backend}/state"), state);
}

#[test]
fn a_backend_is_down_after_exactly_fall_failures_in_a_row_and_up_after_exactly_rise_passes_in_a_row() {
    let machine = Machine::shared();
    let (backend, other) = (Acceptor::new(), Backend::new(|stream| answer(stream, "200 OK")));
    let setup = Setup::new().backend("a", backend.address).backend("b", other.address);
    let health = "health: { probe: { http: {} }, interval: 500ms, timeout: 500ms, rise: 2, fall: 3, passive: off }";
    let balancer = machine.start(setup.setting(health));
    let next = || {
        let stream = backend.accept();
        hear(&stream);
        stream
    };
    let mut asked = next();
    assert_eq!(of(&balancer, "a", "state"), "starting");
    // A pass ends a run of failures, a failure a run of passes. The answer, and the state that follows from it.
    let history = [(true, "up"), (false, "up"), (false, "up"), (true, "up"), (false, "up"), (false, "up")];
    let later = [(false, "down"), (true, "down"), (false, "down"), (true, "down"), (true, "up")];
    for (number, (passes, state)) in history.into_iter().chain(later).enumerate() {
        answer(&asked, if passes { "200 OK" } else { "503 Service Unavailable" });
        drop(asked);
        // There is never a second probe before the first one's result is taken in.
        asked = next();
        assert_eq!(of(&balancer, "a", "state"), state, "after answer {}", number + 1);
    }
    assert_eq!((balancer.probes("a", "passed"), balancer.probes("a", "wrong_status")), (5, 6));
    assert_eq!(of(&balancer, "a", "reason"), "2 of 2 probes passed");
    let about = format!("web: backend a ({}): ", backend.address);
    assert_eq!(balancer.logged(&about), 3, "one line for each change");
    let down = "up -> down: status 503, 3 of 3 probes failed; left to serve: 1 of 2 backends";
    let up = "down -> up: 2 of 2 probes passed; left to serve: 2 of 2 backends";
    for line in ["starting -> up: first probe passed; left to serve: ", down, up] {
        assert_eq!(balancer.logged(&format!("{about}{line}")), 1, "{line}");
    }
    balancer.stop();
}

#[test]
fn a_first_probe_that_fails_decides_alone_however_many_failures_take_a_backend_down_later() {
    let machine = Machine::shared();
    let (dead, good) = (Port::refusing(), Backend::named("good"));
    let setup = Setup::new().backend("dead", dead.address).backend("good", good.address);
    let balancer = machine.start(setup.setting("health: { interval: 1m, timeout: 1s, fall: 10, rise: 10 }"));
    await_state(&balancer, "dead", "down");
    await_state(&balancer, "good", "up");
    assert_eq!(of(&balancer, "dead", "reason"), "first probe failed: connect refused");
    assert_eq!((balancer.probes("dead", "refused"), balancer.probes("good", "passed")), (1, 1));
    balancer.stop();
}

#[test]
fn the_loss_of_the_last_one_is_one_alert_however_long_it_lasts() {
    let machine = Machine::shared();
    let (a, b) = (Port::refusing(), Port::refusing());
    let (on_a, on_b) = (Backend::named_on(a.listen(), "a"), Backend::named_on(b.listen(), "b"));
    let setup = Setup::new().backend("a", a.address).backend("b", b.address);
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 100ms, rise: 2, fall: 2 }"));
    ["a", "b"].iter().for_each(|name| await_state(&balancer, name, "up"));
    drop(on_a);
    await_state(&balancer, "a", "down");
    assert_eq!(balancer.logged("ERROR"), 0, "somebody is left");
    assert_eq!(served_by(balancer.address()), "b");
    drop(on_b);
    balancer.await_state("/services/web/state", "down");
    let lost = balancer.probes("b", "refused");
    for refused in 1..=5 {
        assert!(admitted(balancer.address()).is_none(), "nobody is there to serve");
        balancer.await_refused("no_backend", refused);
    }
    wait_until("more probes have failed", PATIENCE, || balancer.probes("b", "refused") >= lost + 10);
    assert_eq!((balancer.logged("NOBODY IS LEFT TO SERVE: clients are refused"), balancer.logged("ERROR")), (1, 1));

    let _on_a = Backend::named_on(a.listen(), "a");
    await_state(&balancer, "a", "up");
    balancer.await_state("/services/web/state", "degraded");
    assert_eq!(served_by(balancer.address()), "a");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_frozen_server_that_is_to_answer_a_ping_gets_no_new_client_and_its_sessions_end_at_idle() {
    const IDLE: Duration = Duration::from_secs(3);
    let machine = Machine::shared();
    let setup = Setup::new();
    let (server, silent) = (redis(setup.directory()), Port::refusing());
    let setup = setup.backend("redis", server.address).backend("none", silent.address);
    let probe = r#"probe: { expect: { send: "PING\r\n", receive: "+PONG" } }"#;
    let health = format!("health: {{ {probe}, interval: 200ms, timeout: 200ms, rise: 2, fall: 2 }}");
    let balancer = machine.start(setup.setting(&health).setting("timeouts: { idle: 3s, half_closed: 3s }"));
    await_state(&balancer, "redis", "up");
    let (client, start) = (balancer.connect(), Instant::now());
    balancer.await_number("/services/web/backends/redis/connections", 1);
    server.child.process().signal(Signal::STOP);
    await_state(&balancer, "redis", "down");
    assert_eq!(of(&balancer, "redis", "reason"), "no answer within 200ms, 2 of 2 probes failed");
    // Its kernel would still complete the handshake of each.
    for refused in 1..=5 {
        assert!(admitted(balancer.address()).is_none(), "given to a frozen server");
        balancer.await_refused("no_backend", refused);
    }
    assert_eq!(balancer.of_backend("redis", "total"), 1);
    assert_eq!(balancer.of_backend("redis", "connections"), 1, "an eviction cuts no session");
    assert_ends_with_reset(&client);
    assert!(start.elapsed() + SLACK >= IDLE, "cut after {:?}", start.elapsed());
    balancer.await_closed("idle", 1);
    server.child.process().signal(Signal::CONT);
    await_state(&balancer, "redis", "up");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn where_traffic_has_no_say_a_backend_whose_probes_pass_stays_up() {
    let machine = Machine::shared();
    let (good, probed, dead) = (Backend::named("good"), Backend::echo(), Port::refusing());
    let elsewhere = format!("probe_address: \"{}\"", probed.address);
    let setup = Setup::new().backend("good", good.address).backend_with("bad", dead.address, &elsewhere);
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 100ms, passive: off, fall: 10 }"));
    ["good", "bad"].iter().for_each(|name| await_state(&balancer, name, "up"));
    assert!((0..20).all(|_| served_by(balancer.address()) == "good"));
    wait_until("it has failed often", PATIENCE, || balancer.of_backend("bad", "failures") >= 8);
    let passed = balancer.probes("bad", "passed");
    wait_until("it is probed on", PATIENCE, || balancer.probes("bad", "passed") >= passed + 3);
    assert_eq!((of(&balancer, "bad", "state").as_str(), balancer.logged("up -> down")), ("up", 0));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn only_connects_of_clients_that_fail_in_a_row_take_a_backend_down() {
    let machine = Machine::shared();
    let (good, port) = (Backend::named("good"), Port::refusing());
    let setup = Setup::new().backend("good", good.address).backend("bad", port.address);
    let balancer = machine.start(setup.setting("health: { probe: none, passive: 3, interval: 1h, timeout: 1s }"));
    let fail = |count: u64| {
        let due = balancer.of_backend("bad", "failures") + count;
        wait_until("it has failed as often as is due", PATIENCE, || {
            assert_eq!(served_by(balancer.address()), "good");
            balancer.of_backend("bad", "failures") >= due
        });
    };
    for _ in 0..3 {
        fail(2);
        let _back = Backend::named_on(port.listen(), "bad");
        // One that succeeds begins the count anew; it is served, so nobody has taken it down.
        wait_until("it has served a client", PATIENCE, || served_by(balancer.address()) == "bad");
    }
    fail(2);
    assert_eq!(of(&balancer, "bad", "state"), "up");
    fail(1);
    await_state(&balancer, "bad", "down");
    let reason = of(&balancer, "bad", "reason");
    assert_eq!(reason, "3 connects of clients failed in a row (connect refused)");
    assert_eq!(balancer.of_backend("bad", "failures"), 9);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_backend_without_a_probe_that_traffic_took_down_is_on_trial_again_after_its_interval() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let machine = Machine::shared();
    let (good, port) = (Backend::named("good"), Port::refusing());
    let setup = Setup::new().backend("good", good.address).backend("bad", port.address);
    let balancer = machine.start(setup.setting("health: { probe: none, passive: 2, interval: 1s, timeout: 1s }"));
    assert_eq!(of(&balancer, "bad", "state"), "up", "nothing is known against it");
    let start = Instant::now();
    assert!((0..4).all(|_| served_by(balancer.address()) == "good"));
    await_state(&balancer, "bad", "down");
    let reason = of(&balancer, "bad", "reason");
    assert_eq!(reason, "2 connects of clients failed in a row (connect refused)", "no probe disagrees");

    let back = Backend::named_on(port.listen(), "bad");
    await_state(&balancer, "bad", "up");
    assert!(start.elapsed() >= INTERVAL, "back after {:?}", start.elapsed());
    assert_eq!(of(&balancer, "bad", "reason"), "on trial, as it is not probed");
    assert_eq!(back.total(), 0, "it is not probed");
    let names: Vec<_> = (0..10).map(|_| served_by(balancer.address())).collect();
    assert_eq!(names.iter().filter(|name| *name == "bad").count(), 5, "{names:?}");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn probes_of_hundreds_of_backends_go_out_at_once_first_and_are_spread_over_the_interval_then() {
    const BACKENDS: usize = 300;
    const INTERVAL: Duration = Duration::from_millis(1500);
    let machine = Machine::shared();
    // One listener is all of them: each has an address of its own.
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port of every address");
    // The library's queue has 128 places: whom it turned away would come again after a second.
    rustix::net::listen(&listener, 4096).expect("a longer queue");
    let port = listener.local_addr().expect("an address").port();
    let (sender, arrivals) = channel();
    // Until the test has seen enough.
    std::thread::spawn(move || while listener.accept().is_ok_and(|_| sender.send(Instant::now()).is_ok()) {});
    let next = || arrivals.recv_timeout(PATIENCE).expect("a probe");
    let address = |number: usize| format!("127.1.{}.{}:{port}", number / 100, number % 100 + 1);
    let setup = (0..BACKENDS).fold(Setup::new(), |setup, n| setup.backend(&format!("b{n}"), address(n)));
    let balancer = machine.start(setup.setting("health: { interval: 1500ms, timeout: 1s }"));
    let (first, second) = (next(), next());
    let last = (2..BACKENDS).fold(second, |_, _| next());
    let took = last.duration_since(first).saturating_sub(balancer.process().queued());
    assert!(took < INTERVAL / 2, "the first ones took {took:?}");
    // 30 are due in each tenth of an interval; all 300 would be in one if they kept step. A busy machine pushes those of a round
    // together: it takes one that is spread, as none is if they keep step.
    let mut at = next();
    wait_until("they are spread in one round", INTERVAL * 20, || {
        let (begin, mut round) = (at, [0; 10]);
        while at.duration_since(begin) < INTERVAL {
            round[(at.duration_since(begin).as_millis() * 10 / INTERVAL.as_millis()) as usize] += 1;
            at = next();
        }
        eprintln!("probes in each tenth of a round: {round:?}");
        round.iter().all(|count| (8..90).contains(count))
    });
    balancer.stop();
}
