//! What operators see: readiness, the TCP side, the one-line verdict, and one line a session in the access log.
//!
//! covers: src/admin/metrics, src/admin/ready, src/admin/status, src/cli/client, src/cli/completions, src/cli/man, src/cli/mod, src/cli/monitoring_check, src/cli/status, src/observe/mod, src/observe/redundancy, src/observe/running

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{
    Acceptor, Backend, Balancer, Bytes, End, Machine, PATIENCE, Port, Setup, admitted, connect, exchange, read_to_end,
    receive, reset, seed, send, wait_until,
};

const HEALTH: &str = "health: { interval: 200ms, timeout: 150ms, rise: 2, fall: 2 }";

/// Where the TCP side listens, as the log says it.
pub(crate) fn http(balancer: &Balancer) -> SocketAddr {
    let line = balancer.log_line("status and metrics on http://").expect("the TCP side is announced");
    let (_, address) = line.split_once("http://").expect("an address");
    address.split(',').next().and_then(|address| address.parse().ok()).expect("an address")
}

/// A request to the TCP side: the status line, and all of the answer.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut stream = connect(address);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("asking");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    (answer.lines().next().unwrap_or_default().to_owned(), answer)
}

/// `balancer status --check SERVICE`: its exit code and what it says.
fn verdict(socket: &Path, service: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    let output = command.args(["status", "--check", service, "--socket"]).arg(socket).output().expect("running it");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn monitoring_learns_of_a_lost_backend_by_exit_code_readiness_and_metrics() {
    let machine = Machine::shared();
    let (port, other) = (Port::refusing(), Port::refusing());
    let setup = Setup::new().http().backend("a", port.address).backend("b", other.address).setting(HEALTH);
    let socket = setup.directory().join("admin.sock");
    let balancer = machine.start(setup);
    let http = http(&balancer);
    let is = |code, ready: &str, up: f64| {
        wait_until(&format!("the verdict is {code}"), PATIENCE, || verdict(&socket, "web").0 == Some(code));
        assert!(ask(http, "GET", "/readyz").0.contains(ready), "{}", ask(http, "GET", "/readyz").1);
        assert!((balancer.metric("balancer_backend_up") - up).abs() < 0.1);
    };
    is(2, "503", 0.0);
    assert!(ask(http, "GET", "/readyz").1.contains("web: no backend can serve: a down"));
    let _a = Backend::named_on(port.listen(), "a");
    is(1, "200", 1.0);
    let _b = Backend::named_on(other.listen(), "b");
    is(0, "200", 2.0);
    assert!(verdict(&socket, "web").1.starts_with("web OK"), "{}", verdict(&socket, "web").1);
    assert_eq!(verdict(&socket, "wbe").0, Some(3));
    assert_eq!(verdict(Path::new("/nowhere/admin.sock"), "web").0, Some(3));
    balancer.stop();
}

#[test]
fn a_document_that_cannot_be_written_is_an_error_while_results_hold_whoever_reads() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let balancer = machine.start(Setup::new().backend("a", a.address).backend("b", b.address).setting(HEALTH));
    let run = |arguments: &[&str], out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.env("BALANCER_SOCKET", balancer.socket()).env("BALANCER_CONFIG", balancer.file());
        let output = command.args(arguments).stdout(out).stderr(Stdio::piped()).output().expect("running it");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let full: fn() -> Stdio = || File::options().write(true).open("/dev/full").expect("/dev/full").into();
    let unread: fn() -> Stdio = || std::io::pipe().expect("a pipe").1.into();
    let documents = [
        &["status"][..],
        &["status", "--json"],
        &["whatif", "web/a"],
        &["timeline"],
        &["timeline", "--json"],
        &["timeline", "--markdown"],
        &["top", "--once", "--interval", "100ms"],
        &["completions", "bash"],
        &["man"],
    ];
    balancer.await_state("/services/web/state", "ok");
    for document in documents {
        let (code, said) = run(document, full());
        assert!(code == Some(1) && said.contains("No space left on device"), "{document:?}: {code:?}, {said}");
        let (code, said) = run(document, unread());
        assert_eq!((code, &*said), (Some(0), ""), "{document:?}");
    }
    let results = [
        &["check"][..],
        &["status", "--check", "web"],
        &["drain", "web/a"],
        &["restore", "web/a"],
        &["reload"],
        &["drill", "web/b", "--for", "1s"],
    ];
    for out in [full, unread] {
        for result in results {
            if result[0] != "restore" {
                balancer.await_state("/services/web/state", "ok");
            }
            let (code, said) = run(result, out());
            assert_eq!((code, &*said), (Some(0), ""), "{result:?}");
        }
    }
    balancer.stop();
}

