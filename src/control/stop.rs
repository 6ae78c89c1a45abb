//! How the process ends: a stop, the end of its drain, and what is put away then.

use std::time::Duration;

use tokio::time::Instant;

use super::{Control, ENDING, Parts, State, systemd};
use crate::messages::Command;
use crate::observe::timeline::Kind;

/// After a second signal the access log has this long for what it was given.
const LAST_LINES: Duration = Duration::from_millis(50);

impl Control {
    /// Puts everything away, which waits for disks that may hang: a signal ends the process where it stands from here on.
    pub fn close(mut self) {
        self.parts.signals.end_at_the_next();
        self.parts.administration.close();
    }

    /// Leaves everything as it is, because the process is to end at once: no disk is waited for, and nobody who is being answered.
    pub fn abandon(mut self) {
        self.parts.administration.close();
        if let Some(writer) = self.parts.writer.take() {
            writer.end_within(LAST_LINES);
        }
        std::mem::forget(self);
    }

    /// Accepts no client any more, and gives sessions their time.
    pub(super) fn stop(&mut self) {
        let Parts { sessions, config, running, .. } = &self.parts;
        running.stop();
        let (sessions, drain) = (sessions.taken(), config.drain);
        log::info!("stopping: no client is accepted any more; waiting up to {drain:?} for {sessions} open sessions");
        self.record(Kind::Stop, None, format!("told to stop: waiting up to {drain:?} for {sessions} open sessions"));
        if self.state == State::Serving {
            systemd::stopping(&format!("stopping: waiting up to {drain:?} for {sessions} sessions"));
        }
        if self.upgrading.is_some() {
            self.hand_over(Err("this process was told to stop".to_owned()));
        }
        self.tell_all(|| Command::Stop);
        self.parts.listeners.close();
        self.state = State::Draining(Instant::now() + drain);
    }

    /// That time is over.
    pub(super) fn end(&mut self) {
        let Parts { sessions, config, .. } = &self.parts;
        log::warn!("{} sessions were still open after {:?}: they are reset", sessions.taken(), config.drain);
        self.tell_all(|| Command::End);
        self.state = State::Ending(Instant::now() + ENDING);
    }
}
