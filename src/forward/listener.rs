//! A worker's listeners: accepting is always armed, except while descriptors are short.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::session::{Millis, NEVER};
use super::token::Token;
use crate::messages::{Listener, Waiting};
use crate::sys::ring::Ring;
use crate::sys::{Errno, socket};

/// When descriptors are short, accepting is tried again so often, and whenever a session has given its own back.
const RETRY: Millis = 250;
/// For this long after descriptors were short, clients are accepted one by one, so that each finds a descriptor for its backend, too.
const CAREFUL: Millis = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Accepting,
    /// Descriptors are short.
    Paused {
        until: Millis,
    },
    /// It is let go as soon as its accept has ended.
    Stopping(Waiting),
}

/// All listeners of one worker, by number.
#[derive(Debug)]
pub(super) struct Listeners {
    all: Vec<Option<(Arc<Listener>, State)>>,
    careful_until: Millis,
    /// The core whose connections this worker is to get.
    core: Option<u32>,
    workers: usize,
    /// This worker has more than its share of all sessions: for now the kernel's hash decides who gets its core's connections.
    crowded: bool,
}

impl Listeners {
    /// None yet, for one of so many workers, kept on a core or not.
    pub(super) fn new(core: Option<usize>, workers: usize) -> Self {
        let core = core.and_then(|core| u32::try_from(core).ok());
        Self { all: Vec::new(), careful_until: 0, core, workers, crowded: false }
    }

    /// A session has begun, and this worker has `own` of `all` now. Connections stay on the core that receives them, but where one
    /// core receives most of them, its worker is not to serve them alone.
    pub(super) fn keep_fair(&mut self, own: usize, all: u32) {
        let fair = all as usize / self.workers;
        let more = if self.crowded { 1 } else { fair / 4 + 4 };
        let crowded = own > fair + more;
        if crowded != self.crowded && self.core.is_some() {
            self.crowded = crowded;
            self.all.iter().flatten().for_each(|(listener, _)| self.prefer_core(listener));
        }
    }

    fn prefer_core(&self, listener: &Listener) {
        socket::prefer_core(listener.socket.as_fd(), self.core.filter(|_| !self.crowded));
    }

    /// None is open.
    pub(super) fn is_empty(&self) -> bool {
        self.all.iter().all(Option::is_none)
    }

    /// Accepts clients on one more.
    pub(super) fn adopt(&mut self, listener: Arc<Listener>, ring: &mut Ring) {
        // A number is free again once the last accept of its listener has completed.
        let number = self.all.iter().position(Option::is_none).unwrap_or(self.all.len());
        self.prefer_core(&listener);
        ring.accept(Token::Accept(number as u32).pack(), listener.socket.as_fd(), true);
        let entry = Some((listener, State::Accepting));
        match self.all.get_mut(number) {
            Some(free) => *free = entry,
            None => self.all.push(entry),
        }
    }

    /// The number of the service that a client of a listener is for.
    pub(super) fn service_of(&self, number: u32, client: BorrowedFd<'_>) -> Option<usize> {
        let (listener, _) = self.all.get(number as usize)?.as_ref()?;
        listener.service_of(client)
    }

