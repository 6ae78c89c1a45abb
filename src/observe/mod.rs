//! What is counted, noted and logged.

pub mod access_log;
pub mod condition;
pub mod counters;
pub mod redundancy;
pub mod running;
pub mod timeline;
pub(crate) mod writing;
