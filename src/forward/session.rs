//! A session: one client connection and its backend connection, as a pure state machine.
//!
//! One event and a clock reading go in, one operation comes out. Nothing in here holds a descriptor, a ring or a clock, so that a
//! simulation can drive it through millions of histories. The worker carries the operations out and feeds back what came of them:
//!
//! ```text
//! let mut operation = session.on(event, now);
//! while operation != Operation::Wait {
//!     operation = match carry_out(operation) {
//!         Some(event) => session.on(event, now),
//!         None => session.then(),
//!     };
//! }
//! ```

mod ending;

use super::flow::{Direction, Flow, SpliceEnd};
use super::peer::Peer;
use crate::observe::counters::{Closed, Refused};
use crate::sys::socket::TcpLiveness;

pub(super) use super::protocol::millis;
pub use super::protocol::{Event, InFlight, Limits, Millis, NEVER, Operation, Outcome, Side};

/// A client's reset is passed on after this long without progress, even if the backend has not taken what the client sent before.
/// A client that has gone wants nothing any more; a backend's last words are worth `timeouts.half_closed`.
const CLIENT_RESET_GRACE: Millis = 100;
/// The longest step between two looks at an emptying send queue.
const LONGEST_LOOK: Millis = 50;
/// A watch is armed when a side has not been read from for this long: most sessions come and go without one.
const WATCH_AFTER: Millis = 20;
/// Operations still in flight this long after the end are cancelled one by one.
const CLOSING_GRACE: Millis = 1000;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A backend is being connected. `cancelled`: the attempt has run out of time.
    Connecting { since: Millis, attempt: u8, cancelled: bool },
    /// No backend has a permit, or none is known to serve yet.
    Waiting { attempt: u8 },
    /// Bytes flow.
    Open,
    /// One side is broken: what it sent is still delivered, then the other side is reset.
    PassingOn { broken: Side, progress: Millis, backlog: usize, look: Millis, step: Millis },
    /// All is decided; operations still in flight are waited for.
    Closing { outcome: Outcome, since: Millis },
}

/// One client connection and its backend connection.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    flows: [Flow; 2],
    peers: [Peer; 2],
    limits: Limits,
    /// When a byte last moved.
    active: Millis,
    /// When to arm a watch on each side that nobody reads from.
    watch: Millis,
    /// Until when it may wait for a permit, once it does.
    patience: Millis,
    /// Who finished sending first.
    finished: Option<Side>,
    /// The source of each direction held nothing more when it was last read.
    empty: [bool; 2],
    /// Bits of [`InFlight`].
    in_flight: u8,
    /// Bits of [`InFlight`] that are to be cancelled.
    cancel: u8,
    /// Bits of [`mod@todo`].
    todo: u16,
}

/// Operations noted for later, each for two sides or directions, in the order in which they are handed out.
mod todo {
    pub(super) const RESET: u16 = 0;
    pub(super) const FINISH: u16 = 2;
    pub(super) const WATCH: u16 = 4;
    pub(super) const CONNECT: u16 = 6;
    pub(super) const START: u16 = 8;
    pub(super) const MEASURE: u16 = 10;
    pub(super) const INSPECT: u16 = 12;
    /// Those that make sense when all is decided.
    pub(super) const LAST: u16 = 0b11 << RESET | 0b11 << FINISH;
}

impl Session {
    /// A session that begins `now`; hand it [`Event::Begin`] next.
    pub fn new(limits: Limits, now: Millis) -> Self {
        Self {
            phase: Phase::Connecting { since: now, attempt: 0, cancelled: false },
            flows: Direction::BOTH.map(Flow::new),
            peers: [Peer::default(); 2],
            limits,
            active: now,
            watch: now.saturating_add(WATCH_AFTER),
            patience: NEVER,
            finished: None,
            // A client usually speaks first: its bytes wait already when the backend is connected.
            empty: [false, true],
            in_flight: 0,
            cancel: 0,
            todo: 0,
        }
    }

    /// When the session wants to hear [`Event::Deadline`] at the latest.
    #[inline]
    pub fn due(&self) -> Millis {
        match self.phase {
            Phase::Connecting { cancelled: true, .. } => self.watch,
            Phase::Connecting { since, .. } => since.saturating_add(self.limits.connect).min(self.watch),
            Phase::Waiting { .. } => self.patience.min(self.watch),
            Phase::Open => self.silent_until().min(self.peers[0].look()).min(self.peers[1].look()).min(self.watch),
            Phase::PassingOn { broken, progress, look, .. } => self.give_up(broken, progress).min(look),
            Phase::Closing { since, .. } => since.saturating_add(CLOSING_GRACE),
        }
    }

    /// The attempt to connect that is under way has run out of time and is being cancelled.
    pub fn connect_timed_out(&self) -> bool {
        matches!(self.phase, Phase::Connecting { cancelled: true, .. })
    }

    /// Behind what is being sent comes the end of the stream: the two can go in one packet.
    pub fn ends_behind(&self, direction: Direction) -> bool {
        self.phase == Phase::Open && self.flows[direction as usize].sends_last()
    }

