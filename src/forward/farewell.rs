//! Sessions that are to leave their backend, one after the other: so that their clients do not all come back at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::session::{Millis, NEVER};
use super::slot::Slot;
use crate::observe::condition::State;
use crate::table::Backend;

/// One session, when its turn is, and whom it is to leave: it may be with another backend by then.
#[derive(Debug)]
struct Leaver {
    at: Millis,
    slot: u32,
    generation: u32,
    backend: Arc<Backend>,
}

/// See the module. The next one first.
#[derive(Debug, Default)]
pub(super) struct Farewell(VecDeque<Leaver>);

impl Farewell {
    /// Notes the sessions with a backend, which is known by its service, name and address: after a reload its name may be another's.
    pub(super) fn note(
        &mut self,
        sessions: &Slab<Slot>,
        (service, backend, address): (&str, &str, SocketAddr),
        spread: Duration,
        now: Millis,
    ) {
        let leaver = |slot: &Slot| {
            let own = slot.backend.as_ref().filter(|own| (&*own.name, own.address) == (backend, address))?;
            let backend = Arc::clone(own.owner());
            Some(Leaver { at: now, slot: slot.number, generation: slot.generation, backend })
        };
        let of_service = sessions.iter().map(|(_, slot)| slot).filter(|slot| &*slot.service.name == service);
        let mut found: Vec<_> = of_service.filter_map(leaver).collect();
        let spread = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        let count = found.len() as u64;
        for (leaver, index) in found.iter_mut().zip(0..) {
            leaver.at = now.saturating_add(spread.saturating_mul(index) / count);
        }
        self.add(found);
    }

    fn add(&mut self, found: Vec<Leaver>) {
        self.0.extend(found);
        self.0.make_contiguous().sort_unstable_by_key(|leaver| (leaver.at, leaver.slot));
    }

    /// When the next one's turn is.
    pub(super) fn due(&self) -> Millis {
        self.0.front().map_or(NEVER, |leaver| leaver.at)
    }

    /// The number of the next session whose turn it is and that is still with the backend that it is to leave. Nobody leaves one that
    /// is back.
    pub(super) fn next(&mut self, sessions: &Slab<Slot>, now: Millis) -> Option<u32> {
        let mut again = Vec::new();
        let mut next = None;
        while next.is_none() && self.due() <= now {
            let leaver = self.0.pop_front()?;
            let with_it = |slot: &&Slot| {
                slot.generation == leaver.generation
                    && leaver.backend.condition.load().state == State::Drained
                    && slot.backend.as_ref().is_some_and(|own| Arc::ptr_eq(own.owner(), &leaver.backend))
            };
            if let Some(slot) = sessions.get(leaver.slot as usize).filter(with_it) {
                next = Some(leaver.slot);
                // Its connect may be faster than the cancel.
                if slot.session.connects() {
                    again.push(Leaver { at: now + 1, ..leaver });
                }
            }
        }
        if !again.is_empty() {
            self.add(again);
        }
        next
    }
}
