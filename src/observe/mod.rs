//! What is counted, and how it is shown.

pub mod condition;
pub mod counters;
