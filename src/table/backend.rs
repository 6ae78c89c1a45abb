//! A backend's identity, and the state that outlives any one table.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::observe::counters::{BackendCounters, PerWorker};

/// A backend: its identity (service, name, address) and everything that lives as long as the identity does.
#[derive(Debug)]
pub struct Backend {
    /// Unique within its service.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Sessions open with it now, and how many there may be.
    pub places: Places,
    /// What each worker counts of it.
    pub counters: PerWorker<BackendCounters>,
}

/// A number of places, each held by a [`Lease`]: exact across threads, never overshot.
#[derive(Debug)]
pub struct Places {
    taken: AtomicU32,
    /// `u32::MAX` stands for no limit.
    limit: AtomicU32,
}

impl Places {
    /// Places up to `limit`, or without one.
    pub fn new(limit: Option<NonZeroU32>) -> Self {
        Self { taken: AtomicU32::new(0), limit: AtomicU32::new(limit.map_or(u32::MAX, NonZeroU32::get)) }
    }

    /// Places taken now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The limit, if there is one.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|&limit| limit != u32::MAX)
    }

    /// Changes the limit. Places already taken stay taken, also beyond it.
    pub fn set_limit(&self, limit: Option<NonZeroU32>) {
        self.limit.store(limit.map_or(u32::MAX, NonZeroU32::get), Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1))
            .is_ok()
    }
}

/// Whatever has [`Places`] to lease.
pub trait HasPlaces {
    /// Its places.
    fn places(&self) -> &Places;
}

impl HasPlaces for Backend {
    fn places(&self) -> &Places {
        &self.places
    }
}

impl HasPlaces for Places {
    fn places(&self) -> &Places {
        self
    }
}

/// One taken place; dropping it gives the place back, so that a gauge cannot leak.
#[derive(Debug)]
pub struct Lease<T: HasPlaces>(Arc<T>);

impl<T: HasPlaces> Lease<T> {
    /// A place of `owner`, unless all are taken.
    pub fn take(owner: &Arc<T>) -> Option<Self> {
        owner.places().take().then(|| Self(Arc::clone(owner)))
    }
}

impl<T: HasPlaces> Lease<T> {
    /// Whose place it is.
    pub fn owner(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: HasPlaces> std::ops::Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: HasPlaces> Drop for Lease<T> {
    fn drop(&mut self) {
        self.0.places().taken.fetch_sub(1, Ordering::AcqRel);
    }
}
