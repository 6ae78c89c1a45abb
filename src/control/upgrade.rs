//! Replacing the running program: a successor is started, gets every listening socket, and takes over once it is ready.

use tokio::sync::oneshot;

use super::handover::{Estate, Successor};
use super::{Control, Parts, State};
use crate::link::Command;
use crate::observe::timeline::Kind;

/// Who wants to know how it went; nobody does after a signal.
type Answer = Option<oneshot::Sender<Result<u32, String>>>;

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Upgrading {
    by: String,
    outcome: oneshot::Receiver<Result<Successor, String>>,
    answer: Answer,
}

/// How the upgrade under way went, if there is one.
pub(super) async fn next(upgrading: &mut Option<Upgrading>) -> Result<Successor, String> {
    match upgrading {
        Some(Upgrading { outcome, .. }) => {
            outcome.await.unwrap_or_else(|_| Err("starting the new process broke off: see the log".to_owned()))
        }
        None => std::future::pending().await,
    }
}

impl Control {
    /// Starts a successor.
    pub(super) fn upgrade(&mut self, by: String, answer: Answer) {
        let begun = match self.parts.running.file.load().path.clone() {
            _ if self.state != State::Serving => Err("this process takes no clients any more".to_owned()),
            _ if self.upgrading.is_some() => Err("an upgrade is under way already".to_owned()),
            None => {
                Err("this configuration is built in: there is nothing that a new process could take over".to_owned())
            }
            Some(config) => self.begin(config).map_err(|error| format!("cannot begin: {error}")),
        };
        match begun {
            Ok(outcome) => {
                log::info!("upgrade: starting a new process");
                self.upgrading = Some(Upgrading { by, outcome, answer });
            }
            Err(why) => self.not_upgraded(&by, answer, why),
        }
    }

    fn begin(&self, config: std::path::PathBuf) -> std::io::Result<oneshot::Receiver<Result<Successor, String>>> {
        let Parts { administration, listeners, invocation, .. } = &self.parts;
        let estate = Estate { listeners: listeners.lend(), ..administration.duplicate()? };
        Successor::start(invocation, estate, config)
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
        self.rest();
        // Only then the answer, or who has it would ask this process the next question.
        self.parts.administration.retire(admin);
        if let Some(answer) = answer {
            let _ = answer.send(Ok(pid));
        }
        // Last, because a disk can be slow.
        self.leave_state();
    }

    fn not_upgraded(&self, by: &str, answer: Answer, why: String) {
        log::error!("not upgraded, this process serves on: {why}");
        self.record(Kind::Upgrade, Some(by), format!("not upgraded: {why}"));
        if let Some(answer) = answer {
            let _ = answer.send(Err(why));
        }
    }

    /// Probes no more once another process serves and nobody here waits for the first ones.
    pub(super) fn rest(&mut self) {
        if self.state == State::HandedOver && !self.parts.fleet.is_starting() {
            self.prober.keep(|_| false);
        }
    }
}
