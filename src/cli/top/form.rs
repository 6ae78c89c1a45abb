//! The questions before a drain: for how long, why, and whether against the guard.

use super::screen::Request;
use crate::duration;

/// What stands there before anything is typed.
const TIME: &str = "30m";

/// The questions and what has been answered.
#[derive(Debug)]
pub(super) struct DrainForm {
    /// `SERVICE/BACKEND`.
    pub(super) backend: String,
    pub(super) time: String,
    pub(super) reason: String,
    pub(super) force: bool,
    pub(super) field: Field,
    /// What is wrong, or what the balancer has said.
    pub(super) said: String,
}

/// Where the next key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    Reason,
    Force,
}

impl Field {
    /// The one below, around the end.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Time => Self::Reason,
            Self::Reason => Self::Force,
            Self::Force => Self::Time,
        }
    }

    /// The one above, around the end.
    pub(super) fn before(self) -> Self {
        self.next().next()
    }
}

impl DrainForm {
    /// Nothing answered yet.
    pub(super) fn new(backend: String) -> Self {
        Self {
            backend,
            time: TIME.into(),
            reason: String::new(),
            force: false,
            field: Field::Time,
            said: String::new(),
        }
    }

    /// The order, if the answers make one; else says what is wrong with them.
    pub(super) fn request(&mut self) -> Option<Request> {
        let (time, reason) = (self.time.trim(), self.reason.trim());
        if let Err(why) = duration::parse(time) {
            (self.said, self.field) = (format!("{time:?} is not a time: {why}"), Field::Time);
            return None;
        }
        if reason.is_empty() {
            (self.said, self.field) = ("say why, for whoever finds it out of the pool".into(), Field::Reason);
            return None;
        }
        let (backend, time, reason) = (self.backend.clone(), time.to_owned(), reason.to_owned());
        Some(Request::Drain { backend, time, reason, force: self.force })
    }

    /// Whether an order came from here.
    pub(super) fn asked(&self, request: &Request) -> bool {
        matches!(request, Request::Drain { backend, .. } if *backend == self.backend)
    }
}
