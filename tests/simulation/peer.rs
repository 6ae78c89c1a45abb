//! A peer: the program at the other end of a connection, as a seeded script.

use std::collections::VecDeque;

use balancer::forward::session::{Limits, Millis, NEVER};
use fastrand::Rng;

use crate::connection::Connection;

/// One thing that a peer does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Sends so many bytes, as fast as they are taken.
    Send(u64),
    /// Does nothing for a while, but reads on.
    Pause(Millis),
    /// Stops reading for a while.
    StopReading(Millis),
    /// Waits until something has come that it had not read before.
    AwaitBytes,
    /// Waits until the other side has finished.
    AwaitEnd,
    Finish,
    /// A RST; of a peer that has vanished: its network reports it unreachable.
    Reset,
    /// Acknowledges nothing any more.
    Vanish,
}

#[derive(Debug)]
pub(crate) struct Peer {
    script: VecDeque<Act>,
    /// OperationKind it has read when it last looked.
    read: u64,
    /// It does not read before this.
    pub(crate) reads_from: Millis,
    /// It does not act before this.
    pub(crate) acts_from: Millis,
    /// How many bytes it reads at a time.
    pub(crate) appetite: u64,
}

impl Peer {
    pub(crate) fn new(random: &mut Rng, limits: &Limits, buffer: u64, now: Millis) -> Self {
        let mut script: VecDeque<Act> = (0..random.u8(0..8)).map(|_| some_act(random, limits, buffer)).collect();
        script.extend(ending(random, limits));
        let appetite = if random.u8(0..3) > 0 { u64::MAX } else { random.u64(buffer / 8 + 1..=buffer * 4) };
        Self { script, read: 0, reads_from: now, acts_from: now, appetite }
    }

    /// It would read now.
    pub(crate) fn hungry(&self, connection: &Connection, now: Millis) -> bool {
        now >= self.reads_from && !connection.inbox.is_empty() && !connection.vanished
    }

    /// It can do what is next in its script now.
    pub(crate) fn ready(&self, connection: &Connection, now: Millis) -> bool {
        if connection.saw_reset || connection.gone || now < self.acts_from {
            return false;
        }
        match self.script.front() {
            None => false,
            Some(Act::Send(_)) => connection.received.room() > 0,
            Some(Act::AwaitBytes) => connection.inbox.left() > self.read || connection.saw_end,
            Some(Act::AwaitEnd) => connection.saw_end && connection.inbox.is_empty(),
            Some(_) => true,
        }
    }

    /// Does what is next. Answers what that was.
    pub(crate) fn act(&mut self, connection: &mut Connection, now: Millis) -> Option<Act> {
        let act = self.script.pop_front()?;
        match act {
            Act::Send(bytes) => {
                let left = bytes - connection.peer_sends(bytes);
                if left > 0 {
                    self.script.push_front(Act::Send(left));
                }
            }
            Act::Pause(millis) => self.acts_from = now + millis,
            Act::StopReading(millis) => self.reads_from = now.saturating_add(millis),
            Act::AwaitBytes => self.read = connection.inbox.left(),
            Act::AwaitEnd => {}
            Act::Finish => connection.peer_finishes(),
            Act::Reset => connection.peer_resets(now),
            Act::Vanish => connection.vanished = true,
        }
        Some(act)
    }
}

fn some_act(random: &mut Rng, limits: &Limits, buffer: u64) -> Act {
    match random.u8(0..20) {
        0..9 => Act::Send(some_bytes(random, buffer)),
        9..13 => Act::Pause(some_time(random, limits)),
        13..16 => Act::StopReading(if random.u8(0..6) == 0 { NEVER } else { some_time(random, limits) }),
        16..19 => Act::AwaitBytes,
        _ => Act::AwaitEnd,
    }
}

/// OperationKind a script ends with; without an end it is silent for ever.
fn ending(random: &mut Rng, limits: &Limits) -> Vec<Act> {
    let pause = Act::Pause(some_time(random, limits));
    match random.u8(0..20) {
        0..8 => vec![Act::Finish],
        8..11 => vec![Act::AwaitEnd, Act::Finish],
        11..14 => vec![Act::Reset],
        14 => vec![Act::Finish, pause, Act::Reset],
        15..17 => vec![Act::Vanish],
        17 => vec![Act::Vanish, pause, Act::Reset],
        _ => vec![],
    }
}

fn some_bytes(random: &mut Rng, buffer: u64) -> u64 {
    match random.u8(0..4) {
        0 => random.u64(1..=4),
        1 => random.u64(1..=buffer),
        2 => buffer * random.u64(1..=8),
        _ => random.u64(1..=buffer * 40),
    }
}

fn some_time(random: &mut Rng, limits: &Limits) -> Millis {
    match random.u8(0..8) {
        0..3 => random.u64(0..5),
        3..5 => random.u64(5..120),
        5 => random.u64(0..=limits.half_closed * 3 / 2),
        6 => random.u64(0..=limits.unresponsive * 3 / 2),
        _ => random.u64(0..=limits.idle * 5 / 4),
    }
}
