//! What the administration side reads of the running process; it changes nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::observe::access_log;
use crate::observe::counters::{PerWorker, WorkerCounters};
use crate::observe::running::{ConfigFile, Running};
use crate::observe::timeline::Timeline;
use crate::table::{Places, Published};

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
    /// Sessions of the whole process, and how many there may be.
    pub sessions: Arc<Places>,
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

/// A file is compared up to here; no configuration is longer.
const LONGEST_FILE: u64 = 8 << 20;

/// Whether the file is still what was loaded: `same`, `changed` or `missing`; `None` where there is none, or where it
/// cannot be read now.
pub(super) fn on_disk(file: &ConfigFile) -> Option<&'static str> {
    match sha256_of(file.path.as_deref()?) {
        Ok(sha256) if sha256 == file.sha256 => Some("same"),
        Ok(_) => Some("changed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("missing"),
        Err(_) => None,
    }
}

fn sha256_of(path: &Path) -> io::Result<String> {
    // Opening something that is not a file (a FIFO) could block.
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST_FILE).read_to_end(&mut text)?;
    Ok(hex(&Sha256::digest(&text)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    fn a_changed_or_removed_file_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balancer.yaml");
        fs::write(&path, "services: {}").unwrap();
        // What sha256sum prints.
        let sha256 = "d4fd3af6d6ccdaeefeec3b0c2fe3ae2d5dde874cc4ed1b7acbb2cec4dfdfe032".to_owned();
        let mut file = ConfigFile::new(Some(path.clone()), sha256);
        assert_eq!(on_disk(&file), Some("same"));
        fs::write(&path, "services: {a: b}").unwrap();
        assert_eq!(on_disk(&file), Some("changed"));
        fs::remove_file(&path).unwrap();
        assert_eq!(on_disk(&file), Some("missing"));
        fs::create_dir(&path).unwrap();
        assert_eq!(on_disk(&file), None, "what is no file cannot be compared");
        file.path = None;
        assert_eq!(on_disk(&file), None);
    }

    #[test]
    fn open_descriptors_are_counted() {
        let _held: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(descriptors().unwrap() >= 100);
    }
}
