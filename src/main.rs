//! The `balancer` program.

fn main() {}
