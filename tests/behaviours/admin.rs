//! The administration interface among people who mean it ill: hostile requests, other users, and what the TCP side refuses.
//!
//! covers: src/admin

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Backend, Balancer, Disk, Machine, PATIENCE, Setup, connect, exchange, program, raise_descriptor_limit, run,
    wait_until,
};
use crate::seeing::{ask, http};

/// Either way in.
enum Way {
    Socket(UnixStream),
    Tcp(TcpStream),
}

impl Way {
    fn socket(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connecting to the admin socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        Self::Socket(stream)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }

    fn finish(&self) {
        // It fails where the other side has cut the connection already.
        let _ = match self {
            Self::Socket(stream) => stream.shutdown(Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// All that is answered until the connection ends, which must be soon.
    fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        let ended = match self {
            Self::Socket(stream) => stream.read_to_end(&mut answer),
            Self::Tcp(stream) => stream.read_to_end(&mut answer),
        };
        if let Err(error) = ended {
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the connection does not end");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Fails unless `balancer status` works, and the TCP side answers.
#[track_caller]
fn assert_works(balancer: &Balancer, http: SocketAddr) {
    let (code, out, err) = balancer.command(&["status"]);
    assert!(code == Some(0) && out.contains("web: ok"), "{code:?}: {out}{err}");
    assert!(ask(http, "GET", "/healthz").0.contains("200"));
}

#[test]
fn slow_truncated_oversized_and_malformed_requests_are_cut_off_and_everybody_else_is_answered() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new().http().backend("a", backend.address);
    let socket = setup.directory().join("admin.sock");
    let balancer = machine.start(setup);
    let http = http(&balancer);
    let descriptors = balancer.process().descriptors();
    let ways = || [Way::socket(&socket), Way::Tcp(connect(http))];

    // Slow ones, as many as half of those that are served at once: silent, in the middle of a head, of a body, and readers of nothing.
    let starts = [
        "",
        "GET /v1/status HTTP/1.1\r\nX-Slow: ",
        "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n{",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    let mut slow: Vec<(&str, Way)> =
        starts.iter().cycle().take(32).flat_map(|start| ways().map(|way| (*start, way))).collect();
    slow.iter_mut().for_each(|(start, way)| way.write(start.as_bytes()).expect("the first bytes"));
    assert_works(&balancer, http);

    let long = "x".repeat(1 << 20);
    let hostile = [
        "\0\u{7f}\x16\x03\x01 nonsense\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /healthz HTTP/9.9\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n".to_owned(),
        "POST /v1/reload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}".to_owned(),
        "POST /v1/reload HTTP/1.1\r\nContent-Length: 3\r\n\r\n{{{".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X-Many: yes\r\n".repeat(1000)),
        format!("POST /v1/reload HTTP/1.1\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        "GET /v1/sta".to_owned(),
        "GET /v1/status HTTP/1.1\r\nHost: b\r\n".to_owned(),
    ];
    for request in &hostile {
        for mut way in ways() {
            // Who is cut off while it sends has its answer.
            let _ = way.write(request.as_bytes());
            way.finish();
            let answer = way.answer();
            let shown: String = request.chars().take(60).collect();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{shown:?}: {answer}");
        }
        assert_works(&balancer, http);
    }

    for (start, way) in &mut slow {
        let answer = way.answer();
        let whole = answer.starts_with("HTTP/1.1 200 OK") && answer.contains("balancer_build_info");
        // The TCP side does not wait for the body of what it refuses anyway.
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(if start.contains("/metrics") { whole } else { refused }, "{start:?}: {answer}");
    }
    assert_eq!(balancer.number("/config/generation"), 1, "nothing was reloaded");
    wait_until("no descriptor has leaked", PATIENCE, || balancer.process().descriptors() <= descriptors);
    exchange(&balancer.connect());
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn whoever_holds_connections_open_locks_nobody_out() {
    const AT_ONCE: Duration = Duration::from_secs(1);
    raise_descriptor_limit();
    let machine = Machine::shared();
    let names: Vec<_> = (0..300).map(|number| format!("a-backend-with-a-long-name-{number}")).collect();
    let backend = Backend::echo();
    // What is answered is longer than what the kernel takes for a client that reads nothing.
    let setup = names.iter().fold(Setup::new().http(), |setup, name| setup.backend(name, backend.address));
    let balancer = machine.start(setup);
    let (http, socket) = (http(&balancer), balancer.socket());
    let starts = [
        "",
        "GET /readyz HTTP/1.1\r\nHost: local",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ];
    for start in starts {
        let mut held = Vec::new();
        for _ in 0..400 {
            let mut ways = [Way::socket(&socket), Way::Tcp(connect(http))];
            // Who has made room already is told so.
            ways.iter_mut().for_each(|way| drop(way.write(start.as_bytes())));
            held.push(ways);
        }
        // Others may use the machine: the best of a few attempts tells how long it takes.
        let best = |what: &str, attempt: &dyn Fn()| {
            let took = (0..5).map(|_| {
                let begun = Instant::now();
                attempt();
                begun.elapsed()
            });
            let took = took.min().expect("a few attempts");
            assert!(took < AT_ONCE, "{what} took {took:?} at best beside {start:?}");
        };
        best("/readyz", &|| assert!(ask(http, "GET", "/readyz").0.contains("200"), "{start:?}"));
        // Long answers wait for one another.
        let asks_long = start.contains("/metrics");
        best("status", &|| {
            assert!(asks_long || balancer.command(&["status", "--check", "web"]).0 == Some(0), "{start:?}")
        });
        let [one, other] = held.pop().expect("the last ones");
        drop(held);
        for mut way in [one, other] {
            // Half a request is not waited for; whoever has sent a whole one may still read its answer.
            let begun = Instant::now();
            way.answer();
            assert!(begun.elapsed() < Duration::from_secs(6), "{start:?}: {:?}", begun.elapsed());
        }
    }
    balancer.stop();
}

/// What the TCP side answers to a request.
fn raw(http: SocketAddr, request: &str) -> String {
    let mut way = Way::Tcp(connect(http));
    way.write(request.as_bytes()).expect("asking");
    way.answer()
}

#[test]
fn the_tcp_side_is_asked_by_an_address_as_localhost_or_under_a_name_of_the_configuration() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().http().backend("a", backend.address));
    let http = http(&balancer);
    let get = |path: &str, host: &str| raw(http, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for host in ["127.0.0.1", "192.0.2.1:80", "[::1]:9900", "[2001:db8::1]", "localhost", "LOCALHOST.:9900"] {
        assert!(get("/healthz", host).starts_with("HTTP/1.1 200"), "{host}");
    }
    let strangers = [
        "evil.example",
        "evil.example:9900",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "lb.example",
        "user@localhost",
        "",
    ];
    for path in ["/", "/v1/status", "/v1/timeline", "/metrics", "/healthz", "/readyz", "/nothing"] {
        for host in strangers {
            let answer = get(path, host);
            assert!(answer.starts_with("HTTP/1.1 421"), "{path} {host}: {answer}");
            assert!(answer.contains("admin.hosts") && answer.contains("localhost"), "what to do: {answer}");
            assert!(!answer.contains("balancer_") && !answer.contains("127.0.0.1:"), "{answer}");
        }
    }
    let request = |line: &str, headers: &str| raw(http, &format!("{line}\r\n{headers}\r\n"));
    // The target may name a host, too: both are looked at.
    let target = "GET http://evil.example/v1/status HTTP/1.1";
    assert!(request(target, "Host: localhost\r\n").starts_with("HTTP/1.1 421"));
    let target = "GET http://localhost:9900/healthz HTTP/1.1";
    assert!(request(target, "Host: evil.example\r\n").starts_with("HTTP/1.1 421"));
    assert!(request(target, "Host: localhost:9900\r\n").starts_with("HTTP/1.1 200"));
    let line = "GET /healthz HTTP/1.1";
    assert!(request(line, "").starts_with("HTTP/1.1 400"));
    assert!(request(line, "Host: localhost\r\nHost: evil.example\r\n").starts_with("HTTP/1.1 400"));
    // Health checks of other balancers send none; no browser does.
    assert!(request("GET /healthz HTTP/1.0", "").starts_with("HTTP/1.0 200"));
    assert!(request("GET /healthz HTTP/1.0", "Host: evil.example\r\n").starts_with("HTTP/1.0 421"));
    balancer.edit("http: 127.0.0.1:0", "http: 127.0.0.1:0, hosts: [LB.Example.]");
    balancer.reload();
    for host in ["lb.example", "Lb.Example.:9900", "localhost"] {
        assert!(get("/healthz", host).starts_with("HTTP/1.1 200"), "{host}");
    }
    assert!(get("/healthz", "evil.example").starts_with("HTTP/1.1 421"));
    // Who may reach the Unix socket reads it anyway.
    let mut way = Way::socket(&balancer.socket());
    way.write(b"GET /healthz HTTP/1.1\r\nHost: whoever\r\n\r\n").expect("asking");
    assert!(way.answer().starts_with("HTTP/1.1 200"));
    balancer.stop();
}

/// What a client command says as a user and a group: its exit code and standard error.
fn as_user(user: u32, group: u32, balancer: &Balancer, socket: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program("setpriv"));
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={group}"))
        .arg("--clear-groups")
        .arg(balancer.program());
    let output = command.args(arguments).arg("--socket").arg(socket).output().expect("running it");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn only_owner_and_group_may_use_the_socket_however_open_its_directory_is() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new().copied().backend("a", backend.address);
    let directory = setup.directory().to_owned();
    let socket = directory.join("admin.sock");
    let balancer = machine.start(setup);
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).expect("opening the directory");
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    for command in [&["status"][..], &["reload"], &["reload", "--force"], &["upgrade"]] {
        let (code, said) = as_user(65534, 65534, &balancer, &socket, command);
        assert_eq!(code, Some(1), "{command:?}: {said}");
        assert!(said.contains("may not connect to") && said.contains("one of its group"), "{said}");
    }
    assert_eq!(as_user(65534, 65534, &balancer, &socket, &["status", "--check", "web"]).0, Some(3));
    assert_eq!(
        (balancer.number("/config/generation"), balancer.number("/pid")),
        (1, u64::from(balancer.process().id()))
    );
    // One of the group of the balancer's user may.
    for command in [&["status"][..], &["status", "--check", "web"], &["reload"]] {
        let (code, said) = as_user(65534, 0, &balancer, &socket, command);
        assert_eq!(code, Some(0), "{command:?}: {said}");
    }
    assert_eq!(balancer.number("/config/generation"), 2);
    balancer.stop();
}

#[test]
fn a_socket_whose_file_somebody_has_removed_is_made_anew_by_a_reload_of_it_and_by_an_upgrade() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let mut balancer = machine.start(Setup::new().backend("a", backend.address));
    let (socket, pid) = (balancer.socket(), balancer.number("/pid"));
    let lost = || std::fs::remove_file(&socket).expect("removing the socket");
    let found = || wait_until("it answers again", PATIENCE, || UnixStream::connect(&socket).is_ok());
    lost();
    balancer.edit("admin.sock }", "admin.sock, http: 127.0.0.1:0 }");
    balancer.signal(Signal::HUP);
    found();
    assert_eq!(balancer.number("/config/generation"), 2);
    lost();
    balancer.signal(Signal::USR2);
    found();
    balancer.taken_over(balancer.number("/pid"));
    assert_ne!(balancer.number("/pid"), pid);
    // The process before, which had it until it was removed, leaves the new one alone.
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
    exchange(&balancer.connect());
    balancer.await_no_session();
    balancer.stop();
    assert!(!socket.exists());
}

#[test]
fn the_tcp_side_answers_405_to_all_that_changes_something_and_to_every_other_method() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().http().backend("a", backend.address));
    let (http, pid) = (http(&balancer), balancer.number("/pid"));
    // A reload would be seen.
    balancer.edit("a: ", "b: ");
    for path in ["/v1/reload", "/v1/upgrade", "/v1/drain", "/v1/restore", "/v1/status", "/metrics", "/", "*"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "BREW"] {
            let (status, answer) = ask(http, method, path);
            let malformed = status.contains("400") && (path == "*" || method == "CONNECT");
            assert!(status.contains("405") || malformed, "{method} {path}: {answer}");
        }
    }
    for path in ["/v1/reload", "/v1/upgrade"] {
        assert!(ask(http, "GET", path).0.contains("405"), "{path}");
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((balancer.number("/config/generation"), balancer.number("/pid")), (1, pid));
    exchange(&balancer.connect());
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_configuration_that_cannot_be_read_holds_up_neither_the_administration_nor_the_end() {
    let machine = Machine::shared();
    for hangs in [true, false] {
        let backend = Backend::echo();
        let mut balancer = machine.start(Setup::new().http().backend("a", backend.address));
        let (http, file) = (http(&balancer), balancer.file());
        let instead = file.with_extension("instead");
        let _disk = hangs.then(|| {
            let disk = Disk::hung(file.with_file_name("hung"));
            std::os::unix::fs::symlink(disk.file("balancer.yaml"), &instead).expect("a link");
            disk
        });
        if !hangs {
            run("mkfifo", &[&instead]);
        }
        std::fs::rename(&instead, &file).expect("renaming");

        for _ in 0..3 {
            assert_works(&balancer, http);
        }
        assert!(balancer.get("/v1/status").contains("\"on_disk\": null"));
        let looking = |name: &&String| *name == "on-disk";
        assert!(balancer.process().threads().iter().filter(looking).count() <= 1, "there is one look at a time");
        // The order is at work when the end comes: it is answered, and holds nothing up.
        let mut reload = Way::socket(&balancer.socket());
        reload.write(b"POST /v1/reload HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n").expect("asking");
        assert_works(&balancer, http);
        balancer.signal(Signal::TERM);
        let (code, took) = balancer.wait(PATIENCE);
        assert_eq!(code, Some(0));
        assert!(took.own() < Duration::from_millis(500), "{took:?}");
        assert!(reload.answer().contains("the process is stopping"));
    }
}
