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
pub enum TooMany {
    /// The configuration says how many.
    #[error(
        "max_connections: {wanted} sessions need more descriptors than the limit of {descriptors} allows: it carries {carried} \
         (two each, {reserve} are held back); lower max_connections or raise the limit (LimitNOFILE= in the unit, ulimit -n)"
    )]
    Wanted {
        /// What the configuration asks for.
        wanted: u64,
        /// The process's limit.
        descriptors: u64,
        /// Sessions that it carries.
        carried: u64,
        /// Descriptors for everything else.
        reserve: u64,
    },
    /// There is room for none.
    #[error(
        "the limit of {descriptors} descriptors carries no session: {reserve} are held back for everything else; raise it to \
         {reserve} and two a session (LimitNOFILE= in the unit, ulimit -n)"
    )]
    Any {
        /// The process's limit.
        descriptors: u64,
        /// Descriptors for everything else.
        reserve: u64,
    },
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
        if carried == 0 {
            return Err(TooMany::Any { descriptors, reserve });
        }
        let wanted = config.max_connections.map_or(carried, |limit| u64::from(limit.get()));
        match NonZeroU32::new(u32::try_from(wanted).unwrap_or(u32::MAX)) {
            Some(limit) if wanted <= carried => Ok(limit),
            _ => Err(TooMany::Wanted { wanted, descriptors, carried, reserve }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_get_what_the_rest_leaves_and_who_wants_more_is_told_what_to_do() {
        let text = "services: { web: { listen: 127.0.0.1:0, backends: { a: 127.0.0.1:1 } } }";
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("balancer.yaml");
        let config = |limit: &str| {
            std::fs::write(&file, format!("max_connections: {limit}\n{text}")).unwrap();
            config::load(&file).unwrap().config
        };
        let capacity = |descriptors| Capacity { descriptors, workers: 2, pipes: 64 };
        // 128 for the process, 1 for the probe, 4 and a listener a worker, 128 for pipes.
        assert_eq!(capacity(1267).sessions(&config("auto")).unwrap().get(), 500);
        assert_eq!(capacity(1267).sessions(&config("500")).unwrap().get(), 500);
        let refused = capacity(1267).sessions(&config("501")).unwrap_err().to_string();
        assert!(refused.contains("501 sessions") && refused.contains("it carries 500"), "{refused}");
        let refused = capacity(268).sessions(&config("auto")).unwrap_err().to_string();
        assert!(refused.contains("268 descriptors carries no session") && refused.contains("ulimit -n"), "{refused}");
    }
}
