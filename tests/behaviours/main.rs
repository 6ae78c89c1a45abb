//! How the real program behaves over real sockets: one topic a file, each test named after what must hold.

mod harness;

mod balancing;
mod cleanup;
mod deadlines;
mod ends;
mod families;
mod latency;
mod relay;
mod resets;
mod vanished;
