//! The control plane: one loop that decides, and the only one that publishes a table.

mod capacity;
mod fleet;
mod handover;
pub mod health;
mod journal;
mod listeners;
mod maintenance;
pub mod probe;
mod reload;
mod signals;
mod stop;
mod store;
mod systemd;
mod tentative_address;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

pub use self::capacity::{Capacity, TooMany};
pub use self::fleet::Fleet;
pub use self::handover::{HandedOver, Invocation, Predecessor};
use self::journal::Journal;
pub use self::listeners::{Inherited, ListenError, Listeners, Prepared};
use self::maintenance::StateStore;
use self::probe::Prober;
pub use self::reload::open_access_log;
use self::reload::{Ask, Reader};
use self::signals::Asked;
pub use self::signals::Signals;
use self::systemd::Watchdog;
pub use self::tentative_address::await_addresses;
pub use self::upgrade::UPGRADE_TAKES;
use self::upgrade::Upgrading;
use crate::config::{self, Config};
use crate::messages::{AdminRequest, Command, Commander, WorkerEvent, WorkerGone};
use crate::observe::access_log;
use crate::observe::counters::{PerWorker, WorkerCounters};
use crate::observe::running::Running;
use crate::observe::timeline::{Kind, Timeline};
use crate::table::Permits;

/// After the drain's deadline, sessions are reset at once; a worker that needs longer than this hangs.
const ENDING: Duration = Duration::from_secs(5);
/// The listeners of a process that was killed are in use until the kernel has taken its rings down: about 10 ms later.
const TEARDOWN: Duration = Duration::from_secs(1);
/// Why a process that stops, or has handed over, decides nothing any more.
const NOT_SERVING: &str = "this process takes no clients any more: ask the one that has taken over, or start one";
/// Who asked, where a signal did: it does not tell who sent it.
const BY_SIGNAL: &str = "a signal";
/// How often it is seen whether what a reload removed still has sessions.
const GONE_CHECK: Duration = Duration::from_millis(250);

/// Why the control plane could not begin, or gave up.
#[derive(Debug, Error)]
pub enum Failure {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker does not take its listeners.
    #[error("cannot hand the listeners to the workers: {0}")]
    WorkerGone(#[from] WorkerGone),
    /// A worker ended although nobody told it to.
    #[error("worker {0} has failed: {1}; nothing is served by a part of the workers: the process ends, start it again")]
    Worker(usize, String),
    /// Workers did not end when told to.
    #[error(
        "{0} workers did not end within {ENDING:?} after their sessions were closed; the process ends all the same: this is a bug, please report it with the log"
    )]
    Hanging(usize),
    /// A second signal asked for an end at once.
    #[error("stopped at once by a second signal, {0} sessions were open")]
    Impatient(u32),
}

/// The administration interface as the control plane changes it.
pub trait Administration: std::fmt::Debug {
    /// Binds what a configuration adds to it. Nothing changes until [`Administration::commit`].
    ///
    /// # Errors
    /// Why it cannot be had, and what to do.
    fn prepare(&mut self, admin: &config::Admin) -> Result<(), String>;
    /// Somebody has removed its socket, so that nobody can ask any more.
    fn is_lost(&self) -> bool;
    /// Begins to answer, if it has not begun.
    fn begin(&mut self);
    /// Answers where the prepared configuration wants it. Those who are being answered still are.
    fn commit(&mut self);
    /// Its sockets once more, for a successor: what is handed over, without listeners.
    ///
    /// # Errors
    /// No descriptor is left.
    fn duplicate(&self) -> std::io::Result<HandedOver>;
    /// Answers only those who are connected already; `inherited`: a successor answers at its socket.
    fn retire(&mut self, inherited: bool);
    /// Leaves its socket and waits for nobody.
    fn close(&mut self);
}

/// What the control plane works with.
#[derive(Debug)]
pub struct Parts {
    /// What people and the system ask for.
    pub signals: Signals,
    /// Every backend, and the table.
    pub fleet: Fleet,
    /// Every listening socket.
    pub listeners: Listeners,
    /// The access log.
    pub access_log: Arc<access_log::Log>,
    /// Who writes it. In an orderly stop it is dropped when the workers have ended: what they have recorded is written.
    pub writer: Option<access_log::Writer>,
    /// One for each worker.
    pub commanders: Vec<Commander>,
    /// What the workers report.
    pub events: Receiver<WorkerEvent>,
    /// What the administration side passes on.
    pub requests: Receiver<AdminRequest>,
    /// The configuration that holds.
    pub config: Config,
    /// Where the administration side reads of it.
    pub running: Arc<Running>,
    /// What the process has.
    pub capacity: Capacity,
    /// Sessions of the whole process.
    pub sessions: Arc<Permits>,
    /// What the workers count of themselves.
    pub counters: Arc<PerWorker<WorkerCounters>>,
    /// How to start a successor.
    pub invocation: Invocation,
    /// The administration interface.
    pub administration: Box<dyn Administration>,
    /// What happened and when.
    pub timeline: Arc<Timeline>,
}

