//! The prober: asks every watched backend at its interval whether it is well, and tells how each attempt ended.
//!
//! It judges nothing: what a result means for a backend's state is [`health`](super::health)'s to say. Its owner, the
//! control loop, holds a [`Prober`], names backends with [`Prober::watch`] and [`Prober::forget`], and awaits
//! [`Prober::next`] among its other events. There is no task that runs on its own and no channel: the schedule is a
//! plain ordered set, and each attempt under way is one short task over an ordinary, non-blocking socket. Those are
//! closed when the attempt ends or is dropped; an operation of tokio-uring would live on.
//!
//! When a backend is asked:
//! - at once when it is watched, then after a random part of its interval, so that backends that began together
//!   spread over it, then at its interval, give or take a tenth;
//! - never while an attempt with it is under way. One that took longer than the interval delays the next, no probe is
//!   made up for;
//! - at most [`Prober::AT_ONCE`] attempts are under way together, the rest wait in the order in which they were due.

pub mod check;
mod http;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::sleep_until;

pub use self::check::{Check, Target};
use self::check::{Lingering, Verdict};
use crate::observe::counters::Probed;
use crate::table::splitmix64;

/// A watched backend's name between the prober and its owner, who chooses it.
pub type Id = u64;

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The backend, as [`Prober::watch`] named it.
    pub id: Id,
    /// The result.
    pub result: Probed,
    /// The result in words for people: `connect refused`, `status 500`.
    pub detail: String,
    /// From the beginning of the connect to the result.
    pub took: Duration,
}

/// All watched backends, when each is due, and the attempts under way.
#[derive(Debug)]
pub struct Prober {
    watched: HashMap<Id, Watched>,
    /// Who waits for what moment; exactly those of `watched` that have no attempt under way.
    due: BTreeSet<(Instant, Id)>,
    jobs: JoinSet<Ended>,
    jitter: Jitter,
    attempts: u64,
    at_once: usize,
}

#[derive(Debug)]
struct Watched {
    target: Arc<Target>,
    stage: Stage,
    /// Whether it has been asked before: the first attempt is followed by a random part of the interval.
    spread: bool,
}

#[derive(Debug)]
enum Stage {
    Waiting(Instant),
    Asking { attempt: u64, started: Instant, task: AbortHandle },
}

/// What a task of the set was for.
#[derive(Debug)]
enum Ended {
    Attempt(Attempt),
    /// A connection was closed in order, after its result.
    Lingering,
}

#[derive(Debug)]
struct Attempt {
    number: u64,
    id: Id,
    verdict: Verdict,
    took: Duration,
    lingering: Option<Lingering>,
}

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

impl Prober {
    /// Attempts, and connections being closed after one, that may be under way together: each holds a descriptor.
    pub const AT_ONCE: usize = 1024;

    /// A prober that watches nobody yet.
    pub fn new() -> Self {
        let jitter = Jitter(RandomState::new().hash_one(0));
        Self {
            watched: HashMap::new(),
            due: BTreeSet::new(),
            jobs: JoinSet::new(),
            jitter,
            attempts: 0,
            at_once: Self::AT_ONCE,
        }
    }

    /// Watches a backend from now on: its first probe is due at once. One that is watched already with the same target
    /// is left in peace, with another target it is asked anew and nothing is heard any more of the old one.
    pub fn watch(&mut self, id: Id, target: Target) {
        if self.watched.get(&id).is_some_and(|watched| *watched.target == target) {
            return;
        }
        self.forget(id);
        let now = Instant::now();
        self.watched.insert(id, Watched { target: Arc::new(target), stage: Stage::Waiting(now), spread: false });
        self.due.insert((now, id));
    }

    /// Watches it no longer. An attempt under way is dropped with its descriptor; no outcome of it comes after this.
    pub fn forget(&mut self, id: Id) {
        match self.watched.remove(&id).map(|watched| watched.stage) {
            Some(Stage::Waiting(at)) => _ = self.due.remove(&(at, id)),
            Some(Stage::Asking { task, .. }) => task.abort(),
            None => {}
        }
    }