    /// An accept has ended: arms the next one, later if descriptors are short. Answers what was short.
    ///
    /// # Errors
    /// The listener is of no use any more.
    pub(super) fn ended(
        &mut self,
        number: u32,
        error: Option<Errno>,
        now: Millis,
        ring: &mut Ring,
    ) -> Result<Option<Errno>, Errno> {
        let Some(Some((listener, state))) = self.all.get_mut(number as usize) else { return Ok(None) };
        if matches!(state, State::Stopping(_)) {
            return Ok(None);
        }
        match error {
            Some(short @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                *state = State::Paused { until: now + RETRY };
                self.careful_until = now + CAREFUL;
                return Ok(Some(short));
            }
            Some(unusable @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)) => return Err(unusable),
            // Everything else concerns the connection that could not be accepted: accept(2).
            _ => ring.accept(Token::Accept(number).pack(), listener.socket.as_fd(), now >= self.careful_until),
        }
        Ok(None)
    }

    /// When [`Listeners::retry`] has something to do.
    pub(super) fn due(&self) -> Millis {
        let until = |entry: &Option<(Arc<Listener>, State)>| match entry {
            Some((_, State::Paused { until })) => *until,
            _ => NEVER,
        };
        self.all.iter().map(until).min().unwrap_or(NEVER)
    }

    /// A session has given its descriptors back: where they were short, accepting is due now.
    pub(super) fn descriptors_free(&mut self, now: Millis) {
        if now < self.careful_until {
            for (_, state) in self.all.iter_mut().flatten() {
                if let State::Paused { until } = state {
                    *until = now;
                }
            }
        }
    }

    /// Accepts again where descriptors were short.
    pub(super) fn retry(&mut self, now: Millis, ring: &mut Ring) {
        for (number, entry) in self.all.iter_mut().enumerate() {
            if let Some((listener, state @ State::Paused { .. })) = entry
                && matches!(state, State::Paused { until } if *until <= now)
            {
                *state = State::Accepting;
                ring.accept(Token::Accept(number as u32).pack(), listener.socket.as_fd(), false);
            }
        }
    }

    /// Accepts no more. Each listener ends with a completion of its accept.
    pub(super) fn stop(&mut self, ring: &mut Ring) {
        (0..self.all.len()).for_each(|number| self.end(number, Waiting::Serve, ring));
    }

    /// Accepts no more on one of them; it ends as in [`Listeners::stop`].
    pub(super) fn release(&mut self, listener: &Arc<Listener>, waiting: Waiting, ring: &mut Ring) {
        let is_it =
            |entry: &Option<(Arc<Listener>, State)>| matches!(entry, Some((it, _)) if Arc::ptr_eq(it, listener));
        if let Some(number) = self.all.iter().position(is_it) {
            self.end(number, waiting, ring);
        }
    }

    fn end(&mut self, number: usize, waiting: Waiting, ring: &mut Ring) {
        let Some(entry) = self.all.get_mut(number) else { return };
        match entry {
            Some((_, state @ State::Accepting)) => {
                *state = State::Stopping(waiting);
                ring.cancel(Token::Nobody.pack(), Token::Accept(number as u32).pack());
            }
            Some((_, State::Paused { .. })) => *entry = None,
            _ => {}
        }
    }

    /// Where the listener accepts no more, and its last accept has completed: what becomes of those who wait.
    pub(super) fn stopping(&self, number: u32) -> Option<Waiting> {
        match self.all.get(number as usize) {
            Some(Some((_, State::Stopping(waiting)))) => Some(*waiting),
            _ => None,
        }
    }

    /// Where somebody waits on a listener that others accept on, too: accepts once more, if there is somebody still. The kernel
    /// wakes one accept for each client, and the one that was cancelled may have been the one that it woke.
    pub(super) fn take_turn_again(&self, number: u32, ring: &mut Ring) -> bool {
        let Some(Some((listener, _))) = self.all.get(number as usize) else { return false };
        let waits = socket::has_waiting(listener.socket.as_fd());
        if waits {
            let token = Token::Accept(number).pack();
            ring.accept(token, listener.socket.as_fd(), false);
            ring.cancel(Token::Nobody.pack(), token);
        }
        waits
    }

    /// A connection that waits on a listener that is stopping.
    pub(super) fn waiting(&self, number: u32) -> Option<OwnedFd> {
        let (listener, _) = self.all.get(number as usize)?.as_ref()?;
        socket::accept_waiting(listener.socket.as_fd()).ok()
    }

    /// Closes a listener on which nobody waits any more.
    pub(super) fn close(&mut self, number: u32) {
        if let Some(entry) = self.all.get_mut(number as usize) {
            *entry = None;
        }
    }
}
