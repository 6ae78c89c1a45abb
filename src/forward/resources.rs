//! OperationKind all sessions of a worker share: ring, pipes, the table, the clock's last reading, counters, the way to report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use super::pipes::Pipes;
use super::session::{Millis, NEVER};
use super::worker::Share;
use crate::messages::{Waker, WorkerEvent, WorkerEvents};
use crate::observe::access_log;
use crate::observe::counters::{PerWorker, WorkerCounters};
use crate::sys::ring::Ring;
use crate::table::{Queue, Table};

/// A kind of report that a client can cause; each is told at most once a second.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    ConnectFailed,
    LocalFault,
    Refused,
    Backup,
    NoPipe,
}

/// See the module.
pub(super) struct Resources {
    pub(super) worker: usize,
    pub(super) ring: Ring,
    pub(super) pipes: Pipes,
    pub(super) table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    pub(super) counters: Arc<PerWorker<WorkerCounters>>,
    events: WorkerEvents,
    /// Where one line a session goes.
    pub(super) access_log: Arc<access_log::Log>,
    /// Wakes each worker, by its number.
    wakers: Arc<[Waker]>,
    /// Sessions that wait until their service's first probes have ended: slot and generation.
    pub(super) unprobed: Vec<(u32, u32)>,
    /// A client of this worker that waits for a permit may have one now.
    pub(super) permit_freed: bool,
    /// Each new session is reported.
    pub(super) announce_sessions: bool,
    /// When a report of each [`Cause`] may be told again.
    quiet_until: [Millis; 5],
    started: Instant,
    /// The clock's reading at this turn of the loop.
    pub(super) now: Millis,
    /// The same in microseconds.
    pub(super) micros: u64,
}

impl Resources {
    pub(super) fn new(share: &Share, ring: Ring, pipes: Pipes) -> Self {
        Self {
            worker: share.worker,
            ring,
            pipes,
            table: Cache::new(Arc::clone(&share.table)),
            counters: Arc::clone(&share.counters),
            events: share.events.clone(),
            access_log: Arc::clone(&share.access_log),
            wakers: Arc::clone(&share.wakers),
            unprobed: Vec::new(),
            permit_freed: false,
            announce_sessions: share.announce_sessions,
            quiet_until: [0; 5],
            started: Instant::now(),
            now: 0,
            micros: 0,
        }
    }

    /// Reads the clock: once a turn of the loop.
    pub(super) fn read_clock(&mut self) {
        self.micros = self.started.elapsed().as_micros() as u64;
        self.now = self.micros / 1000;
    }

    /// How long to wait until `due`.
    pub(super) fn until(&self, due: Millis) -> Option<Duration> {
        (due != NEVER).then(|| Duration::from_micros(due.saturating_mul(1000).saturating_sub(self.micros)))
    }

    /// Tells who stands in front of a queue, if anybody does, that a permit may be free.
    pub(super) fn wake_front(&mut self, queue: &Queue) {
        match queue.front() {
            Some(front) if front.worker == self.worker => self.permit_freed = true,
            Some(front) => self.wakers.get(front.worker).into_iter().for_each(Waker::wake),
            None => {}
        }
    }

    /// Tells the control plane. A full queue drops it: the worker never waits.
    pub(super) fn emit(&self, event: WorkerEvent) {
        let _ = self.events.try_send(event);
    }

    /// Tells what a client can cause, at most once a second a cause.
    pub(super) fn emit_rarely(&mut self, cause: Cause, event: impl FnOnce() -> WorkerEvent) {
        let quiet_until = &mut self.quiet_until[cause as usize];
        if self.now >= *quiet_until {
            *quiet_until = self.now + 1000;
            self.emit(event());
        }
    }

    /// OperationKind this worker counts of itself.
    pub(super) fn own_counters(&self) -> &WorkerCounters {
        self.counters.of(self.worker)
    }
}
