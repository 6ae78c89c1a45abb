//! The configuration, valid by construction: what `file` parsed, checked once, so that nothing behind it checks again.

mod address;
mod duration;
mod file;
mod load;
mod report;
mod sections;
mod tree;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
    /// The services in the order of the file; never empty.
    pub services: Vec<Service>,
}

impl Config {
    /// How long a stop waits where the file does not say.
    pub const DRAIN: Duration = Duration::from_secs(30);
}

/// The administration interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// The Unix socket's path; `None`: the default place.
    pub socket: Option<PathBuf>,
}

/// One service: where clients arrive, and the backends that serve them.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique among the services.
    pub name: Arc<str>,
    /// Where clients arrive; never empty, without duplicates.
    pub listen: Vec<Listen>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// The backends in the order of the file; never empty, names unique.
    pub backends: Vec<Backend>,
    /// How backends are connected to.
    pub connect: Connect,
    /// When open sessions are ended.
    pub timeouts: Timeouts,
    /// Sessions of this service, all its listeners and workers together.
    pub max_connections: Option<NonZeroU32>,
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