/// The control plane's share of the process.
#[derive(Debug)]
pub struct Control {
    state: State,
    prober: Prober,
    /// Where the configuration is read again; `None`: it is built in.
    reader: Option<Reader>,
    upgrading: Option<Upgrading>,
    /// When it is next seen whether what was removed still has sessions.
    gone_check: Option<Instant>,
    /// The state directory.
    state_store: StateStore,
    /// Dropped last: what was ordered is answered before the administration ends.
    parts: Parts,
}

/// Where the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// Another process serves; open sessions may finish, however long they last.
    HandedOver,
    /// No client is accepted any more; open sessions may finish until then.
    Draining(Instant),
    /// Every session is being closed.
    Ending(Instant),
}

impl Control {
    /// A control plane that has not begun.
    ///
    /// `successor`: another process serves yet, and will leave it the state directory.
    pub fn new(mut parts: Parts, successor: bool) -> Self {
        let mut prober = Prober::new();
        parts.fleet.watch(&mut prober);
        let reader = parts.running.file.load().path.clone().map(Reader::new);
        let state_store = StateStore::default();
        let mut control =
            Self { parts, state: State::Serving, prober, reader, upgrading: None, gone_check: None, state_store };
        control.open_state(successor);
        control
    }

    /// Binds and listens on all that the configuration names, before anybody serves: a part of the listeners is worse than none.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn prepare(&self) -> Result<Prepared, ListenError> {
        let start = Instant::now();
        loop {
            match self.parts.listeners.prepare(&self.parts.config) {
                Err(error) if error.may_pass() && start.elapsed() < TEARDOWN => std::thread::sleep(TEARDOWN / 200),
                outcome => return outcome,
            }
        }
    }

    /// Has the workers accept clients.
    ///
    /// # Errors
    /// A worker takes no commands.
    pub fn open(&mut self, prepared: Prepared) -> Result<(), Failure> {
        self.parts.administration.begin();
        self.commit(prepared)?;
        let Parts { config, running, commanders, sessions, .. } = &self.parts;
        let listening = running.listening.load();
        for service in &config.services {
            let addresses = listening.get(&service.name).map(|list| list.join(", ")).unwrap_or_default();
            log::info!("{}: serving on {addresses} with {} backends", service.name, service.backends.len());
        }
        let most = sessions.limit().unwrap_or(u32::MAX);
        log::info!("ready: {} workers, at most {most} sessions", commanders.len());
        let generation = self.parts.fleet.table().load().generation;
        let file = running.file.load();
        let path = file.path.as_ref().map_or_else(String::new, |path| format!(", {}", path.display()));
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        self.record(
            Kind::Start,
            None,
            format!("balancer {version} serves as process {pid}, generation {generation}{path}"),
        );
        systemd::ready(&self.summary());
        Ok(())
    }

    fn commit(&mut self, prepared: Prepared) -> Result<(), WorkerGone> {
        let Parts { fleet, listeners, commanders, running, .. } = &mut self.parts;
        let number = |service: &str| fleet.number(service).unwrap_or(usize::MAX);
        let committed = listeners.commit(prepared, number, commanders);
        running.listening.store(Arc::new(listeners.addresses()));
        self.gone_check = Some(Instant::now() + GONE_CHECK);
        committed
    }

    /// Serves until a signal ends it, or until the last session has ended after another process has taken over.
    ///
    /// # Errors
    /// [`Failure`]; an orderly stop is none.
    pub async fn run(&mut self) -> Result<(), Failure> {
        let mut journal = Journal::new(Arc::clone(&self.parts.timeline), Arc::clone(self.parts.fleet.table()));
        let mut working = self.parts.commanders.len();
        let mut watchdog = Watchdog::new(Arc::clone(&self.parts.counters), working);
        while working > 0 {
            let deadline = match self.state {
                State::Serving | State::HandedOver => None,
                State::Draining(until) | State::Ending(until) => Some(until),
            };
            // Who stops, or is not the service any more, is not watched.
            let feeding = watchdog.as_ref().filter(|_| self.state == State::Serving).map(Watchdog::due);
            let due = self.parts.fleet.due().map(Instant::from_std);
            tokio::select! {
                asked = self.parts.signals.next() => match (asked, self.state) {
                    (Asked::Stop, State::Serving | State::HandedOver) => self.stop(),
                    (Asked::Stop, _) => return Err(Failure::Impatient(self.parts.sessions.taken())),
                    (Asked::Reload, _) => self.ask(Ask { by: BY_SIGNAL.to_owned(), force: false, answer: None }),
                    (Asked::Reopen, _) => self.reopen(),
                    (Asked::Upgrade, _) => self.upgrade(BY_SIGNAL.to_owned(), None),
                },
                Some(request) = self.parts.requests.recv() => match request {
                    AdminRequest::Reload { by, force, answer } => self.ask(Ask { by, force, answer: Some(answer) }),
                    AdminRequest::Upgrade { by, answer } => self.upgrade(by, Some(answer)),
                    AdminRequest::Drain { draining, by, answer } => self.drain(draining, by, answer),
                    AdminRequest::Restore { service, backend, by, answer } => self.restore(&service, &backend, &by, answer),
                    AdminRequest::Forget { service, backend, by, answer } => self.forget(&service, &backend, &by, answer),
                },
                Some(event) = self.parts.events.recv() => match event {
                    WorkerEvent::Ended { outcome: Ok(()), .. } if self.state != State::Serving => working -= 1,
                    WorkerEvent::Ended { worker, outcome } => {
                        let why = outcome.err().unwrap_or_else(|| "it ended without being told to".to_owned());
                        return Err(Failure::Worker(worker, why));
                    }
                    WorkerEvent::Failing { service, backend, address, failures, error } => {
                        let why = journal::connect_failure(error);
                        let who = (&*service, &*backend, address);
                        let published = self.parts.fleet.failing(who, failures, &why, now());
                        self.wake_workers(published);
                    }
                    event => {
                        if let WorkerEvent::Backup { service, .. } = &event {
                            self.parts.fleet.on_backup(service);
                        }
                        journal.note(event);
                    }
                },
                outcome = self.prober.next() => {
                    journal.note_probe(&outcome);
                    let published = self.parts.fleet.probed(&outcome, now());
                    self.wake_workers(published);
                    self.save_and_watch(None);
                    self.end_probes_after_handover();
                }
                () = elapsed(due) => self.on_timer(),
                () = elapsed(journal.due()) => journal.look(),
                (ask, read) = reload::next(&mut self.reader) => self.reload(ask, read),
                outcome = upgrade::next(&mut self.upgrading) => self.hand_over(outcome),
                () = elapsed(self.gone_check) => self.forget_gone(),
                () = elapsed(feeding) => {
                    if let Some(watchdog) = &mut watchdog {
                        watchdog.look(&self.parts.commanders);
                    }
                }
                () = elapsed(deadline) => match self.state {
                    State::Draining(_) => self.end(),
                    _ => return Err(Failure::Hanging(working)),
                },
            }
        }
        log::info!("stopped");
        journal.close();
        self.record(Kind::Stop, None, "stopped");
        Ok(())
    }

    fn reopen(&self) {
        if !self.parts.access_log.reopen() {
            log::warn!("SIGUSR1: there is no access log (access_log: off); nothing has changed");
        }
    }

    fn forget_gone(&mut self) {
        let Parts { listeners, fleet, commanders, .. } = &mut self.parts;
        // A worker that takes no commands is found by other means.
        let held = listeners.release_removed(commanders).unwrap_or(true);
        fleet.forget_gone(|service| listeners.may_bring(service));
        self.gone_check = (held || fleet.has_leaving()).then(|| Instant::now() + GONE_CHECK);
    }

    /// Has the workers look at a table that was published: clients may wait for it.
    fn wake_workers(&self, published: bool) {
        if published {
            self.parts.commanders.iter().for_each(|commander| commander.waker().wake());
            if self.state == State::Serving {
                systemd::status(&self.summary());
            }
        }
    }

    /// A line for the service manager: who is left to serve.
    fn summary(&self) -> String {
        let (up, all) = self.parts.fleet.up();
        let generation = self.parts.fleet.table().load().generation;
        format!("{} services, {up} of {all} backends up; generation {generation}", self.parts.config.services.len())
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for (worker, commander) in self.parts.commanders.iter().enumerate() {
            // A worker whose last session has ended during a stop is gone, as it should be.
            if let Err(error) = commander.enqueue(command())
                && self.state == State::Serving
            {
                // Its end is reported, or the deadline finds it.
                log::error!("worker {worker}: {error}");
            }
        }
        // Each has its word before any acts on it: the place that the end of a session gives back is not taken by a client of another
        // worker, whose end is due as well.
        self.parts.commanders.iter().for_each(|commander| commander.waker().wake());
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

async fn elapsed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
