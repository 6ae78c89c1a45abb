//! Malformed, oversized, slow and truncated requests, and no descriptor left.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

use super::super::{HEAD, LAST_ANSWERS};
use super::{PATIENCE, exchange, start, start_with, still_works, view};
use crate::messages::{AdminRequest, Reply};
use crate::observe::running::Reloaded;

#[test]
fn malformed_requests_are_rejected_and_the_next_one_works() {
    let running = start(view(&["web"], &["web-01"]));
    let malformed: [&[u8]; 6] = [
        b"\0\xff\x16\x03\x01 nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost balancer\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in malformed {
        let answer = exchange(&running.path, request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        still_works(&running.path);
    }
}

#[test]
fn oversized_requests_are_rejected_and_the_next_one_works() {
    let running = start(view(&["web"], &["web-01"]));
    let long = "x".repeat(1 << 20);
    for request in [
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X-Many: yes\r\n".repeat(1000)),
        format!("GET /healthz HTTP/1.1\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        "GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
    ] {
        let answer = exchange(&running.path, request.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        still_works(&running.path);
    }
}

#[test]
fn a_truncated_request_is_dropped_and_a_half_closed_one_answered() {
    let running = start(view(&["web"], &["web-01"]));
    for (request, expected) in [("GET /v1/sta", ""), ("GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n", "HTTP/1.1 200 OK")] {
        let mut stream = UnixStream::connect(&running.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(expected), "{answer}");
        assert_eq!(answer.is_empty(), expected.is_empty(), "{answer}");
        drop(UnixStream::connect(&running.path).unwrap());
        still_works(&running.path);
    }
}

#[test]
fn silent_clients_make_room_for_others() {
    let running = start_with(view(&["web"], &["web-01"]), |server| {
        server.connections = 2;
    });
    // One sends a header that never ends, one nothing.
    let mut slow = UnixStream::connect(&running.path).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").unwrap();
    let mut silent = UnixStream::connect(&running.path).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    still_works(&running.path);
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.is_empty(), "the oldest one goes: {rest:?}");
    silent.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200 OK"), "{rest:?}");
}

#[test]
fn a_head_that_takes_too_long_ends_its_connection_and_who_is_at_work_is_never_cut_off() {
    let running = start_with(view(&["web"], &["web-01"]), |server| server.connections = 1);
    let begun = Instant::now();
    assert_eq!(exchange(&running.path, b"GET /healthz HTTP/1.1\r\nX-Slow: "), "");
    assert!((HEAD..HEAD * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let mut asked = UnixStream::connect(&running.path).unwrap();
    asked.write_all(b"POST /v1/reload HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut requests = running.requests;
    let Some(AdminRequest::Reload { answer, .. }) = requests.blocking_recv() else { panic!("no request") };
    assert_eq!(exchange(&running.path, b"GET /healthz HTTP/1.1\r\n\r\n"), "", "there is no place");
    answer
        .send(Reply {
            result: Reloaded::Applied,
            generation: 7,
            changes: Vec::new(),
            warnings: Vec::new(),
            error: None,
        })
        .unwrap();
    let mut answer = String::new();
    asked.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    still_works(&running.path);
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let backends: Vec<_> = (0..2000).map(|index| format!("a-rather-long-backend-name-{index}")).collect();
    let names: Vec<_> = backends.iter().map(String::as_str).collect();
    let running = start_with(view(&["web"], &names), |server| {
        server.connections = 1;
        server.exchange = Duration::from_millis(500);
    });
    let mut unread = UnixStream::connect(&running.path).unwrap();
    unread.write_all(b"GET /metrics HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
    still_works(&running.path);
}

#[test]
fn its_end_waits_for_who_has_asked_and_for_nobody_else() {
    let running = start(view(&["web"], &["web-01"]));
    let connect = |begin: &[u8]| {
        let mut stream = UnixStream::connect(&running.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begin).unwrap();
        stream
    };
    let mut unasked =
        [connect(b""), connect(b"GET /healthz HT"), connect(b"POST /v1/reload HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")];
    let mut asked = connect(b"POST /v1/reload HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    let (mut requests, serving) = (running.requests, running.serving);
    let Some(AdminRequest::Reload { answer, .. }) = requests.blocking_recv() else { panic!("no request") };
    let end = std::thread::spawn(move || drop(serving));
    for client in &mut unasked {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    assert!(!end.is_finished(), "one has asked and is waited for");
    answer
        .send(Reply {
            result: Reloaded::Applied,
            generation: 7,
            changes: Vec::new(),
            warnings: Vec::new(),
            error: None,
        })
        .unwrap();
    let mut answer = String::new();
    asked.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    end.join().unwrap();
}

#[test]
fn its_end_waits_for_an_answer_that_nobody_takes_only_for_a_moment() {
    let backends: Vec<_> = (0..2000).map(|index| format!("a-rather-long-backend-name-{index}")).collect();
    let names: Vec<_> = backends.iter().map(String::as_str).collect();
    let running = start(view(&["web"], &names));
    let mut unread = UnixStream::connect(&running.path).unwrap();
    unread.write_all(b"GET /metrics HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
    still_works(&running.path);
    let begun = Instant::now();
    drop(running.serving);
    assert!(begun.elapsed() < 4 * LAST_ANSWERS, "{:?}", begun.elapsed());
}

/// Lowers the process's limit, so it runs itself again in a process of its own.
#[test]
fn without_a_descriptor_it_waits_at_rest_and_goes_on_when_there_is_one() {
    const ALONE: &str = "BALANCER_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let test = "admin::tests::hostile::without_a_descriptor_it_waits_at_rest_and_goes_on_when_there_is_one";
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args(["--exact", test]).env(ALONE, "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        return;
    }
    let running = start(view(&["web"], &["web-01"]));
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).unwrap();
    client.connect(&SockAddr::unix(&running.path).unwrap()).unwrap();
    let mut client = UnixStream::from(client);
    client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let cpu = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    let before = cpu();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "nobody can accept it");
    assert!(cpu() - before < Duration::from_millis(100), "it must not spin");
    setrlimit(Resource::Nofile, limit).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
