//! The access log: one line a session, written by a thread of its own, so that no disk delays a client.
//!
//! A worker hands over plain data through a bounded queue and never waits: what finds no room is dropped and counted.
//! The fields of a line, always all of them and in this order, separated by one space; `-` stands for what there is not:
//!
//! ```text
//! 2026-11-25T02:12:34.123Z service=web client=10.0.0.7:51234 backend=web-01 connect_ms=0.412 duration_ms=1043.310 in=512 out=88211 end=client
//! 2026-11-25T02:12:35.001Z service=web client=10.0.0.7:51240 backend=- connect_ms=- duration_ms=0.051 in=0 out=0 refused=backend_limit
//! ```
//!
//! In names, white space, control characters, `=`, `%` and `"` are percent-encoded, so that a line can be split at its spaces.
//! `docs/OPERATING.md` tells each field and reason.

mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use thiserror::Error;

pub use self::record::{End, Record};
use super::writer_thread::{PATIENCE, WriterThread};

/// Records that may wait for the writer; about 1.5 MB.
const QUEUE: usize = 16 << 10;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard error, between the lines of the log.
    Stderr,
    /// A file, appended to; made with mode 0640 where there is none.
    File(PathBuf),
}

/// The file cannot be opened.
#[derive(Debug, Error)]
#[error("access_log: cannot open {target}: {error}{hint}")]
pub struct OpenError {
    target: String,
    #[source]
    error: io::Error,
    hint: &'static str,
}

impl Target {
    fn open(&self) -> Result<File, OpenError> {
        let outcome = match self {
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                // A FIFO that nobody reads would otherwise hold the start, and later the writer. Nothing to a regular file.
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .open(path),
        };
        outcome.map_err(|error| OpenError { target: self.to_string(), hint: hint(&error), error })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stderr => f.write_str("standard error"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; its directory must exist: create it, or choose another path",
        io::ErrorKind::PermissionDenied => {
            "; this process's user must be able to write there, also to make the file anew"
        }
        io::ErrorKind::IsADirectory => "; name a file in it",
        io::ErrorKind::ReadOnlyFilesystem => "; choose a path on a file system that is writable",
        _ => "; choose another path, or `access_log: off`",
    }
}

/// The process's access log as everybody shares it: on or off, and another one after a reload.
#[derive(Debug, Default)]
pub struct Log {
    handle: ArcSwapOption<Handle>,
    /// Lines dropped by logs before the one of now.
    past: AtomicU64,
}

impl Log {
    /// On, where there is a handle.
    pub fn new(handle: Option<Handle>) -> Self {
        Self { handle: ArcSwapOption::from(handle.map(Arc::new)), past: AtomicU64::new(0) }
    }

    /// Whether anything is recorded.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.handle.load().is_some()
    }

    /// Records what `record` makes, where it is on. Never waits.
    #[inline]
    pub fn record(&self, record: impl FnOnce() -> Record) {
        if let Some(handle) = &*self.handle.load() {
            handle.try_record(record());
        }
    }

    /// Has the file opened anew; `false`: there is none.
    pub fn reopen(&self) -> bool {
        let handle = self.handle.load();
        handle.iter().for_each(|handle| handle.reopen());
        handle.is_some()
    }

    /// Records elsewhere from now on, or nowhere.
    pub fn replace(&self, handle: Option<Handle>) {
        if let Some(before) = self.handle.swap(handle.map(Arc::new)) {
            self.past.fetch_add(before.dropped(), Ordering::Relaxed);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.past.load(Ordering::Relaxed) + self.handle.load().as_ref().map_or(0, |handle| handle.dropped())
    }
}

/// The way in: cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// The thread that writes. Dropping it writes what has been recorded until then, and ends it.
#[derive(Debug)]
pub struct Writer {
    handle: Handle,
    thread: WriterThread,
    /// How long its end is waited for.
    patience: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    /// Lines that nobody will ever read.
    dropped: AtomicU64,
    reopen: AtomicBool,
    stop: AtomicBool,
}

#[derive(Debug)]
enum Message {
    Record(Record),
    /// Look at the flags.
    Wake,
}

/// Opens the target and starts the thread `access-log`.
///
/// # Errors
/// Where the file cannot be opened, or the system gives no thread: what, and what to do.
pub fn open(target: Target) -> Result<(Handle, Writer), OpenError> {
    let file = target.open()?;
    open_with(target, file, QUEUE)
}

fn open_with(target: Target, file: File, room: usize) -> Result<(Handle, Writer), OpenError> {
    let (queue, records) = mpsc::sync_channel(room);
    let shared = Arc::new(Shared::default());
    let handle = Handle { queue, shared: Arc::clone(&shared) };
    let name = target.to_string();
    let body = move || writer::run(target, file, &records, &shared);
    let thread = WriterThread::start("access-log", body).map_err(|error| OpenError {
        target: name,
        error,
        hint: "; the limit of threads may be too low",
    })?;
    Ok((handle.clone(), Writer { handle, thread, patience: PATIENCE }))
}

impl Handle {
    /// Hands a record over, or drops and counts it where there is no room. Never waits.
    #[inline]
    pub fn try_record(&self, record: Record) {
        if self.queue.try_send(Message::Record(record)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the writer open the file anew, after somebody has renamed it. What it could not open, it says in the log, and
    /// keeps the old one.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Lines dropped so far: no room in the queue, or they could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        match self.queue.try_send(Message::Wake) {
            // A full queue keeps the writer awake anyway.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Writer {
    /// Ends it as dropping does, but waits no longer than that.
    pub fn end_within(mut self, patience: Duration) {
        self.patience = patience;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.handle.shared.stop.store(true, Ordering::Release);
        self.handle.wake();
        self.thread.end("the access log's last lines", self.patience);
    }
}
