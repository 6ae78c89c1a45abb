//! A session's place in the worker: its descriptors, what it holds, its permits; and how its operations are carried out.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use super::flow::{Direction, SpliceEnd};
use super::pending::{Pending, PendingBytes};
use super::resources::{Cause, Resources};
use super::session::{Event, InFlight, Limits, Operation, Outcome, Session, Side};
use super::splice;
use super::token::{OperationKind, Token};
use crate::messages::WorkerEvent;
use crate::observe::access_log::Record;
use crate::observe::counters::{BackendCounters, Refused};
use crate::sys::buffers::BUFFER_SIZE;
use crate::sys::ring::{Completion, Readiness};
use crate::sys::{Errno, socket};
use crate::table::{Backend, Permit, Permits, ServiceState};

/// A session and all that belongs to it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) session: Session,
    pub(super) number: u32,
    pub(super) generation: u32,
    pub(super) client: OwnedFd,
    pub(super) backend_socket: Option<OwnedFd>,
    pending: PendingBytes,
    /// OperationKind is in flight for each direction, receives aside.
    in_flight: [OperationKind; 2],
    pub(super) service: Permit<ServiceState>,
    pub(super) backend: Option<Permit<Backend>>,
    /// Backends that have failed this client.
    pub(super) tried: Vec<Arc<Backend>>,
    /// It waits for a permit in a backend.
    pub(super) in_queue: bool,
    /// Nobody has said anything yet.
    no_bytes_yet: bool,
    /// The backend's acceptance is not acknowledged yet: the first bytes of the client are to do that.
    pub(super) owes_acknowledgement: bool,
    /// The last failure was this machine's own.
    pub(super) local_fault: bool,
    begun: u64,
    /// How long the connect took that succeeded.
    pub(super) connect_micros: Option<u64>,
    /// Bytes that reached the sink, of each direction.
    bytes: [u64; 2],
    /// For the access log; none where there was none at the beginning.
    address: Option<Box<SocketAddr>>,
    pub(super) connecting_since: u64,
    _process: Permit<Permits>,
}

/// Who is accepted, and for whom.
pub(super) struct Accepted {
    pub(super) client: OwnedFd,
    pub(super) service: Permit<ServiceState>,
    pub(super) process: Permit<Permits>,
}

impl Slot {
    pub(super) fn new(accepted: Accepted, number: u32, generation: u32, limits: Limits, io: &Resources) -> Self {
        let client = accepted.client;
        Self {
            session: Session::new(limits, io.now),
            number,
            generation,
            backend_socket: None,
            pending: PendingBytes::empty(),
            in_flight: Direction::BOTH.map(OperationKind::Send),
            service: accepted.service,
            backend: None,
            tried: Vec::new(),
            in_queue: false,
            no_bytes_yet: true,
            owes_acknowledgement: false,
            local_fault: false,
            begun: io.micros,
            connect_micros: None,
            bytes: [0; 2],
            address: io.access_log.is_on().then(|| socket::peer_address(client.as_fd()).map(Box::new)).flatten(),
            client,
            connecting_since: io.micros,
            _process: accepted.process,
        }
    }

    /// Carries an operation out. OperationKind is answered at once comes back as an event; everything else completes through the ring.
    #[inline]
    pub(super) fn carry_out(&mut self, operation: Operation, io: &mut Resources) -> Option<Event> {
        match operation {
            Operation::Receive { direction, empty } => {
                let token = self.token(OperationKind::Receive(direction));
                io.ring.receive(token, self.socket(direction.source())?, empty);
            }
            Operation::Park(direction) => self.park(direction, io),
            Operation::Move(direction) => return Some(self.turn(direction, io)),
            Operation::PollReadable(direction) => {
                let token = self.mark_in_flight(OperationKind::Poll(direction));
                io.ring.poll(token, self.socket(direction.source())?, Readiness::Readable);
            }
            Operation::PollWritable(direction) => {
                let token = self.mark_in_flight(OperationKind::Poll(direction));
                io.ring.poll(token, self.socket(direction.sink())?, Readiness::Writable);
            }
            Operation::Watch(side) => {
                let token = self.token(OperationKind::Watch(side));
                io.ring.poll(token, self.socket(side)?, Readiness::Broken);
            }
            Operation::Connect => return self.connect(io),
            Operation::Finish(side) => {
                // A side that is gone cannot be told; its watch or its receive says so.
                let _ = socket::finish(self.socket(side)?);
            }
            Operation::Reset(side) => socket::reset(self.socket(side)?),
            Operation::Discard(direction) => self.pending.release_all(direction, io),
            Operation::DiscardLast(direction) => self.pending.release_last(direction, io),
            Operation::MeasureBacklog(side) => {
                if self.session.passes_on() {
                    socket::push(self.socket(side)?);
                }
                return Some(Event::Backlog(side, socket::unacknowledged(self.socket(side)?)));
            }
            Operation::Inspect(side) => return Some(Event::Inspected(side, socket::tcp_liveness(self.socket(side)?))),
            Operation::Cancel(what) => {
                let what = match what {
                    InFlight::Connect => OperationKind::Connect,
                    InFlight::Receive(direction) => OperationKind::Receive(direction),
                    InFlight::Flow(direction) => self.in_flight[direction as usize],
                    InFlight::Watch(side) => OperationKind::Watch(side),
                };
                io.ring.cancel(Token::Nobody.pack(), self.token(what));
            }
            Operation::Send(_) | Operation::AwaitBuffer(_) | Operation::Wait | Operation::Close(_) => {}
        }
        None
    }

