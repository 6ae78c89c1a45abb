//! The thread that writes the timeline to disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::file::Ring;
use super::{Event, Timeline};
use crate::observe::writer_thread::{PATIENCE, WriterThread};

/// How often it is tried whether another process has left the file.
const RETRY: Duration = Duration::from_millis(20);
/// A disk that fails is told of at most so often.
const QUIET: Duration = Duration::from_secs(60);

/// Why the timeline cannot be kept on disk.
#[derive(Debug, Error)]
pub enum Unrecorded {
    /// The system refuses.
    #[error("{}: {error}", .path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// What it says.
        #[source]
        error: io::Error,
    },
    /// Another process writes there.
    #[error("{} is in use by another balancer", .0.display())]
    InUse(PathBuf),
}

impl Unrecorded {
    /// Whether the disk has no room for the file.
    pub fn lacks_room(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        matches!(self, Self::System { error, .. } if full(error))
    }
}

/// Writes until it is dropped; then what was recorded before is on disk, unless that hangs.
#[derive(Debug)]
pub struct Writer {
    timeline: Arc<Timeline>,
    thread: WriterThread,
    stop: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn start(
        timeline: Arc<Timeline>,
        directory: &Path,
        events: Receiver<Event>,
        wait: bool,
    ) -> Result<Self, Unrecorded> {
        let failed = |error| Unrecorded::System { path: directory.into(), error };
        let mut ring = Ring::open(directory).map_err(failed)?;
        let locked = ring.lock().map_err(failed)?;
        if locked {
            timeline.precede(ring.load().map_err(failed)?);
        } else if !wait {
            return Err(Unrecorded::InUse(directory.into()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let body = {
            let (timeline, stop, directory) = (Arc::clone(&timeline), Arc::clone(&stop), directory.to_owned());
            move || {
                if !locked && !wait_for(&mut ring, &timeline, &stop) {
                    return;
                }
                write(&mut ring, &events, &directory);
            }
        };
        let thread = WriterThread::start("timeline", body).map_err(failed)?;
        Ok(Self { timeline, thread, stop })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The channel's end is the thread's, once it has written what waits.
        self.timeline.let_go();
        self.thread.end("the timeline's last events", PATIENCE);
    }
}

/// Waits until another process has left the file; false: there is no time for that any more.
fn wait_for(ring: &mut Ring, timeline: &Timeline, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        match ring.lock() {
            Ok(true) => {
                return match ring.load() {
                    Ok(events) => {
                        timeline.precede(events);
                        true
                    }
                    Err(error) => {
                        log::warn!("the timeline is kept in memory only: {error}");
                        false
                    }
                };
            }
            _ => std::thread::sleep(RETRY),
        }
    }
    false
}

fn write(ring: &mut Ring, events: &Receiver<Event>, directory: &Path) {
    let mut told: Option<Instant> = None;
    let mut unsynced = false;
    loop {
        // The disk itself is waited for only when nothing else is to be written.
        let event = match events.recv_timeout(if unsynced { Duration::ZERO } else { Duration::from_secs(3600) }) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let outcome = match &event {
            Some(event) => ring.write(event),
            None if unsynced => ring.sync(),
            None => Ok(()),
        };
        unsynced = event.is_some();
        if let Err(error) = outcome
            && told.is_none_or(|at| at.elapsed() >= QUIET)
        {
            log::warn!("cannot write the timeline to {}: {error}; it is kept in memory", directory.display());
            told = Some(Instant::now());
        }
    }
    let _ = ring.sync();
}
