//! Smooth weighted round robin as a flat order and one atomic step.

use std::sync::atomic::{AtomicU64, Ordering};

use super::algorithm::{Candidates, Serving};
use super::backend::{Backend, Lease};

/// The order in which backends take their turns: each appears as often as its weight says, spread evenly.
#[derive(Debug)]
pub(super) struct RoundRobin {
    order: Box<[u32]>,
    /// Each once.
    indices: Box<[u32]>,
}

impl RoundRobin {
    pub(super) fn new(serving: &[Serving]) -> Self {
        let divisor = serving.iter().fold(0, |divisor, one| greatest_common_divisor(divisor, one.weight)).max(1);
        // The k-th of w turns of a backend belongs at the fraction (k + 1/2) / w of the period. Comparing the fractions
        // (2k + 1) / w without division keeps ties exact, and a stable sort keeps the file's order among them.
        let mut turns: Vec<(u64, u64, u32)> = serving
            .iter()
            .flat_map(|one| {
                let weight = u64::from(one.weight / divisor);
                (0..weight).map(move |k| (2 * k + 1, weight, one.index))
            })
            .collect();
        turns.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        Self {
            order: turns.into_iter().map(|(_, _, backend)| backend).collect(),
            indices: serving.iter().map(|one| one.index).collect(),
        }
    }

    /// Takes one step of `cursor` and says whose turn it is; nobody's where nobody serves.
    #[inline]
    pub(super) fn next(&self, cursor: &AtomicU64) -> Option<u32> {
        if self.order.is_empty() {
            return None;
        }
        let step = cursor.fetch_add(1, Ordering::Relaxed);
        Some(self.order[(step % self.order.len() as u64) as usize])
    }

    /// The next in turn, passing over those who are tried or full by taking the cursor's next step. Exact across workers.
    #[inline]
    pub(super) fn choose(&self, candidates: &Candidates<'_>) -> Option<Lease<Backend>> {
        // A step usually succeeds at once. Where most are full, stepping could go on for a whole period of the order, so it is
        // cut short and everyone is looked at once.
        for _ in 0..2 * self.indices.len() {
            if let Some(lease) = candidates.take(self.next(candidates.cursor)?) {
                return Some(lease);
            }
        }
        candidates.scan(&self.indices, candidates.cursor.load(Ordering::Relaxed))
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let serving: Vec<Serving> = weights.iter().zip(0..).map(|(&weight, index)| Serving { index, weight }).collect();
        let (order, cursor) = (RoundRobin::new(&serving), AtomicU64::new(0));
        (0..count).map(|_| order.next(&cursor).unwrap() as usize).collect()
    }

    #[test]
    fn equal_weights_take_turns_in_the_order_of_the_file() {
        assert_eq!(turns(&[7, 7, 7], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_heavier_backend_takes_its_turns_spread_out() {
        assert_eq!(turns(&[1, 2], 6), [1, 0, 1, 1, 0, 1]);
        let seen = turns(&[5, 1, 1], 7);
        assert_eq!(seen.iter().filter(|&&b| b == 0).count(), 5);
        assert!(!seen.windows(4).any(|run| run == [0; 4]), "{seen:?} has a run of four");
    }

    #[test]
    fn every_period_gives_each_backend_exactly_its_weight() {
        let weights = [256, 100, 3, 1];
        let seen = turns(&weights, 360);
        for (backend, &weight) in weights.iter().enumerate() {
            assert_eq!(seen.iter().filter(|&&b| b == backend).count(), weight as usize);
        }
    }
}