    /// Sends what a direction holds.
    pub(super) fn send(&mut self, direction: Direction, io: &mut Resources) {
        if matches!(self.pending.front(direction), Pending::Parked(_)) {
            return self.park(direction, io);
        }
        let token = self.mark_in_flight(OperationKind::Send(direction));
        let more = self.session.ends_behind(direction);
        let pending = self.pending.front(direction);
        if let (Pending::Buffer { buffer, from, length }, Some(socket)) = (pending, self.socket(direction.sink())) {
            io.ring.send(token, socket, buffer, *from..*from + *length, more);
        }
    }

    /// Turns a completion into the event that the session understands.
    #[inline]
    pub(super) fn completed(&mut self, what: OperationKind, completion: Completion, io: &mut Resources) -> Event {
        match what {
            OperationKind::Receive(direction) => self.received(direction, completion, io),
            OperationKind::Send(direction) => self.sent(direction, completion, io),
            OperationKind::SendParked(direction) => {
                let sent = match completion.result() {
                    Ok(sent) => sent as usize,
                    Err(error) if passes(error) => 0,
                    Err(_) => return self.sink_broken(direction, io),
                };
                let left = match self.pending.front(direction) {
                    Pending::Parked(parking) => io.ring.unpark(*parking, sent, false),
                    _ => 0,
                };
                if left == 0 {
                    self.pending.advance(direction);
                }
                self.count(direction, sent, io);
                Event::Sent { direction, bytes: sent, left_over: left > 0 }
            }
            OperationKind::Poll(direction) => Event::Ready(direction),
            OperationKind::Watch(side) => match completion.result() {
                Ok(events) if events & libc::POLLERR as u32 != 0 => Event::Watched(side),
                _ => Event::Unwatched(side),
            },
            OperationKind::Connect => self.connected(completion, io),
        }
    }

    /// The session is over: counts it and gives back all that it held.
    pub(super) fn retire(mut self, outcome: Outcome, io: &mut Resources) {
        Direction::BOTH.into_iter().for_each(|direction| self.pending.release_all(direction, io));
        self.leave_queue(io);
        let counters = self.service.counters.of(io.worker);
        let outcome = match outcome {
            Outcome::Refused(Refused::ConnectFailed) if self.local_fault => Outcome::Refused(Refused::Descriptors),
            told => told,
        };
        match outcome {
            Outcome::Closed(reason) => {
                counters.closed[reason as usize].add(1);
                counters.duration.record(io.micros - self.begun);
            }
            Outcome::Refused(reason) => {
                counters.refused[reason as usize].add(1);
                let service = &self.service.name;
                io.emit_rarely(Cause::Refused, || WorkerEvent::Refused { service: Arc::clone(service), reason });
            }
        }
        self.record(outcome, io);
        self.leave_backend(io);
        io.ring.close(Token::Nobody.pack(), self.client);
    }

    /// The session's line in the access log, where there is one.
    fn record(&self, end: Outcome, io: &Resources) {
        io.access_log.record(|| Record {
            at: SystemTime::now(),
            service: Arc::clone(&self.service.name),
            client: self.address.as_deref().copied(),
            backend: self
                .backend
                .as_ref()
                .map(Permit::owner)
                .or_else(|| self.tried.last())
                .map(|backend| Arc::clone(&backend.name)),
            connect_micros: self.connect_micros,
            duration_micros: io.micros - self.begun,
            bytes_in: self.bytes[Direction::In as usize],
            bytes_out: self.bytes[Direction::Out as usize],
            end,
        });
    }

