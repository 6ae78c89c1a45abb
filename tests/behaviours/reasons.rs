//! Every reason that the manual names for an end or a refusal, driven for real: the line in the access log and the metrics say it.
//!
//! covers: src/forward/closing, src/forward/protocol, src/observe/counters

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::{
    Acceptor, Backend, Balancer, Blackhole, End, Machine, NEAR, Namespaces, PATIENCE, Port, Setup, admitted,
    assert_ends_with_reset, await_reset, connect, read_to_end, reset, wait_until,
};

/// The reasons of the manual's table with this head.
fn documented(head: &str) -> BTreeSet<String> {
    let manual = include_str!("../../docs/OPERATING.md");
    let (_, table) = manual.split_once(&format!("\n| `{head}=` | meaning |\n| --- | --- |\n")).expect("the table");
    let rows = table.lines().map_while(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(reason, _)| reason.to_owned()).collect()
}

/// The reasons that the metrics have a series for.
fn counted(balancer: &Balancer, family: &str) -> BTreeSet<String> {
    let metrics = balancer.get("/metrics");
    let reason = |line: &str| Some(line.strip_prefix(family)?.split_once("reason=\"")?.1.split_once('"')?.0.to_owned());
    metrics.lines().filter_map(reason).collect()
}

/// Fails unless the one end or refusal of a service for this reason is in the metrics, the status and the access log.
#[track_caller]
fn assert_said(balancer: &Balancer, log: &Path, service: &str, kind: &str, reason: &str) {
    let (family, group) = match kind {
        "end" => ("balancer_sessions_closed_total", "closed"),
        _ => ("balancer_sessions_refused_total", "refused_by"),
    };
    balancer.await_number(&format!("/services/{service}/{group}/{reason}"), 1);
    let series = format!("{family}{{service=\"{service}\",reason=\"{reason}\"}}");
    assert!((balancer.metric(&series) - 1.0).abs() < 0.1, "{series}");
    wait_until(&format!("{kind}={reason} is in the access log"), PATIENCE, || in_log(log, service, kind, reason) > 0);
    assert_eq!(in_log(log, service, kind, reason), 1);
}

/// How often it is in the access log.
fn in_log(log: &Path, service: &str, kind: &str, reason: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let (service, reason) = (format!(" service={service} "), format!(" {kind}={reason}"));
    text.lines().filter(|line| line.contains(&service) && line.ends_with(&reason)).count()
}

fn with_log(setup: Setup) -> (PathBuf, Setup) {
    let log = setup.directory().join("access.log");
    let line = format!("access_log: {}", log.display());
    (log, setup.process(&line))
}

#[test]
fn every_reason_of_an_end_is_told_as_the_manual_says() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let backend = Acceptor::on(namespaces.near().run(|| TcpListener::bind("127.0.0.1:0").expect("a port")));
    let (web, quiet) = (SocketAddr::from((NEAR, 8080)), SocketAddr::from((NEAR, 8081)));
    let setup = Setup::new().inside(&namespaces).process("drain: 1s");
    let setup = setup.listen(web).backend("a", backend.address).setting("timeouts: { unresponsive: 1s }");
    let setup = setup.service("quiet").listen(quiet).backend("a", backend.address);
    let (log, setup) = with_log(setup.setting("timeouts: { idle: 1s, half_closed: 1s }"));
    let mut balancer = machine.start(setup);
    let begin = |address| {
        let session = (namespaces.far().run(|| connect(address)), backend.accept());
        let (mut client, mut at_backend): (&TcpStream, &TcpStream) = (&session.0, &session.1);
        client.write_all(b"x").and_then(|()| at_backend.read_exact(&mut [0])).expect("a byte to the backend");
        session
    };
    let mut told = BTreeSet::new();
    let mut is_told = |service, reason: &str| {
        assert_said(&balancer, &log, service, "end", reason);
        told.insert(reason.to_owned());
    };

    let (client, at_backend) = begin(web);
    client.shutdown(Shutdown::Write).expect("finishing");
    assert_eq!(read_to_end(&at_backend), (Vec::new(), End::Clean));
    drop((at_backend, client));
    is_told("web", "client");

    let (client, at_backend) = begin(web);
    at_backend.shutdown(Shutdown::Write).expect("finishing");
    assert_eq!(read_to_end(&client), (Vec::new(), End::Clean));
    drop((client, at_backend));
    is_told("web", "backend");

    let (client, at_backend) = begin(web);
    reset(client);
    assert_ends_with_reset(&at_backend);
    is_told("web", "client_reset");

    let (client, at_backend) = begin(web);
    reset(at_backend);
    assert_ends_with_reset(&client);
    is_told("web", "backend_reset");

    let (client, at_backend) = begin(quiet);
    assert_ends_with_reset(&client);
    assert_ends_with_reset(&at_backend);
    is_told("quiet", "idle");

    let (client, at_backend) = begin(quiet);
    client.shutdown(Shutdown::Write).expect("finishing");
    assert_eq!(read_to_end(&at_backend), (Vec::new(), End::Clean));
    await_reset(&at_backend, PATIENCE);
    is_told("quiet", "half_closed");

    let (_client, mut at_backend) = begin(web);
    namespaces.far().vanish();
    at_backend.write_all(b"to nobody").expect("sending");
    assert_ends_with_reset(&at_backend);
    is_told("web", "unresponsive");

    // Nothing brings about the last one, a local fault in the middle of a session: its series is there.
    told.insert("error".to_owned());
    assert_eq!(balancer.closed("error"), 0);
    assert_eq!(counted(&balancer, "balancer_sessions_closed_total"), documented("end"));

    let client = namespaces.near().run(|| connect(web));
    let _at_backend = backend.accept();
    balancer.await_number("/services/web/backends/a/connections", 1);
    balancer.signal(Signal::TERM);
    assert_ends_with_reset(&client);
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
    assert_eq!(in_log(&log, "web", "end", "drain"), 1);
    told.insert("drain".to_owned());
    assert_eq!(told, documented("end"));
}

