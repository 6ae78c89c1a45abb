//! OperationKind the session was told and what it asked for, and the rules that each step is held against.

use balancer::forward::flow::{Direction, SpliceEnd};
use balancer::forward::session::{Event, InFlight, Millis, NEVER, Operation, Side};
use balancer::observe::counters::{Closed, Refused};
use balancer::sys::socket::TcpLiveness;

use crate::kernel::Kind;
use crate::path::Path;
use crate::world::{SIDES, World};

/// A side that nobody has read from for this long is watched.
const WATCH_AFTER: Millis = 20;
/// The longest step between two looks at an emptying send queue.
const LOOK: Millis = 50;

#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) connects: u8,
    /// When the last connect began, and whether it has been cancelled.
    pub(crate) connecting: Millis,
    pub(crate) connect_cancelled: bool,
    /// The backend that is being connected is to be left.
    pub(crate) leaves: bool,
    pub(crate) connected: bool,
    /// It waits for a backend, and until when it may.
    pub(crate) waiting: bool,
    pub(crate) patience: Option<Millis>,
    /// When it last began to wait.
    pub(crate) queued: Millis,
    pub(crate) unserved: Option<Refused>,
    pub(crate) stopped: Option<Closed>,
    /// When a byte last moved.
    pub(crate) active: Millis,
    /// Whose end it heard of first.
    pub(crate) finished: Option<Side>,
    /// The directions whose end it has heard of.
    pub(crate) ended: [bool; 2],
    /// Which side it heard to be broken, and when.
    pub(crate) broken: Option<(Side, Millis)>,
    /// When it had read all that the broken side sent.
    pub(crate) drained: Option<Millis>,
    /// The sockets that it has finished, and reset.
    pub(crate) finishes: [bool; 2],
    pub(crate) resets: [bool; 2],
    /// When the end was decided.
    pub(crate) decided: Option<Millis>,
    /// Bytes that the backend sent and the client will never get, as it was then.
    pub(crate) lost: u64,
    /// The last receive left bytes in the socket.
    more: [bool; 2],
    /// The source has given its last byte, and some wait for the sink.
    pub(crate) dry: [bool; 2],
    paths: [Path; 2],
    pub(crate) closed: bool,
}

impl World {
    /// Takes down what the session is told.
    pub(crate) fn learn(&mut self, event: Event) {
        let now = self.now;
        if self.record.decided.is_some() {
            self.coverage.late += u64::from(!matches!(event, Event::Deadline));
            return;
        }
        match event {
            Event::Connected => {
                self.record.connected = true;
                self.record.active = now;
                self.coverage.connected_late += u64::from(self.record.connect_cancelled);
            }
            Event::Unserved(reason) => self.record.unserved = Some(reason),
            Event::Queued(limit) => {
                // It was no attempt.
                self.record.connects -= 1;
                self.record.waiting = true;
                self.record.queued = now;
                if limit != NEVER {
                    self.record.patience.get_or_insert(now + limit);
                }
                self.coverage.queued += 1;
            }
            Event::Retry => self.coverage.retries += u64::from(std::mem::take(&mut self.record.waiting)),
            Event::Stop(reason) => self.record.stopped = Some(reason),
            Event::BackendDrained if self.record.connected => self.record.stopped = Some(Closed::Drain),
            Event::BackendDrained => self.record.leaves = !self.record.waiting,
            Event::Inspected(_, Some(TcpLiveness { since_sent: Some(ago), .. })) => {
                let sent = now.saturating_sub(ago.as_millis() as Millis);
                self.coverage.slow_queue += u64::from(sent > self.record.active);
                self.record.active = self.record.active.max(sent);
            }
            Event::Received { direction, length, size, more, .. } => {
                self.coverage.received_behind += u64::from(!self.kernel.behind[direction as usize].is_empty());
                self.record.paths[direction as usize].received(length == size);
                self.record.more[direction as usize] = more;
                self.record.active = now;
            }
            Event::NoBuffer(_) => self.coverage.no_buffer += 1,
            Event::Sent { direction, bytes, left_over } => {
                if bytes > 0 {
                    self.record.active = now;
                }
                if !left_over && !self.kernel.sends(direction) {
                    self.kernel.parked[direction as usize] = false;
                    if self.kernel.flight(InFlight::Receive(direction)).is_none() {
                        self.record.paths[direction as usize].copied();
                    }
                    if std::mem::take(&mut self.record.dry[direction as usize]) {
                        self.learn_end(direction);
                    }
                }
            }
            Event::End(direction) if self.kernel.sends(direction) => {
                self.coverage.ended_behind += 1;
                self.record.dry[direction as usize] = true;
            }
            Event::End(direction) => self.learn_end(direction),
            Event::Broken { side, during } => self.learn_break(side, Some(during)),
            Event::Watched(side) => {
                self.coverage.watched[side as usize] += 1;
                self.learn_break(side, None);
            }
            Event::Moved { direction, bytes, size, turn } => {
                let left = self.record.paths[direction as usize].moved(bytes < size, turn);
                self.coverage.splice_left += u64::from(left);
                if bytes > 0 {
                    self.record.active = now;
                }
                match turn {
                    SpliceEnd::End => self.learn_end(direction),
                    SpliceEnd::SourceBroken => self.learn_break(direction.source(), Some(direction)),
                    SpliceEnd::SinkBroken => self.learn_break(direction.sink(), Some(direction)),
                    SpliceEnd::Drained => self.record.more[direction as usize] = false,
                    SpliceEnd::SinkFull | SpliceEnd::NoPipe => {}
                }
            }
            _ => {}
        }
    }

