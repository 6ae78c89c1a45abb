//! The kernel's side of a model worker: operations in flight, when each is tried, and the order in which completions are taken.
//!
//! An operation takes effect when it is tried; completions queue up and are taken first in, first out, as from a ring. OperationKind the
//! worker calls directly (splice turns, looks) takes effect at once and may so overtake completions that still queue.

use std::collections::VecDeque;

use balancer::forward::flow::Direction;
use balancer::forward::session::{Event, InFlight, Millis, Side};

use crate::connection::Got;
use crate::queue::{Bytes, Queue, length};
use crate::world::{Happening, World};

/// OperationKind an operation in flight waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect(Fate),
    Receive {
        /// The next buffer will not be free.
        starved: bool,
        /// It goes on until so many bytes have come.
        limit: Option<u64>,
    },
    /// Now or not at all.
    Send,
    /// When there is room.
    Park,
    /// Spurious: completes in any case.
    PollReadable {
        spurious: bool,
    },
    PollWritable {
        spurious: bool,
    },
    Watch,
}

/// OperationKind becomes of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    Fails,
    Hangs,
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) kind: Kind,
    ticket: u32,
    planned: bool,
    cancelled: bool,
    /// Its completion waits to be taken.
    pub(crate) done: bool,
}

/// OperationKind the worker and its kernel hold for a session.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    flights: [Option<Flight>; 7],
    /// The event, or none where the worker is to receive by a direct call.
    completions: VecDeque<(InFlight, Option<Event>)>,
    reaping: bool,
    tickets: u32,
    pub(crate) established: bool,
    /// Bytes in buffers whose completions wait to be taken, of each direction.
    filled: [VecDeque<Bytes>; 2],
    /// Bytes in a buffer or parked, to be sent next.
    pub(crate) pending: [Bytes; 2],
    /// OperationKind was received behind them.
    pub(crate) behind: [VecDeque<Bytes>; 2],
    /// OperationKind is in hand is parked, until all of it is sent.
    pub(crate) parked: [bool; 2],
    /// The pipe that each direction has been lent.
    pub(crate) pipes: [Option<Queue>; 2],
    /// Waits for a free buffer.
    pub(crate) starved: [bool; 2],
}

fn slot(what: InFlight) -> usize {
    match what {
        InFlight::Connect => 0,
        InFlight::Receive(direction) => 1 + direction as usize,
        InFlight::Flow(direction) => 3 + direction as usize,
        InFlight::Watch(side) => 5 + side as usize,
    }
}

const ALL: [InFlight; 7] = [
    InFlight::Connect,
    InFlight::Receive(Direction::In),
    InFlight::Receive(Direction::Out),
    InFlight::Flow(Direction::In),
    InFlight::Flow(Direction::Out),
    InFlight::Watch(Side::Client),
    InFlight::Watch(Side::Backend),
];

/// The operation has completed, and stays in flight.
fn goes_on(event: Option<Event>) -> bool {
    matches!(event, Some(Event::Received { goes_on: true, .. }))
}

impl Kernel {
    pub(crate) fn flight(&self, what: InFlight) -> Option<&Flight> {
        self.flights[slot(what)].as_ref()
    }

    pub(crate) fn idle(&self) -> bool {
        self.flights.iter().all(Option::is_none)
    }

    /// OperationKind a receive has brought goes behind what is there already.
    fn hold(&mut self, direction: Direction) {
        let index = direction as usize;
        let Some(bytes) = self.filled[index].pop_front() else { panic!("nothing was received") };
        if self.sends(direction) {
            self.behind[index].push_back(bytes);
        } else {
            self.pending[index] = bytes;
        }
    }

    /// Received bytes are still being sent, as far as the worker knows.
    pub(crate) fn sends(&self, direction: Direction) -> bool {
        let flight = self.flight(InFlight::Flow(direction));
        flight.is_some_and(|flight| matches!(flight.kind, Kind::Send | Kind::Park))
            || !self.pending[direction as usize].is_empty()
    }

    /// OperationKind is sent makes room for what is behind it.
    fn advance(&mut self, direction: Direction) {
        let index = direction as usize;
        if self.pending[index].is_empty() {
            self.pending[index] = self.behind[index].pop_front().unwrap_or_default();
        }
    }

    pub(crate) fn start(&mut self, what: InFlight, kind: Kind) {
        assert!(self.flight(what).is_none(), "{what:?} is in flight already");
        self.tickets += 1;
        let ticket = self.tickets;
        self.flights[slot(what)] = Some(Flight { kind, ticket, planned: false, cancelled: false, done: false });
    }
}

