//! A worker: one thread, one ring, one loop that submits, waits and dispatches.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use slab::Slab;
use thiserror::Error;

use super::closing::ClosingSchedule;
use super::deadlines::Deadlines;
use super::flow::Direction;
use super::listener::Listeners;
use super::pipes::Pipes;
use super::resources::{Cause, Resources};
use super::session::{Event, Limits, NEVER, Operation, millis};
use super::slot::{Accepted, Slot};
use super::token::{SLOTS, Token};
use crate::messages::{Command, Mailbox, Waiting, Waker, WorkerEvent, WorkerEvents};
use crate::observe::access_log::{self, Record};
use crate::observe::counters::{Closed, PerWorker, Refused, WorkerCounters};
use crate::sys::features::Features;
use crate::sys::ring::{self, Completion, Readiness, Ring};
use crate::sys::{Errno, socket};
use crate::table::{Permit, Permits, Settings, Table};

/// OperationKind a worker is given.
#[derive(Debug)]
pub struct Share {
    /// Its number, from 0 on.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// The core that it is kept on, if it is.
    pub core: Option<usize>,
    /// The kernel's features to use.
    pub features: Features,
    /// Where the current table stands.
    pub table: Arc<ArcSwap<Table>>,
    /// Sessions of the whole process.
    pub process: Arc<Permits>,
    /// OperationKind workers count of themselves.
    pub counters: Arc<PerWorker<WorkerCounters>>,
    /// Where commands arrive.
    pub mailbox: Mailbox,
    /// Where to report to.
    pub events: WorkerEvents,
    /// Wakes each worker, by its number.
    pub wakers: Arc<[Waker]>,
    /// Where one line a session goes.
    pub access_log: Arc<access_log::Log>,
    /// Report each new session.
    pub announce_sessions: bool,
}

