//! What people ask of the control plane through the administration interface, and what they are told.

use tokio::sync::oneshot;

use crate::observe::running::Reloaded;

/// Orders that may wait for the control plane; more are told to come again.
const ORDERS: usize = 64;

/// What is asked for.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again and apply it.
    Reload {
        /// Also where `reload.guard` would refuse it.
        force: bool,
        /// Where the outcome goes.
        answer: oneshot::Sender<Reply>,
    },
    /// Start the program anew and hand everything over to it.
    Upgrade {
        /// Where the outcome goes: the new process's id, or why this one serves on.
        answer: oneshot::Sender<Result<u32, String>>,
    },
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it ended.
    pub result: Reloaded,
    /// The configurations applied so far.
    pub generation: u64,
    /// What has changed, a line each; empty where nothing has.
    pub changes: Vec<String>,
    /// Why nothing was applied, and what to do: one line, or several where the file has errors.
    pub error: Option<String>,
}

/// Where orders go.
pub type Orders = tokio::sync::mpsc::Sender<Order>;

/// The orders' queue.
pub fn orders() -> (Orders, tokio::sync::mpsc::Receiver<Order>) {
    tokio::sync::mpsc::channel(ORDERS)
}