    /// Watches on only those of these names.
    pub fn keep(&mut self, names: impl Fn(Id) -> bool) {
        let gone: Vec<_> = self.watched.keys().copied().filter(|&id| !names(id)).collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// Keeps the schedule until a probe ends, and answers how. It never ends by itself where nobody is watched.
    ///
    /// Probes are begun in here alone, so it is to be awaited all the time, on a runtime with tokio's timers and
    /// sockets. Dropping it loses nothing: `select!` may call it anew in each turn.
    pub async fn next(&mut self) -> Outcome {
        loop {
            let due = self.begin_due();
            let waiting = due.filter(|_| self.jobs.len() < self.at_once);
            tokio::select! {
                Some(ended) = self.jobs.join_next() => {
                    if let Some(outcome) = self.end(ended) {
                        return outcome;
                    }
                }
                () = sleep_until(waiting.unwrap_or_else(Instant::now).into()), if waiting.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Begins what is due, as far as there is room; answers when the next is.
    fn begin_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(&(at, id)) = self.due.first() {
            if at > now || self.jobs.len() >= self.at_once {
                return Some(at);
            }
            self.due.pop_first();
            self.begin(id, now);
        }
        None
    }

    fn begin(&mut self, id: Id, now: Instant) {
        let Some(watched) = self.watched.get_mut(&id) else { return };
        self.attempts += 1;
        let (number, target) = (self.attempts, Arc::clone(&watched.target));
        let task = self.jobs.spawn(async move {
            let started = Instant::now();
            let (verdict, lingering) = check::run(&target).await;
            Ended::Attempt(Attempt { number, id, verdict, took: started.elapsed(), lingering })
        });
        watched.stage = Stage::Asking { attempt: number, started: now, task };
    }

    fn end(&mut self, ended: Result<Ended, JoinError>) -> Option<Outcome> {
        let attempt = match ended {
            Ok(Ended::Attempt(attempt)) => attempt,
            Ok(Ended::Lingering) => return None,
            Err(error) => self.broken(&error)?,
        };
        let Attempt { number, id, verdict, took, lingering } = attempt;
        if let Some(lingering) = lingering
            && self.jobs.len() < self.at_once
        {
            self.jobs.spawn(async move {
                lingering.say().await;
                Ended::Lingering
            });
        }
        let watched = self.watched.get_mut(&id)?;
        let Stage::Asking { attempt, started, .. } = watched.stage else { return None };
        // Forgotten and watched anew while the old attempt's end was already on its way.
        if attempt != number {
            return None;
        }
        let interval = watched.target.interval;
        let pause = if watched.spread { self.jitter.about(interval) } else { self.jitter.part_of(interval) };
        let at = (started + pause).max(Instant::now());
        watched.spread = true;
        watched.stage = Stage::Waiting(at);
        self.due.insert((at, id));
        Some(Outcome { id, result: verdict.result, detail: verdict.detail, took })
    }

    /// An attempt that panicked says nothing about the backend, which goes on being asked. A dropped one is no news.
    fn broken(&self, error: &JoinError) -> Option<Attempt> {
        if error.is_cancelled() {
            return None;
        }
        let (&id, number) = self.watched.iter().find_map(|(id, watched)| match &watched.stage {
            Stage::Asking { attempt, task, .. } if task.id() == error.id() => Some((id, *attempt)),
            _ => None,
        })?;
        let verdict = Verdict { result: Probed::LocalFault, detail: format!("the probe broke off: {error}") };
        Some(Attempt { number, id, verdict, took: Duration::ZERO, lingering: None })
    }
}

/// Numbers without a pattern that matters, to spread probes in time.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// Evenly from 0 up to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(1);
        (splitmix64(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From nine to eleven tenths of it.
    fn about(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(0.9 + 0.2 * self.roll())
    }

    /// From nothing to all of it.
    fn part_of(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.roll())
    }
}
