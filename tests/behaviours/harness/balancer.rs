//! The program under test: started, looked at, stopped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use super::status::{Status, get};
use super::{Acceptor, Kills, PATIENCE, Process, Setup, Stopwatch, Took, connect, metric, wait_until};

/// Lines of the log that are kept.
const LOG_LINES: usize = 1000;

/// A running `balancer run`; killed when dropped, after a look for panics in its log.
pub(crate) struct Balancer {
    child: Kills,
    /// The process that has taken over, after an upgrade.
    successor: Option<Process>,
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
        let log = Arc::new(Mutex::new(Log::default()));
        let mut balancer = Self { child: spawn(&setup, "run", &log).0, successor: None, setup, log };
        balancer.wait_until_it_serves();
        balancer
    }

    /// Runs a subcommand (`run`, `check`) on a configuration to its end, where the balancer would run: its exit code, and what
    /// it said on standard error.
    pub(super) fn ends(setup: &Setup, subcommand: &str) -> (Option<i32>, String) {
        let config = setup.directory().join("balancer.yaml");
        std::fs::write(&config, setup.yaml()).expect("writing the configuration");
        let log = Arc::new(Mutex::new(Log::default()));
        let (mut child, reader) = spawn(setup, subcommand, &log);
        let (status, _) = child.wait(PATIENCE);
        reader.join().expect("its log is read to the end");
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        (status.code(), log.last.iter().cloned().collect::<Vec<_>>().join("\n"))
    }

    /// Kills it as the kernel does, and starts it again: how long the new process took until a client was let in.
    pub(crate) fn die_and_start_again(&mut self) -> Took {
        let address = self.address();
        self.child.kill();
        self.child = spawn(&self.setup, "run", &self.log).0;
        let mut watch = Stopwatch::start(self.child.process());
        wait_until("it listens again", PATIENCE, || TcpStream::connect(address).is_ok());
        let took = watch.took();
        self.wait_until_it_serves();
        took
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

    /// Whether it uses this optional kernel feature, as it has logged at its start.
    pub(crate) fn uses(&self, feature: &str) -> bool {
        let features = self.log_line("kernel features used: ").expect("the features are logged");
        let (used, _) = features.split_once("; not used: ").expect("those not used stand behind");
        used.split(' ').any(|word| word == feature)
    }

    /// Its process; after an upgrade the one that serves.
    pub(crate) fn process(&self) -> Process {
        self.successor.unwrap_or_else(|| self.child.process())
    }

    /// Measures from now on how long something takes that it does.
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch::start(self.process())
    }

    /// Where the program is, if it has a copy of its own.
    pub(crate) fn program(&self) -> PathBuf {
        self.setup.directory().join("balancer")
    }

    /// Replaces the running program, which must work: the process that served until now.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> Process {
        let before = self.process();
        let (code, out, err) = self.command(&["upgrade"]);
        assert_eq!(code, Some(0), "{err}");
        let pid = self.number("/pid");
        assert!(out.starts_with(&format!("upgraded: process {pid} serves")), "{out} and {pid}");
        self.taken_over(pid);
        before
    }

    /// Notes which process serves from now on. The process before may still answer for a moment.
    pub(crate) fn taken_over(&mut self, pid: u64) {
        self.successor = Some(Process(u32::try_from(pid).expect("a process id")));
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

    /// Where its admin socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.setup.socket()
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
        self.command_at(&self.setup.socket(), arguments)
    }

    /// The same, where the admin socket has moved.
    #[track_caller]
    pub(crate) fn command_at(&self, socket: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        let output = command.args(arguments).arg("--socket").arg(socket).stdin(Stdio::null()).output();
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

    /// Waits for a line of the log that contains this text: what it did may be seen before what it says of it.
    #[track_caller]
    pub(crate) fn await_logged(&self, text: &str) {
        wait_until(&format!("it has logged {text:?}"), PATIENCE, || self.has_logged(text));
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
    pub(crate) fn wait(&mut self, within: Duration) -> (Option<i32>, Took) {
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
        if let Some(successor) = self.successor.take() {
            wait_until("the process that took over has ended", PATIENCE, || !successor.is_alive());
        }
        let (code, _) = self.wait(PATIENCE);
        assert_eq!(code, Some(0), "SIGTERM must end it with 0");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(successor) = self.successor
            && successor.is_alive()
        {
            successor.signal(Signal::KILL);
        }
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

/// Starts the program on its configuration; what it says goes to `log`, by a thread that ends with it.
fn spawn(setup: &Setup, subcommand: &str, log: &Arc<Mutex<Log>>) -> (Kills, JoinHandle<()>) {
    let mut command = command_for(setup);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if !setup.passed.is_empty() {
        command = passing(&setup.passed, &command);
    }
    command.arg(subcommand).arg("--config").arg(setup.directory().join("balancer.yaml")).env("BALANCER_LOG", "info");
    command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
    let copy = |descriptor: &OwnedFd| Stdio::from(descriptor.try_clone().expect("a second descriptor"));
    command.stderr(setup.stderr.as_ref().map_or_else(Stdio::piped, copy));
    let mut spawn = || command.spawn().expect("starting the balancer");
    let mut child = match &setup.inside {
        Some(namespaces) => namespaces.near().run(spawn),
        None => spawn(),
    };
    let (stderr, sink) = (child.stderr.take(), Arc::clone(log));
    let reader = std::thread::spawn(move || {
        for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
            sink.lock().unwrap_or_else(PoisonError::into_inner).add(line);
        }
    });
    (Kills(child), reader)
}

/// The same program with listening sockets as its descriptors from 3 on, and told so: sd_listen_fds(3).
fn passing(listeners: &[OwnedFd], program: &Command) -> Command {
    // The shell opens what it inherits as its standard streams under the numbers that are due, and stays the same process.
    let opened = ["3<&0", "3<&0 4<&1"][listeners.len() - 1];
    let script = format!("LISTEN_PID=$$ exec \"$0\" \"$@\" {opened} </dev/null >/dev/null");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program.get_program()).args(program.get_args());
    command.env("LISTEN_FDS", listeners.len().to_string()).stdout(Stdio::null());
    let mut copies = listeners.iter().map(|listener| listener.try_clone().expect("a second descriptor"));
    copies.next().map(|first| command.stdin(first));
    copies.next().map(|second| command.stdout(second));
    command
}

/// The program itself, or as another user a copy of it that this user can reach.
fn command_for(setup: &Setup) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_balancer"));
    if let Some((soft, hard)) = setup.descriptors {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={soft}:{hard}")).arg(program);
        return command;
    }
    if let Some(mask) = setup.umask {
        // The shell stays the same process.
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("umask {mask} && exec \"$0\" \"$@\"")).arg(program);
        return command;
    }
    if setup.user.is_none() && !setup.copied {
        return Command::new(program);
    }
    let copy: PathBuf = setup.directory().join("balancer");
    // By a process of its own: a descriptor that writes to a program, inherited by some other test's child, forbids to run it.
    super::run("cp", &[program, &copy]);
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("making the copy executable");
    let Some(user) = setup.user else { return Command::new(copy) };
    chown(setup.directory(), Some(user), Some(user)).expect("giving the directory to the user");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups").arg(copy);
    command
}
