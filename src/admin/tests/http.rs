//! The TCP listener, readiness, states, and what the documentation says of the metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::super::fixture::WORKERS;
use super::super::status::Status;
use super::super::{BindError, bind_http};
use super::{PATIENCE, request, start, start_with, still_works, view};
use crate::observe::condition::{Condition, State};
use crate::observe::counters::{Closed, Probed, Refused};
use crate::table::{Backend, BackupMember, Member, Pool, Table};

const MANUAL: &str = include_str!("../../../docs/OPERATING.md");

fn over_tcp(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server must end the connection");
    }
    String::from_utf8(answer).unwrap()
}

fn listener() -> (std::net::TcpListener, SocketAddr) {
    let listener = bind_http(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn set(backend: &Backend, state: State) {
    backend.condition.store(Arc::new(Condition::new(state, "connect refused")));
}

#[test]
fn tcp_answers_the_gets_and_refuses_all_else() {
    let (http, address) = listener();
    let _running = start_with(view(&["web"], &["web-01"]), |server| server.http = Some(http));
    for path in ["/healthz", "/readyz", "/metrics", "/v1/status"] {
        let answer = over_tcp(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "NONSENSE"] {
        for path in ["/v1/status", "/v1/drain", "/"] {
            let answer = over_tcp(address, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("read-only"), "{answer}");
        }
    }
}

#[test]
fn hostile_requests_over_tcp_harm_nobody() {
    let (http, address) = listener();
    let running = start_with(view(&["web"], &["web-01"]), |server| server.http = Some(http));
    let long = "x".repeat(1 << 20);
    let (path, header) = (format!("GET /{long} HTTP/1.1\r\n\r\n"), format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"));
    let hostile: [&[u8]; 5] = [
        b"\0\xff\x16\x03\x01 nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        path.as_bytes(),
        header.as_bytes(),
    ];
    for request in hostile {
        let answer = over_tcp(address, request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(over_tcp(address, b"GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "));
    }
    still_works(&running.path);
}

#[test]
fn a_flood_on_tcp_does_not_lock_the_socket_out() {
    let (http, address) = listener();
    let running = start_with(view(&["web"], &["web-01"]), |server| {
        server.http = Some(http);
        server.connections = 2;
        server.exchange = Duration::from_secs(60);
    });
    let _silent: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    still_works(&running.path);
}

#[test]
fn an_address_in_use_is_an_error_that_says_what_to_do() {
    let (_held, address) = listener();
    let error = bind_http(address).unwrap_err();
    assert!(matches!(error, BindError::Http { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("ss -tanp"), "{error}");
}

#[test]
fn readiness_and_states_follow_the_conditions() {
    let running = start(view(&["web", "db"], &["web-01", "web-02"]));
    let table = running.view.table.load();
    let backends = &table.services[0].backends;
    let state = || {
        let (_, _, body) = request(&running.path, "GET", "/v1/status");
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        status["services"]["web"]["state"].as_str().unwrap().to_owned()
    };
    let ready = || {
        let (code, _, body) = request(&running.path, "GET", "/readyz");
        (code, body)
    };
    assert_eq!((ready(), &*state()), ((200, "ok\n".into()), "ok"));
    set(&backends[0], State::Down);
    assert_eq!((ready().0, &*state()), (200, "degraded"));
    set(&backends[1], State::Starting);
    let why = "web: no backend can serve: web-01 down: connect refused, web-02 starting: connect refused\n";
    assert_eq!((ready(), &*state()), ((503, why.into()), "down"));
    let (_, _, metrics) = request(&running.path, "GET", "/metrics");
    assert!(metrics.contains("balancer_backend_up{service=\"web\",backend=\"web-01\"} 0\n"), "{metrics}");
    assert!(metrics.contains("balancer_backend_up{service=\"db\",backend=\"web-01\"} 1\n"), "{metrics}");
    set(&backends[1], State::Up);
    assert_eq!((ready().0, &*state()), (200, "degraded"));
    set(&backends[0], State::Up);
    assert_eq!((ready().0, &*state()), (200, "ok"));
}

#[test]
fn a_backup_stands_after_the_backends_and_keeps_a_service_ready() {
    let view = view(&["web"], &["web-01"]);
    let table = view.table.load_full();
    let web = &table.services[0];
    let up = Condition::new(State::Up, "1 of 1 probes passed");
    let backup = Arc::new(Backend::new("web-03".into(), ([10, 0, 0, 13], 80).into(), None, up, WORKERS));
    set(&web.backends[0], State::Down);
    backup.counters.of(0).sessions.add(5);
    let pool = Pool {
        algorithm: web.algorithm,
        members: vec![Member { backend: Arc::clone(&web.backends[0]), weight: 1, share: 0, drained: false }],
        backups: vec![BackupMember { backend: backup, may_serve: true }],
        leaving: Vec::new(),
        past_sessions: 0,
        starting: false,
        try_all: false,
    };
    let web = Arc::new(web.successor(pool, web.settings));
    view.table.store(Arc::new(Table::new(3, 3, vec![web], Vec::new())));
    let running = start(view);
    let (_, _, body) = request(&running.path, "GET", "/v1/status");
    let status: Status = serde_json::from_str(&body).unwrap();
    let web = &status.services["web"];
    assert_eq!((&*web.state, web.total), ("degraded", 5));
    let roles: Vec<_> = web.backends.iter().map(|(name, backend)| (&**name, &*backend.role)).collect();
    assert_eq!(roles, [("web-01", "primary"), ("web-03", "backup")]);
    assert_eq!(request(&running.path, "GET", "/readyz").0, 200);
    let (_, _, metrics) = request(&running.path, "GET", "/metrics");
    assert!(metrics.contains("balancer_backend_up{service=\"web\",backend=\"web-03\"} 1\n"), "{metrics}");
}

#[test]
fn the_manual_tells_every_metric_and_every_reason() {
    let running = start(view(&["web"], &["web-01"]));
    let (_, _, body) = request(&running.path, "GET", "/metrics");
    let names: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.len() > 20, "{names:?}");
    for (name, kind) in names.iter().map(|name| name.split_once(' ').unwrap()) {
        assert!(MANUAL.contains(&format!("| `{name}` | {kind} |")), "{name}, a {kind}, is not in docs/OPERATING.md");
    }
    let reasons = Closed::ALL.map(Closed::label).into_iter().chain(Refused::ALL.map(Refused::label));
    for reason in reasons {
        assert!(MANUAL.contains(&format!("\n| `{reason}` | ")), "{reason} is not in docs/OPERATING.md");
    }
    for result in Probed::ALL {
        assert!(MANUAL.contains(&format!("`{}`", result.label())), "{} is not in docs/OPERATING.md", result.label());
    }
}
