//! Sessions that are closed one after the other over a time, so that their clients do not all come back at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slab::Slab;

use super::session::{Millis, NEVER, millis};
use super::slot::Slot;
use crate::table::Backend;

/// A session, when it is closed, and with which backend it must still be by then.
#[derive(Debug)]
struct DueClose {
    at: Millis,
    slot: u32,
    generation: u32,
    backend: Arc<Backend>,
    /// The drain for which it is closed.
    drained: Timestamp,
}

/// See the module. The next one first.
#[derive(Debug, Default)]
pub(super) struct ClosingSchedule(VecDeque<DueClose>);

impl ClosingSchedule {
    /// Schedules the sessions with a drained backend. Service, name and address identify it: after a reload its name may be
    /// another's. This replaces what was scheduled for an earlier drain of it.
    pub(super) fn schedule(
        &mut self,
        sessions: &Slab<Slot>,
        (service, backend, address): (&str, &str, SocketAddr),
        spread: Duration,
        now: Millis,
    ) {
        let due_close = |slot: &Slot| {
            let own = slot.backend.as_ref().filter(|own| (&*own.name, own.address) == (backend, address))?;
            let (backend, drained) = (Arc::clone(own.owner()), drained(own)?);
            Some(DueClose { at: now, slot: slot.number, generation: slot.generation, backend, drained })
        };
        let of_service = sessions.iter().map(|(_, slot)| slot).filter(|slot| &*slot.service.name == service);
        let mut found: Vec<_> = of_service.filter_map(due_close).collect();
        let spread = millis(spread);
        let count = found.len() as u64;
        for (due_close, index) in found.iter_mut().zip(0..) {
            due_close.at = now.saturating_add(spread.saturating_mul(index) / count);
        }
        if let Some(DueClose { backend, .. }) = found.first() {
            self.0.retain(|due_close| !Arc::ptr_eq(&due_close.backend, backend));
        }
        self.add(found);
    }

    fn add(&mut self, found: Vec<DueClose>) {
        self.0.extend(found);
        self.0.make_contiguous().sort_unstable_by_key(|due_close| (due_close.at, due_close.slot));
    }

    /// When the next session is due.
    pub(super) fn due(&self) -> Millis {
        self.0.front().map_or(NEVER, |due_close| due_close.at)
    }

    /// The number of the next session that is due and still with its drained backend. A session stays where the backend serves
    /// again, or where another drain holds by now.
    pub(super) fn next(&mut self, sessions: &Slab<Slot>, now: Millis) -> Option<u32> {
        while self.due() <= now {
            let due_close = self.0.pop_front()?;
            let with_it = |slot: &&Slot| {
                slot.generation == due_close.generation
                    && drained(&due_close.backend) == Some(due_close.drained)
                    && slot.backend.as_ref().is_some_and(|own| Arc::ptr_eq(own.owner(), &due_close.backend))
            };
            let Some(slot) = sessions.get(due_close.slot as usize).filter(with_it) else { continue };
            let number = due_close.slot;
            // Its connect may be faster than the cancel.
            if slot.session.connects() {
                self.add(vec![DueClose { at: now + 1, ..due_close }]);
            }
            return Some(number);
        }
        None
    }
}

/// When the drain of a backend that holds now began.
fn drained(backend: &Backend) -> Option<Timestamp> {
    backend.condition.load().drain.as_ref().map(|drain| drain.since)
}