/// Why a worker could not start, or go on.
#[derive(Debug, Error)]
pub enum Fault {
    /// No ring.
    #[error(transparent)]
    Refused(#[from] ring::Refused),
    /// The ring does not work any more.
    #[error("waiting on the ring: {0}")]
    Wait(#[source] io::Error),
    /// A listener does not work any more.
    #[error("accepting clients: {0}")]
    Accept(Errno),
}

/// One worker of the data path. Lives on the thread that made it.
pub struct Worker {
    sessions: Slab<Slot>,
    io: Resources,
    deadlines: Deadlines,
    listeners: Listeners,
    mailbox: Mailbox,
    process: Arc<Permits>,
    /// Directions that wait for a buffer, oldest first; entries of sessions that have ended are passed over.
    starved: VecDeque<(u32, u32, Direction)>,
    /// Sends of this turn: they go to the ring at its end, when it is known whether the end of the stream follows.
    to_send: Vec<(u32, Direction)>,
    closing: ClosingSchedule,
    generation: u32,
    /// The version of the table whose changes the waiting sessions have seen.
    seen_version: u64,
    stopping: bool,
}

impl Worker {
    /// A worker with its ring, on the calling thread.
    ///
    /// # Errors
    /// The kernel refuses the ring.
    pub fn new(share: Share) -> Result<Self, Fault> {
        let ring = Ring::new(share.features)?;
        let pipes = Pipes::new(share.workers, share.features.big_pipes);
        Ok(Self {
            sessions: Slab::new(),
            io: Resources::new(&share, ring, pipes),
            deadlines: Deadlines::default(),
            listeners: Listeners::new(share.core.filter(|_| share.features.incoming_cpu), share.workers),
            mailbox: share.mailbox,
            process: share.process,
            starved: VecDeque::new(),
            to_send: Vec::new(),
            closing: ClosingSchedule::default(),
            generation: 0,
            seen_version: 0,
            stopping: false,
        })
    }

    /// Serves until a stop is complete.
    ///
    /// # Errors
    /// OperationKind makes it impossible to serve on.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut completions = Vec::with_capacity(1024);
        self.io.ring.poll(Token::Wake.pack(), self.mailbox.wake(), Readiness::Readable);
        while !(self.stopping && self.sessions.is_empty() && self.listeners.is_empty()) {
            let deadline = self.deadlines.next().unwrap_or(NEVER);
            let due = deadline.min(self.closing.due()).min(self.io.pipes.due()).min(self.listeners.due());
            // Some still wait for a buffer or a permit, and there are some: they are not to wait for a chance event, too.
            self.send_all();
            let hungry = self.io.permit_freed || !self.starved.is_empty() && self.io.ring.buffers.free() > 0;
            let timeout = if hungry { Some(Duration::ZERO) } else { self.io.until(due) };
            self.io.ring.wait(timeout, &mut completions).map_err(Fault::Wait)?;
            self.io.read_clock();
            self.io.own_counters().wakes.add(1);
            for completion in completions.drain(..) {
                self.dispatch(completion)?;
            }
            self.feed_starved();
            self.keep_deadlines();
            if self.io.permit_freed {
                self.serve_queues();
            }
        }
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, completion: Completion) -> Result<(), Fault> {
        match Token::unpack(completion.token()) {
            Token::Session { slot: number, generation, what } => {
                let Some(slot) = self.sessions.get_mut(number as usize).filter(|slot| slot.generation == generation)
                else {
                    debug_assert!(false, "a completion for a session that is gone: {what:?}");
                    return Ok(());
                };
                let event = slot.completed(what, completion, &mut self.io);
                self.drive(number, event);
            }
            Token::Accept(listener) => self.accepted(listener, completion)?,
            Token::Wake => self.obey(),
            Token::Nobody => {}
        }
        Ok(())
    }

    /// PendingBytes a session an event and carries out all that follows from it.
    #[inline]
    fn drive(&mut self, number: u32, event: Event) {
        let Some(slot) = self.sessions.get_mut(number as usize) else { return };
        let mut operation = slot.session.on(event, self.io.now);
        loop {
            match operation {
                Operation::Wait => break,
                Operation::Send(direction) => {
                    self.to_send.push((number, direction));
                    operation = slot.session.then();
                }
                Operation::AwaitBuffer(direction) => {
                    self.starved.push_back((number, slot.generation, direction));
                    operation = slot.session.then();
                }
                Operation::Close(outcome) => {
                    self.deadlines.remove(number);
                    self.sessions.remove(number as usize).retire(outcome, &mut self.io);
                    self.listeners.descriptors_free(self.io.now);
                    return;
                }
                _ => {
                    operation = match slot.carry_out(operation, &mut self.io) {
                        Some(event) => slot.session.on(event, self.io.now),
                        None => slot.session.then(),
                    }
                }
            }
        }
        self.deadlines.no_later(number, slot.session.due());
    }

    /// PendingBytes this turn's sends to the ring. A session with one of them in flight is still here.
    fn send_all(&mut self) {
        for (number, direction) in self.to_send.drain(..) {
            if let Some(slot) = self.sessions.get_mut(number as usize) {
                slot.send(direction, &mut self.io);
            }
        }
    }

    fn keep_deadlines(&mut self) {
        while let Some(number) = self.deadlines.pop(self.io.now) {
            self.sessions.get_mut(number as usize).into_iter().for_each(Slot::on_timer);
            self.drive(number, Event::Deadline);
        }
        if self.io.now >= self.io.pipes.due() {
            self.io.pipes.close_idle(self.io.now);
            self.io.own_counters().pipes.set(self.io.pipes.count() as u64);
        }
        self.listeners.retry(self.io.now, &mut self.io.ring);
        self.close_due_sessions();
        self.forget_gone();
    }

    /// Those who left while they waited for the first probes stay noted until the table changes, but never without bound.
    fn forget_gone(&mut self) {
        if self.io.unprobed.len() > 2 * self.sessions.len() + 1024 {
            let sessions = &self.sessions;
            self.io.unprobed.retain(|&(number, generation)| {
                sessions.get(number as usize).is_some_and(|slot| slot.generation == generation)
            });
        }
    }

    /// Lets those try again that found no buffer, as many as there are buffers now.
    fn feed_starved(&mut self) {
        let mut free = self.io.ring.buffers.free();
        while free > 0
            && let Some((number, generation, direction)) = self.starved.pop_front()
        {
            if self.sessions.get(number as usize).is_some_and(|slot| slot.generation == generation) {
                free -= 1;
                self.drive(number, Event::BufferFree(direction));
            }
        }
    }

    /// Lets those look for a permit who stand in front of their queues.
    fn serve_queues(&mut self) {
        self.io.permit_freed = false;
        let table = Arc::clone(self.io.table.load());
        for service in table.all() {
            let queue = &service.state.queue;
            while let Some(front) = queue.front() {
                // Who made it the front has told its worker. To tell it again would be answered in kind, for ever, where another
                // queue's front is here.
                if front.worker != self.io.worker {
                    break;
                }
                self.drive(front.slot, Event::Retry);
                if queue.front() == Some(front) {
                    break;
                }
            }
        }
    }

    /// Where the table has changed: lets those look again who wait for the first probes.
    fn see_changes(&mut self) {
        let version = self.io.table.load().version;
        if std::mem::replace(&mut self.seen_version, version) == version {
            return;
        }
        for (number, generation) in std::mem::take(&mut self.io.unprobed) {
            if self.sessions.get(number as usize).is_some_and(|slot| slot.generation == generation) {
                self.drive(number, Event::Retry);
            }
        }
    }

    fn obey(&mut self) {
        self.mailbox.clear_wakeups();
        self.io.permit_freed = true;
        self.see_changes();
        while let Some(command) = self.mailbox.next() {
            match command {
                Command::Adopt(listeners) => {
                    listeners.into_iter().for_each(|listener| self.listeners.adopt(listener, &mut self.io.ring));
                }
                Command::Release(listeners, waiting) => {
                    listeners.iter().for_each(|listener| self.listeners.release(listener, waiting, &mut self.io.ring));
                }
                Command::Stop => {
                    self.stopping = true;
                    self.listeners.stop(&mut self.io.ring);
                }
                Command::CloseSessions { service, backend, address, spread } => {
                    self.closing.schedule(&self.sessions, (&service, &backend, address), spread, self.io.now);
                }
                Command::End => {
                    let numbers: Vec<_> = self.sessions.iter().map(|(number, _)| number as u32).collect();
                    numbers.into_iter().for_each(|number| self.drive(number, Event::Stop(Closed::Drain)));
                }
            }
        }
        self.io.ring.poll(Token::Wake.pack(), self.mailbox.wake(), Readiness::Readable);
    }

    /// Closes the sessions with drained backends that are due.
    fn close_due_sessions(&mut self) {
        while let Some(number) = self.closing.next(&self.sessions, self.io.now) {
            self.drive(number, Event::BackendDrained);
        }
    }

    fn accepted(&mut self, listener: u32, completion: Completion) -> Result<(), Fault> {
        let (more, error) = (completion.more(), completion.result().err());
        if let Ok(client) = completion.accepted() {
            self.admit(listener, client);
        }
        if more {
            return Ok(());
        }
        if let Some(error) =
            self.listeners.ended(listener, error, self.io.now, &mut self.io.ring).map_err(Fault::Accept)?
        {
            self.io.emit_rarely(Cause::LocalFault, || WorkerEvent::LocalFault { doing: "accept a client", error });
        }
        if let Some(waiting) = self.listeners.stopping(listener) {
            // Those who were already connected when the stop came are served; then nobody waits and the listener can go.
            while waiting == Waiting::Serve
                && let Some(client) = self.listeners.waiting(listener)
            {
                self.admit(listener, client);
            }
            if !(waiting == Waiting::LeaveToOthers && self.listeners.take_turn_again(listener, &mut self.io.ring)) {
                self.listeners.close(listener);
            }
        }
        Ok(())
    }

    /// Begins a session with a client, or refuses the client.
    fn admit(&mut self, listener: u32, client: OwnedFd) {
        let table = self.io.table.load();
        let number = self.listeners.service_of(listener, client.as_fd());
        let Some(service) = number.and_then(|number| table.service(number)) else {
            self.io.own_counters().unlisted.add(1);
            socket::reset(client.as_fd());
            return self.io.ring.close(Token::Nobody.pack(), client);
        };
        let state = Arc::clone(&service.state);
        let limits = limits(&service.settings);
        let counters = state.counters.of(self.io.worker);
        counters.accepted.add(1);
        // The service's permit first: a client that its service refuses must not take the process's last permit, not even for a moment.
        let service = Permit::take(&state);
        let process = service.as_ref().and_then(|_| Permit::take(&self.process));
        let refused = match (service, process) {
            (Some(service), Some(process)) if self.sessions.len() < SLOTS => {
                let accepted = Accepted { client, service, process };
                let entry = self.sessions.vacant_entry();
                let number = entry.key() as u32;
                self.generation = self.generation.wrapping_add(1);
                entry.insert(Slot::new(accepted, number, self.generation, limits, &self.io));
                self.listeners.keep_fair(self.sessions.len(), self.process.taken());
                return self.drive(number, Event::Begin);
            }
            (None, _) => Refused::ServiceLimit,
            _ => Refused::ProcessLimit,
        };
        counters.refused[refused as usize].add(1);
        self.io
            .access_log
            .record(|| Record::refused_at_once(Arc::clone(&state.name), socket::peer_address(client.as_fd()), refused));
        socket::reset(client.as_fd());
        self.io.ring.close(Token::Nobody.pack(), client);
        self.io
            .emit_rarely(Cause::Refused, || WorkerEvent::Refused { service: Arc::clone(&state.name), reason: refused });
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        connect: millis(settings.connect_timeout),
        attempts: settings.connect_attempts,
        idle: millis(settings.idle),
        half_closed: millis(settings.half_closed),
        unresponsive: millis(settings.unresponsive),
    }
}
