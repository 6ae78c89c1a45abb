//! What people ask of the control plane through the administration interface, and what they are told.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::observe::condition::Purpose;
use crate::observe::running::Reloaded;

/// AdminRequests that may wait for the control plane; more are told to come again.
const REQUESTS: usize = 64;

/// What is asked for.
#[derive(Debug)]
pub enum AdminRequest {
    /// Read the configuration again and apply it.
    Reload {
        /// Who asks.
        by: String,
        /// Also where `reload.guard` would refuse it.
        force: bool,
        /// Where the outcome goes.
        answer: oneshot::Sender<Reply>,
    },
    /// Start the program anew and hand everything over to it.
    Upgrade {
        /// Who asks.
        by: String,
        /// Where the outcome goes: the new process's id, or why this one keeps serving.
        answer: oneshot::Sender<Result<u32, String>>,
    },
    /// Drain a backend for a limited time.
    Drain {
        /// Whom, for how long, why.
        draining: Draining,
        /// Who asks.
        by: String,
        /// Where the outcome goes.
        answer: oneshot::Sender<Outcome>,
    },
    /// Bring a backend back that is drained.
    Restore {
        /// The service.
        service: String,
        /// Its backend.
        backend: String,
        /// Who asks.
        by: String,
        /// Where the outcome goes.
        answer: oneshot::Sender<Outcome>,
    },
    /// Watch a removed backend no longer.
    Forget {
        /// The service that it was removed from.
        service: String,
        /// Its name there.
        backend: String,
        /// Who asks.
        by: String,
        /// Where the outcome goes.
        answer: oneshot::Sender<Outcome>,
    },
}

/// A backend to be drained.
#[derive(Debug, Clone)]
pub struct Draining {
    /// The service.
    pub service: String,
    /// Its backend.
    pub backend: String,
    /// For so long.
    pub length: Duration,
    /// Why, in words for people.
    pub reason: String,
    /// What for.
    pub purpose: Purpose,
    /// Also where too few would be left.
    pub force: bool,
    /// After what time open sessions are closed, and over what time they are spread; `None`: they finish by themselves.
    pub close: Option<(Duration, Duration)>,
    /// It ends when so many clients were refused.
    pub abort: Option<u64>,
}

/// What became of a request: what is to be said, or why it was not done and what to do.
pub type Outcome = Result<String, String>;

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it ended.
    pub result: Reloaded,
    /// The configurations applied so far.
    pub generation: u64,
    /// What has changed, a line each; empty where nothing has.
    pub changes: Vec<String>,
    /// What in the file may mean something else than its author thinks, a line each.
    pub warnings: Vec<String>,
    /// Why nothing was applied, and what to do: one line, or several where the file has errors.
    pub error: Option<String>,
}

/// Where requests go.
pub type AdminRequests = tokio::sync::mpsc::Sender<AdminRequest>;

/// The queue of requests.
pub fn admin_requests() -> (AdminRequests, tokio::sync::mpsc::Receiver<AdminRequest>) {
    tokio::sync::mpsc::channel(REQUESTS)
}
