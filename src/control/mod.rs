//! The control plane: one loop that decides, and the only one that publishes a table.

mod capacity;
mod fleet;
pub mod health;
mod journal;
mod listeners;
pub mod probe;
mod reload;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

pub use self::capacity::{Capacity, TooMany};
pub use self::fleet::Fleet;
use self::journal::Journal;
pub use self::listeners::{ListenError, Listeners};
use self::probe::Prober;
use self::reload::{Ask, Reader};
use self::signals::Asked;
pub use self::signals::Signals;
use crate::config::{Config, Loaded, diff};
use crate::link::{Command, Commander, Deaf, Order, Reply, Report};
use crate::observe::access_log;
use crate::observe::running::{ConfigFile, Reloaded, Running};
use crate::table::Places;

/// After the drain's deadline, sessions are reset at once; a worker that needs longer than this hangs.
const ENDING: Duration = Duration::from_secs(5);
/// How often it is seen whether what a reload removed still has sessions.
const TIDY: Duration = Duration::from_millis(250);
/// Lines of one reload that the log gets; the rest is counted.
const LINES: usize = 100;

/// Why the control plane could not begin, or gave up.
#[derive(Debug, Error)]
pub enum Failure {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker does not take its listeners.
    #[error("cannot hand the listeners to the workers: {0}")]
    Deaf(#[from] Deaf),
    /// A worker ended although nobody told it to.
    #[error("worker {0} has failed: {1}; nothing is served by a part of the workers: the process ends, start it again")]
    Worker(usize, String),
    /// Workers did not end when told to.
    #[error("{0} workers did not end within {ENDING:?} after their sessions were closed")]
    Hanging(usize),
    /// A second signal asked for an end at once.
    #[error("stopped at once by a second signal, {0} sessions were open")]
    Impatient(u32),
}

/// The control plane's share of the process.
#[derive(Debug)]
pub struct Control {
    /// What people and the system ask for.
    pub signals: Signals,
    /// Every backend, and the table.
    pub fleet: Fleet,
    /// Every listening socket.
    pub listeners: Listeners,
    /// The access log, if there is one.
    pub access_log: Option<access_log::Handle>,
    /// One for each worker.
    pub commanders: Vec<Commander>,
    /// What the workers report.
    pub reports: Receiver<Report>,
    /// What the administration side passes on.
    pub orders: Receiver<Order>,
    /// The configuration that holds.
    pub config: Config,
    /// Where the administration side reads of it.
    pub running: Arc<Running>,
    /// What the process has.
    pub capacity: Capacity,
    /// Sessions of the whole process.
    pub sessions: Arc<Places>,
}

/// Where the process stands.
#[derive(Debug, Clone, Copy)]
enum State {
    Serving,
    /// No client is accepted any more; open sessions may finish until then.
    Draining(Instant),
    /// Every session is being closed.
    Ending(Instant),
}

impl Control {
    /// Listens on all that the configuration names, and has the workers accept there. Everything is bound before anybody
    /// serves: a part of the listeners is worse than none.
    ///
    /// # Errors
    /// An address that cannot be had, or a worker that takes no commands.
    pub fn open(&mut self) -> Result<(), Failure> {
        let prepared = self.listeners.prepare(&self.config)?;
        self.commit(prepared)?;
        Ok(())
    }

