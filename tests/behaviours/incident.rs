//! Servers die, hang, lie and come back while clients go on: what users and operators see.
//!
//! covers: src/control/fleet, src/control/probe

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Backend, Balancer, Blackhole, Machine, NEAR, Namespaces, PATIENCE, Port, Server, Setup, Tool, admitted, connect,
    exchange, free_port, served_by, wait_until,
};

/// Quick checks, which still leave a busy machine time to answer.
const HEALTH: &str = "health: { interval: 200ms, timeout: 150ms, rise: 2, fall: 2 }";

/// What the status says of a backend.
fn of(balancer: &Balancer, backend: &str, key: &str) -> String {
    let status: Value = serde_json::from_str(&balancer.get("/v1/status")).expect("JSON");
    let found = status.pointer(&format!("/services/web/backends/{backend}/{key}")).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {key} of {backend}: {status:#}")).to_owned()
}

fn await_state(balancer: &Balancer, backend: &str, state: &str) {
    wait_until(&format!("{backend} is {state}"), PATIENCE, || of(balancer, backend, "state") == state);
}

/// An nginx that answers every request with its name.
fn nginx(name: &str, port: u16, directory: &Path) -> Server {
    let root = directory.display();
    let config = format!(
        "daemon off; master_process off; pid {root}/{name}.pid; error_log stderr error;\n\
         events {{ worker_connections 1000; }}\n\
         http {{ access_log off; server {{ listen 127.0.0.1:{port} backlog=1000; location / {{ return 200 \"{name}\\n\"; }} }} }}\n"
    );
    let file = directory.join(format!("{name}.conf"));
    std::fs::write(&file, config).expect("writing nginx's configuration");
    let tool = Tool::new("nginx").arguments(&format!("-p {root} -c {}", file.display()));
    Server::start(tool, port, &directory.join(format!("{name}.log")))
}

/// One short request: the name that answered.
fn request(address: SocketAddr) -> Option<String> {
    let mut client = TcpStream::connect(address).ok()?;
    client.set_read_timeout(Some(PATIENCE)).ok()?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then(|| answer.lines().last().unwrap_or_default().to_owned())
}

/// Requests from four clients, 200 a second together, until `over`: when each that failed had begun.
fn traffic(address: SocketAddr, over: impl Fn() -> bool + Sync) -> (u64, Vec<Instant>) {
    let client = || {
        let (mut served, mut failed) = (0, Vec::new());
        while !over() {
            let begun = Instant::now();
            match request(address) {
                Some(_) => served += 1,
                None => failed.push(begun),
            }
            std::thread::sleep(Duration::from_millis(20).saturating_sub(begun.elapsed()));
        }
        (served, failed)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .fold((0, Vec::new()), |sum, one| (sum.0 + one.0, [sum.1, one.1].concat()))
    })
}

