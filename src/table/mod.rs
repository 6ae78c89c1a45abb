//! The backend table: immutable, built whole by the control plane, published with one store, read by every worker.

mod backend;
mod round_robin;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::backend::{Backend, HasPlaces, Lease, Places, Role};
pub use self::round_robin::RoundRobin;
use crate::observe::counters::{PerWorker, ServiceCounters};

/// Where the current table stands: one owner publishes, everyone else reads.
pub type Published = Arc<ArcSwap<Table>>;

/// Everything that a worker needs to serve a client.
#[derive(Debug)]
pub struct Table {
    /// Counts the tables published so far, this one included.
    pub generation: u64,
    /// The services in the order of the configuration.
    pub services: Box<[Arc<Service>]>,
}

/// One service as this table has it.
#[derive(Debug)]
pub struct Service {
    /// What lives longer than this table.
    pub state: Arc<ServiceState>,
    /// The backends in the order of the configuration.
    pub backends: Box<[Arc<Backend>]>,
    /// Weights of `backends`, by the same index.
    pub weights: Box<[u16]>,
    /// The backups in the order of the configuration.
    pub backups: Box<[Arc<Backend>]>,
    /// Whose turn it is.
    pub order: RoundRobin,
    /// Deadlines and attempts of sessions that begin under this table.
    pub settings: Settings,
}

/// What a session is told once, at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long one connect may take.
    pub connect_timeout: Duration,
    /// Different backends tried for one client, 1 to 8.
    pub connect_attempts: u8,
    /// No byte either way for this long ends a session.
    pub idle: Duration,
    /// No byte for this long after one side has finished ends a session.
    pub half_closed: Duration,
    /// A peer's kernel silent for this long ends a session.
    pub unresponsive: Duration,
}

/// A service's state that outlives any one table.
#[derive(Debug)]
pub struct ServiceState {
    /// Unique among the services.
    pub name: Arc<str>,
    /// Sessions open now, and how many there may be.
    pub places: Places,
    /// The cursor that all workers advance.
    pub cursor: std::sync::atomic::AtomicU64,
    /// What each worker counts of it.
    pub counters: PerWorker<ServiceCounters>,
}

impl HasPlaces for ServiceState {
    fn places(&self) -> &Places {
        &self.places
    }
}

/// Why no backend could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpicked {
    /// Every backend not yet tried carries its `max_connections`.
    Full,
    /// Every backend has been tried for this client.
    Exhausted,
}

impl Service {
    /// The next backend in turn, with a place in it: the one that the cursor points at, passing over those in `tried`
    /// and those that are full by taking the cursor's next step. Lock-free; exact across workers.
    pub fn pick(&self, tried: &[Arc<Backend>]) -> Result<Lease<Backend>, Unpicked> {
        let is_tried = |backend: &Arc<Backend>| tried.iter().any(|t| Arc::ptr_eq(t, backend));
        // A step usually succeeds at once. Where most are full, stepping could go on for a whole period of the order, so it is
        // cut short and every backend is looked at once.
        for _ in 0..2 * self.backends.len() {
            let backend = &self.backends[self.order.next(&self.state.cursor)];
            if !is_tried(backend)
                && let Some(lease) = Lease::take(backend)
            {
                return Ok(lease);
            }
        }
        // From the cursor's place on, so that no neighbour is favoured.
        let start = self.state.cursor.load(std::sync::atomic::Ordering::Relaxed) as usize % self.backends.len().max(1);
        let (before, after) = self.backends.split_at(start);
        let mut untried = after.iter().chain(before).filter(|backend| !is_tried(backend)).peekable();
        if untried.peek().is_none() {
            return Err(Unpicked::Exhausted);
        }
        untried.find_map(Lease::take).ok_or(Unpicked::Full)
    }
}
