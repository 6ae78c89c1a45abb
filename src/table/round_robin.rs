//! Smooth weighted round robin as a flat order and one atomic step.

use std::sync::atomic::{AtomicU64, Ordering};

/// The order in which backends take their turns: each appears as often as its weight says, spread evenly.
#[derive(Debug, PartialEq, Eq)]
pub struct RoundRobin {
    order: Box<[u32]>,
}

impl RoundRobin {
    /// The algorithm's name, as the configuration and the status have it.
    pub const NAME: &str = "round_robin";

    /// The order for backends with these weights (at least one, none 0).
    pub fn new(weights: &[u16]) -> Self {
        let divisor = weights.iter().fold(0, |divisor, &weight| greatest_common_divisor(divisor, weight)).max(1);
        // The k-th of w turns of a backend belongs at the fraction (k + 1/2) / w of the period. Comparing the fractions
        // (2k + 1) / w without division keeps ties exact, and a stable sort keeps the file's order among them.
        let mut turns: Vec<(u64, u64, u32)> = weights
            .iter()
            .zip(0..)
            .flat_map(|(&weight, backend)| {
                let weight = u64::from(weight / divisor);
                (0..weight).map(move |k| (2 * k + 1, weight, backend))
            })
            .collect();
        turns.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        Self { order: turns.into_iter().map(|(_, _, backend)| backend).collect() }
    }

    /// Takes one step of `cursor` and says whose turn it is, as an index into the weights.
    #[inline]
    pub fn next(&self, cursor: &AtomicU64) -> usize {
        let step = cursor.fetch_add(1, Ordering::Relaxed);
        self.order[(step % self.order.len() as u64) as usize] as usize
    }
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u16], count: usize) -> Vec<usize> {
        let (order, cursor) = (RoundRobin::new(weights), AtomicU64::new(0));
        (0..count).map(|_| order.next(&cursor)).collect()
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
            assert_eq!(seen.iter().filter(|&&b| b == backend).count(), usize::from(weight));
        }
    }
}
