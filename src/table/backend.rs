//! A backend's identity, and the state that outlives any one table.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;

use crate::observe::condition::Condition;
use crate::observe::counters::{BackendCounters, PerWorker, ProbeCounters};

/// What a backend is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It serves whenever it can.
    Primary,
    /// It serves only what the primaries cannot carry.
    Backup,
}

impl Role {
    /// The role's name as the status has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// A backend: its identity (service, name, address) and everything that lives as long as the identity does.
#[derive(Debug)]
pub struct Backend {
    /// Unique within its service.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Sessions open with it now, and how many there may be.
    pub permits: Permits,
    /// What each worker counts of it.
    pub counters: PerWorker<BackendCounters>,
    /// What the control plane, alone, has last decided about it. Picks do not look here: the table holds only those who may serve.
    pub condition: ArcSwap<Condition>,
    /// What the prober counts of it.
    pub probes: ProbeCounters,
    /// Connects of real traffic failed in a row by its fault. Any worker adds; a success clears it.
    failing: AtomicU32,
    /// After so many the control plane wants to hear of it; 0: never.
    alarm: AtomicU32,
}

impl Backend {
    /// A backend that nobody has connected to yet.
    pub fn new(
        name: Arc<str>,
        address: SocketAddr,
        limit: Option<NonZeroU32>,
        condition: Condition,
        workers: usize,
    ) -> Self {
        Self {
            name,
            address,
            permits: Permits::new(limit),
            counters: PerWorker::new(workers),
            condition: ArcSwap::from_pointee(condition),
            probes: ProbeCounters::default(),
            failing: AtomicU32::new(0),
            alarm: AtomicU32::new(0),
        }
    }

    /// A connect of real traffic has succeeded.
    #[inline]
    pub fn succeeded(&self) {
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.failing.store(0, Ordering::Relaxed);
        }
    }

    /// A connect of real traffic has failed by its fault. Answers how many have in a row, when the control plane wants to hear of it.
    pub fn failed(&self) -> Option<u32> {
        let failing = self.failing.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let alarm = self.alarm.load(Ordering::Relaxed);
        // Again and again, because a report may be dropped.
        (alarm != 0 && failing.is_multiple_of(alarm)).then_some(failing)
    }

    /// After how many failures in a row [`Backend::failed`] answers; `None`: never.
    pub fn set_alarm(&self, failures: Option<NonZeroU32>) {
        self.alarm.store(failures.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }
}

/// A number of permits, each held by a [`Permit`]: exact across threads, never overshot.
#[derive(Debug)]
pub struct Permits {
    taken: AtomicU32,
    /// The most that were ever taken at once.
    peak: AtomicU32,
    /// `u32::MAX` stands for no limit.
    limit: AtomicU32,
}

impl Permits {
    /// Permits up to `limit`, or without one.
    pub fn new(limit: Option<NonZeroU32>) -> Self {
        Self {
            taken: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            limit: AtomicU32::new(limit.map_or(u32::MAX, NonZeroU32::get)),
        }
    }

    /// Permits taken now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The most permits that were taken at once so far.
    pub fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The limit, if there is one.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|&limit| limit != u32::MAX)
    }

    /// Whether No permit is free when so many are taken.
    #[inline]
    pub(super) fn are_full(&self, taken: u32) -> bool {
        taken >= self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit. Permits already taken stay taken, also beyond it.
    pub fn set_limit(&self, limit: Option<NonZeroU32>) {
        self.limit.store(limit.map_or(u32::MAX, NonZeroU32::get), Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let before =
            self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1));
        before.is_ok_and(|before| self.reached(before + 1))
    }

    #[inline]
    fn reached(&self, taken: u32) -> bool {
        if taken > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(taken, Ordering::Relaxed);
        }
        true
    }

    /// Takes a permit if exactly so many are taken and one more may be.
    fn take_after(&self, taken: u32) -> bool {
        !self.are_full(taken)
            && self.taken.compare_exchange(taken, taken + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && self.reached(taken + 1)
    }
}

/// Whatever has [`Permits`] to permit.
pub trait HasPermits {
    /// Its permits.
    fn permits(&self) -> &Permits;
}

impl HasPermits for Backend {
    fn permits(&self) -> &Permits {
        &self.permits
    }
}

impl HasPermits for Permits {
    fn permits(&self) -> &Permits {
        self
    }
}

/// one taken permit; dropping it gives the permit back, so that a gauge cannot leak.
#[derive(Debug)]
pub struct Permit<T: HasPermits>(Arc<T>);

impl<T: HasPermits> Permit<T> {
    /// A place of `owner`, unless all are taken.
    pub fn take(owner: &Arc<T>) -> Option<Self> {
        owner.permits().take().then(|| Self(Arc::clone(owner)))
    }

    /// A place of `owner` if exactly `taken` are taken and one is free: the basis of the decision still holds.
    pub(super) fn take_after(owner: &Arc<T>, taken: u32) -> Option<Self> {
        owner.permits().take_after(taken).then(|| Self(Arc::clone(owner)))
    }
}

impl<T: HasPermits> Permit<T> {
    /// Whose permit it is.
    pub fn owner(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: HasPermits> std::ops::Deref for Permit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: HasPermits> Drop for Permit<T> {
    fn drop(&mut self) {
        self.0.permits().taken.fetch_sub(1, Ordering::AcqRel);
    }
}
