//! The bytes that a session has received and not sent yet, in each direction: what is being sent, and what was received behind it.

use super::flow::Direction;
use super::resources::Resources;
use crate::sys::buffers::Buffer;
use crate::sys::pipe::Pipe;
use crate::sys::ring::Parking;

/// OperationKind one direction holds. An idle one holds nothing.
#[derive(Debug)]
pub(super) enum Pending {
    Nothing,
    /// Received, not all sent yet.
    Buffer {
        buffer: Buffer,
        from: usize,
        length: usize,
    },
    /// The sink is slow.
    Parked(Parking),
    /// Bulk flows, the sink is full.
    Pipe(Pipe),
}

impl Pending {
    /// Moves what is in a buffer out of it: others need it.
    fn park(&mut self, io: &mut Resources) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Buffer { buffer, from, length } => Self::Parked(io.ring.park(buffer, from, length)),
            other => other,
        };
    }

    fn release_all(self, io: &mut Resources) {
        match self {
            Self::Nothing => {}
            Self::Buffer { buffer, .. } => io.ring.buffers.release(buffer),
            Self::Parked(parking) => {
                io.ring.unpark(parking, 0, true);
            }
            Self::Pipe(pipe) => {
                io.pipes.give_back(pipe);
                io.own_counters().pipes.set(io.pipes.count() as u64);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct PendingBytes {
    front: [Pending; 2],
    /// OperationKind was received behind that, oldest first, of both directions: seldom anything, and never much.
    behind: Vec<(Direction, Pending)>,
}

impl PendingBytes {
    /// Nothing in either direction.
    pub(super) fn empty() -> Self {
        Self { front: [Pending::Nothing, Pending::Nothing], behind: Vec::new() }
    }

    /// OperationKind is being sent, or to be sent next.
    pub(super) fn front(&self, direction: Direction) -> &Pending {
        &self.front[direction as usize]
    }

    /// Takes that out, to be put back if some of it is left.
    pub(super) fn take(&mut self, direction: Direction) -> Pending {
        std::mem::replace(&mut self.front[direction as usize], Pending::Nothing)
    }

    /// Puts what is left back.
    pub(super) fn put(&mut self, direction: Direction, pending: Pending) {
        self.front[direction as usize] = pending;
    }

    /// Takes what was just received. Behind a slow sink it is parked at once: others need the buffer.
    pub(super) fn receive(&mut self, direction: Direction, buffer: Buffer, length: usize, io: &mut Resources) {
        let mut received = Pending::Buffer { buffer, from: 0, length };
        match self.front(direction) {
            Pending::Nothing => return self.put(direction, received),
            Pending::Parked(_) => received.park(io),
            Pending::Buffer { .. } | Pending::Pipe(_) => {}
        }
        self.behind.push((direction, received));
    }

    /// The front is sent: what is behind it comes next.
    pub(super) fn advance(&mut self, direction: Direction) {
        let next = self.behind.iter().position(|(of, _)| *of == direction);
        self.front[direction as usize] = next.map_or(Pending::Nothing, |next| self.behind.remove(next).1);
    }

    /// Parks all that a direction holds in buffers.
    pub(super) fn park(&mut self, direction: Direction, io: &mut Resources) {
        self.front[direction as usize].park(io);
        self.behind.iter_mut().filter(|(of, _)| *of == direction).for_each(|(_, pending)| pending.park(io));
    }

    /// Lets go of all that a direction holds.
    pub(super) fn release_all(&mut self, direction: Direction, io: &mut Resources) {
        while !matches!(self.front(direction), Pending::Nothing) {
            self.take(direction).release_all(io);
            self.advance(direction);
        }
    }

    /// Lets go of what was received last.
    pub(super) fn release_last(&mut self, direction: Direction, io: &mut Resources) {
        match self.behind.iter().rposition(|(of, _)| *of == direction) {
            Some(last) => self.behind.remove(last).1.release_all(io),
            None => self.take(direction).release_all(io),
        }
    }
}
