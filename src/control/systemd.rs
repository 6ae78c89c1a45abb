//! The service manager (systemd): what it is told, and the watchdog that is fed only while everything makes progress.
//!
//! Where there is none, nothing is said: sd_notify(3). What cannot be delivered is left unsaid; the manager draws its own
//! conclusions.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

use crate::messages::Commander;
use crate::observe::counters::{PerWorker, WorkerCounters};

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager cannot be told: {error}");
    }
}

/// It serves.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its configuration again; [`ready`] ends that.
pub(super) fn reloading() {
    // Since systemd 253 the time is due, too.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It stops.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// From now on another process is the service.
pub(super) fn handed_over(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// A line for `systemctl status`.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Feeds the manager's watchdog while every worker makes progress. That the control plane does, its being called shows.
#[derive(Debug)]
pub(super) struct Watchdog {
    every: Duration,
    due: Instant,
    counters: Arc<PerWorker<WorkerCounters>>,
    /// How often each worker had woken when it was last looked at.
    wakes: Vec<u64>,
    /// A worker hangs, and that has been said.
    hangs: bool,
}

impl Watchdog {
    /// A watchdog, if the manager wants to be fed: `WATCHDOG_USEC` of sd_watchdog_enabled(3).
    pub(super) fn new(counters: Arc<PerWorker<WorkerCounters>>, workers: usize) -> Option<Self> {
        // Three times in its period: one late feeding is no death.
        let every = sd_notify::watchdog_enabled()? / 3;
        Some(Self { every, due: Instant::now(), counters, wakes: vec![0; workers], hangs: false })
    }

    /// When [`Watchdog::look`] has something to do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Feeds the watchdog if every worker has woken since the last time, and wakes them all for the next.
    pub(super) fn look(&mut self, workers: &[Commander]) {
        self.due = Instant::now() + self.every;
        let now: Vec<_> = (0..self.wakes.len()).map(|worker| self.counters.of(worker).wakes.get()).collect();
        let hanging: Vec<_> = (0..now.len()).filter(|&worker| now[worker] == self.wakes[worker]).collect();
        if hanging.is_empty() {
            tell(&[NotifyState::Watchdog]);
        } else if !self.hangs {
            log::error!("worker {hanging:?} makes no progress: the service manager's watchdog is not fed");
        }
        self.hangs = !hanging.is_empty();
        self.wakes = now;
        workers.iter().for_each(|worker| worker.waker().wake());
    }
}
