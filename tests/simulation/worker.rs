//! The model worker: carries out operations as their documentation says.

use balancer::forward::flow::{Direction, SpliceEnd};
use balancer::forward::session::{Event, InFlight, NEVER, Operation};
use balancer::observe::counters::Refused;

use crate::connection::Got;
use crate::kernel::{Fate, Kind};
use crate::queue::{Queue, length};
use crate::world::{Happening, SIDES, World};

impl World {
    /// Does what the session asks for; what is answered at once is the event.
    pub(crate) fn carry_out(&mut self, operation: Operation) -> Option<Event> {
        match operation {
            Operation::Connect => return self.connect(),
            Operation::Receive { direction, .. } => {
                let starved = self.conditions.ring && self.one_in(self.conditions.buffers_scarce);
                let limit = self.conditions.multishot.then_some(2 * self.conditions.buffer);
                self.kernel.start(InFlight::Receive(direction), Kind::Receive { starved, limit });
            }
            Operation::AwaitBuffer(direction) => {
                self.kernel.starved[direction as usize] = true;
                let after = self.random.u64(0..40);
                self.plan(after, Happening::BufferFree(direction));
            }
            Operation::Send(direction) => self.kernel.start(InFlight::Flow(direction), Kind::Send),
            Operation::Park(direction) => {
                self.coverage.parked += 1;
                self.kernel.parked[direction as usize] = true;
                self.kernel.start(InFlight::Flow(direction), Kind::Park);
            }
            Operation::Discard(direction) => {
                self.coverage.discarded += u64::from(length(&self.kernel.pending[direction as usize]) > 0);
                self.kernel.pending[direction as usize] = 0..0;
                self.kernel.behind[direction as usize].clear();
            }
            Operation::DiscardLast(direction) => {
                self.coverage.discarded_behind += 1;
                if self.kernel.behind[direction as usize].pop_back().is_none() {
                    self.kernel.pending[direction as usize] = 0..0;
                }
            }
            Operation::Move(direction) => return Some(self.turn(direction)),
            Operation::PollReadable(direction) => {
                let spurious = self.one_in(32);
                self.kernel.start(InFlight::Flow(direction), Kind::PollReadable { spurious });
            }
            Operation::PollWritable(direction) => {
                let spurious = self.one_in(32);
                self.kernel.start(InFlight::Flow(direction), Kind::PollWritable { spurious });
            }
            Operation::Watch(side) => self.kernel.start(InFlight::Watch(side), Kind::Watch),
            Operation::Finish(side) => self.connections[side as usize].finish(self.now),
            Operation::MeasureBacklog(side) => {
                return Some(Event::Backlog(side, self.connections[side as usize].backlog()));
            }
            Operation::Inspect(side) => {
                self.coverage.inspected += 1;
                return Some(Event::Inspected(side, self.connections[side as usize].signs(self.now)));
            }
            Operation::Reset(side) => self.connections[side as usize].reset(),
            Operation::Cancel(what) => {
                self.coverage.cancelled += 1;
                self.cancel(what);
            }
            Operation::Close(outcome) => {
                for side in SIDES {
                    self.connections[side as usize].close(self.now);
                }
                self.record.closed = true;
                self.judge(outcome);
            }
            Operation::Wait => {}
        }
        None
    }

    fn connect(&mut self) -> Option<Event> {
        let fate = match self.random.u8(0..32) {
            0 => {
                let reason = Refused::ALL[self.random.usize(0..Refused::ALL.len())];
                return Some(Event::Unserved(reason));
            }
            1 => {
                // A place comes free, or a state changes, some time; in between it may be looked for in vain.
                let after = self.random.u64(0..1000);
                self.plan(after, Happening::Retry);
                let limit = if self.one_in(4) { NEVER } else { self.random.u64(0..600) };
                return Some(Event::Queued(limit));
            }
            2..5 => Fate::Fails,
            5..8 => Fate::Hangs,
            _ => Fate::Succeeds,
        };
        self.kernel.start(InFlight::Connect, Kind::Connect(fate));
        None
    }

    /// A splice turn: fills the pipe only when it is empty, so that the source's error or end is met with nothing left to deliver.
    fn turn(&mut self, direction: Direction) -> Event {
        let size = self.conditions.buffer as usize;
        let (bytes, turn) = self.splice(direction);
        match turn {
            SpliceEnd::NoPipe => self.coverage.no_pipe += 1,
            SpliceEnd::SinkFull => self.coverage.sink_full += 1,
            SpliceEnd::SinkBroken => {}
            SpliceEnd::Drained | SpliceEnd::End | SpliceEnd::SourceBroken => {
                self.kernel.pipes[direction as usize] = None
            }
        }
        Event::Moved { direction, bytes: bytes as usize, size, turn }
    }

    fn splice(&mut self, direction: Direction) -> (u64, SpliceEnd) {
        let index = direction as usize;
        if self.kernel.pipes[index].is_none() {
            if self.one_in(self.conditions.pipes_scarce) {
                return (0, SpliceEnd::NoPipe);
            }
            // Positions in the pipe go on where the source's queue stands.
            let start = self.connections[direction.source() as usize].received.left();
            self.kernel.pipes[index] = Some(Queue::new(start, self.conditions.pipe));
        }
        let Some(mut pipe) = self.kernel.pipes[index].take() else { return (0, SpliceEnd::NoPipe) };
        let outcome = self.splice_through(&mut pipe, direction);
        self.kernel.pipes[index] = Some(pipe);
        outcome
    }

    fn splice_through(&mut self, pipe: &mut Queue, direction: Direction) -> (u64, SpliceEnd) {
        let (source, sink) = (direction.source(), direction.sink());
        let mut delivered = 0;
        loop {
            if pipe.is_empty() {
                if delivered >= self.conditions.budget {
                    return (delivered, SpliceEnd::Drained);
                }
                let most = if self.one_in(4) { self.random.u64(1..=pipe.room()) } else { pipe.room() };
                match self.connections[source as usize].receive(most) {
                    Got::Bytes(bytes) => pipe.push(bytes),
                    Got::Nothing => return (delivered, SpliceEnd::Drained),
                    Got::End if self.hides_reset(source) => return (delivered, SpliceEnd::SourceBroken),
                    Got::End => return (delivered, SpliceEnd::End),
                    Got::Error => return (delivered, SpliceEnd::SourceBroken),
                }
            }
            let most = if self.one_in(4) { self.random.u64(1..=pipe.length()) } else { pipe.length() };
            let bytes = pipe.left()..pipe.left() + most;
            match self.connections[sink as usize].send(bytes, self.now) {
                None => return (delivered, SpliceEnd::SinkBroken),
                Some(0) => return (delivered, SpliceEnd::SinkFull),
                Some(taken) => delivered += length(&pipe.take(taken)),
            }
        }
    }
}
