//! The program under test: started, looked at, stopped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::status::{Status, get};
use super::{Acceptor, Kills, PATIENCE, Process, Setup, connect, metric, wait_until};

/// Lines of the log that are kept.
const LOG_LINES: usize = 1000;

/// A running `balancer run`; killed when dropped, after a look for panics in its log.
pub(crate) struct Balancer {
    child: Kills,
    setup: Setup,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    last: VecDeque<String>,
    lines: usize,
    panics: usize,
}

impl Balancer {
    pub(super) fn start(setup: Setup) -> Self {
        let config = setup.directory().join("balancer.yaml");
        std::fs::write(&config, setup.yaml()).expect("writing the configuration");
        let mut command = command_for(&setup);
        command.arg("run").arg("--config").arg(&config).env("BALANCER_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut spawn = || command.spawn().expect("starting the balancer");
        let mut child = match &setup.inside {
            Some(namespaces) => namespaces.near().run(spawn),
            None => spawn(),
        };
        let log = Arc::new(Mutex::new(Log::default()));
        let (stderr, sink) = (child.stderr.take(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).add(line);
            }
        });
        let mut balancer = Self { child: Kills(child), setup, log };
        balancer.wait_until_it_serves();
        balancer
    }

    fn wait_until_it_serves(&mut self) {
        wait_until("the balancer serves", PATIENCE, || {
            if let Some(status) = self.child.0.try_wait().expect("looking at the child") {
                panic!("the balancer ended at its start with {status}");
            }
            Status::of(&self.setup.socket())
                .is_ok_and(|status| self.setup.service_names().all(|name| !status.listen(name).is_empty()))
        });
    }

    /// Where the service `web` listens.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of("web")
    }

    /// Where a service listens.
    #[track_caller]
    pub(crate) fn address_of(&self, service: &str) -> SocketAddr {
        let listen = self.status().listen(service);
        listen.first().and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{service} on {listen:?}"))
    }

    /// A new client of the service `web`.
    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// A new session of the service `web`: the client's socket and the backend's.
    #[track_caller]
    pub(crate) fn session(&self, backend: &Acceptor) -> (TcpStream, TcpStream) {
        (self.connect(), backend.accept())
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        self.child.process()
    }

    /// What it says of itself now.
    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        Status::of(&self.setup.socket()).expect("the admin socket answers")
    }

    /// A number of the status, by its JSON pointer.
    #[track_caller]
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        self.status().number(pointer)
    }

    /// Sessions of the service `web` that have ended for this reason.
    #[track_caller]
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.number(&format!("/services/web/closed/{reason}"))
    }

    /// Clients of the service `web` that were refused for this reason.
    #[track_caller]
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.number(&format!("/services/web/refused_by/{reason}"))
    }

    /// A number that the status has of a backend of the service `web`.
    #[track_caller]
    pub(crate) fn of_backend(&self, backend: &str, number: &str) -> u64 {
        self.number(&format!("/services/web/backends/{backend}/{number}"))
    }

    /// Waits until a number of the status has this value.
    #[track_caller]
    pub(crate) fn await_number(&self, pointer: &str, value: u64) {
        let mut last = 0;
        let what = format!("{pointer} is {value}");
        wait_until(&what, PATIENCE, || {
            let now = self.number(pointer);
            if now != last {
                eprintln!("{pointer} is {now}");
            }
            last = now;
            now == value
        });
    }

    /// Waits until a text of the status, like a state, is this.
    #[track_caller]
    pub(crate) fn await_state(&self, pointer: &str, state: &str) {
        wait_until(&format!("{pointer} is {state}"), PATIENCE, || self.status().text(pointer) == state);
    }

    /// Waits until no session is open.
    #[track_caller]
    pub(crate) fn await_no_session(&self) {
        self.await_number("/sessions", 0);
    }

    /// Waits until this many sessions of the service `web` have ended for this reason.
    #[track_caller]
    pub(crate) fn await_closed(&self, reason: &str, count: u64) {
        self.await_number(&format!("/services/web/closed/{reason}"), count);
    }

    /// Waits until this many clients of the service `web` were refused for this reason.
    #[track_caller]
    pub(crate) fn await_refused(&self, reason: &str, count: u64) {
        self.await_number(&format!("/services/web/refused_by/{reason}"), count);
    }

    /// The body of a GET on the admin socket.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        get(&self.setup.socket(), path).expect("the admin socket answers")
    }

    /// A metric, summed over its labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        metric(&text, name).unwrap_or_else(|| panic!("no {name} in the metrics:\n{text}"))
    }

    /// Probes of a backend of the service `web` that have ended like this.
    #[track_caller]
    pub(crate) fn probes(&self, backend: &str, result: &str) -> u64 {
        self.metric(&format!("balancer_probes_total{{service=\"web\",backend=\"{backend}\",result=\"{result}\"}}"))
            as u64
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.setup.directory().join("balancer.yaml")
    }

    /// What the configuration file says now.
    pub(crate) fn configuration(&self) -> String {
        std::fs::read_to_string(self.file()).expect("the configuration")
    }

    /// Writes the configuration file, all of it in one step.
    pub(crate) fn configure(&self, text: &str) {
        let new = self.file().with_extension("new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, self.file()))
            .expect("writing the configuration");
    }

    /// Changes a part of the configuration file, which must be there.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.configuration();
        assert!(text.contains(from), "no {from} in the configuration:\n{text}");
        self.configure(&text.replace(from, to));
    }

    /// Runs a client command: its exit code, and what it prints on standard output and standard error.
    #[track_caller]
    pub(crate) fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        let output = command.args(arguments).arg("--socket").arg(self.setup.socket()).stdin(Stdio::null()).output();
        let output = output.expect("running the client");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Reloads the configuration, which must be applied: what the command printed.
    #[track_caller]
    pub(crate) fn reload(&self) -> String {
        let (code, out, err) = self.command(&["reload"]);
        assert_eq!(code, Some(0), "{err}");
        out
    }

    /// Tries to reload the configuration, which must be refused: why.
    #[track_caller]
    pub(crate) fn reload_refused(&self) -> String {
        let (code, out, err) = self.command(&["reload"]);
        assert_eq!((code, &*out), (Some(1), ""), "{err}");
        err
    }

    /// Lines logged so far.
    pub(crate) fn log_lines(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    /// Lines of the log that contain this text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last.iter().filter(|line| line.contains(text)).count()
    }

    /// Whether a line of the log contains this text.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last.iter().any(|line| line.contains(text))
    }

    /// The last line of the log that contains this text.
    pub(crate) fn log_line(&self, text: &str) -> Option<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.last.iter().rev().find(|line| line.contains(text)).cloned()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits until it has ended by itself: its exit code and how long that took.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> (Option<i32>, Duration) {
        let (status, took) = self.child.wait(within);
        (status.code(), took)
    }

    /// Ends the last client's connection, then stops.
    #[track_caller]
    pub(crate) fn stop_after(self, last: TcpStream) {
        drop(last);
        self.await_no_session();
        self.stop();
    }

    /// Asks it to stop, and expects a clean end.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let (code, _) = self.wait(PATIENCE);
        assert_eq!(code, Some(0), "SIGTERM must end it with 0");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.child.kill();
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if std::thread::panicking() {
            let kept: Vec<&str> = log.last.iter().map(String::as_str).collect();
            eprintln!("the configuration:\n{}\nthe end of its log:\n{}", self.setup.yaml(), kept.join("\n"));
        } else {
            assert_eq!(log.panics, 0, "the balancer panicked: {:?}", log.last);
        }
    }
}

impl Log {
    fn add(&mut self, line: String) {
        self.lines += 1;
        self.panics += usize::from(line.contains("panicked at"));
        if self.last.len() == LOG_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

/// The program itself, or as another user a copy of it that this user can reach.
fn command_for(setup: &Setup) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_balancer"));
    let Some(user) = setup.user else { return Command::new(program) };
    let copy: PathBuf = setup.directory().join("balancer");
    std::fs::copy(program, &copy).expect("copying the program");
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("making the copy executable");
    chown(setup.directory(), Some(user), Some(user)).expect("giving the directory to the user");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups").arg(copy);
    command
}
