//! Replacing the running program: a successor is started, gets every listening socket, and takes over once it is ready.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::handover::{Begins, HandedOver, MaintenanceState, PATIENCE, Successor, Went};
use super::{Control, NOT_SERVING, Parts, State};
use crate::messages::Command;
use crate::observe::timeline::Kind;

/// Who wants to know how it went; nobody does after a signal.
type Answer = Option<oneshot::Sender<Result<u32, String>>>;

/// Where nothing was heard of a successor by then, starting it hangs.
const HANGS: Duration = Duration::from_secs(PATIENCE.as_secs() + 5);
/// How an upgrade went is known by then.
pub const UPGRADE_TAKES: Duration = Duration::from_secs(HANGS.as_secs() + PATIENCE.as_secs() + 5);

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Upgrading {
    by: String,
    coming: StartingSuccessor,
    answer: Answer,
}

/// A successor on its way.
#[derive(Debug)]
pub(super) struct StartingSuccessor {
    begins: Begins,
    went: Went,
    until: Instant,
}

impl StartingSuccessor {
    /// How it went. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Successor, String> {
        loop {
            if let Ok(outcome) = timeout_at(self.until, &mut self.went).await {
                return outcome.unwrap_or_else(|_| Err("starting the new process broke off: see the log".to_owned()));
            }
            // From here on it cannot begin any more. If it has, it is known soon whether it serves.
            self.begins.close();
            if self.begins.try_recv().is_err() {
                return Err(format!(
                    "the new process could not be started within {HANGS:?}: is the configuration a file, and do its disk and the program's answer?"
                ));
            }
            self.until += UPGRADE_TAKES;
        }
    }
}

/// How the upgrade under way went, if there is one.
pub(super) async fn next(upgrading: &mut Option<Upgrading>) -> Result<Successor, String> {
    match upgrading {
        Some(Upgrading { coming, .. }) => coming.next().await,
        None => std::future::pending().await,
    }
}

impl Control {
    /// Starts a successor.
    pub(super) fn upgrade(&mut self, by: String, answer: Answer) {
        let begun = match self.parts.running.file.load().path.clone() {
            _ if self.state != State::Serving => Err(NOT_SERVING.to_owned()),
            _ if self.upgrading.is_some() => Err("an upgrade is under way already".to_owned()),
            None => {
                Err("this configuration is built in: there is nothing that a new process could take over".to_owned())
            }
            Some(config) => self.begin(config).map_err(|error| format!("cannot begin: {error}")),
        };
        match begun {
            Ok(coming) => {
                log::info!("upgrade: starting a new process");
                self.upgrading = Some(Upgrading { by, coming, answer });
            }
            Err(why) => self.not_upgraded(&by, answer, why),
        }
    }

    fn begin(&self, config: std::path::PathBuf) -> std::io::Result<StartingSuccessor> {
        let Parts { administration, listeners, invocation, fleet, .. } = &self.parts;
        let (listeners, passed) = listeners.lend();
        let handed_over = HandedOver { listeners, passed, ..administration.duplicate()? };
        let leases = MaintenanceState { saved: fleet.saved(), kept_in: self.kept_in() };
        let (begins, went) = Successor::start(invocation, handed_over, leases, config)?;
        Ok(StartingSuccessor { begins, went, until: Instant::now() + HANGS })
    }

    /// A successor serves, or there is none.
    pub(super) fn hand_over(&mut self, outcome: Result<Successor, String>) {
        let Some(Upgrading { by, answer, .. }) = self.upgrading.take() else { return };
        let Successor { pid, admin } = match outcome {
            Ok(successor) => successor,
            Err(why) => return self.not_upgraded(&by, answer, why),
        };
        self.record(Kind::Upgrade, Some(&by), format!("process {pid} takes over"));
        let Parts { listeners, commanders, sessions, fleet, .. } = &mut self.parts;
        if let Err(error) = listeners.hand_over(commanders) {
            log::error!("a worker goes on accepting clients: {error}");
        }
        fleet.hand_over();
        log::info!(
            "upgraded: process {pid} serves; {} sessions stay here until they end, however long they last",
            sessions.taken()
        );
        self.state = State::HandedOver;
        self.tell_all(|| Command::Stop);
        self.end_probes_after_handover();
        // Only then the answer, or who has it would ask this process the next question.
        self.parts.administration.retire(admin);
        if let Some(answer) = answer {
            let _ = answer.send(Ok(pid));
        }
        // Last, because a disk can be slow.
        self.leave_state();
    }

    fn not_upgraded(&self, by: &str, answer: Answer, why: String) {
        log::error!("upgrade failed, this process keeps serving: {why}");
        self.record(Kind::Upgrade, Some(by), format!("not upgraded: {why}"));
        if let Some(answer) = answer {
            let _ = answer.send(Err(why));
        }
    }

    /// Probes no more once another process serves and nobody here waits for the first ones.
    pub(super) fn end_probes_after_handover(&mut self) {
        if self.state == State::HandedOver && !self.parts.fleet.is_starting() {
            self.prober.keep(|_| false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is due now, and the thread's ends of its channels.
    fn due() -> (StartingSuccessor, oneshot::Sender<()>, oneshot::Sender<Result<Successor, String>>) {
        let ((begin, begins), (done, went)) = (oneshot::channel(), oneshot::channel());
        (StartingSuccessor { begins, went, until: Instant::now() }, begin, done)
    }

    #[tokio::test]
    async fn a_start_that_hangs_is_given_up_and_cannot_begin_any_more() {
        let (mut coming, begin, _done) = due();
        let why = coming.next().await.unwrap_err();
        assert!(why.contains("could not be started within 35s"), "{why}");
        assert!(begin.send(()).is_err());
    }

    #[tokio::test]
    async fn one_that_has_begun_is_waited_for() {
        let (mut coming, begin, done) = due();
        begin.send(()).unwrap();
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, coming.next()).await.is_err());
        assert!(tokio::time::timeout(soon, coming.next()).await.is_err(), "also where the wait was broken off");
        done.send(Ok(Successor { pid: 7, admin: true })).unwrap();
        assert_eq!(coming.next().await.unwrap().pid, 7);
    }
}
