//! Clients of a service that wait for a place because every backend and backup is full: first come, first served, across all workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A session that waits: whose it is, and which one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The worker that has it.
    pub worker: usize,
    /// Its slot there.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u32,
}

/// See the module. The lock is touched only while somebody waits.
#[derive(Debug)]
pub struct Line {
    most: AtomicU32,
    waiting: AtomicU32,
    tickets: Mutex<VecDeque<Ticket>>,
}

impl Line {
    /// Nobody waits yet, and at most so many will.
    pub fn new(most: u32) -> Self {
        Self { most: AtomicU32::new(most), waiting: AtomicU32::new(0), tickets: Mutex::default() }
    }

    /// Changes how many may wait. Those who wait already go on waiting, also beyond it.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many wait now.
    ///
    /// Who has just given a place back and reads 0 here has nobody to tell: whoever joins looks for a place again afterwards.
    pub fn waiting(&self) -> u32 {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whose turn it is.
    pub fn front(&self) -> Option<Ticket> {
        if self.waiting() == 0 { None } else { self.tickets().front().copied() }
    }

    /// Stands behind the last, unless as many wait as may. Who is in front then must look for a place once more: one given back
    /// in between was told to nobody.
    #[must_use]
    pub fn join(&self, ticket: Ticket) -> bool {
        let mut tickets = self.tickets();
        if tickets.len() >= self.most.load(Ordering::Relaxed) as usize {
            return false;
        }
        tickets.push_back(ticket);
        self.count(&tickets);
        true
    }

    /// Steps out, served or not. Answers whether somebody else is in front now because of it.
    pub fn leave(&self, ticket: Ticket) -> bool {
        let mut tickets = self.tickets();
        let Some(place) = tickets.iter().position(|&other| other == ticket) else { return false };
        tickets.remove(place);
        self.count(&tickets);
        place == 0 && !tickets.is_empty()
    }

    fn count(&self, tickets: &VecDeque<Ticket>) {
        // No longer than `most`, which is a u32.
        self.waiting.store(tickets.len() as u32, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn tickets(&self) -> MutexGuard<'_, VecDeque<Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(slot: u32) -> Ticket {
        Ticket { worker: 0, slot, generation: 1 }
    }

    #[test]
    fn who_came_first_is_first_and_no_more_wait_than_may() {
        let line = Line::new(2);
        assert_eq!((line.waiting(), line.front()), (0, None));
        assert!(line.join(ticket(1)) && line.join(ticket(2)) && !line.join(ticket(3)));
        assert_eq!((line.waiting(), line.front()), (2, Some(ticket(1))));
        assert!(line.leave(ticket(1)), "another is in front now");
        assert!(!line.leave(ticket(1)), "it has left already");
        assert_eq!(line.front(), Some(ticket(2)));
        assert!(line.join(ticket(3)));
        assert!(!line.leave(ticket(3)), "it was not in front");
        assert!(!line.leave(ticket(2)), "nobody is left");
        assert_eq!(line.waiting(), 0);
    }

    #[test]
    fn nobody_waits_where_nobody_may() {
        assert!(!Line::new(0).join(ticket(1)));
    }
}