#[test]
fn every_reason_of_a_refusal_is_told_as_the_manual_says() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let near = namespaces.near();
    let listen = || near.run(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let (a, b, c) =
        (Backend::named_on(listen(), "a"), Backend::named_on(listen(), "b"), Backend::named_on(listen(), "c"));
    let (dead, blackhole) = (near.run(Port::refusing), near.run(Blackhole::new));
    let at = |port: u16| SocketAddr::from((NEAR, port));
    let setup = Setup::new().inside(&namespaces).process("drain: 1s").process("max_connections: 6");
    let setup = setup.listen(at(8080)).backend("a", a.address).setting("max_connections: 1");
    let setup = setup.service("full").listen(at(8081)).backend_with("b", b.address, "max_connections: 1");
    let setup = setup.setting("queue: { size: 1, timeout: 1500ms }");
    let setup = setup.service("down").listen(at(8082)).backend("dead", dead.address).setting("health: { probe: tcp }");
    let setup = setup.service("dead").listen(at(8083)).backend("dead", dead.address);
    let setup = setup.service("ports").listen(at(8084)).backend("c", c.address);
    let setup = setup
        .service("blackhole")
        .listen(at(8085))
        .backend("blackhole", blackhole.address)
        .setting("connect: { timeout: 1m }");
    let (log, setup) = with_log(setup);
    let mut balancer = machine.start(setup);
    let arrive = |port| namespaces.far().run(|| admitted(at(port)));
    let mut told = BTreeSet::new();
    let mut is_told = |service, reason: &str| {
        assert_said(&balancer, &log, service, "refused", reason);
        told.insert(reason.to_owned());
    };

    let held = arrive(8080).expect("served").0;
    assert!(arrive(8080).is_none());
    is_told("web", "service_limit");

    let first = arrive(8081).expect("served").0;
    let waiting = namespaces.far().run(|| connect(at(8081)));
    balancer.await_number("/services/full/queued", 1);
    assert!(arrive(8081).is_none());
    is_told("full", "backend_limit");
    assert_ends_with_reset(&waiting);
    is_told("full", "queue_timeout");

    balancer.await_state("/services/down/backends/dead/state", "down");
    assert!(arrive(8082).is_none());
    is_told("down", "no_backend");
    assert!(arrive(8083).is_none());
    is_told("dead", "connect_failed");

    let mut more: Vec<_> = (0..4).map(|_| arrive(8084).expect("served").0).collect();
    assert!(arrive(8084).is_none());
    is_told("ports", "process_limit");
    more.drain(..).for_each(reset);
    balancer.await_number("/sessions", 2);

    near.local_ports(40_000, 40_001);
    let ports: Vec<_> = (0..2).map(|_| arrive(8084).expect("there is a port").0).collect();
    assert!(arrive(8084).is_none());
    is_told("ports", "descriptors");
    assert_eq!(counted(&balancer, "balancer_sessions_refused_total"), documented("refused"));

    near.local_ports(40_000, 50_000);
    let connecting = namespaces.far().run(|| connect(at(8085)));
    balancer.await_number("/services/blackhole/connections", 1);
    balancer.signal(Signal::TERM);
    assert_ends_with_reset(&connecting);
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
    assert_eq!(in_log(&log, "blackhole", "refused", "stopping"), 1);
    told.insert("stopping".to_owned());
    assert_eq!(told, documented("refused"));
    drop((held, first, ports));
}
