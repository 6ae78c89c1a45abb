//! When which slot is due: a binary heap that knows where each slot stands, so that a slot has one entry and can leave at any time.

use super::session::Millis;

const ABSENT: u32 = u32::MAX;

/// The deadlines of one worker's slots, exact to the millisecond. No tick: only [`Deadlines::next`] says when to look again.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: Vec<(Millis, u32)>,
    /// Where each slot stands in the heap.
    positions: Vec<u32>,
}

impl Deadlines {
    /// The earliest deadline.
    pub fn next(&self) -> Option<Millis> {
        self.heap.first().map(|&(due, _)| due)
    }

    /// Makes sure that `slot` comes up at `due` or before. An earlier entry stays: it costs one look too many, not one too few.
    #[inline]
    pub fn no_later(&mut self, slot: u32, due: Millis) {
        let index = slot as usize;
        if index >= self.positions.len() {
            self.positions.resize(index + 1, ABSENT);
        }
        let position = self.positions[index] as usize;
        if position == ABSENT as usize {
            if due != Millis::MAX {
                self.heap.push((due, slot));
                self.rise(self.heap.len() - 1);
            }
        } else if due < self.heap[position].0 {
            self.heap[position].0 = due;
            self.rise(position);
        }
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: u32) {
        let Some(position) =
            self.positions.get(slot as usize).map(|&position| position as usize).filter(|&p| p != ABSENT as usize)
        else {
            return;
        };
        self.positions[slot as usize] = ABSENT;
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.rise(position);
            self.sink(position);
        }
    }

    /// Takes out the slot that is due first, if it is due `now`.
    pub fn pop(&mut self, now: Millis) -> Option<u32> {
        let &(due, slot) = self.heap.first()?;
        if due > now {
            return None;
        }
        self.remove(slot);
        Some(slot)
    }

    fn rise(&mut self, mut position: usize) {
        let entry = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(position, self.heap[parent]);
            position = parent;
        }
        self.put(position, entry);
    }

    fn sink(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let mut child = 2 * position + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            if child >= self.heap.len() || entry.0 <= self.heap[child].0 {
                break;
            }
            self.put(position, self.heap[child]);
            position = child;
        }
        self.put(position, entry);
    }

    fn put(&mut self, position: usize, entry: (Millis, u32)) {
        self.heap[position] = entry;
        self.positions[entry.1 as usize] = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn slots_come_up_in_order_and_only_when_due() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut deadlines, mut model) = (Deadlines::default(), BTreeMap::new());
        for now in 0..20_000 {
            let slot = random.u32(..300);
            match random.u8(..4) {
                0 => {
                    deadlines.remove(slot);
                    model.remove(&slot);
                }
                1 => {
                    while let Some(slot) = deadlines.pop(now) {
                        let due = model.remove(&slot).unwrap();
                        assert!(due <= now && model.values().all(|&other| other >= due));
                    }
                    assert!(model.values().all(|&due| due > now));
                }
                _ => {
                    let due = now + random.u64(..500);
                    deadlines.no_later(slot, due);
                    model.entry(slot).and_modify(|d: &mut u64| *d = due.min(*d)).or_insert(due);
                }
            }
            assert_eq!(deadlines.next(), model.values().min().copied());
        }
    }

    #[test]
    fn a_deadline_that_never_comes_takes_no_place() {
        let mut deadlines = Deadlines::default();
        deadlines.no_later(3, Millis::MAX);
        assert_eq!(deadlines.next(), None);
    }
}