#[test]
fn the_tcp_side_shows_everything_and_changes_nothing() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().http().backend("a", backend.address));
    let http = http(&balancer);
    for path in ["/metrics", "/healthz", "/readyz", "/v1/status"] {
        assert!(ask(http, "GET", path).0.contains("200"), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert!(ask(http, method, path).0.contains("405"), "{method} {path}");
        }
    }
    let metrics = ask(http, "GET", "/metrics").1;
    let (_, text) = metrics.split_once("\r\n\r\n").expect("a body");
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines).expect("a parser of Prometheus understands it");
    assert!(scrape.samples.iter().any(|sample| sample.metric == "balancer_backend_up"));
    // Nonsense ends its own connection only.
    for nonsense in ["\0\0\0\0\r\n\r\n".to_owned(), "G".repeat(100_000), "GET / HTTP/9.9\r\n\r\n".to_owned()] {
        let mut stream = connect(http);
        let _ = stream.write_all(nonsense.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
        assert!(ask(http, "GET", "/healthz").0.contains("200"));
    }
    exchange(&balancer.connect());
    balancer.await_no_session();
    balancer.stop();
}

/// The lines of an access log, once there are so many.
fn lines(log: &Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(log).unwrap_or_default();
    wait_until(&format!("{count} sessions are in the access log"), PATIENCE, || read().lines().count() >= count);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn each_session_is_one_line_with_its_bytes_and_its_end_and_a_renamed_log_is_begun_anew() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let setup = Setup::new().backend_with("a", backend.address, "max_connections: 1");
    let (log, old) = (setup.directory().join("access.log"), setup.directory().join("access.log.1"));
    let balancer = machine.start(setup.process(&format!("access_log: {}", log.display())));
    let seed = seed();

    // Bulk, so that it is spliced: the line, the status and the metrics have every byte.
    let (client, at_backend) = balancer.session(&backend);
    let address = client.local_addr().expect("an address");
    std::thread::scope(|scope| {
        scope.spawn(|| send(&client, seed, 20_000_001).expect("sending"));
        receive(&at_backend, &mut Bytes::new(seed), 20_000_001);
    });
    (&at_backend).write_all(b"done").expect("answering");
    (&client).read_exact(&mut [0; 4]).expect("an answer");
    assert!(admitted(balancer.address()).is_none(), "the only place is taken");
    client.shutdown(Shutdown::Write).expect("finishing");
    assert_eq!(read_to_end(&at_backend), (Vec::new(), End::Clean));
    drop((client, at_backend));
    // A client may see its reset before its line is recorded, so the two lines stand in either order.
    let mut both = lines(&log, 2);
    both.sort_by_key(|line| line.contains(" end="));
    assert!(both[0].contains(" refused=backend_limit") && both[0].contains(" backend=- "), "{}", both[0]);
    let session = &both[1];
    assert!(session.contains(&format!(" service=web client={address} backend=a connect_ms=")), "{session}");
    assert!(session.ends_with(" in=20000001 out=4 end=client"), "{session}");
    assert_eq!((balancer.of_backend("a", "bytes_in"), balancer.of_backend("a", "bytes_out")), (20_000_001, 4));

    std::fs::rename(&log, &old).expect("renaming");
    balancer.signal(Signal::USR1);
    wait_until("the log is begun anew", PATIENCE, || log.exists());
    let (client, at_backend) = balancer.session(&backend);
    reset(client);
    drop(at_backend);
    let anew = lines(&log, 1);
    assert!(anew[0].ends_with(" end=client_reset"), "{}", anew[0]);
    assert_eq!(lines(&old, 2).len(), 2);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn an_access_log_that_cannot_be_written_is_an_error_at_the_start() {
    let _machine = Machine::shared();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("balancer.yaml");
    let yaml = format!(
        "access_log: /nowhere/access.log\nadmin: {{ socket: {}/s }}\nservices: {{ web: {{ listen: 127.0.0.1:0, backends: {{ a: 127.0.0.1:1 }} }} }}\n",
        directory.path().display()
    );
    std::fs::write(&config, yaml).expect("writing the configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    let output = command.args(["run", "--config"]).arg(&config).output().expect("running it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|last| last.contains("/nowhere/access.log")), "{said}");
}
