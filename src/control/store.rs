//! What the control plane must not forget when the process ends: drains and orphans, in one file of the state directory.
//! A thread of its own writes it, so that a slow disk delays nobody; a crash leaves the old file or the new one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::probe::Target;
use crate::config;
use crate::observe::condition::Drain;
use crate::observe::regular_file;
use crate::observe::writer_thread::{PATIENCE, WriterThread};

/// The file's name in the state directory.
const NAME: &str = "leases.json";
/// How often it is tried whether another process has left the directory.
const RETRY: Duration = Duration::from_millis(20);
/// More than this, in bytes, is not read: a thousand times what all drains of a large configuration take.
const LONGEST: u64 = 64 << 20;
/// Those who may wait for a write.
const WAITING: usize = 64;
/// What could not be written is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// All that is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Backends drained.
    #[serde(default)]
    pub(super) drains: Vec<SavedDrain>,
    /// Backends that a reload removed, and that are watched on.
    #[serde(default)]
    pub(super) orphans: Vec<SavedOrphan>,
}

impl Saved {
    /// What could not have been written by this program would be probed without end, or never.
    fn checked(self) -> Result<Self, String> {
        let paced = |target: &Target| {
            config::Health::INTERVALS.contains(&target.interval) && config::Health::TIMEOUTS.contains(&target.timeout)
        };
        match self.orphans.iter().find(|orphan| !paced(&orphan.target)) {
            Some(orphan) => Err(format!("{}/{} cannot be probed at that pace", orphan.service, orphan.backend)),
            None => Ok(self),
        }
    }

    /// There is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.drains.is_empty() && self.orphans.is_empty()
    }
}

/// A backend drained.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedDrain {
    pub(super) service: String,
    pub(super) backend: String,
    pub(super) address: SocketAddr,
    #[serde(flatten)]
    pub(super) drain: Drain,
}

/// A backend that a reload removed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedOrphan {
    pub(super) service: String,
    pub(super) backend: String,
    pub(super) address: SocketAddr,
    /// Whom to ask about its health, and what.
    pub(super) target: Target,
    pub(super) rise: u32,
    pub(super) fall: u32,
    pub(super) removed: Timestamp,
    pub(super) generation: u64,
    pub(super) until: Timestamp,
}

/// Who wants to know whether it was written.
pub(super) type Done = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A state directory in this process's hands, or about to be.
#[derive(Debug)]
pub(super) struct StateDirectory {
    directory: PathBuf,
    lock: File,
    /// No other process has it.
    ours: bool,
}

impl StateDirectory {
    /// Takes a state directory, made if it is missing. `wait`: another process has it, and will leave it.
    ///
    /// # Errors
    /// It cannot be had: why.
    pub(super) fn take(directory: &Path, wait: bool) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", directory.display());
        std::fs::create_dir_all(directory).map_err(failed)?;
        let lock = File::open(directory).map_err(failed)?;
        let ours = match lock.try_lock() {
            Ok(()) => true,
            Err(std::fs::TryLockError::WouldBlock) if wait => false,
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(format!("{} is in use by another balancer", directory.display()));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        };
        Ok(Self { directory: directory.to_owned(), lock, ours })
    }

    /// What an earlier process has left there. A file that cannot be understood is said, and kept aside where it is nobody else's.
    pub(super) fn load(&self) -> Saved {
        let path = self.directory.join(NAME);
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Saved::default(),
            Err(error) => {
                log::warn!("cannot read {}: {error}: no drain of before is known", path.display());
                return Saved::default();
            }
        };
        let saved = serde_json::from_slice(&text).map_err(|error| error.to_string()).and_then(Saved::checked);
        saved.unwrap_or_else(|error| {
            let aside = path.with_extension("unreadable");
            let kept = if self.ours && std::fs::rename(&path, &aside).is_ok() {
                format!(", kept as {}", aside.display())
            } else {
                String::new()
            };
            log::warn!("{}: {error}: no drain of before is known{kept}", path.display());
            Saved::default()
        })
    }
}

/// A file's bytes.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = regular_file::open(path, File::options().read(true))?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// What is to be written next: the newest alone, until it is on disk.
type Newest = Mutex<Option<Vec<u8>>>;

/// Writes until it is dropped; then all is on disk, unless that hangs.
#[derive(Debug)]
pub(super) struct Store {
    newest: Arc<Newest>,
    jobs: Option<SyncSender<Option<Done>>>,
    thread: WriterThread,
    stop: Arc<AtomicBool>,
}