    /// One side is broken, and what it sent is on its way to the other.
    pub fn passes_on(&self) -> bool {
        matches!(self.phase, Phase::PassingOn { .. })
    }

    /// Works one event in and answers what to do first. Call [`Session::then`] until it says `Wait`.
    #[inline]
    pub fn on(&mut self, event: Event, now: Millis) -> Operation {
        self.landed(event);
        let operation = match (self.phase, event) {
            (Phase::Closing { .. }, Event::Deadline) => {
                self.phase_since(now);
                self.cancel = self.in_flight;
                Operation::Wait
            }
            // The connect was faster than its cancel: that backend has a session which must not seem to end well.
            (Phase::Closing { .. }, Event::Connected) => {
                self.note(todo::RESET, Side::Backend);
                Operation::Wait
            }
            (Phase::Closing { .. }, _) => Operation::Wait,
            (_, Event::Received { direction, length, size, more, goes_on }) => {
                self.active = now;
                self.empty[direction as usize] = !more;
                let operation = self.flow(direction).received(length, size, goes_on);
                if !goes_on {
                    self.watch_if_blind(direction, now);
                }
                operation
            }
            (_, Event::Sent { direction, bytes, left_over }) => {
                self.delivered(direction, bytes, now);
                let empty = self.empty[direction as usize];
                // Behind a slow sink, what the source sends would only pile up.
                if left_over && self.flow(direction).stalls_armed() {
                    self.cancel |= InFlight::Receive(direction).bit();
                }
                let operation = self.flow(direction).sent(left_over, empty);
                if self.flow(direction).delivered() {
                    self.ended(direction, now);
                }
                self.watch_if_blind(direction, now);
                operation
            }
            (_, Event::Moved { direction, bytes, size, turn }) => self.moved(direction, bytes, size, turn, now),
            (_, Event::Ready(direction)) => self.flow(direction).ready(),
            (_, Event::Again(direction) | Event::NoBuffer(direction)) => {
                let starved = matches!(event, Event::NoBuffer(_));
                let operation = if starved { self.flow(direction).starved() } else { self.flow(direction).again() };
                self.watch_if_blind(direction, now);
                operation
            }
            (_, Event::BufferFree(direction)) => self.flow(direction).buffer_free(),
            (_, event) => {
                self.rarely(event, now);
                Operation::Wait
            }
        };
        if operation == Operation::Wait { self.then() } else { self.launched(operation) }
    }

    /// OperationKind else is to be done.
    #[inline]
    pub fn then(&mut self) -> Operation {
        if self.todo == 0 && self.cancel == 0 {
            return match self.phase {
                Phase::Closing { outcome, .. } if self.in_flight == 0 => Operation::Close(outcome),
                _ => Operation::Wait,
            };
        }
        self.noted()
    }

    fn noted(&mut self) -> Operation {
        if let Some(what) = InFlight::ALL.into_iter().find(|what| self.cancel & what.bit() != 0) {
            self.cancel &= !what.bit();
            return Operation::Cancel(what);
        }
        let index = self.todo.trailing_zeros() as u16;
        self.todo &= self.todo - 1;
        let (side, direction) =
            if index.is_multiple_of(2) { (Side::Client, Direction::In) } else { (Side::Backend, Direction::Out) };
        let operation = match index & !1 {
            todo::RESET => Operation::Reset(side),
            todo::FINISH => Operation::Finish(side),
            todo::WATCH => Operation::Watch(side),
            todo::CONNECT => Operation::Connect,
            todo::START => {
                let empty = self.empty[direction as usize];
                self.flow(direction).next(empty)
            }
            todo::MEASURE => Operation::MeasureBacklog(side),
            _ => Operation::Inspect(side),
        };
        self.launched(operation)
    }

    /// Events that come a few times in a session's life.
    fn rarely(&mut self, event: Event, now: Millis) {
        match event {
            Event::Begin => self.note(todo::CONNECT, Side::Client),
            Event::Connected => {
                self.phase = Phase::Open;
                self.active = now;
                self.watch = self.watch.min(now.saturating_add(WATCH_AFTER));
                self.note(todo::START, Side::Client);
                self.note(todo::START, Side::Backend);
            }
            Event::ConnectFailed => self.connect_failed(now),
            Event::Unserved(reason) => self.close(Outcome::Refused(reason), now),
            Event::Queued(limit) => {
                if let Phase::Connecting { attempt, .. } = self.phase {
                    self.phase = Phase::Waiting { attempt };
                    if self.patience == NEVER {
                        self.patience = now.saturating_add(limit);
                    }
                }
            }
            Event::Retry => {
                if let Phase::Waiting { attempt } = self.phase {
                    self.phase = Phase::Connecting { since: now, attempt, cancelled: false };
                    self.note(todo::CONNECT, Side::Client);
                }
            }
            Event::End(direction) if self.flow(direction).dries() => self.watch_if_blind(direction, now),
            Event::End(direction) => self.ended(direction, now),
            Event::Broken { side, during } => self.broken(side, Some(during), now),
            Event::Watched(side) => self.broken(side, None, now),
            Event::Backlog(side, bytes) => self.backlog(side, bytes, now),
            Event::Inspected(side, signs) => self.inspected(side, signs, now),
            Event::Deadline => self.deadline(now),
            Event::BackendDrained => self.leave_drained_backend(now),
            Event::Stop(_) if matches!(self.phase, Phase::Connecting { .. } | Phase::Waiting { .. }) => {
                self.close(Outcome::Refused(Refused::Stopping), now);
            }
            Event::Stop(reason) => self.close(Outcome::Closed(reason), now),
            _ => {}
        }
    }

