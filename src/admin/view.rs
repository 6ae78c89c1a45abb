//! What the administration side reads of the running process; it changes nothing.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;

use super::disk::Disk;
use crate::observe::access_log;
use crate::observe::counters::{PerWorker, WorkerCounters};
use crate::observe::running::Running;
use crate::observe::timeline::Timeline;
use crate::table::{Permits, Published};

/// Everything that the administration side may read, put together once at the start.
#[derive(Debug)]
pub struct View {
    /// The current table.
    pub table: Published,
    /// When the process started to serve.
    pub started: Timestamp,
    /// Number of workers.
    pub workers: usize,
    /// The running configuration.
    pub running: Arc<Running>,
    /// Its file, as it is now.
    pub disk: Disk,
    /// Sessions of the whole process, and how many there may be.
    pub sessions: Arc<Permits>,
    /// What the workers count of themselves.
    pub counters: Arc<PerWorker<WorkerCounters>>,
    /// Pipes that the workers may hold together.
    pub pipes_max: u64,
    /// The limit of descriptors.
    pub descriptors_max: u64,
    /// The access log.
    pub access_log: Arc<access_log::Log>,
    /// What happened and when.
    pub timeline: Arc<Timeline>,
}

/// Descriptors that this process has open, unless the kernel does not say.
pub(super) fn descriptors() -> Option<u64> {
    // Since Linux 6.2 the directory's size is their number, which costs neither a descriptor nor a walk.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // The walk itself holds one.
        0 => fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_descriptors_are_counted() {
        let _held: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors().unwrap() >= 100);
    }
}
