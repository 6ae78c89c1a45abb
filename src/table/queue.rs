//! Clients of a service that wait for a permit because every backend and backup is full: first come, first served, across all workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::Backend;

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
pub struct Queue {
    most: AtomicU32,
    waiting: AtomicU32,
    waiters: Mutex<VecDeque<Waiter>>,
}

/// Who waits, and which backends have failed him: permits there are of no use to him.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    tried: Box<[Arc<Backend>]>,
}

impl Waiter {
    fn can_use(&self, backend: &Arc<Backend>) -> bool {
        !self.tried.iter().any(|tried| Arc::ptr_eq(tried, backend))
    }
}

impl Queue {
    /// Nobody waits yet, and at most so many will.
    pub fn new(most: u32) -> Self {
        Self { most: AtomicU32::new(most), waiting: AtomicU32::new(0), waiters: Mutex::default() }
    }

    /// Changes how many may wait. Those who wait already go on waiting, also beyond it.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many wait now.
    ///
    /// Who has just given a permit back and reads 0 here has nobody to tell: whoever joins looks for a permit again afterwards.
    pub fn waiting(&self) -> u32 {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whose turn it is.
    pub fn front(&self) -> Option<Ticket> {
        if self.waiting() == 0 { None } else { self.waiters().front().map(|waiter| waiter.ticket) }
    }

    /// Stands behind the last, unless as many wait as may. Who is in front then must look for a permit once more: one given back
    /// in between was told to nobody. `tried`: backends that have failed this client.
    #[must_use]
    pub fn join(&self, ticket: Ticket, tried: &[Arc<Backend>]) -> bool {
        let mut waiters = self.waiters();
        if waiters.len() >= self.most.load(Ordering::Relaxed) as usize {
            return false;
        }
        waiters.push_back(Waiter { ticket, tried: tried.into() });
        self.count(&waiters);
        true
    }

    /// Where a permit is free in a backend that has failed the one in front, he is of no use to it, but would hold up all others:
    /// the first one who can use it steps in front of him. Answers whether somebody did, who is to be told.
    pub fn let_pass(&self, has_permit: impl Fn(&Arc<Backend>) -> bool) -> bool {
        let mut waiters = self.waiters();
        let Some(front) = waiters.front().filter(|front| !front.tried.is_empty()) else { return false };
        let free: Vec<_> = front.tried.iter().filter(|backend| has_permit(backend)).cloned().collect();
        let able = |waiter: &Waiter| free.iter().any(|backend| waiter.can_use(backend));
        let passing = waiters.iter().position(able).and_then(|place| waiters.remove(place));
        passing.map(|waiter| waiters.push_front(waiter)).is_some()
    }

    /// Steps out, served or not. Answers whether somebody else is in front now because of it.
    pub fn leave(&self, ticket: Ticket) -> bool {
        let mut waiters = self.waiters();
        let Some(place) = waiters.iter().position(|other| other.ticket == ticket) else { return false };
        waiters.remove(place);
        self.count(&waiters);
        place == 0 && !waiters.is_empty()
    }

    fn count(&self, waiters: &VecDeque<Waiter>) {
        // No longer than `most`, which is a u32.
        self.waiting.store(waiters.len() as u32, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn waiters(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::condition::{Condition, State};

    fn ticket(slot: u32) -> Ticket {
        Ticket { worker: 0, slot, generation: 1 }
    }

    #[test]
    fn who_came_first_is_first_and_no_more_wait_than_may() {
        let queue = Queue::new(2);
        assert_eq!((queue.waiting(), queue.front()), (0, None));
        assert!(queue.join(ticket(1), &[]) && queue.join(ticket(2), &[]) && !queue.join(ticket(3), &[]));
        assert_eq!((queue.waiting(), queue.front()), (2, Some(ticket(1))));
        assert!(queue.leave(ticket(1)), "another is in front now");
        assert!(!queue.leave(ticket(1)), "it has left already");
        assert_eq!(queue.front(), Some(ticket(2)));
        assert!(queue.join(ticket(3), &[]));
        assert!(!queue.leave(ticket(3)), "it was not in front");
        assert!(!queue.leave(ticket(2)), "nobody is left");
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn nobody_waits_where_nobody_may() {
        assert!(!Queue::new(0).join(ticket(1), &[]));
    }

    #[test]
    fn the_first_who_can_use_a_free_place_passes_those_whom_its_backend_has_failed() {
        let [a, b] = ["a", "b"].map(|name| {
            let condition = Condition::new(State::Up, "for a test");
            Arc::new(Backend::new(name.into(), ([127, 0, 0, 1], 80).into(), None, condition, 1))
        });
        let queue = Queue::new(9);
        let failed = [vec![Arc::clone(&a)], vec![Arc::clone(&a)], vec![Arc::clone(&b)], vec![]];
        (1..).zip(&failed).for_each(|(slot, tried)| assert!(queue.join(ticket(slot), tried)));
        assert!(!queue.let_pass(|_| false), "No permit is free");
        assert!(!queue.let_pass(|free| Arc::ptr_eq(free, &b)), "the one in front can use it himself");
        assert!(queue.let_pass(|free| Arc::ptr_eq(free, &a)));
        assert_eq!(queue.front(), Some(ticket(3)));
        assert!(queue.leave(ticket(3)) && queue.let_pass(|_| true));
        assert!(queue.leave(ticket(4)) && !queue.let_pass(|_| true), "both that are left were failed by it");
        assert_eq!((queue.front(), queue.waiting()), (Some(ticket(1)), 2));
    }
}