    fn socket(&self, side: Side) -> Option<BorrowedFd<'_>> {
        match side {
            Side::Client => Some(self.client.as_fd()),
            Side::Backend => self.backend_socket.as_ref().map(AsFd::as_fd),
        }
    }

    pub(super) fn token(&self, what: OperationKind) -> u64 {
        Token::Session { slot: self.number, generation: self.generation, what }.pack()
    }

    fn mark_in_flight(&mut self, what: OperationKind) -> u64 {
        if let OperationKind::Send(direction) | OperationKind::SendParked(direction) | OperationKind::Poll(direction) =
            what
        {
            self.in_flight[direction as usize] = what;
        }
        self.token(what)
    }

    fn received(&mut self, direction: Direction, completion: Completion, io: &mut Resources) -> Event {
        let Some(socket) = self.socket(direction.source()) else {
            return Event::End(direction);
        };
        match io.ring.received(&completion, socket) {
            Ok(Some((buffer, length))) => {
                if std::mem::take(&mut self.no_bytes_yet) {
                    self.service.first_speaker.seen(direction == Direction::In);
                }
                self.pending.receive(direction, buffer, length, io);
                let (more, goes_on) = (completion.nonempty(), completion.more());
                Event::Received { direction, length, size: BUFFER_SIZE, more, goes_on }
            }
            Ok(None) if self.hides_reset(direction, socket) => {
                Event::Broken { side: direction.source(), during: direction }
            }
            Ok(None) => Event::End(direction),
            Err(Errno::NOBUFS) => {
                io.own_counters().buffers_refused.add(1);
                Event::NoBuffer(direction)
            }
            Err(error) if passes(error) => Event::Again(direction),
            Err(_) => Event::Broken { side: direction.source(), during: direction },
        }
    }

    /// Has the backend's socket acknowledge at once from now on, as the kernel would have by itself.
    fn acknowledge(&mut self) {
        self.owes_acknowledgement = false;
        self.backend_socket.iter().for_each(|socket| socket::acknowledge(socket.as_fd()));
    }

    /// Some time has passed: a client that says nothing does not keep the backend waiting.
    pub(super) fn on_timer(&mut self) {
        if self.owes_acknowledgement {
            self.acknowledge();
            if self.no_bytes_yet && self.connect_micros.is_some() {
                self.service.first_speaker.seen(false);
            }
        }
    }

    /// OperationKind looks like the end of a stream is a reset, whose error a send to the same socket took away. The completion of that send
    /// still queues: a direct call overtakes it.
    fn hides_reset(&self, direction: Direction, source: BorrowedFd<'_>) -> bool {
        let pending = self.pending.front(Direction::from(direction.sink()));
        matches!(pending, Pending::Buffer { .. } | Pending::Parked(_)) && socket::is_closed(source)
    }

    fn sent(&mut self, direction: Direction, completion: Completion, io: &mut Resources) -> Event {
        let sent = match completion.result() {
            Ok(sent) => sent as usize,
            Err(error) if passes(error) => 0,
            Err(_) => return self.sink_broken(direction, io),
        };
        self.count(direction, sent, io);
        if self.owes_acknowledgement && direction == Direction::Out && !self.session.ends_behind(direction) {
            self.acknowledge();
        }
        let mut left_over = false;
        match self.pending.take(direction) {
            Pending::Buffer { buffer, from, length } if sent < length => {
                self.pending.put(direction, Pending::Buffer { buffer, from: from + sent, length: length - sent });
                left_over = true;
            }
            Pending::Buffer { buffer, .. } => {
                io.ring.buffers.release(buffer);
                self.pending.advance(direction);
            }
            other => self.pending.put(direction, other),
        }
        Event::Sent { direction, bytes: sent, left_over }
    }

    /// Nobody will get what a direction holds: others need the buffers.
    fn sink_broken(&mut self, direction: Direction, io: &mut Resources) -> Event {
        self.pending.release_all(direction, io);
        Event::Broken { side: direction.sink(), during: direction }
    }

    fn park(&mut self, direction: Direction, io: &mut Resources) {
        let token = self.mark_in_flight(OperationKind::SendParked(direction));
        self.pending.park(direction, io);
        if let (Pending::Parked(parking), Some(socket)) = (self.pending.front(direction), self.socket(direction.sink()))
        {
            io.ring.send_parked(token, socket, *parking);
        }
    }

    fn turn(&mut self, direction: Direction, io: &mut Resources) -> Event {
        let pipe = match self.pending.take(direction) {
            Pending::Pipe(pipe) => Some(pipe),
            _ => io.pipes.lend(io.now),
        };
        let sockets = self.socket(direction.source()).zip(self.socket(direction.sink()));
        let (Some(mut pipe), Some((source, sink))) = (pipe, sockets) else {
            io.own_counters().pipes_refused.add(1);
            io.emit_rarely(Cause::NoPipe, || WorkerEvent::NoPipe);
            return Event::Moved { direction, bytes: 0, size: BUFFER_SIZE, turn: SpliceEnd::NoPipe };
        };
        let (bytes, mut turn) = splice::turn(source, &mut pipe, sink);
        if turn == SpliceEnd::End && self.hides_reset(direction, source) {
            turn = SpliceEnd::SourceBroken;
        }
        if pipe.filled() == 0 {
            io.pipes.give_back(pipe);
        } else {
            self.pending.put(direction, Pending::Pipe(pipe));
        }
        io.own_counters().pipes.set(io.pipes.count() as u64);
        self.count(direction, bytes, io);
        Event::Moved { direction, bytes, size: BUFFER_SIZE, turn }
    }

    #[inline]
    fn count(&mut self, direction: Direction, bytes: usize, io: &Resources) {
        self.bytes[direction as usize] += bytes as u64;
        if let Some(backend) = &self.backend {
            let counters: &BackendCounters = backend.counters.of(io.worker);
            match direction {
                Direction::In => counters.bytes_in.add(bytes as u64),
                Direction::Out => counters.bytes_out.add(bytes as u64),
            }
        }
    }
}

/// An error that says "not now": nothing is wrong with the connection.
fn passes(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR | Errno::CANCELED | Errno::NOBUFS | Errno::NOMEM)
}
