//! What the running configuration came from, where it is listened on, and what became of attempts to change it.
//!
//! The control plane writes it, the administration side reads it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use indexmap::IndexMap;
use jiff::Timestamp;

use super::condition::Condition;
use super::counters::Counter;

/// See the module.
#[derive(Debug)]
pub struct Running {
    /// The file that the current table was made of.
    pub file: ArcSwap<ConfigFile>,
    /// The addresses really listened on: the configured ones with the kernel's choice in place of port 0. Empty until the
    /// listeners are bound, because the administration side answers before they are.
    pub listening: ArcSwap<Listening>,
    /// How often each came of a reload.
    pub reloads: [Counter; Reloaded::ALL.len()],
    /// The last reload that was asked for.
    pub last: ArcSwapOption<LastReload>,
    /// Backends that a reload removed, and that are watched on.
    pub orphans: ArcSwap<Vec<Orphaned>>,
    /// The process was told to stop, and accepts no client any more.
    stopping: AtomicBool,
}

impl Running {
    /// Nothing is listened on yet, and no reload was asked for.
    pub fn new(file: ConfigFile) -> Self {
        Self {
            file: ArcSwap::from_pointee(file),
            listening: ArcSwap::default(),
            reloads: Default::default(),
            last: ArcSwapOption::empty(),
            orphans: ArcSwap::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Notes that the process was told to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// It accepts no client any more.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Notes what became of a reload.
    pub fn note(&self, result: Reloaded, message: Option<String>) {
        self.reloads[result as usize].add(1);
        self.last.store(Some(Arc::new(LastReload { at: Timestamp::now(), result, message })));
    }
}

/// Listening addresses by the service's name, in the order of the configuration.
pub type Listening = IndexMap<Arc<str>, Vec<String>>;

/// The configuration file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it was read; `None`: the configuration is built in.
    pub path: Option<PathBuf>,
    /// SHA-256 of what was read; `None`: the configuration is built in.
    pub sha256: Option<[u8; 32]>,
    /// When it was loaded.
    pub loaded: Timestamp,
}

impl ConfigFile {
    /// A file that has just been read, with the SHA-256 of its bytes.
    pub fn new(path: Option<PathBuf>, sha256: Option<[u8; 32]>) -> Self {
        Self { path, sha256, loaded: Timestamp::now() }
    }
}

/// A backend that a reload removed, and that is watched on.
#[derive(Debug, Clone)]
pub struct Orphaned {
    /// The service that it was removed from.
    pub service: Arc<str>,
    /// Its name there.
    pub backend: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What the probes say of it.
    pub condition: Condition,
    /// When it was removed.
    pub removed: Timestamp,
    /// By which reload.
    pub generation: u64,
    /// Until when it is watched.
    pub until: Timestamp,
}

impl std::fmt::Display for Orphaned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, backend, address, generation, .. } = self;
        write!(f, "{service}: {backend} ({address}), removed by the reload to generation {generation}")
    }
}

named! {
    /// What can come of a reload.
    Reloaded {
        /// All of it holds.
        Applied = "applied",
        /// The file is missing or wrong.
        Invalid = "invalid",
        /// The file is right, but must not be applied: `reload.guard`, or what only a new process can change.
        Refused = "refused",
        /// The file is right, but the system would not do it: an address in use, too few descriptors.
        Failed = "failed",
    }
}

/// What became of one reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastReload {
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub result: Reloaded,
    /// Why nothing was applied.
    pub message: Option<String>,
}
