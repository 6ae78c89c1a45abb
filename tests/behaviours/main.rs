//! How the real program behaves over real sockets: one topic a file, each test named after what must hold.

mod harness;

mod balancing;
mod deadlines;
mod ends;
mod latency;
mod relay;
mod resets;
