//! How many sessions the descriptors of the process carry.

use std::num::NonZeroU32;

use thiserror::Error;

use super::probe::Prober;
use crate::config::{self, Config, Probe};

/// Descriptors that are not sessions': standard streams, the logs, the control plane, and clients of the admin socket.
const RESERVE: u64 = 128;
/// The same for the admin side's TCP listener and its clients.
const RESERVE_HTTP: u64 = 72;
/// Descriptors of each worker beside its listeners: the ring and its wake-up.
const RESERVE_PER_WORKER: u64 = 4;

/// What the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The limit of descriptors.
    pub descriptors: u64,
    /// Event loops.
    pub workers: usize,
    /// Pipes that the workers may hold together.
    pub pipes: usize,
}

/// The limit of sessions is more than the descriptors allow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "max_connections: {wanted} sessions need more descriptors than the limit of {descriptors} allows: it carries {carried} \
     (two each, {reserve} are held back); lower max_connections or raise the limit (LimitNOFILE= in the unit, ulimit -n)"
)]
pub struct TooMany {
    /// What the configuration asks for.
    wanted: u64,
    /// The process's limit.
    descriptors: u64,
    /// Sessions that it carries.
    carried: u64,
    /// Descriptors for everything else.
    reserve: u64,
}

impl Capacity {
    /// Sessions that the process may carry: what the configuration says, if the descriptors allow it; else what they allow.
    ///
    /// # Errors
    /// The configuration names more than can be.
    pub fn sessions(&self, config: &Config) -> Result<NonZeroU32, TooMany> {
        let listeners = config.services.iter().map(|service| service.listen.len() as u64).sum::<u64>();
        let http = config.admin.http.map_or(0, |_| RESERVE_HTTP);
        let probed = |service: &&config::Service| service.health.probe != Probe::None;
        let backends = |service: &config::Service| service.backends.len() + service.backups.len();
        let probes = config.services.iter().filter(probed).map(backends).sum::<usize>().min(Prober::AT_ONCE) as u64;
        let Self { descriptors, workers, pipes } = *self;
        let reserve = RESERVE + http + probes + workers as u64 * (RESERVE_PER_WORKER + listeners) + 2 * pipes as u64;
        let carried = descriptors.saturating_sub(reserve) / 2;
        let wanted = config.max_connections.map_or_else(|| carried.max(1), |limit| u64::from(limit.get()));
        match NonZeroU32::new(u32::try_from(wanted).unwrap_or(u32::MAX)) {
            Some(limit) if wanted <= carried => Ok(limit),
            _ => Err(TooMany { wanted, descriptors, carried, reserve }),
        }
    }
}
