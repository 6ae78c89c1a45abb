//! One direction of a session: a pure state machine that says what to do next with the bytes that flow there.
//!
//! It starts on the copy path (receive into a buffer, send it) and moves to the splice path while the stream is bulk.

use super::session::{Operation, Side};

/// Full buffers in a row that make a stream bulk, and small turns in a row that end it.
const STREAK: u8 = 3;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    In,
    /// From the backend to the client.
    Out,
}

impl Direction {
    /// Both, in the order of their indices.
    pub const BOTH: [Self; 2] = [Self::In, Self::Out];

    /// The side that sends.
    pub fn source(self) -> Side {
        match self {
            Self::In => Side::Client,
            Self::Out => Side::Backend,
        }
    }

    /// The side that receives.
    pub fn sink(self) -> Side {
        self.source().other()
    }

    /// The direction that a side sends in.
    pub fn from(source: Side) -> Self {
        match source {
            Side::Client => Self::In,
            Side::Backend => Self::Out,
        }
    }
}

/// OperationKind a splice turn ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceEnd {
    /// The source has no more for now, or the budget is spent; the pipe is empty.
    Drained,
    /// The sink takes no more; the pipe holds the rest.
    SinkFull,
    /// The source has finished; the pipe is empty.
    End,
    /// The source's connection is broken; the pipe is empty.
    SourceBroken,
    /// The sink's connection is broken.
    SinkBroken,
    /// No pipe can be had.
    NoPipe,
}

/// OperationKind a flow is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun.
    Pending,
    /// Waits for bytes to copy.
    Receiving,
    /// Waits for a free buffer.
    Starved,
    /// Sends a buffer.
    Sending,
    /// The sink is slow: what it did not take is parked.
    Stalled,
    /// Waits for bytes to splice.
    Readable,
    /// Bytes are in the pipe: waits for the sink to take them.
    Writable,
    /// The source has finished, all of it is delivered.
    Ended,
    /// Nothing will be delivered any more.
    Cut,
}

/// One direction of a session.
#[derive(Debug)]
pub(super) struct Flow {
    direction: Direction,
    state: State,
    /// The splice path is used.
    bulk: bool,
    streak: u8,
    /// A receive is in flight.
    armed: bool,
    /// Buffers in hand behind the one that is being sent.
    queued: u32,
    /// The source has given its last byte, while some were still being sent.
    dry: bool,
}

impl Flow {
    pub(super) fn new(direction: Direction) -> Self {
        Self { direction, state: State::Pending, bulk: false, streak: 0, armed: false, queued: 0, dry: false }
    }

    /// The source has finished and all is delivered.
    pub(super) fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Nothing will be delivered any more.
    pub(super) fn over(&self) -> bool {
        matches!(self.state, State::Ended | State::Cut)
    }

    /// Nothing reads from the source now, so that a reset of it would go unseen.
    pub(super) fn blind(&self) -> bool {
        !self.armed && matches!(self.state, State::Stalled | State::Writable | State::Ended)
    }

    /// Where the sink does not take all that is being sent, a receive is armed that must not go on.
    pub(super) fn stalls_armed(&self) -> bool {
        self.armed && self.state == State::Sending
    }

    /// Received bytes are still being sent.
    pub(super) fn busy(&self) -> bool {
        matches!(self.state, State::Sending | State::Stalled)
    }

    /// The source has given its last byte, and now all of them are sent.
    pub(super) fn delivered(&self) -> bool {
        self.dry && !self.busy()
    }

    /// OperationKind is being sent is the last of the stream.
    pub(super) fn sends_last(&self) -> bool {
        self.dry && self.queued == 0
    }

    /// The receive in flight has ended. Answers whether what it ended with must wait until all is sent.
    pub(super) fn dries(&mut self) -> bool {
        self.armed = false;
        self.dry = self.busy();
        self.dry
    }

    /// Asks for more bytes. `empty`: the source is known to hold none now.
    pub(super) fn next(&mut self, empty: bool) -> Operation {
        self.state = State::Receiving;
        if self.bulk {
            return Operation::Move(self.direction);
        }
        if std::mem::replace(&mut self.armed, true) {
            return Operation::Wait;
        }
        Operation::Receive { direction: self.direction, empty }
    }

    /// `length` bytes are in a buffer, which could have held `size`. `goes_on`: the receive stays in flight.
    pub(super) fn received(&mut self, length: usize, size: usize, goes_on: bool) -> Operation {
        self.armed = goes_on;
        if self.state == State::Cut {
            return Operation::DiscardLast(self.direction);
        }
        self.streak = if length == size { self.streak.saturating_add(1) } else { 0 };
        if self.busy() {
            self.queued += 1;
            return Operation::Wait;
        }
        self.state = State::Sending;
        Operation::Send(self.direction)
    }

    /// A receive ended with nothing.
    pub(super) fn again(&mut self) -> Operation {
        self.armed = false;
        if self.state == State::Receiving { self.next(false) } else { Operation::Wait }
    }

    /// No buffer was free.
    pub(super) fn starved(&mut self) -> Operation {
        self.armed = false;
        if self.state != State::Receiving {
            return Operation::Wait;
        }
        self.state = State::Starved;
        Operation::AwaitBuffer(self.direction)
    }

    /// A buffer may be free again.
    pub(super) fn buffer_free(&mut self) -> Operation {
        if self.state == State::Starved { self.next(false) } else { Operation::Wait }
    }

    /// A send completed; `left_over`: the sink did not take all. `empty`: the source held nothing more when it was last read.
    pub(super) fn sent(&mut self, left_over: bool, empty: bool) -> Operation {
        if self.state == State::Cut {
            return Operation::Discard(self.direction);
        }
        if left_over {
            self.state = State::Stalled;
            return Operation::Park(self.direction);
        }
        if self.queued > 0 {
            self.queued -= 1;
            return if self.state == State::Stalled {
                Operation::Park(self.direction)
            } else {
                Operation::Send(self.direction)
            };
        }
        if self.dry {
            self.state = State::Receiving;
            return Operation::Wait;
        }
        if self.streak >= STREAK && !self.armed {
            self.bulk = true;
            self.streak = 0;
        }
        self.next(empty)
    }

    /// A poll completed: the source can be read or the sink written.
    pub(super) fn ready(&self) -> Operation {
        match self.state {
            State::Readable | State::Writable => Operation::Move(self.direction),
            _ => Operation::Wait,
        }
    }

    /// A splice turn delivered `bytes`; `size`: what counts as a small turn is less.
    pub(super) fn moved(&mut self, bytes: usize, size: usize, turn: SpliceEnd) -> Operation {
        match turn {
            SpliceEnd::SinkFull => {
                self.state = State::Writable;
                return Operation::PollWritable(self.direction);
            }
            SpliceEnd::NoPipe => self.bulk = false,
            SpliceEnd::Drained => {
                self.streak = if bytes < size { self.streak + 1 } else { 0 };
                self.bulk = self.streak < STREAK;
            }
            SpliceEnd::End | SpliceEnd::SourceBroken | SpliceEnd::SinkBroken => return Operation::Wait,
        }
        if self.bulk {
            self.state = State::Readable;
            return Operation::PollReadable(self.direction);
        }
        self.streak = 0;
        self.next(turn == SpliceEnd::Drained)
    }

    /// The source has finished and all is delivered.
    pub(super) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Nothing is to be delivered any more.
    pub(super) fn cut(&mut self) {
        self.state = State::Cut;
        self.queued = 0;
        self.dry = false;
    }
}