    fn connect_failed(&mut self, now: Millis) {
        if let Phase::Connecting { attempt, .. } = self.phase {
            if attempt + 1 < self.limits.attempts {
                self.phase = Phase::Connecting { since: now, attempt: attempt + 1, cancelled: false };
                self.note(todo::CONNECT, Side::Client);
            } else {
                self.close(Outcome::Refused(Refused::ConnectFailed), now);
            }
        }
    }

    fn moved(&mut self, direction: Direction, bytes: usize, size: usize, turn: SpliceEnd, now: Millis) -> Operation {
        self.delivered(direction, bytes, now);
        match turn {
            SpliceEnd::End => self.ended(direction, now),
            SpliceEnd::SourceBroken => self.broken(direction.source(), Some(direction), now),
            SpliceEnd::SinkBroken => self.broken(direction.sink(), Some(direction), now),
            SpliceEnd::Drained | SpliceEnd::SinkFull | SpliceEnd::NoPipe => {
                let operation = self.flow(direction).moved(bytes, size, turn);
                self.watch_if_blind(direction, now);
                return operation;
            }
        }
        Operation::Wait
    }

    /// The sink's kernel took `bytes`.
    fn delivered(&mut self, direction: Direction, bytes: usize, now: Millis) {
        if bytes == 0 {
            return;
        }
        self.active = now;
        if let Phase::PassingOn { progress, .. } = &mut self.phase {
            *progress = now;
        } else {
            self.wrote(direction.sink(), bytes, now);
        }
    }

    fn wrote(&mut self, side: Side, bytes: usize, now: Millis) {
        if self.peers[side as usize].wrote(bytes, now, self.limits.unresponsive) {
            self.note(todo::MEASURE, side);
        }
    }

    /// While nothing reads from a side, a watch must, or its reset goes unseen.
    #[inline]
    fn watch_if_blind(&mut self, direction: Direction, now: Millis) {
        if self.flow(direction).blind() && self.phase == Phase::Open {
            self.watch = self.watch.min(now.saturating_add(WATCH_AFTER));
        }
    }

    /// Arms the watches that are due.
    fn watch_blind(&mut self) {
        self.watch = NEVER;
        match self.phase {
            Phase::Connecting { .. } | Phase::Waiting { .. } => self.watch(Side::Client),
            _ => {
                for direction in Direction::BOTH {
                    if self.flow(direction).blind() {
                        self.watch(direction.source());
                    }
                }
            }
        }
    }

    fn watch(&mut self, side: Side) {
        if self.in_flight & InFlight::Watch(side).bit() == 0 {
            self.note(todo::WATCH, side);
        }
    }

    #[inline]
    fn flow(&mut self, direction: Direction) -> &mut Flow {
        &mut self.flows[direction as usize]
    }

    fn note(&mut self, operation: u16, side: Side) {
        self.todo |= 1 << (operation + side as u16);
    }

    /// Marks an operation as in flight, if it is one that stays there.
    #[inline]
    fn launched(&mut self, operation: Operation) -> Operation {
        let what = match operation {
            Operation::Connect => InFlight::Connect,
            Operation::Receive { direction, .. } => InFlight::Receive(direction),
            Operation::Send(direction)
            | Operation::Park(direction)
            | Operation::PollReadable(direction)
            | Operation::PollWritable(direction) => InFlight::Flow(direction),
            Operation::Watch(side) => InFlight::Watch(side),
            _ => return operation,
        };
        debug_assert!(self.in_flight & what.bit() == 0, "{operation:?} while one is in flight: {self:?}");
        self.in_flight |= what.bit();
        operation
    }

    /// Marks what an event completes as no longer in flight.
    #[inline]
    fn landed(&mut self, event: Event) {
        let what = match event {
            Event::Connected | Event::ConnectFailed | Event::Unserved(_) | Event::Queued(_) => InFlight::Connect,
            Event::Received { goes_on: true, .. } => return,
            Event::Received { direction, .. }
            | Event::Again(direction)
            | Event::NoBuffer(direction)
            | Event::End(direction) => InFlight::Receive(direction),
            Event::Broken { side, during } if side == during.source() => InFlight::Receive(during),
            Event::Broken { during: direction, .. } | Event::Sent { direction, .. } | Event::Ready(direction) => {
                InFlight::Flow(direction)
            }
            Event::Watched(side) | Event::Unwatched(side) => InFlight::Watch(side),
            _ => return,
        };
        debug_assert!(self.in_flight & what.bit() != 0, "{event:?} out of the blue: {self:?}");
        self.in_flight &= !what.bit();
        self.cancel &= !what.bit();
    }
}

const _: () = assert!(size_of::<Session>() <= 256);
