//! The backend table: immutable, built whole by the control plane, published with one store, read by every worker.

mod algorithm;
mod backend;
mod first;
mod first_speaker;
mod least_connections;
mod maglev;
mod mixing;
mod queue;
mod random_two;
mod rotation;
mod round_robin;
mod service;
mod source_hash;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::algorithm::Algorithm;
pub use self::backend::{Backend, HasPermits, Permit, Permits, Role};
pub use self::first_speaker::FirstSpeaker;
pub use self::mixing::splitmix64;
pub use self::queue::{Queue, Ticket};
pub use self::service::{BackupMember, Member, Pool, Service, Unpicked};
use crate::observe::counters::{Counter, PerWorker, Refused, ServiceCounters};
use crate::observe::redundancy::Redundancy;

/// Where the current table stands: one owner publishes, everyone else reads.
pub type Published = Arc<ArcSwap<Table>>;

/// Everything that a worker needs to serve a client.
#[derive(Debug)]
pub struct Table {
    /// Counts the configurations applied so far, the one that this table is made of included.
    pub generation: u64,
    /// Counts the tables published so far, this one included: it grows with each change of a backend's state, too.
    pub version: u64,
    /// The services in the order of the configuration.
    pub services: Box<[Arc<Service>]>,
    /// Services that a reload removed, as they were, until their last session has ended.
    pub leaving: Box<[Arc<Service>]>,
    /// All of them by their numbers.
    numbered: Box<[Option<Arc<Service>>]>,
}

impl Table {
    /// A table of these services, each with a number of its own.
    pub fn new(generation: u64, version: u64, services: Vec<Arc<Service>>, leaving: Vec<Arc<Service>>) -> Self {
        let all = || services.iter().chain(&leaving);
        let numbers = all().map(|service| service.state.number + 1).max().unwrap_or(0);
        let mut numbered = vec![None; numbers];
        all().for_each(|service| numbered[service.state.number] = Some(Arc::clone(service)));
        Self { generation, version, services: services.into(), leaving: leaving.into(), numbered: numbered.into() }
    }

    /// The service of this number, also one that is leaving.
    #[inline]
    pub fn service(&self, number: usize) -> Option<&Arc<Service>> {
        self.numbered.get(number)?.as_ref()
    }

    /// Every service, those that are leaving last.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().chain(&self.leaving)
    }
}

/// What a session is told once, at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long one connect may take.
    pub connect_timeout: Duration,
    /// Different backends tried for one client, 1 to 8.
    pub connect_attempts: u8,
    /// How long a client may wait for a permit.
    pub queue_timeout: Duration,
    /// No byte either way for this long ends a session.
    pub idle: Duration,
    /// No byte for this long after one side has finished ends a session.
    pub half_closed: Duration,
    /// A peer's kernel silent for this long ends a session.
    pub unresponsive: Duration,
}

impl Default for Settings {
    /// What holds where the configuration says nothing.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect_timeout: seconds(3),
            connect_attempts: 3,
            queue_timeout: seconds(1),
            idle: seconds(3600),
            half_closed: seconds(60),
            unresponsive: seconds(30),
        }
    }
}

/// A service's state that outlives any one table.
#[derive(Debug)]
pub struct ServiceState {
    /// Unique among the services.
    pub name: Arc<str>,
    /// Its number, which sessions and listeners know it by whatever place it has in a table. Unique while it lasts.
    pub number: usize,
    /// Sessions open now, and how many there may be.
    pub permits: Permits,
    /// Who waits for a permit in a backend.
    pub queue: Queue,
    /// Who speaks first in its sessions.
    pub first_speaker: FirstSpeaker,
    /// What algorithms draw by chance from: all workers advance it.
    pub cursor: AtomicU64,
    /// What each worker counts of it.
    pub counters: PerWorker<ServiceCounters>,
    /// How many of its backends can serve, and for how long some could not.
    pub redundancy: Redundancy,
}

impl ServiceState {
    /// A service without a session: how many there may be, how many clients may wait for a permit, and how many workers count.
    pub fn new(name: Arc<str>, number: usize, limit: Option<NonZeroU32>, queue: u32, workers: usize) -> Self {
        Self {
            name,
            number,
            permits: Permits::new(limit),
            queue: Queue::new(queue),
            first_speaker: FirstSpeaker::default(),
            cursor: AtomicU64::new(0),
            counters: PerWorker::new(workers),
            redundancy: Redundancy::default(),
        }
    }
}

impl ServiceState {
    /// Clients refused so far, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.counters.sum(|worker| worker.refused.iter().map(Counter::get).sum())
    }

    /// Clients refused so far for one reason.
    pub fn refused_for(&self, reason: Refused) -> u64 {
        self.counters.sum(|worker| worker.refused[reason as usize].get())
    }
}

impl HasPermits for ServiceState {
    fn permits(&self) -> &Permits {
        &self.permits
    }
}
