//! Sessions that are to leave their backend, one after the other: so that their clients do not all come back at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slab::Slab;

use super::session::{Millis, NEVER, millis};
use super::slot::Slot;
use crate::table::Backend;

/// One session, when its turn is, and whom it is to leave: it may be with another backend by then.
#[derive(Debug)]
struct DueClose {
    at: Millis,
    slot: u32,
    generation: u32,
    backend: Arc<Backend>,
    /// The drain for which it leaves.
    drained: Timestamp,
}

/// See the module. The next one first.
#[derive(Debug, Default)]
pub(super) struct ClosingSchedule(VecDeque<DueClose>);

impl ClosingSchedule {
    /// Notes the sessions with a backend that is drained, which is known by its service, name and address: after a reload its name may
    /// be another's. What was noted of it before, for a drain on other terms, is over.
    pub(super) fn note(
        &mut self,
        sessions: &Slab<Slot>,
        (service, backend, address): (&str, &str, SocketAddr),
        spread: Duration,
        now: Millis,
    ) {
        let leaver = |slot: &Slot| {
            let own = slot.backend.as_ref().filter(|own| (&*own.name, own.address) == (backend, address))?;
            let (backend, drained) = (Arc::clone(own.owner()), drained(own)?);
            Some(DueClose { at: now, slot: slot.number, generation: slot.generation, backend, drained })
        };
        let of_service = sessions.iter().map(|(_, slot)| slot).filter(|slot| &*slot.service.name == service);
        let mut found: Vec<_> = of_service.filter_map(leaver).collect();
        let spread = millis(spread);
        let count = found.len() as u64;
        for (leaver, index) in found.iter_mut().zip(0..) {
            leaver.at = now.saturating_add(spread.saturating_mul(index) / count);
        }
        if let Some(DueClose { backend, .. }) = found.first() {
            self.0.retain(|leaver| !Arc::ptr_eq(&leaver.backend, backend));
        }
        self.add(found);
    }

    fn add(&mut self, found: Vec<DueClose>) {
        self.0.extend(found);
        self.0.make_contiguous().sort_unstable_by_key(|leaver| (leaver.at, leaver.slot));
    }

    /// When the next one's turn is.
    pub(super) fn due(&self) -> Millis {
        self.0.front().map_or(NEVER, |leaver| leaver.at)
    }

    /// The number of the next session whose turn it is and that is still with the backend that it is to leave. Nobody leaves one that
    /// is back, nor one that is pending out on other terms by now.
    pub(super) fn next(&mut self, sessions: &Slab<Slot>, now: Millis) -> Option<u32> {
        while self.due() <= now {
            let leaver = self.0.pop_front()?;
            let with_it = |slot: &&Slot| {
                slot.generation == leaver.generation
                    && drained(&leaver.backend) == Some(leaver.drained)
                    && slot.backend.as_ref().is_some_and(|own| Arc::ptr_eq(own.owner(), &leaver.backend))
            };
            let Some(slot) = sessions.get(leaver.slot as usize).filter(with_it) else { continue };
            let number = leaver.slot;
            // Its connect may be faster than the cancel.
            if slot.session.connects() {
                self.add(vec![DueClose { at: now + 1, ..leaver }]);
            }
            return Some(number);
        }
        None
    }
}

/// Since when a backend is pending out on the terms that hold now.
fn drained(backend: &Backend) -> Option<Timestamp> {
    backend.condition.load().drain.as_ref().map(|drain| drain.since)
}