impl World {
    /// Plans the operations that can be done now.
    pub(crate) fn stir_kernel(&mut self) {
        for what in ALL {
            let Some(flight) = &self.kernel.flights[slot(what)] else { continue };
            if flight.planned || flight.done || !(flight.cancelled || self.possible(what, flight.kind)) {
                continue;
            }
            let ticket = flight.ticket;
            if let Some(after) = self.lag(what) {
                self.plan(after, Happening::Execute(what, ticket));
            }
            if let Some(flight) = &mut self.kernel.flights[slot(what)] {
                flight.planned = true;
            }
        }
    }

    /// How long an operation takes; none: at the end it may hang until it is cancelled.
    fn lag(&mut self, what: InFlight) -> Option<Millis> {
        if what == InFlight::Connect {
            return Some(self.random.u64(0..=self.limits.connect));
        }
        let ending = self.record.decided.is_some();
        if ending && self.one_in(16) {
            return None;
        }
        let most = if ending && self.one_in(8) { 3000 } else { self.conditions.lag };
        Some(self.random.u64(0..=most))
    }

    /// Cancels what is in flight; an operation that is done already is not stopped by it.
    pub(crate) fn cancel(&mut self, what: InFlight) {
        let Some(flight) = &mut self.kernel.flights[slot(what)] else { panic!("{what:?} is not in flight") };
        flight.cancelled = true;
        flight.planned |= flight.done;
        if !flight.done {
            // A new ticket makes an attempt that is already planned a stale one.
            self.kernel.tickets += 1;
            flight.ticket = self.kernel.tickets;
            flight.planned = true;
            let ticket = flight.ticket;
            let after = self.random.u64(0..=self.conditions.lag);
            self.plan(after, Happening::Execute(what, ticket));
        }
    }

    fn possible(&self, what: InFlight, kind: Kind) -> bool {
        let [source, sink, watched] = match what {
            InFlight::Receive(direction) | InFlight::Flow(direction) => {
                [direction.source(), direction.sink(), direction.source()]
            }
            InFlight::Watch(side) => [side; 3],
            InFlight::Connect => [Side::Backend; 3],
        }
        .map(|side| &self.connections[side as usize]);
        match kind {
            Kind::Connect(fate) => fate != Fate::Hangs,
            Kind::Receive { starved, .. } => starved || source.readable(),
            Kind::PollReadable { spurious } => spurious || source.readable(),
            Kind::Send => true,
            Kind::PollWritable { spurious } => spurious || sink.writable(),
            Kind::Park => sink.writable(),
            Kind::Watch => watched.shut(),
        }
    }

    /// The kernel tries an operation; if it cannot be done after all, it stays in flight.
    pub(crate) fn execute(&mut self, what: InFlight, ticket: u32) {
        let Some(flight) = &mut self.kernel.flights[slot(what)] else { return };
        if flight.ticket != ticket || flight.done {
            return;
        }
        flight.planned = false;
        let (kind, cancelled) = (flight.kind, flight.cancelled);
        let possible = self.possible(what, kind);
        if !possible && !cancelled {
            return;
        }
        // A cancel and what it cancels may cross.
        let stopped = cancelled && (!possible || self.one_in(2));
        let event = match (what, kind) {
            (InFlight::Connect, Kind::Connect(fate)) => Some(self.connects(fate, stopped)),
            (InFlight::Watch(side), _) if stopped => Some(Event::Unwatched(side)),
            (InFlight::Watch(side), _) => {
                let faulty = self.connections[side as usize].faulty() || self.connections[side as usize].gone;
                Some(if faulty { Event::Watched(side) } else { Event::Unwatched(side) })
            }
            (InFlight::Receive(direction), _) if stopped => Some(Event::Again(direction)),
            (InFlight::Receive(direction), Kind::Receive { starved: true, .. }) => Some(Event::NoBuffer(direction)),
            (InFlight::Receive(direction), _) if self.conditions.ring => self.receive(direction),
            (InFlight::Receive(_), _) => None,
            (InFlight::Flow(direction), Kind::PollReadable { .. } | Kind::PollWritable { .. }) => {
                Some(Event::Ready(direction))
            }
            (InFlight::Flow(direction), _) if stopped => Some(Event::Sent { direction, bytes: 0, left_over: true }),
            (InFlight::Flow(direction), _) => Some(self.send(direction, kind == Kind::Park)),
            (InFlight::Connect, _) => panic!("{kind:?} as a connect"),
        };
        self.note(|_| format!("  {what:?} completes: {event:?}"));
        if let Some(flight) = &mut self.kernel.flights[slot(what)] {
            flight.done = !goes_on(event);
        }
        self.kernel.completions.push_back((what, event));
        if !self.kernel.reaping {
            self.kernel.reaping = true;
            let after = self.random.u64(0..=self.conditions.lag);
            self.plan(after, Happening::Reap);
        }
    }

