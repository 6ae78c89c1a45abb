//! How the real program behaves over real sockets: one topic a file, each test named after what must hold.

mod harness;

mod balancing;
