//! OperationKind makes one history different from others: sizes, delays, scarcity, limits.

use balancer::forward::session::{Limits, Millis};
use fastrand::Rng;

use crate::connection::Connection;

/// The conditions of a history.
#[derive(Debug)]
pub(crate) struct Conditions {
    /// OperationKind a receive buffer holds.
    pub(crate) buffer: u64,
    /// How long an operation takes at most once it could be done.
    pub(crate) lag: Millis,
    /// How long a way to a peer takes at most.
    pub(crate) distance: Millis,
    /// How late a deadline is delivered at most.
    pub(crate) lateness: Millis,
    /// One receive in so many finds no buffer; one splice turn in so many no pipe.
    pub(crate) buffers_scarce: u32,
    pub(crate) pipes_scarce: u32,
    /// OperationKind a pipe holds, and how much one turn may move.
    pub(crate) pipe: u64,
    pub(crate) budget: u64,
    /// Receives go through the buffer ring; else a poll and a direct call.
    pub(crate) ring: bool,
    /// A receive goes on until two buffers' worth has come.
    pub(crate) multishot: bool,
}

impl Conditions {
    pub(crate) fn some(r: &mut Rng) -> Self {
        let buffer = [10, 1000, 16 * 1024][r.usize(0..3)];
        let lag = [0, 1, 5][r.usize(0..3)];
        let ring = r.u8(0..4) > 0;
        Self {
            buffer,
            lag,
            distance: r.u64(0..40),
            lateness: r.u64(0..=100),
            buffers_scarce: if r.u8(0..4) == 0 { 5 } else { 200 },
            pipes_scarce: if r.u8(0..4) == 0 { 3 } else { 200 },
            pipe: r.u64(1..=16) * buffer,
            budget: r.u64(1..=32) * buffer,
            ring,
            multishot: ring && r.u8(0..3) > 0,
        }
    }

    /// A new connection with queues of some sizes.
    pub(crate) fn connection(&self, random: &mut Rng, now: Millis) -> Connection {
        let mut capacity = || self.buffer * [1, 4, 32][random.usize(0..3)] + random.u64(0..self.buffer);
        Connection::new(now, capacity(), capacity(), capacity())
    }
}

pub(crate) fn some_limits(r: &mut Rng) -> Limits {
    Limits {
        connect: r.u64(50..3000),
        attempts: r.u8(1..=4),
        idle: r.u64(500..20_000),
        half_closed: r.u64(200..5000),
        unresponsive: r.u64(300..8000),
    }
}
