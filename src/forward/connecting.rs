//! Finding a backend for a session: the pick, the wait for a permit, the connect and what came of it.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::resources::{Cause, Resources};
use super::session::{Event, NEVER, millis};
use super::slot::Slot;
use super::token::{OperationKind, Token};
use crate::messages::WorkerEvent;
use crate::observe::counters::Refused;
use crate::sys::ring::Completion;
use crate::sys::{Errno, shortage, socket};
use crate::table::{Backend, Permit, Ticket, Unpicked};

impl Slot {
    /// Picks a backend and connects to it, or says at once why there is none.
    pub(super) fn connect(&mut self, io: &mut Resources) -> Option<Event> {
        let backend = match self.choose(io) {
            Ok(backend) => backend,
            Err(event) => return Some(event),
        };
        let address = backend.address;
        self.owes_acknowledgement = self.service.first_speaker.by_client();
        let socket = match socket::for_backend(address, self.owes_acknowledgement) {
            Ok(socket) => socket,
            Err(error) => {
                io.emit_rarely(Cause::LocalFault, || WorkerEvent::LocalFault {
                    doing: "open a socket for a backend",
                    error,
                });
                // This kernel may not have the backend's kind of address (IPv6 switched off): another backend may have another.
                self.tried.push(Arc::clone(backend.owner()));
                // The permit goes back, and who waits for it is told.
                drop(backend);
                io.wake_front(&self.service.queue);
                return Some(if shortage::is_local(error) {
                    Event::Unserved(Refused::Descriptors)
                } else {
                    Event::ConnectFailed
                });
            }
        };
        let token = self.token(OperationKind::Connect);
        io.ring.connect(token, socket.as_fd(), address);
        self.connecting_since = io.micros;
        self.backend = Some(backend);
        self.backend_socket = Some(socket);
        None
    }

    /// The connect is over.
    pub(super) fn connected(&mut self, completion: Completion, io: &mut Resources) -> Event {
        let Some(backend) = &self.backend else { return Event::ConnectFailed };
        let counters = backend.counters.of(io.worker);
        match completion.result() {
            Ok(_) => {
                counters.sessions.add(1);
                self.connect_micros = Some(io.micros - self.connecting_since);
                counters.connect_time.record(io.micros - self.connecting_since);
                if io.announce_sessions {
                    io.emit(WorkerEvent::Opened {
                        client: socket::peer_address(self.client.as_fd()),
                        service: Arc::clone(&self.service.name),
                        backend: Arc::clone(&backend.name),
                    });
                }
                backend.succeeded();
                self.tried = Vec::new();
                return Event::Connected;
            }
            Err(error) => {
                self.local_fault = shortage::is_local(error);
                if self.local_fault {
                    io.emit_rarely(Cause::LocalFault, || WorkerEvent::LocalFault {
                        doing: "connect to a backend",
                        error,
                    });
                } else if error != Errno::CANCELED || self.session.connect_timed_out() {
                    counters.connect_failures.add(1);
                    if let Some(failures) = backend.failed() {
                        io.emit(WorkerEvent::Failing {
                            service: Arc::clone(&self.service.name),
                            backend: Arc::clone(&backend.name),
                            address: backend.address,
                            failures,
                            error,
                        });
                    }
                    io.emit_rarely(Cause::ConnectFailed, || WorkerEvent::ConnectFailed {
                        service: Arc::clone(&self.service.name),
                        backend: Arc::clone(&backend.name),
                        address: backend.address,
                        error,
                    });
                }
            }
        }
        self.tried.push(Arc::clone(backend.owner()));
        self.leave_backend(io);
        Event::ConnectFailed
    }

    /// A place in a backend; else what the session is told instead.
    fn choose(&mut self, io: &mut Resources) -> Result<Permit<Backend>, Event> {
        let ticket = self.ticket(io);
        // Those who came before are served first.
        if self.service.queue.front().is_some_and(|front| front != ticket) {
            return self.stand_in_queue(ticket, io);
        }
        match self.pick(io) {
            Ok(backend) => {
                self.leave_queue(io);
                self.tell_of_backup(&backend, io);
                Ok(backend)
            }
            Err(Unpicked::Full) => self.stand_in_queue(ticket, io),
            Err(Unpicked::Starting) => {
                self.leave_queue(io);
                io.unprobed.push((self.number, self.generation));
                Err(Event::Queued(NEVER))
            }
            Err(Unpicked::Down) => Err(Event::Unserved(Refused::NoBackend)),
            Err(Unpicked::Exhausted) => Err(Event::Unserved(Refused::ConnectFailed)),
        }
    }

    fn stand_in_queue(&mut self, ticket: Ticket, io: &mut Resources) -> Result<Permit<Backend>, Event> {
        if !self.in_queue {
            if !self.service.queue.join(ticket, &self.tried) {
                return Err(Event::Unserved(Refused::BackendLimit));
            }
            self.in_queue = true;
            // A place given back between the pick and the queue was told to nobody.
            if self.service.queue.front() == Some(ticket)
                && let Ok(backend) = self.pick(io)
            {
                self.leave_queue(io);
                return Ok(backend);
            }
        }
        self.let_pass(io);
        let patience =
            io.table.load().service(self.service.number).map_or(0, |service| millis(service.settings.queue_timeout));
        Err(Event::Queued(patience))
    }

    /// Tells the control plane, now and then, that backups serve.
    fn tell_of_backup(&self, backend: &Permit<Backend>, io: &mut Resources) {
        let service = io.table.load().service(self.service.number);
        let backups = service.map_or(&[][..], |service| &service.backups);
        if backups.iter().any(|backup| Arc::ptr_eq(backup, backend.owner())) {
            let (service, backend) = (&self.service.name, &backend.name);
            io.emit_rarely(Cause::Backup, || WorkerEvent::Backup {
                service: Arc::clone(service),
                backend: Arc::clone(backend),
            });
        }
    }

    /// Whom a backend has failed does not hold up those who could have a permit there; who passes him is told.
    fn let_pass(&self, io: &mut Resources) {
        let queue = &self.service.queue;
        let service = io.table.load().service(self.service.number).cloned();
        if service.is_some_and(|service| queue.let_pass(|backend| service.has_permit(backend))) {
            io.wake_front(queue);
        }
    }

    /// Waits no more, served or not; who is in front now is told.
    pub(super) fn leave_queue(&mut self, io: &mut Resources) {
        if std::mem::take(&mut self.in_queue) && self.service.queue.leave(self.ticket(io)) {
            io.wake_front(&self.service.queue);
        }
    }

    /// Gives the backend's place and socket back; who waits for a permit is told.
    pub(super) fn leave_backend(&mut self, io: &mut Resources) {
        if let Some(socket) = self.backend_socket.take() {
            io.ring.close(Token::Nobody.pack(), socket);
        }
        if self.backend.take().is_some() {
            io.wake_front(&self.service.queue);
        }
    }

    fn pick(&self, io: &mut Resources) -> Result<Permit<Backend>, Unpicked> {
        loop {
            let service = io.table.load().service(self.service.number).ok_or(Unpicked::Down)?;
            let client = service.needs_client().then(|| socket::peer_address(self.client.as_fd())).flatten();
            // Otherwise another table was published since this one was loaded.
            if let Some(outcome) = service.pick(&self.tried, client.map(|address| address.ip())) {
                return outcome;
            }
        }
    }

    fn ticket(&self, io: &Resources) -> Ticket {
        Ticket { worker: io.worker, slot: self.number, generation: self.generation }
    }
}
