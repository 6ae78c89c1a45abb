//! A balancer without an admin socket, as in a container whose file system is read-only: signals and `admin.http` remain.
//!
//! covers: src/admin, src/config/admin

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Backend, Kills, Machine, PATIENCE, Process, Setup, exchange, served_by, wait_until};
use crate::seeing::{ask, http};

/// One that runs.
struct Alone {
    _directory: TempDir,
    file: PathBuf,
    log: PathBuf,
    child: Kills,
}

impl Alone {
    fn start(backend: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, log] = ["balancer.yaml", "log"].map(|name| directory.path().join(name));
        let state = directory.path().join("state");
        let service = format!("listen: 127.0.0.1:0, backends: {{ a: \"{backend}\" }}, health: {{ probe: none }}");
        let text = format!(
            "workers: 2\nadmin: {{ socket: none, http: 127.0.0.1:0 }}\nstate: {}\nservices: {{ web: {{ {service} }} }}\n",
            state.display()
        );
        fs::write(&file, text).expect("writing the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        // Nothing may be written where the default would be.
        command.arg("run").arg("--config").arg(&file).env("RUNTIME_DIRECTORY", "/proc/nowhere");
        command.stdin(Stdio::null()).stderr(File::create(&log).expect("a log"));
        let child = Kills(command.spawn().expect("starting it"));
        let alone = Self { _directory: directory, file, log, child };
        wait_until("it is ready", PATIENCE, || alone.said().contains("ready: "));
        alone
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("its log")
    }

    fn http(&self) -> SocketAddr {
        let said = self.said();
        let (_, rest) = said.split_once("status and metrics on http://").expect("the TCP side is announced");
        rest.split(',').next().and_then(|address| address.parse().ok()).expect("an address")
    }

    fn status(&self) -> Value {
        let (_, answer) = ask(self.http(), "GET", "/v1/status");
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    }

    fn address(&self) -> SocketAddr {
        let status = self.status();
        status["services"]["web"]["listen"][0].as_str().and_then(|at| at.parse().ok()).expect("an address")
    }

    fn await_status(&self, key: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_until(key, PATIENCE, || is(self.status().pointer(key).expect("a field")));
        self.status()
    }
}

#[test]
fn without_an_admin_socket_it_is_asked_over_tcp_and_takes_signals() {
    let _machine = Machine::shared();
    let backend = Backend::named("a");
    let mut alone = Alone::start(backend.address);
    let address = alone.address();
    assert_eq!(served_by(address), "a");
    assert!(ask(alone.http(), "GET", "/readyz").0.contains("200"));
    alone.child.process().signal(Signal::HUP);
    alone.await_status("/config/generation", |generation| generation == 2);
    let before = alone.child.process().id();
    alone.child.process().signal(Signal::USR2);
    let status = alone.await_status("/pid", |pid| *pid != before);
    let successor = Process(status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a number"));
    assert_eq!(alone.child.wait(PATIENCE).0.code(), Some(0), "{}", alone.said());
    assert_eq!((served_by(address), alone.address()), ("a".to_owned(), address));
    successor.signal(Signal::TERM);
    wait_until("it has stopped", PATIENCE, || !successor.is_alive());
    assert!(!alone.said().contains("panicked"), "{}", alone.said());
}

#[test]
fn who_asks_one_without_a_socket_is_told_so_and_a_start_that_has_no_place_for_one_names_the_way_out() {
    let _machine = Machine::shared();
    let backend = Backend::named("a");
    let alone = Alone::start(backend.address);
    let run = |arguments: &[&str], runtime: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.args(arguments).env("RUNTIME_DIRECTORY", runtime).env_remove("BALANCER_SOCKET");
        let output = command.stdin(Stdio::null()).output().expect("running it");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let nowhere = tempfile::tempdir().expect("a directory");
    let socket = nowhere.path().join("admin.sock");
    let socket = socket.to_str().expect("a path");
    let (code, _, said) = run(&["status", "--socket", socket], nowhere.path());
    assert!(code == Some(1) && said.contains("socket: none"), "{said}");
    // Its timeline is in its file, while it runs, too.
    let (code, out, said) = run(&["timeline", "--config", alone.file.to_str().expect("a path")], nowhere.path());
    assert!(code == Some(0) && out.contains("serves as process") && said.contains("no admin socket"), "{out}{said}");
    let (code, _, _) = run(&["check", "--config", alone.file.to_str().expect("a path")], nowhere.path());
    assert_eq!(code, Some(0));

    let file = nowhere.path().join("balancer.yaml");
    let services =
        format!("services: {{ web: {{ listen: 127.0.0.1:0, backends: {{ a: \"{}\" }} }} }}", backend.address);
    fs::write(&file, services).expect("writing the configuration");
    let (code, _, said) = run(&["run", "--config", file.to_str().expect("a path")], Path::new("/proc/nowhere"));
    assert!(code == Some(1) && said.contains("/proc/nowhere") && said.contains("socket: none"), "{said}");
}

#[test]
fn the_socket_goes_and_comes_by_a_reload_and_goes_by_an_upgrade() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let mut balancer = machine.start(Setup::new().http().backend("a", backend.address));
    let (socket, http) = (balancer.socket(), http(&balancer));
    let (with, without) = (balancer.configuration(), format!("socket: {}", socket.display()));
    let session = balancer.connect();
    exchange(&session);
    balancer.edit(&without, "socket: none");
    // Who asks for it still gets the answer.
    assert!(balancer.reload().contains("admin.socket "));
    assert!(!socket.exists() && ask(http, "GET", "/healthz").0.contains("200"));
    let (code, _, said) = balancer.command(&["status"]);
    assert!(code == Some(1) && said.contains("no balancer at "), "{said}");
    balancer.configure(&with);
    balancer.signal(Signal::HUP);
    wait_until("the socket is back", PATIENCE, || UnixStream::connect(&socket).is_ok());
    assert_eq!(balancer.number("/config/generation"), 3);
    // The old process has a session and goes on: its socket must not seem to be somebody's who answers.
    balancer.edit(&without, "socket: none");
    let (code, out, err) = balancer.command(&["upgrade"]);
    assert_eq!(code, Some(0), "{err}");
    let pid = out.split(' ').find_map(|word| word.parse().ok()).expect("a number");
    balancer.taken_over(pid);
    assert!(!socket.exists());
    exchange(&session);
    wait_until("the new one answers over TCP", PATIENCE, || {
        ask(http, "GET", "/v1/status").1.contains(&pid.to_string())
    });
    drop(session);
    balancer.stop();
}