    fn learn_end(&mut self, direction: Direction) {
        let (now, record) = (self.now, &mut self.record);
        match record.broken {
            None => {
                record.ended[direction as usize] = true;
                record.finished.get_or_insert_with(|| direction.source());
                record.active = now;
            }
            Some((side, _)) if side == direction.source() => record.drained = record.drained.or(Some(now)),
            Some(_) => {}
        }
    }

    fn learn_break(&mut self, side: Side, mut during: Option<Direction>) {
        let (now, record) = (self.now, &mut self.record);
        let from = Direction::from(side);
        if during == Some(from) && self.kernel.sends(from) {
            // OperationKind it sent before is still on its way to the sink.
            self.coverage.broken_behind += 1;
            record.dry[from as usize] = true;
            during = None;
        }
        if record.broken.is_none() {
            record.broken = Some((side, now));
            record.drained = record.ended[from as usize].then_some(now);
        }
        if during == Some(from) && record.broken.is_some_and(|(broken, _)| broken == side) {
            record.drained = record.drained.or(Some(now));
        }
    }

    /// Whether an operation is allowed now.
    pub(crate) fn permit(&mut self, operation: Operation) {
        let record = &self.record;
        let decided = record.decided.is_some();
        let flows = |direction: Direction| {
            let index = direction as usize;
            assert!(record.connected && !decided && !record.ended[index], "{operation:?} on a direction that is over");
            let cut = record.broken.is_some_and(|(broken, _)| broken == direction.sink());
            assert!(!cut, "{operation:?} towards a side that is broken");
            let pipe = self.kernel.pipes[index].as_ref().is_some_and(|pipe| !pipe.is_empty());
            (!self.kernel.pending[index].is_empty(), pipe)
        };
        match operation {
            Operation::Connect => {
                assert!(!record.connected && !decided, "a second connection");
                assert!(!record.waiting, "connects while it waits");
                assert!(record.connects < self.limits.attempts, "more attempts than allowed");
                self.coverage.retried += u64::from(record.connects > 0);
                self.record.connects += 1;
                self.record.connecting = self.now;
                self.record.connect_cancelled = false;
                self.record.leaves = false;
            }
            Operation::Receive { direction, empty } => {
                assert_eq!(flows(direction), (false, false), "receives although bytes wait for the sink");
                assert!(!(empty && record.more[direction as usize]), "takes a socket that holds bytes for empty");
                assert!(!record.paths[direction as usize].bulk, "copies a stream that is bulk");
            }
            Operation::AwaitBuffer(direction) => {
                assert_eq!(flows(direction), (false, false));
                assert!(!self.kernel.starved[direction as usize], "waits twice for a buffer");
            }
            Operation::Send(direction) | Operation::Park(direction) => {
                assert_eq!(flows(direction), (true, false), "sends what it has not");
                let parked = self.kernel.parked[direction as usize];
                assert!(!parked || operation == Operation::Park(direction), "sends from a buffer what is parked");
            }
            Operation::Discard(_) | Operation::DiscardLast(_) => assert!(record.broken.is_some(), "throws bytes away"),
            Operation::Move(direction) => {
                assert!(!flows(direction).0, "splices although a buffer waits for the sink");
                assert!(record.paths[direction as usize].bulk, "splices a stream that is not bulk");
                let path = &mut self.record.paths[direction as usize];
                self.coverage.splice_entered += u64::from(std::mem::take(&mut path.fresh));
            }
            Operation::PollReadable(direction) => assert_eq!(flows(direction), (false, false)),
            Operation::PollWritable(direction) => assert_eq!(flows(direction), (false, true)),
            Operation::Watch(_) => assert!(!decided, "watches at the end"),
            Operation::Finish(side) => {
                let direction = Direction::from(side.other());
                let ended = record.ended[direction as usize] && self.connections[side.other() as usize].ended;
                assert!(ended, "finishes a side whose source has not ended");
                assert!(self.kernel.pending[direction as usize].is_empty(), "finishes with bytes in hand");
                assert!(!record.finishes[side as usize] && !decided, "finishes twice");
                self.record.finishes[side as usize] = true;
                if self.record.finishes == [true; 2] {
                    self.record.decided = Some(self.now);
                }
            }
            Operation::MeasureBacklog(_) | Operation::Inspect(_) => assert!(record.connected && !decided),
            Operation::Reset(side) => {
                assert!(!record.resets[side as usize], "resets twice");
                self.record.resets[side as usize] = true;
                if !decided {
                    self.record.decided = Some(self.now);
                    self.record.lost = self.undelivered();
                }
            }
            Operation::Cancel(what) => self.permit_cancel(what),
            Operation::Close(_) => {
                // Where both sides have ended, the close itself says the second end.
                let decided = decided || record.ended == [true; 2];
                assert!(self.kernel.idle() && decided, "closes with operations in flight");
                self.record.decided.get_or_insert(self.now);
            }
            Operation::Wait => {}
        }
    }

