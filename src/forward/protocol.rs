//! OperationKind goes into a session and what comes out of it: events, operations, limits, outcomes.

use std::time::Duration;

use super::flow::{Direction, SpliceEnd};
use crate::observe::counters::{Closed, Refused};
use crate::sys::socket::TcpLiveness;

/// Milliseconds since the worker's start.
pub type Millis = u64;

/// No time at all: nothing is due.
pub const NEVER: Millis = Millis::MAX;

/// A length of time; one that cannot be counted never ends.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// One of a session's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Backend,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// An operation that stays in flight until the kernel completes it. At most one of each kind is under way for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// The connect to the backend.
    Connect,
    /// A receive of one direction.
    Receive(Direction),
    /// A send or poll of one direction.
    Flow(Direction),
    /// The watch for a side's reset.
    Watch(Side),
}

impl InFlight {
    /// Each of them.
    pub(super) const ALL: [Self; 7] = [
        Self::Connect,
        Self::Receive(Direction::In),
        Self::Receive(Direction::Out),
        Self::Flow(Direction::In),
        Self::Flow(Direction::Out),
        Self::Watch(Side::Client),
        Self::Watch(Side::Backend),
    ];

    pub(super) fn bit(self) -> u8 {
        1 << match self {
            Self::Connect => 0,
            Self::Receive(direction) => 1 + direction as u8,
            Self::Flow(direction) => 3 + direction as u8,
            Self::Watch(side) => 5 + side as u8,
        }
    }
}

/// How a session ended.
pub use crate::observe::access_log::End as Outcome;

/// OperationKind happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The client is accepted.
    Begin,
    /// The backend is connected.
    Connected,
    /// The connect failed or was cancelled.
    ConnectFailed,
    /// There is no backend to connect to.
    Unserved(Refused),
    /// There is none now, but there may be soon: wait for [`Event::Retry`], at most so long in all.
    Queued(Millis),
    /// There may be a backend now.
    Retry,
    /// A receive brought bytes into a buffer.
    Received {
        /// Where the bytes flow.
        direction: Direction,
        /// How many there are.
        length: usize,
        /// How many would have fitted.
        size: usize,
        /// The socket still holds some.
        more: bool,
        /// The receive goes on by itself: what comes next is `Received` unasked for.
        goes_on: bool,
    },
    /// A receive ended with nothing after all.
    Again(Direction),
    /// A receive found no free buffer.
    NoBuffer(Direction),
    /// A buffer may be free again.
    BufferFree(Direction),
    /// The source has finished sending.
    End(Direction),
    /// A side's connection is broken: reset, timed out, unreachable.
    Broken {
        /// Whose connection.
        side: Side,
        /// The direction whose operation met it, and is complete.
        during: Direction,
    },
    /// A send completed.
    Sent {
        /// Where the bytes flow.
        direction: Direction,
        /// How many the sink's kernel took.
        bytes: usize,
        /// That was not all.
        left_over: bool,
    },
    /// A splice turn is over.
    Moved {
        /// Where the bytes flow.
        direction: Direction,
        /// How many were delivered.
        bytes: usize,
        /// Fewer than this are a small turn.
        size: usize,
        /// OperationKind ended it.
        turn: SpliceEnd,
    },
    /// A poll completed.
    Ready(Direction),
    /// A watch completed: the side is broken.
    Watched(Side),
    /// A watch completed because both directions of the side are shut, which is no fault.
    Unwatched(Side),
    /// Bytes that a side's kernel has not acknowledged yet.
    Backlog(Side, usize),
    /// A side's signs of life; `None` where the kernel tells none (Unix sockets).
    Inspected(Side, Option<TcpLiveness>),
    /// Something may be due.
    Deadline,
    /// The backend is not to serve the session any more: it ends, or goes on to another backend while it is being connected.
    BackendDrained,
    /// The session is to end now.
    Stop(Closed),
}

/// OperationKind is to be done for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Nothing until the next event.
    Wait,
    /// Pick a backend and connect. Completes as `Connected`, `ConnectFailed`, or at once as `Unserved`, `Queued`.
    Connect,
    /// Receive into a buffer. Completes as `Received`, which may go on, `End`, `Broken`, `NoBuffer`, `Again`.
    Receive {
        /// Where the bytes flow.
        direction: Direction,
        /// The socket is known to hold nothing.
        empty: bool,
    },
    /// Hear of the next free buffer, as `BufferFree`.
    AwaitBuffer(Direction),
    /// Send the oldest buffer received. Completes as `Sent` or `Broken`.
    Send(Direction),
    /// Park what is in hand and send the oldest of it when there is room. Completes as `Sent` or `Broken`.
    Park(Direction),
    /// Let go of all that a direction holds.
    Discard(Direction),
    /// Let go of what was received last: what came before it may still be being sent.
    DiscardLast(Direction),
    /// A splice turn. Answered at once by `Moved`.
    Move(Direction),
    /// Hear when the source has bytes, as `Ready`.
    PollReadable(Direction),
    /// Hear when the sink has room, as `Ready`.
    PollWritable(Direction),
    /// Hear when a side breaks, as `Watched`.
    Watch(Side),
    /// Tell a side that no more will be sent.
    Finish(Side),
    /// Ask how much a side has not acknowledged. Answered at once by `Backlog`.
    MeasureBacklog(Side),
    /// Ask for a side's signs of life. Answered at once by `Inspected`.
    Inspect(Side),
    /// Reset a side's connection.
    Reset(Side),
    /// Cancel what is in flight.
    Cancel(InFlight),
    /// The session is over and nothing is in flight: close its descriptors, count it.
    Close(Outcome),
}

/// The time limits of a session, fixed at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One connect.
    pub connect: Millis,
    /// Backends tried.
    pub attempts: u8,
    /// No byte either way.
    pub idle: Millis,
    /// No byte after one side has finished.
    pub half_closed: Millis,
    /// No acknowledgement from a peer's kernel.
    pub unresponsive: Millis,
}