impl Store {
    /// Begins to write there.
    ///
    /// # Errors
    /// It cannot be written to: why.
    pub(super) fn open(place: StateDirectory) -> Result<Self, String> {
        let StateDirectory { directory, lock, .. } = place;
        let failed = |error: io::Error| format!("{}: {error}", directory.display());
        // Whether it may be written to shows now, not when the first lease is due.
        let probe = directory.join(format!("{NAME}.{}", std::process::id()));
        File::create(&probe).and_then(|_| std::fs::remove_file(&probe)).map_err(failed)?;
        let (jobs, received) = sync_channel(WAITING);
        let (newest, stop) = (Arc::new(Newest::default()), Arc::new(AtomicBool::new(false)));
        let body = {
            let (directory, newest, stop) = (directory.clone(), Arc::clone(&newest), Arc::clone(&stop));
            move || work(&lock, &directory, &newest, &received, &stop)
        };
        let thread = WriterThread::start("leases", body).map_err(failed)?;
        Ok(Self { newest, jobs: Some(jobs), thread, stop })
    }

    /// Has it written. `done` is told, also if that fails, in which case it is tried again; never waits.
    pub(super) fn save(&self, saved: &Saved, done: Option<Done>) {
        match serde_json::to_vec_pretty(saved) {
            Ok(text) => *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(text),
            Err(error) => return tell(done, Err(error.to_string())),
        }
        let Some(jobs) = &self.jobs else { return };
        if let Err(error) = jobs.try_send(done) {
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(done) | Disconnected(done)) = error;
            tell(done, Err("the disk does not answer".to_owned()));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        self.thread.end("the last drains and orphans", PATIENCE);
    }
}

fn tell(done: Option<Done>, outcome: Result<(), String>) {
    if let Some(done) = done {
        done(outcome);
    }
}

fn work(lock: &File, directory: &Path, newest: &Newest, jobs: &Receiver<Option<Done>>, stop: &AtomicBool) {
    while lock.try_lock().is_err() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(RETRY);
    }
    let newest = || newest.lock().unwrap_or_else(PoisonError::into_inner);
    let mut outcome: Result<(), String> = Ok(());
    let mut more = true;
    while more {
        let patience = if outcome.is_ok() { Duration::MAX } else { AGAIN };
        let job = jobs.recv_timeout(patience);
        more = !matches!(job, Err(RecvTimeoutError::Disconnected));
        let text = newest().take();
        if let Some(text) = text {
            let written = replace(&directory.join(NAME), &text).map_err(|error| error.to_string());
            if let Err(error) = &written {
                // Once, until it has succeeded.
                if outcome.is_ok() {
                    log::warn!(
                        "cannot write {}: {error}: a restart would forget drains and orphans",
                        directory.display()
                    );
                }
                newest().get_or_insert(text);
            }
            outcome = written;
        }
        tell(job.ok().flatten(), outcome.clone());
    }
}

/// Puts a new file in the place of an old one, so that a crash leaves one of the two.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new: PathBuf = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_written_here_is_not_taken_for_what_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let place = StateDirectory::take(directory.path(), false).unwrap();
        let file = directory.path().join(NAME);
        let orphan = |interval: u64, timeout: u64| {
            let text = format!(
                r#"{{ "orphans": [{{ "service": "web", "backend": "a", "address": "127.0.0.1:1", "rise": 2, "fall": 3, "generation": 2,
                    "removed": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "target": {{ "address": "127.0.0.1:1",
                    "check": "tcp", "interval": {{ "secs": {interval}, "nanos": 0 }}, "timeout": {{ "secs": {timeout}, "nanos": 0 }} }} }}] }}"#
            );
            std::fs::write(&file, text).unwrap();
            place.load().orphans.len()
        };
        assert_eq!(orphan(2, 1), 1);
        for (interval, timeout) in [(0, 1), (u64::MAX, 1), (2, 0), (2, u64::MAX)] {
            assert_eq!(orphan(interval, timeout), 0, "{interval} {timeout}");
        }
        // A pipe that nobody writes to would be read for ever.
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, &file, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(place.load().orphans.is_empty());
    }

    #[test]
    fn a_file_that_is_not_understood_is_moved_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(NAME);
        std::fs::write(&file, "of another version").unwrap();
        let owner = StateDirectory::take(directory.path(), false).unwrap();
        assert!(StateDirectory::take(directory.path(), false).unwrap_err().contains("in use by another balancer"));
        let successor = StateDirectory::take(directory.path(), true).unwrap();
        assert!(successor.load().drains.is_empty());
        assert!(file.exists());
        assert!(owner.load().drains.is_empty());
        assert!(!file.exists() && file.with_extension("unreadable").exists());
    }
}
