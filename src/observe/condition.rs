//! What the control plane has decided about a backend: its state, since when, why, and what the probes said.

use std::time::Duration;

use jiff::Timestamp;

/// Whether a backend may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Not probed yet.
    Starting,
    /// It serves.
    Up,
    /// It has failed its probes, or real traffic has failed with it.
    Down,
    /// Held out by a person, for a limited time.
    Drained,
}

impl State {
    /// The state's name as status, logs and metrics have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Drained => "drained",
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
    /// How long the last probe that passed took.
    pub probe: Option<Duration>,
}

impl Condition {
    /// A backend's condition before its first probe, or for good where there is no probe and it is `up` at once.
    pub fn new(state: State, reason: &str) -> Self {
        Self { state, since: Timestamp::now(), reason: reason.to_owned(), probe: None }
    }
}