#[test]
fn a_killed_server_costs_no_request_but_those_it_had_not_answered_and_comes_back_to_its_share() {
    let machine = Machine::shared();
    let setup = Setup::new();
    let (port_a, port_b) = (free_port(), free_port());
    let (_a, mut b) = (nginx("a", port_a, setup.directory()), nginx("b", port_b, setup.directory()));
    let directory = setup.directory().to_owned();
    let setup = setup.backend("a", format!("127.0.0.1:{port_a}")).backend("b", format!("127.0.0.1:{port_b}"));
    let balancer = machine.start(setup.setting(HEALTH).setting("connect: { attempts: 2 }"));
    await_state(&balancer, "a", "up");
    await_state(&balancer, "b", "up");
    let (address, over) = (balancer.address(), std::sync::atomic::AtomicBool::new(false));
    let (killed, served, failed, _back) = std::thread::scope(|scope| {
        let users = scope.spawn(|| traffic(address, || over.load(std::sync::atomic::Ordering::SeqCst)));
        wait_until("both have served users", PATIENCE, || {
            ["a", "b"].iter().all(|name| balancer.of_backend(name, "total") > 50)
        });
        b.child.kill();
        // It is gone with all its sockets: from here on nothing is given to it any more.
        let killed = Instant::now();
        await_state(&balancer, "b", "down");
        let at_eviction = balancer.of_backend("b", "failures");
        let served = balancer.of_backend("a", "total");
        wait_until("a serves on alone", PATIENCE, || balancer.of_backend("a", "total") > served + 50);
        let since = balancer.of_backend("b", "failures") - at_eviction;
        assert!(
            since <= 4,
            "a backend that is down is still tried: {since} times, and only four clients were under way"
        );
        assert_eq!(balancer.logged("although its probes pass"), 0, "no probe has met it since");
        let back = nginx("b", port_b, &directory);
        await_state(&balancer, "b", "up");
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let (served, failed) = users.join().expect("the users");
        (killed, served, failed, back)
    });
    let late: Vec<_> = failed.iter().filter(|begun| **begun > killed).collect();
    assert!(late.is_empty(), "{} of {served} requests failed that began after the kill", late.len());
    assert!(failed.len() <= 4, "{} requests failed, and only four were under way", failed.len());

    balancer.await_no_session();
    let names: Vec<_> = (0..30).map(|_| request(address).expect("an answer")).collect();
    assert_eq!(names.iter().filter(|name| *name == "a").count(), 15, "{names:?}");
    balancer.await_logged("b (");
    balancer.await_logged("left to serve: 1 of 2 backends");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_frozen_server_is_seen_by_a_probe_that_waits_for_an_answer_and_its_sessions_are_not_cut() {
    let machine = Machine::shared();
    let setup = Setup::new();
    let (port_a, port_b) = (free_port(), free_port());
    let (_a, b) = (nginx("a", port_a, setup.directory()), nginx("b", port_b, setup.directory()));
    let setup = setup.backend("a", format!("127.0.0.1:{port_a}")).backend("b", format!("127.0.0.1:{port_b}"));
    let health = "health: { probe: { http: { path: / } }, interval: 200ms, timeout: 150ms, rise: 2, fall: 2 }";
    let balancer = machine.start(setup.setting(health));
    await_state(&balancer, "a", "up");
    await_state(&balancer, "b", "up");
    let clients: Vec<_> = (0..2).map(|_| balancer.connect()).collect();
    wait_until("each has a session", PATIENCE, || balancer.of_backend("b", "connections") == 1);
    b.child.process().signal(Signal::STOP);
    await_state(&balancer, "b", "down");
    assert!(of(&balancer, "b", "reason").contains("2 of 2 probes failed"), "{}", of(&balancer, "b", "reason"));
    let before = balancer.of_backend("b", "total");
    assert!((0..20).all(|_| request(balancer.address()).as_deref() == Some("a")));
    assert_eq!((balancer.of_backend("b", "total"), balancer.of_backend("b", "connections")), (before, 1));
    b.child.process().signal(Signal::CONT);
    await_state(&balancer, "b", "up");
    drop(clients);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn when_the_last_one_is_lost_clients_are_refused_it_is_said_once_and_its_return_is_found() {
    let machine = Machine::shared();
    let port = Port::refusing();
    let balancer = machine.start(Setup::new().backend("a", port.address).setting(HEALTH));
    await_state(&balancer, "a", "down");
    assert!(of(&balancer, "a", "reason").starts_with("first probe failed: connect refused"));
    assert!(admitted(balancer.address()).is_none());
    balancer.await_refused("no_backend", 1);
    balancer.await_logged("NOBODY IS LEFT TO SERVE: clients are refused");
    let _backend = Backend::named_on(port.listen(), "a");
    await_state(&balancer, "a", "up");
    assert!(of(&balancer, "a", "reason").contains("2 of 2 probes passed"));
    assert_eq!(served_by(balancer.address()), "a");
    assert_eq!(balancer.of_backend("a", "failures"), 0, "probes are no traffic");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn where_the_service_says_so_all_are_tried_when_all_are_down() {
    let machine = Machine::shared();
    let (backend, dead) = (Backend::named("a"), Port::refusing());
    let probed = format!("probe_address: \"{}\"", dead.address);
    let health = "health: { interval: 200ms, timeout: 150ms, when_all_down: try_all }";
    let balancer = machine.start(Setup::new().backend_with("a", backend.address, &probed).setting(health));
    await_state(&balancer, "a", "down");
    assert_eq!(served_by(balancer.address()), "a");
    balancer.await_logged("every backend is tried all the same");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn failing_traffic_takes_a_backend_down_and_the_disagreement_with_its_probes_is_said() {
    let machine = Machine::shared();
    let (good, probed, dead) = (Backend::named("good"), Backend::echo(), Port::refusing());
    let elsewhere = format!("probe_address: \"{}\"", probed.address);
    let setup = Setup::new().backend("good", good.address).backend_with("bad", dead.address, &elsewhere);
    let balancer = machine.start(setup.setting("health: { interval: 2s, timeout: 1s, passive: 3 }"));
    await_state(&balancer, "good", "up");
    await_state(&balancer, "bad", "up");
    // Every second client would meet it: each is served all the same, and after three it is not tried any more.
    assert!((0..12).all(|_| served_by(balancer.address()) == "good"));
    await_state(&balancer, "bad", "down");
    let (failed, since) = ("3 connects of clients failed in a row (connect refused)", of(&balancer, "bad", "since"));
    assert!(of(&balancer, "bad", "reason").starts_with(failed));
    let disagree = format!("{failed} although its probes pass");
    wait_until("the next probe has passed", PATIENCE, || of(&balancer, "bad", "reason") == disagree);
    assert_eq!((of(&balancer, "bad", "state"), of(&balancer, "bad", "since")), ("down".to_owned(), since));
    assert_eq!(balancer.logged(&format!("): down: {disagree}")), 1);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn clients_that_come_before_the_first_probes_have_ended_wait_and_are_served() {
    let machine = Machine::shared();
    // It answers its probe only after a while, and serves at once.
    let backend = Backend::new(|mut stream| {
        let mut asked = [0; 5];
        if stream.read_exact(&mut asked).is_ok() && &asked == b"PING\n" {
            std::thread::sleep(Duration::from_millis(600));
            let _ = stream.write_all(b"+PONG\n");
        } else if stream.write_all(b"a\n").is_ok() {
            crate::harness::echo(stream);
        }
    });
    let health = r#"health: { probe: { expect: { send: "PING\n", receive: "+PONG" } }, interval: 5s, timeout: 5s }"#;
    let balancer = machine.start(Setup::new().backend("a", backend.address).setting(health));
    assert_eq!(of(&balancer, "a", "state"), "starting");
    let start = Instant::now();
    let mut client = balancer.connect();
    client.write_all(b"hello").expect("sending");
    let mut name = [0; 2];
    client.read_exact(&mut name).expect("served, not refused");
    assert!(start.elapsed() > Duration::from_millis(100), "it was served before anybody was known to serve");
    assert_eq!((&name, of(&balancer, "a", "state").as_str()), (b"a\n", "up"));
    assert_eq!(balancer.number("/services/web/refused"), 0);
    balancer.stop_after(client);
}

#[test]
fn how_a_probe_failed_is_told_apart() {
    let machine = Machine::shared();
    let (refused, blackhole, silent) = (Port::refusing(), Blackhole::new(), Backend::echo());
    let broken = Backend::new(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    });
    let setup = Setup::new().backend("refused", refused.address).backend("timed_out", blackhole.address);
    let setup = setup.backend("wrong_status", broken.address).backend("not_http", silent.address);
    let balancer = machine.start(setup.setting("health: { probe: { http: {} }, interval: 300ms, timeout: 200ms }"));
    for (name, why) in
        [("refused", "connect refused"), ("timed_out", "timed out"), ("wrong_status", "500"), ("not_http", "HTTP")]
    {
        await_state(&balancer, name, "down");
        let reason = of(&balancer, name, "reason");
        assert!(reason.contains(why), "{name}: {reason}");
    }
    let metrics = balancer.get("/metrics");
    for (name, result) in [("refused", "refused"), ("timed_out", "timed_out"), ("wrong_status", "wrong_status")] {
        let series = format!("balancer_probes_total{{service=\"web\",backend=\"{name}\",result=\"{result}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&series)).unwrap_or_else(|| panic!("no {series}"));
        assert!(!line.ends_with(" 0"), "{line}");
    }
    balancer.stop();
}

#[test]
fn a_backend_that_flaps_costs_one_line_a_change_and_no_descriptor() {
    let machine = Machine::shared();
    let (port, other) = (Port::refusing(), Backend::named("other"));
    let first = Backend::named_on(port.listen(), "a");
    let setup = Setup::new().backend("a", port.address).backend("other", other.address);
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 100ms, rise: 2, fall: 2 }"));
    await_state(&balancer, "a", "up");
    await_state(&balancer, "other", "up");
    let (lines, mut backend) = (balancer.log_lines(), Some(first));
    let descriptors = balancer.process().descriptors();
    const FLAPS: usize = 8;
    for _ in 0..FLAPS {
        drop(backend.take());
        await_state(&balancer, "a", "down");
        backend = Some(Backend::named_on(port.listen(), "a"));
        await_state(&balancer, "a", "up");
    }
    wait_until("a line for each change of state", PATIENCE, || balancer.log_lines() - lines >= 2 * FLAPS);
    assert_eq!(balancer.log_lines() - lines, 2 * FLAPS, "one line for each change of state");
    balancer.await_logged("up -> down: connect refused, 2 of 2 probes failed; left to serve: 1 of 2 backends");
    balancer.await_logged("down -> up: 2 of 2 probes passed; left to serve: 2 of 2 backends");
    // A probe under way and the admin's own connection come and go.
    wait_until("no descriptor has leaked", PATIENCE, || balancer.process().descriptors() <= descriptors);
    balancer.stop();
}

#[test]
fn a_probe_that_fails_cuts_no_session() {
    let machine = Machine::shared();
    let (backend, port) = (Backend::echo(), Port::refusing());
    let probed = format!("probe_address: \"{}\"", port.address);
    let probe = Backend::named_on(port.listen(), "probed");
    let balancer = machine.start(Setup::new().backend_with("a", backend.address, &probed).setting(HEALTH));
    await_state(&balancer, "a", "up");
    let client = connect(balancer.address());
    exchange(&client);
    drop(probe);
    await_state(&balancer, "a", "down");
    exchange(&client);
    balancer.stop_after(client);
}

#[test]
fn a_server_behind_a_dropping_firewall_costs_a_client_one_connect_timeout_and_nobody_after_the_eviction() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let far = |name| {
        let listener = namespaces.far().run(|| TcpListener::bind("10.77.0.2:0").expect("a backend's port"));
        Backend::named_on(listener, name)
    };
    let (a, b) = (far("a"), far("b"));
    let setup = Setup::new().inside(&namespaces).listen(SocketAddr::from((NEAR, 8080)));
    let setup = setup.backend("a", a.address).backend("b", b.address).setting("connect: { timeout: 400ms }");
    let balancer =
        machine.start(setup.setting("health: { interval: 1s, timeout: 300ms, rise: 2, fall: 2, passive: off }"));
    await_state(&balancer, "a", "up");
    await_state(&balancer, "b", "up");
    let client = || {
        let start = Instant::now();
        let (stream, name) = namespaces.near().run(|| admitted(SocketAddr::from((NEAR, 8080)))).expect("served");
        drop(stream);
        (name, start.elapsed())
    };
    namespaces.far().swallow(b.address.port());
    let mut waited = 0;
    while of(&balancer, "b", "state") == "up" {
        let (name, took) = client();
        assert!(took < TIMEOUT * 2, "a client waited {took:?}, more than one timeout");
        waited += u32::from(name == "a" && took >= TIMEOUT);
    }
    assert!(waited > 0, "nobody met the firewall before the eviction");
    assert!(of(&balancer, "b", "reason").contains("timed out"), "{}", of(&balancer, "b", "reason"));
    for _ in 0..20 {
        let (name, took) = client();
        assert!(name == "a" && took < TIMEOUT, "{name} after {took:?}");
    }
    balancer.await_no_session();
    balancer.stop();
}
