//! The fast room: workers that accept clients, connect backends and move bytes.

mod closing;
mod connecting;
pub mod deadlines;
pub mod flow;
mod listener;
mod peer;
mod pending;
mod pipes;
mod protocol;
mod resources;
pub mod session;
mod slot;
mod splice;
mod token;
mod worker;

pub use self::pipes::most_pipes;
pub use self::worker::{Fault, Share, Worker};
