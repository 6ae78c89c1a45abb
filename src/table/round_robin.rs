//! Smooth weighted round robin as a flat order and one atomic step.

use std::sync::atomic::{AtomicU64, Ordering};

use super::algorithm::{Candidates, Serving};
use super::backend::{Backend, Permit};

/// The order in which backends take their turns: each appears as often as its weight says, spread evenly.
#[derive(Debug)]
pub(super) struct RoundRobin {
    order: Box<[u32]>,
    /// Each once.
    indices: Box<[u32]>,
}

impl RoundRobin {
    /// Weights up to 4,096: 256, in sixteenths.
    pub(super) fn new(serving: &[Serving]) -> Self {
        let divisor = serving.iter().fold(0, |divisor, one| greatest_common_divisor(divisor, one.weight)).max(1);
        // The k-th of w turns of a backend belongs at the fraction (k + 1/2) / w of the period. Fractions (2k + 1) / w that differ
        // do so by 2^-24 or more, as no weight is above 2^12: so 26 bits behind the point keep their order and their ties, and a
        // turn is one number, its place above, and below, for ties, the backend's position in the file.
        let mut turns: Vec<u64> = serving
            .iter()
            .flat_map(|one| {
                let weight = u64::from(one.weight / divisor);
                (0..weight).map(move |k| (((2 * k + 1) << 26) / weight) << 32 | u64::from(one.index))
            })
            .collect();
        turns.sort_unstable();
        Self {
            order: turns.into_iter().map(|turn| turn as u32).collect(),
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
    pub(super) fn choose(&self, candidates: &Candidates<'_>) -> Option<Permit<Backend>> {
        // A step usually succeeds at once. Where most are full, stepping could go on for a whole period of the order, so it is
        // cut short and everyone is looked at once.
        for _ in 0..2 * self.indices.len() {
            if let Some(permit) = candidates.take(self.next(candidates.cursor)?) {
                return Some(permit);
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
    fn turns_stand_where_exact_fractions_put_them() {
        let weights = [4096, 4095, 1, 16, 2048, 4093, 4095, 3];
        let mut exact: Vec<(u64, u64, usize)> = (0..weights.len())
            .flat_map(|at| (0..u64::from(weights[at])).map(move |k| (2 * k + 1, u64::from(weights[at]), at)))
            .collect();
        exact.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        assert_eq!(turns(&weights, exact.len()), exact.iter().map(|turn| turn.2).collect::<Vec<_>>());
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
