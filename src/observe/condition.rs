//! What the control plane has decided about a backend: its state, since when, why, and what the probes said.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

named! {
    /// Whether a backend may serve.
    State {
        /// Not probed yet.
        Starting = "starting",
        /// It serves.
        Up = "up",
        /// It has failed its probes, or real traffic has failed with it.
        Down = "down",
        /// Drained by a person, for a limited time.
        Drained = "drained",
    }
}

/// Who of a service can serve: what its state follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its backends.
    pub backends: usize,
    /// Those of them that are up.
    pub up: usize,
    /// Backups that are up.
    pub backups_up: usize,
    /// Sessions are with a backup.
    pub on_backups: bool,
}

impl Standing {
    /// `ok`: all backends are up, and no session is with a backup; `down`: nobody can serve; `degraded`: anything between.
    pub fn label(self) -> &'static str {
        match self.up + self.backups_up {
            0 => "down",
            _ if self.up == self.backends && !self.on_backups => "ok",
            _ => "degraded",
        }
    }
}

/// A backend's condition at one moment. The control plane replaces it as a whole; everybody may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether it may serve.
    pub state: State,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// Why, in words for people: `2 of 2 probes passed`, `connect refused, 3 of 3 probes failed`.
    pub reason: String,
    /// How long the last probe took, whether it passed or not; one that this machine could not make does not count.
    pub probe: Option<Duration>,
    /// The drain, where it is [`State::Drained`].
    pub drain: Option<Drain>,
}

named! {
    /// What a backend is drained for.
    Purpose {
        /// Maintenance.
        Drain = "drain",
        /// To see what its loss would mean.
        Drill = "drill",
    }
}

/// A backend drained by a person, for a limited time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// What for.
    pub purpose: Purpose,
    /// Who did it.
    pub by: String,
    /// Why, in that person's words; may be empty.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// It was said that half of the time is over.
    #[serde(default)]
    pub reminded: bool,
    /// When open sessions are closed, and over what time they are spread; `None`: they finish by themselves.
    #[serde(default)]
    pub close: Option<(Timestamp, Duration)>,
    /// A drill ends when so many clients more than this were refused: how many, and how many had been before.
    #[serde(default)]
    pub abort: Option<(u64, u64)>,
}

impl Drain {
    /// Why, also where nobody said.
    pub fn why(&self) -> &str {
        if self.reason.is_empty() { "no reason given" } else { &self.reason }
    }
}

impl Condition {
    /// A backend's condition before its first probe, or for good where there is no probe and it is `up` at once.
    pub fn new(state: State, reason: &str) -> Self {
        Self { state, since: Timestamp::now(), reason: reason.to_owned(), probe: None, drain: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ok_while_its_backends_serve_alone() {
        let label = |backends, up, backups_up, on_backups| Standing { backends, up, backups_up, on_backups }.label();
        assert_eq!(label(2, 2, 0, false), "ok");
        assert_eq!(label(2, 2, 1, true), "degraded");
        assert_eq!(label(2, 1, 0, false), "degraded");
        assert_eq!(label(2, 0, 1, false), "degraded");
        assert_eq!(label(2, 0, 0, true), "down");
    }
}
