//! The control plane: one loop that decides, and the only one that publishes a table.

mod fleet;
pub mod health;
mod journal;
pub mod probe;
mod signals;

use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

pub use self::fleet::Fleet;
use self::journal::Journal;
use self::probe::Prober;
use self::signals::Asked;
pub use self::signals::Signals;
use crate::link::{Command, Commander, Report};
use crate::observe::access_log;
use crate::table::Places;

/// After the drain's deadline, sessions are reset at once; a worker that needs longer than this hangs.
const ENDING: Duration = Duration::from_secs(5);

/// Why the control plane gave up.
#[derive(Debug, Error)]
pub enum Failure {
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
    /// The access log, if there is one.
    pub access_log: Option<access_log::Handle>,
    /// One for each worker.
    pub commanders: Vec<Commander>,
    /// What the workers report.
    pub reports: Receiver<Report>,
    /// How long a stop waits for open sessions.
    pub drain: Duration,
    /// Sessions of the whole process.
    pub sessions: std::sync::Arc<Places>,
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
        while working > 0 {
            let deadline = match state {
                State::Serving => None,
                State::Draining(until) | State::Ending(until) => Some(until),
            };
            tokio::select! {
                asked = self.signals.next() => match (asked, state) {
                    (Asked::Stop, State::Serving) => state = self.stop(),
                    (Asked::Stop, _) => return Err(Failure::Impatient(self.sessions.taken())),
                    (Asked::Reload, _) => log::warn!("SIGHUP: reload is not supported yet; nothing has changed"),
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
                () = elapsed(deadline) => match state {
                    State::Draining(_) => state = self.end(),
                    _ => return Err(Failure::Hanging(working)),
                },
            }
        }
        log::info!("stopped");
        Ok(())
    }

    fn stop(&self) -> State {
        log::info!(
            "stopping: no client is accepted any more; {} open sessions may finish within {:?}",
            self.sessions.taken(),
            self.drain
        );
        self.tell_all(|| Command::Stop);
        State::Draining(Instant::now() + self.drain)
    }

    fn end(&self) -> State {
        log::warn!("{} sessions were still open after {:?}: they are reset", self.sessions.taken(), self.drain);
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

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

async fn elapsed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
