//! The fast room: workers that accept clients, connect backends and move bytes.

pub mod flow;
mod peer;
pub mod session;