    fn permit_cancel(&mut self, what: InFlight) {
        assert!(self.kernel.flight(what).is_some(), "cancels what is not in flight");
        if let (InFlight::Receive(direction), None) = (what, self.record.decided) {
            assert!(self.kernel.parked[direction as usize], "stops a receive although the sink takes what there is");
            self.coverage.receives_stopped += 1;
            return;
        }
        if self.record.broken.is_some() || self.record.stopped.is_some() {
            self.record.decided.get_or_insert(self.now);
        }
        if self.record.decided.is_none() {
            let age = self.now - self.record.connecting;
            assert_eq!(what, InFlight::Connect, "cancels before the end");
            let late = (self.limits.connect..=self.limits.connect + 100).contains(&age);
            assert!(late || self.record.leaves, "a connect given up after {age} ms");
            self.record.connect_cancelled |= late;
            self.coverage.connects_given_up += u64::from(late);
            self.coverage.connects_left += u64::from(!late);
        }
    }

    /// Bytes of the backend that reached the balancer and not the client's kernel.
    fn undelivered(&self) -> u64 {
        if !self.record.connected {
            return 0;
        }
        self.connections[1].received.entered() - self.connections[0].inbox.entered()
    }

    /// After each event: whatever can go on does go on, and every deadline is in sight.
    pub(crate) fn settled(&self) {
        let (record, due) = (&self.record, self.session.due());
        if record.decided.is_some() {
            assert!(due <= self.now + 1000, "nothing will end the wait for operations in flight");
        } else if record.waiting {
            assert!(record.patience.is_none_or(|until| due <= until.max(record.queued)), "it will wait for too long");
            let soon = due <= self.now + WATCH_AFTER;
            assert!(self.sees_reset(Side::Client) || soon, "a reset of a waiting client would go unseen");
        } else if !record.connected {
            assert!(self.kernel.flight(InFlight::Connect).is_some(), "connects to nobody");
            assert!(record.connect_cancelled || due <= record.connecting + self.limits.connect);
            let soon = due <= self.now + WATCH_AFTER;
            assert!(self.sees_reset(Side::Client) || soon, "a reset of the client would go unseen");
        } else if let Some((broken, _)) = record.broken {
            let grace = if broken == Side::Client { 100 } else { self.limits.half_closed };
            assert!(due <= self.now + grace, "nothing bounds the wait before a reset is passed on");
            if record.drained.is_some() {
                assert!(due <= self.now + LOOK, "nobody looks whether all before the reset has arrived");
            } else {
                assert!(self.busy(Direction::from(broken)), "the bytes before a reset are forgotten");
            }
        } else {
            let limit = if record.finished.is_some() { self.limits.half_closed } else { self.limits.idle };
            assert!(due <= record.active + limit, "a deadline is out of sight");
            for direction in Direction::BOTH.into_iter().filter(|&direction| !record.ended[direction as usize]) {
                assert!(self.busy(direction), "{direction:?} stalls: nothing is in flight");
            }
            for side in SIDES {
                let soon = due <= self.now + WATCH_AFTER;
                assert!(self.sees_reset(side) || soon, "a reset of {side:?} would go unseen");
            }
        }
    }

    /// Something is under way that will make the direction go on.
    fn busy(&self, direction: Direction) -> bool {
        let flies = |what| self.kernel.flight(what).is_some();
        flies(InFlight::Receive(direction))
            || flies(InFlight::Flow(direction))
            || self.kernel.starved[direction as usize]
    }

    fn sees_reset(&self, side: Side) -> bool {
        let reads = || {
            let direction = Direction::from(side);
            // A send from a buffer completes at once, and a buffer comes free soon: the next receive follows.
            let soon = |kind| matches!(kind, Kind::PollReadable { .. } | Kind::Send);
            self.kernel.flight(InFlight::Receive(direction)).is_some()
                || self.kernel.flight(InFlight::Flow(direction)).is_some_and(|flight| soon(flight.kind) || flight.done)
                || self.kernel.starved[direction as usize]
        };
        self.kernel.flight(InFlight::Watch(side)).is_some() || self.connections[side as usize].shut() || reads()
    }
}