    /// The worker takes all completions that wait.
    pub(crate) fn reap(&mut self) {
        self.kernel.reaping = false;
        for _ in 0..self.kernel.completions.len() {
            let Some((what, event)) = self.kernel.completions.pop_front() else { return };
            if !goes_on(event) {
                self.kernel.flights[slot(what)] = None;
            }
            let event = match (what, event) {
                (_, Some(event)) => event,
                (InFlight::Receive(direction), None) => self.receive(direction).unwrap_or(Event::Again(direction)),
                (_, None) => panic!("{what:?} receives"),
            };
            match event {
                Event::Received { direction, .. } => self.kernel.hold(direction),
                Event::Sent { direction, .. } => self.kernel.advance(direction),
                _ => {}
            }
            self.tell(event);
            if self.record.closed {
                return;
            }
        }
    }

    fn connects(&mut self, fate: Fate, stopped: bool) -> Event {
        if stopped || fate != Fate::Succeeds {
            return Event::ConnectFailed;
        }
        self.establish();
        Event::Connected
    }

    fn receive(&mut self, direction: Direction) -> Option<Event> {
        let (size, ring) = (self.conditions.buffer, self.conditions.ring);
        if !ring && self.one_in(16) {
            // Ready, and nothing there after all.
            return Some(Event::Again(direction));
        }
        if !ring && self.one_in(self.conditions.buffers_scarce) {
            return Some(Event::NoBuffer(direction));
        }
        let side = direction.source();
        let source = &mut self.connections[side as usize];
        match source.receive(size) {
            Got::Bytes(bytes) => {
                let more = ring && !source.received.is_empty();
                let (length, size) = (length(&bytes), size as usize);
                let scarce = self.random.u32(0..self.conditions.buffers_scarce) == 0;
                let goes_on = match &mut self.kernel.flights[slot(InFlight::Receive(direction))] {
                    Some(Flight { kind: Kind::Receive { limit: Some(left), starved }, .. }) => {
                        *left = left.saturating_sub(length);
                        *starved = scarce;
                        *left > 0
                    }
                    _ => false,
                };
                self.kernel.filled[direction as usize].push_back(bytes);
                Some(Event::Received { direction, length: length as usize, size, more, goes_on })
            }
            Got::Nothing => None,
            Got::End if !ring && self.hides_reset(side) => Some(Event::Broken { side, during: direction }),
            Got::End => Some(Event::End(direction)),
            Got::Error => Some(Event::Broken { side, during: direction }),
        }
    }

    /// A direct call met the end of the stream: it may hide a reset whose error is not asked for yet, or was taken by a send whose
    /// completion still queues (the connection is then closed although only one of its directions was finished).
    pub(crate) fn hides_reset(&mut self, side: Side) -> bool {
        let connection = &mut self.connections[side as usize];
        connection.take_error() || connection.dead() && !connection.finished
    }

    fn send(&mut self, direction: Direction, parked: bool) -> Event {
        let (side, index) = (direction.sink(), direction as usize);
        if self.session.ends_behind(direction) {
            self.coverage.sent_with_end += 1;
            let last = self.record.dry[index] && self.kernel.behind[index].is_empty();
            assert!(last && self.record.broken.is_none(), "a packet is held back although no end follows");
        }
        let held = self.kernel.pending[index].clone();
        // Memory may be short: then a send takes less than there is room for, if not to be parked even nothing.
        let most = if self.one_in(16) { self.random.u64(u64::from(parked)..=length(&held)) } else { length(&held) };
        let outcome = self.connections[side as usize].send(held.start..held.start + most, self.now);
        let Some(bytes) = outcome else {
            self.kernel.pending[index] = 0..0;
            return Event::Broken { side, during: direction };
        };
        self.kernel.pending[index].start += bytes;
        Event::Sent { direction, bytes: bytes as usize, left_over: bytes < length(&held) }
    }
}
