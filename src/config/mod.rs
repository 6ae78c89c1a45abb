//! The configuration, valid by construction: what `file` parsed, checked once, so that nothing behind it checks again.

mod address;
mod admin;
mod backends;
mod checks;
pub mod diff;
mod file;
mod foreign_names;
mod health;
mod load;
mod path_identity;
mod probe_bytes;
mod report;
mod sections;
mod tree;
mod values;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use admin::{Admin, AdminSocket};
pub use health::{ExpectProbe, Health, HttpProbe, Probe, WhenAllDown};
pub use load::{Loaded, load};
pub use report::Report;

/// A whole valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Number of workers (event loops); `None`: one per core that the process may use.
    pub workers: Option<NonZeroU32>,
    /// How long a stop waits for open sessions.
    pub drain: Duration,
    /// Sessions of the whole process; `None`: what the descriptor limit carries.
    pub max_connections: Option<NonZeroU32>,
    /// The administration interface.
    pub admin: Admin,
    /// The directory where leases and the timeline outlive the process; `None`: they do not.
    pub state: Option<PathBuf>,
    /// Where one line a session goes.
    pub access_log: AccessLog,
    /// What a reload may do.
    pub reload: Reload,
    /// The services in the order of the file; never empty.
    pub services: Vec<Service>,
}

impl Config {
    /// How long a stop waits where the file does not say.
    pub const DRAIN: Duration = Duration::from_secs(30);
    /// The state directory where the file does not say.
    pub const STATE: &str = "/var/lib/balancer";
}

/// What a reload may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// A reload that leaves a service with less of its old backends than this, in per cent, is refused; 0 to 100.
    pub guard: u8,
}

impl Default for Reload {
    fn default() -> Self {
        Self { guard: 50 }
    }
}

/// Where one line a session goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard error.
    Stderr,
    /// To the file of this absolute path.
    File(PathBuf),
}

/// One service: where clients arrive, and the backends that serve them.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique among the services.
    pub name: Arc<str>,
    /// Where clients arrive; never empty, without duplicates.
    pub listen: Vec<Listen>,
    /// Addresses are bound also where this machine does not have them, or not yet.
    pub freebind: bool,
    /// How a backend is chosen.
    pub balance: Balance,
    /// The backends in the order of the file; never empty, names unique.
    pub backends: Vec<Backend>,
    /// Used in this order, only for what the backends cannot carry; names unique among these and the backends.
    pub backups: Vec<Backend>,
    /// How the service learns which of them can serve.
    pub health: Health,
    /// How backends are connected to.
    pub connect: Connect,
    /// When open sessions are ended.
    pub timeouts: Timeouts,
    /// Sessions of this service, all its listeners and workers together.
    pub max_connections: Option<NonZeroU32>,
    /// Where clients wait when every backend and backup is at its limit.
    pub queue: Queue,
}

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address; IPv6 is never dual-stack. Port 0 asks the kernel for a free one.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a backend is chosen for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each backend in turn, by weight, exact across workers.
    RoundRobin,
    /// The one with the fewest sessions for its weight.
    LeastConnections,
    /// The less loaded of two that are drawn at random, by weight.
    RandomTwo,
    /// By the client's address: the same client, the same backend, and few clients move when a backend comes or goes.
    SourceHash,
    /// The first of the list that has a place.
    First,
}

/// One backend server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Unique within the service.
    pub name: Arc<str>,
    /// Where it listens; the port is never 0.
    pub address: SocketAddr,
    /// Its share against its neighbours', 1 to 256.
    pub weight: Weight,
    /// Sessions that it may carry at once.
    pub max_connections: Option<NonZeroU32>,
    /// Where its health is asked instead of [`Backend::address`] and [`Health::port`]; the port is never 0.
    pub probe_address: Option<SocketAddr>,
}

impl Backend {
    /// Where its service's health checks ask for it: its `probe_address`, else its address with the port that they name, else
    /// its address.
    pub fn probed_at(&self, health: &Health) -> SocketAddr {
        // Only the port is replaced: a link-local address is nothing without its interface.
        let mut own = self.address;
        if let Some(port) = health.port {
            own.set_port(port.get());
        }
        self.probe_address.unwrap_or(own)
    }
}

/// A backend's share, 1 to 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// The weight of a backend that names none.
    pub const ONE: Self = Self(1);

    /// A weight, if it is 1 to 256.
    pub fn new(weight: u64) -> Option<Self> {
        u16::try_from(weight).ok().filter(|w| (1..=256).contains(w)).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// How backends are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Different backends tried for one client, 1 to 8.
    pub attempts: u8,
}

impl Default for Connect {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), attempts: 3 }
    }
}

/// When open sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// No byte either way for this long.
    pub idle: Duration,
    /// No byte for this long after one side has finished sending.
    pub half_closed: Duration,
    /// A peer's kernel has acknowledged nothing for this long.
    pub unresponsive: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            half_closed: Duration::from_secs(60),
            unresponsive: Duration::from_secs(30),
        }
    }
}

/// The clients that wait for a place when every backend and backup is at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many may wait, at most 1,000,000; 0: nobody waits.
    pub size: u32,
    /// How long one may wait, 1 ms to 1 h.
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { size: 0, timeout: Duration::from_secs(1) }
    }
}