    fn commit(&mut self, prepared: listeners::Prepared) -> Result<(), Deaf> {
        let number = |service: &str| self.fleet.number(service).unwrap_or(usize::MAX);
        let committed = self.listeners.commit(prepared, number, &self.commanders);
        self.running.listening.store(Arc::new(self.listeners.addresses()));
        committed
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// [`Failure`]; an orderly stop is none.
    pub async fn run(mut self) -> Result<(), Failure> {
        let mut journal = Journal::default();
        let mut prober = Prober::new();
        self.fleet.watch(&mut prober);
        let mut state = State::Serving;
        let mut working = self.commanders.len();
        let mut reader = self.running.file.load().path.clone().map(Reader::new);
        let mut tidy = None;
        while working > 0 {
            let deadline = match state {
                State::Serving => None,
                State::Draining(until) | State::Ending(until) => Some(until),
            };
            tokio::select! {
                asked = self.signals.next() => match (asked, state) {
                    (Asked::Stop, State::Serving) => state = self.stop(),
                    (Asked::Stop, _) => return Err(Failure::Impatient(self.sessions.taken())),
                    (Asked::Reload, State::Serving) => self.ask(&mut reader, Ask { force: false, answer: None }),
                    (Asked::Reload, _) => log::warn!("SIGHUP: the process is stopping; nothing has changed"),
                    (Asked::Reopen, _) => self.reopen(),
                    (Asked::Upgrade, _) => log::warn!("SIGUSR2: upgrade is not supported yet; nothing has changed"),
                },
                Some(report) = self.reports.recv() => match report {
                    Report::Ended { outcome: Ok(()), .. } if !matches!(state, State::Serving) => working -= 1,
                    Report::Ended { worker, outcome } => {
                        let why = outcome.err().unwrap_or_else(|| "it ended without being told to".to_owned());
                        return Err(Failure::Worker(worker, why));
                    }
                    Report::Failing { service, backend, failures, error } => {
                        let why = journal::connect_failure(error);
                        let published = self.fleet.failing(&service, &backend, failures, &why, now());
                        self.spread(published);
                    }
                    report => journal.note(report),
                },
                outcome = prober.next() => {
                    journal.note_probe(&outcome);
                    let published = self.fleet.probed(&outcome, now());
                    self.spread(published);
                }
                () = elapsed(self.fleet.due().map(Instant::from_std)) => {
                    let published = self.fleet.keep_time(now());
                    self.spread(published);
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Reload { force, answer } => self.ask(&mut reader, Ask { force, answer: Some(answer) }),
                },
                (ask, read) = next_read(&mut reader) => {
                    self.reload(ask, read, &mut prober, !matches!(state, State::Serving));
                    tidy = Some(Instant::now() + TIDY);
                }
                () = elapsed(tidy) => {
                    // A worker that takes no commands is found by other means.
                    let held = self.listeners.tidy(&self.commanders).unwrap_or(true);
                    self.fleet.forget_gone(|service| self.listeners.may_bring(service));
                    tidy = (held || self.fleet.has_leaving()).then(|| Instant::now() + TIDY);
                }
                () = elapsed(deadline) => match state {
                    State::Draining(_) => state = self.end(),
                    _ => return Err(Failure::Hanging(working)),
                },
            }
        }
        log::info!("stopped");
        Ok(())
    }

    /// Has the configuration read again.
    fn ask(&self, reader: &mut Option<Reader>, ask: Ask) {
        let refused = match reader {
            None => (ask, "there is no configuration file to read again: this configuration is built in"),
            Some(reader) => match reader.ask(ask) {
                Ok(()) => return,
                Err(ask) => (ask, "too many reloads wait already: try again"),
            },
        };
        let (ask, why) = refused;
        self.answer(ask, Err((Reloaded::Refused, why.to_owned())));
    }

    /// A configuration was read: applies all of it or nothing, and says which.
    fn reload(&mut self, ask: Ask, read: reload::Read, prober: &mut Prober, stopping: bool) {
        let outcome = match read {
            _ if stopping => Err((Reloaded::Refused, "the process is stopping".to_owned())),
            Err(why) => Err((Reloaded::Invalid, why)),
            Ok(loaded) => self.apply(loaded, ask.force, prober),
        };
        self.answer(ask, outcome);
    }

    /// Applies a configuration. Whatever can fail comes first and changes nothing. Answers what has changed.
    fn apply(&mut self, loaded: Loaded, force: bool, prober: &mut Prober) -> Result<Vec<String>, (Reloaded, String)> {
        let Loaded { config, path, sha256 } = loaded;
        let refused = |why| (Reloaded::Refused, why);
        let failed = |why: &dyn std::fmt::Display| (Reloaded::Failed, why.to_string());
        self.needs_new_process(&config).map_err(refused)?;
        let losses = diff::losses(&self.config, &config);
        if !losses.is_empty() && !force {
            return Err(refused(format!(
                "{}; reload.guard wants {}% kept: if the file means it, run `balancer reload --force`",
                losses.join(", "),
                self.config.reload.guard
            )));
        }
        let limit = self.capacity.sessions(&config).map_err(|error| failed(&error))?;
        let prepared = self.listeners.prepare(&config).map_err(|error| failed(&error))?;
        let changes = diff::changes(&self.config, &config, &self.fleet);
        self.sessions.set_limit(Some(limit));
        self.fleet.apply(&config, now());
        self.fleet.watch(prober);
        self.config = config;
        self.running.file.store(Arc::new(ConfigFile::new(Some(path), sha256)));
        if let Err(error) = self.commit(prepared) {
            // Its end is reported, or the watchdog finds it.
            log::error!("the listeners' change did not reach every worker: {error}");
        }
        self.spread(true);
        Ok(changes)
    }

    /// What cannot change while the process runs.
    fn needs_new_process(&self, new: &Config) -> Result<(), String> {
        let old = &self.config;
        let named = [
            ("workers", old.workers != new.workers),
            ("admin", old.admin != new.admin),
            ("access_log", old.access_log != new.access_log),
        ];
        let changed: Vec<_> = named.iter().filter(|(_, changed)| *changed).map(|(key, _)| format!("`{key}`")).collect();
        if changed.is_empty() {
            return Ok(());
        }
        Err(format!(
            "a running process cannot change its {}: take that back, or restart with the new file",
            changed.join(" and ")
        ))
    }

    /// Says what became of a reload: to the log, to the status, and to who asked.
    fn answer(&self, ask: Ask, outcome: Result<Vec<String>, (Reloaded, String)>) {
        let generation = self.fleet.table().load().generation;
        let (result, changes, error) = match outcome {
            Ok(changes) => (Reloaded::Applied, changes, None),
            Err((result, why)) => (result, Vec::new(), Some(why)),
        };
        self.running.note(result, error.clone());
        match &error {
            Some(why) => log::error!("reload {}: {why}; nothing has changed", result.label()),
            None => {
                changes.iter().take(LINES).for_each(|line| log::info!("{line}"));
                let shown =
                    if changes.len() > LINES { format!(", the first {LINES} are above") } else { String::new() };
                log::info!("reloaded: generation {generation}, {} changes{shown}", changes.len());
            }
        }
        if let Some(answer) = ask.answer {
            // Who does not wait any more does not want to know.
            let _ = answer.send(Reply { result, generation, changes, error });
        }
    }

    fn stop(&mut self) -> State {
        log::info!(
            "stopping: no client is accepted any more; {} open sessions may finish within {:?}",
            self.sessions.taken(),
            self.config.drain
        );
        self.tell_all(|| Command::Stop);
        self.listeners.close();
        State::Draining(Instant::now() + self.config.drain)
    }

    fn end(&self) -> State {
        log::warn!("{} sessions were still open after {:?}: they are reset", self.sessions.taken(), self.config.drain);
        self.tell_all(|| Command::End);
        State::Ending(Instant::now() + ENDING)
    }

    fn reopen(&self) {
        match &self.access_log {
            Some(log) => log.reopen(),
            None => log::warn!("SIGUSR1: there is no access log (access_log: off); nothing has changed"),
        }
    }

    /// Has the workers look at a table that was published: clients may wait for it.
    fn spread(&self, published: bool) {
        if published {
            self.commanders.iter().for_each(|commander| commander.bell().ring());
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for (worker, commander) in self.commanders.iter().enumerate() {
            if let Err(error) = commander.tell(command()) {
                // Its end is reported, or the deadline finds it.
                log::error!("worker {worker}: {error}");
            }
        }
    }
}

async fn next_read(reader: &mut Option<Reader>) -> (Ask, reload::Read) {
    match reader {
        Some(reader) => reader.next().await,
        None => std::future::pending().await,
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
