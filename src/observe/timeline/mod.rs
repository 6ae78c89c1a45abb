//! The incident timeline: what happened and when, kept in memory for those who ask, and on disk for when the process is gone.
//!
//! Whoever decides something records it; recording costs a queue's place and never waits. The file is a ring of fixed records
//! with checksums ([`mod@file`]), written by a thread of its own.

pub mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::writer::{Unrecorded, Writer};

/// Events kept: in memory, and as many in the file.
pub const EVENTS: usize = 4096;

/// Events that may wait for the disk; more are only kept in memory.
const WAITING: usize = 1024;

named! {
    /// What kind of thing happened.
    Kind {
        /// The process began to serve.
        Start = "start",
        /// It was told to stop, or has stopped.
        Stop = "stop",
        /// Another process has taken over, or could not.
        Upgrade = "upgrade",
        /// A configuration was applied; one event for each change.
        Reload = "reload",
        /// A configuration was not applied.
        ReloadRefused = "reload_refused",
        /// A backend's state has changed.
        State = "state",
        /// Probes pass and traffic fails.
        Disagree = "disagree",
        /// A person took a backend out, for a limited time.
        Drain = "drain",
        /// A backend was taken out to see what its loss would mean.
        Drill = "drill",
        /// A person brought a backend back.
        Restore = "restore",
        /// A backend came back by itself.
        LeaseEnded = "lease_ended",
        /// Half of a lease's time is over.
        Reminder = "reminder",
        /// Clients were refused.
        Refused = "refused",
        /// Clients were refused because a limit was reached.
        Limit = "limit",
        /// Backups serve.
        Backup = "backup",
        /// This machine ran short of something: descriptors, ports, pipes, memory.
        Short = "short",
        /// A backend is watched on although a reload removed it.
        Orphan = "orphan",
        /// A person ended that.
        Forget = "forget",
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in UTC.
    pub time: Timestamp,
    /// What kind of thing.
    pub kind: Kind,
    /// The service that it is about.
    #[serde(default)]
    pub service: Option<String>,
    /// The backend that it is about.
    #[serde(default)]
    pub backend: Option<String>,
    /// Who did it, where a person did.
    #[serde(default)]
    pub by: Option<String>,
    /// The service's state from then on: `ok`, `degraded`, `down`.
    #[serde(default)]
    pub state: Option<String>,
    /// How many clients it concerned.
    #[serde(default)]
    pub count: u64,
    /// The whole in words.
    pub text: String,
}

impl Event {
    /// Something that happens now, to nobody in particular yet.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            time: Timestamp::now(),
            kind,
            service: None,
            backend: None,
            by: None,
            state: None,
            count: 0,
            text: text.into(),
        }
    }

    /// The service that it is about.
    #[must_use]
    pub fn of(self, service: &str) -> Self {
        Self { service: Some(service.to_owned()), ..self }
    }

    /// The backend that it is about.
    #[must_use]
    pub fn with(self, backend: &str) -> Self {
        Self { backend: Some(backend.to_owned()), ..self }
    }

    /// Who did it.
    #[must_use]
    pub fn by(self, who: &str) -> Self {
        Self { by: Some(who.to_owned()), ..self }
    }
}

/// The timeline of this process. All who record and all who ask share it.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    disk: Option<SyncSender<Event>>,
}

impl Timeline {
    /// Notes an event. Never waits: what a slow disk cannot take is kept in memory alone.
    pub fn record(&self, event: Event) {
        let mut inner = self.inner();
        if let Some(disk) = &inner.disk
            && let Err(TrySendError::Disconnected(_)) = disk.try_send(event.clone())
        {
            inner.disk = None;
        }
        push(&mut inner.events, event);
    }

    /// The last `limit` events that are not older than `since`, oldest first.
    pub fn since(&self, since: Option<Timestamp>, limit: usize) -> Vec<Event> {
        let inner = self.inner();
        // The clock may have been set since: not all that is older stands before.
        let recent = inner.events.iter().rev().filter(|event| since.is_none_or(|since| event.time >= since));
        let mut events: Vec<_> = recent.take(limit).cloned().collect();
        events.reverse();
        events
    }

    /// Puts what is on disk before what was recorded since.
    fn precede(&self, events: Vec<Event>) {
        let mut inner = self.inner();
        let recent = std::mem::take(&mut inner.events);
        for event in events.into_iter().chain(recent) {
            push(&mut inner.events, event);
        }
    }

    /// Has events written to the file of `directory` from now on, until the result is dropped. `wait`: another process has the file
    /// and will leave it; until then they are kept.
    ///
    /// # Errors
    /// The file cannot be had: all stays in memory.
    pub fn keep_in(self: &Arc<Self>, directory: &std::path::Path, wait: bool) -> Result<Writer, Unrecorded> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(WAITING);
        let writer = Writer::start(Arc::clone(self), directory, receiver, wait)?;
        self.inner().disk = Some(sender);
        Ok(writer)
    }

    /// Writes no more to disk.
    fn let_go(&self) {
        self.inner().disk = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(events: &mut VecDeque<Event>, event: Event) {
    if events.len() == EVENTS {
        events.pop_front();
    }
    events.push_back(event);
}
