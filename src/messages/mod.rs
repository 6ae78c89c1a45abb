//! What workers, the control plane and the administration side say to each other, all of it bounded.

mod admin_request;
mod listener;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;

use crate::observe::counters::Refused;
use crate::sys::Errno;

pub use self::admin_request::{AdminRequest, AdminRequests, Draining, Outcome, Reply, admin_requests};
pub use self::listener::{Listener, Route};

/// Commands that may wait for a worker.
const COMMANDS: usize = 256;
/// WorkerEvents that may wait for the control plane; more are dropped.
const EVENTS: usize = 1024;

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept clients on these.
    Adopt(Vec<Arc<Listener>>),
    /// Accept no more on these, and let go of them; a worker passes over those that it has not got.
    Release(Vec<Arc<Listener>>, Waiting),
    /// Accept no more; finish when the last session has ended.
    Stop,
    /// End every session now.
    End,
    /// End the sessions with a backend, spread over a time, so that their clients do not all come back at once; who is still being
    /// connected to it goes to another one.
    CloseSessions {
        /// The service's name.
        service: Arc<str>,
        /// The backend's name.
        backend: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// Over what time.
        spread: Duration,
    },
}

/// What becomes of those who wait on a listener that is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// They are served first: nobody else would.
    Serve,
    /// They stay: others accept on the same socket.
    LeaveToOthers,
}

/// What a worker tells the control plane.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A session is established; told only when asked to announce_sessions.
    Opened {
        /// The client's address; none on a Unix socket.
        client: Option<SocketAddr>,
        /// The service's name.
        service: Arc<str>,
        /// The backend's name.
        backend: Arc<str>,
    },
    /// A connect failed by the backend's fault.
    ConnectFailed {
        /// The service's name.
        service: Arc<str>,
        /// The backend's name.
        backend: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// What the kernel said; `ECANCELED` stands for the connect timeout.
        error: Errno,
    },
    /// Connects of real traffic have failed so often in a row that the control plane wanted to hear of it.
    Failing {
        /// The service's name.
        service: Arc<str>,
        /// The backend's name.
        backend: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// How many in a row.
        failures: u32,
        /// What the kernel said last; `ECANCELED` stands for the connect timeout.
        error: Errno,
    },
    /// This machine lacked something: a descriptor, a port, memory. Nobody else is to blame.
    LocalFault {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        error: Errno,
    },
    /// A client was refused.
    Refused {
        /// The service's name.
        service: Arc<str>,
        /// Why.
        reason: Refused,
    },
    /// A backup serves a client.
    Backup {
        /// The service's name.
        service: Arc<str>,
        /// The backup's name.
        backend: Arc<str>,
    },
    /// Bulk goes on by copying, because no pipe can be had.
    NoPipe,
    /// A worker has ended, as it should or with an error.
    Ended {
        /// Which.
        worker: usize,
        /// The error, if it should not have ended.
        outcome: Result<(), String>,
    },
}

/// The control plane's end towards one worker.
#[derive(Debug)]
pub struct Commander {
    commands: SyncSender<Command>,
    wake: Arc<OwnedFd>,
}

/// The worker is gone, or has not taken its commands for so long that the queue is full.
#[derive(Debug, Error)]
#[error("the worker takes no commands")]
pub struct WorkerGone;

impl Commander {
    /// Tells the worker, and wakes it.
    pub fn tell(&self, command: Command) -> Result<(), WorkerGone> {
        self.enqueue(command)?;
        self.waker().wake();
        Ok(())
    }

    /// Puts a command into the queue; the worker finds it when it wakes next.
    pub fn enqueue(&self, command: Command) -> Result<(), WorkerGone> {
        self.commands.try_send(command).map_err(|_| WorkerGone)
    }

    /// Wakes the worker.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }
}

/// Wakes one worker, so that it looks at its commands, at the table, and at the clients that wait.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Wakes it.
    pub fn wake(&self) {
        // The counter cannot overflow (2^64 - 2), and a worker that is gone needs no wake-up.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The worker's end: commands that wait, and the descriptor that becomes readable when there are any.
#[derive(Debug)]
pub struct Mailbox {
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    /// Becomes readable when commands wait.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes note of all wake-ups so far.
    pub fn clear_wakeups(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }

    /// The next command, if one waits.
    pub fn next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }
}

/// A commander and the mailbox that it fills.
///
/// # Errors
/// No descriptor is left.
pub fn mailbox() -> Result<(Commander, Mailbox), Errno> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = sync_channel(COMMANDS);
    Ok((Commander { commands: sender, wake: Arc::clone(&wake) }, Mailbox { commands: receiver, wake }))
}

/// Where all workers report to.
pub type WorkerEvents = tokio::sync::mpsc::Sender<WorkerEvent>;

/// The queue of worker events.
pub fn worker_events() -> (WorkerEvents, tokio::sync::mpsc::Receiver<WorkerEvent>) {
    tokio::sync::mpsc::channel(EVENTS)
}
