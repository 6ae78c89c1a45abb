//! The fast room: workers that accept clients, connect backends and move bytes.

mod connecting;
pub mod deadlines;
mod farewell;
pub mod flow;
mod held;
mod listener;
mod peer;
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
