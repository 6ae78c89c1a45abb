//! The less loaded of two that are drawn by weight.

use std::sync::atomic::Ordering;

use super::algorithm::{Candidates, Serving};
use super::backend::{Backend, Permit};
use super::mixing::{below, splitmix64};

/// How often a pick draws before it looks at everyone.
const DRAWS: u64 = 4;

/// Walker's alias table over those who may serve (Vose 1991): one draw by weight costs one look.
#[derive(Debug)]
pub(super) struct RandomTwo {
    columns: Box<[AliasColumn]>,
    indices: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct AliasColumn {
    own: Serving,
    other: Serving,
    /// Of 2^32, how much of the column is its own.
    part: u64,
}

impl RandomTwo {
    pub(super) fn new(serving: &[Serving]) -> Self {
        Self { columns: columns(serving), indices: serving.iter().map(|one| one.index).collect() }
    }

    pub(super) fn choose(&self, candidates: &Candidates<'_>) -> Option<Permit<Backend>> {
        let step = candidates.cursor.fetch_add(1, Ordering::Relaxed);
        // Each step has its own block of the sequence.
        let mut randoms = (0..).map(|k| splitmix64(step.wrapping_mul(4 * DRAWS).wrapping_add(k)));
        for _ in 0..if self.columns.is_empty() { 0 } else { DRAWS } {
            let one = self.draw(randoms.next()?);
            let other = self.draw_other(one, || randoms.next().unwrap_or(step));
            if let Some(permit) = self.better(candidates, one, other) {
                return Some(permit);
            }
        }
        candidates.scan(|| self.indices.iter().copied(), splitmix64(step))
    }

    #[inline]
    fn draw(&self, random: u64) -> Serving {
        // The high bits choose the column, the low ones the part of it: independent, as a column's number needs few bits.
        let column = &self.columns[below(random, self.columns.len() as u64) as usize];
        if random & 0xffff_ffff < column.part { column.own } else { column.other }
    }

    /// One that differs. Where one outweighs all others a draw hardly ever finds them, so in the end a neighbour does.
    fn draw_other(&self, one: Serving, mut random: impl FnMut() -> u64) -> Serving {
        for _ in 0..3 {
            let other = self.draw(random());
            if other.index != one.index {
                return other;
            }
        }
        let neighbour = |at: u64| self.columns[below(at, self.columns.len() as u64) as usize].own;
        let at = random();
        let other = neighbour(at);
        if other.index == one.index { neighbour(at.wrapping_add(u64::MAX / self.columns.len() as u64)) } else { other }
    }

    /// A place in the less loaded one, among equals in the one drawn first; in the other where that is tried or full.
    fn better(&self, candidates: &Candidates<'_>, one: Serving, other: Serving) -> Option<Permit<Backend>> {
        let taken = |of: Serving| u64::from(candidates.backends[of.index as usize].permits.taken());
        let swap = taken(other) * u64::from(one.weight) < taken(one) * u64::from(other.weight);
        let (better, worse) = if swap { (other, one) } else { (one, other) };
        candidates.take(better.index).or_else(|| candidates.take(worse.index))
    }
}

fn columns(serving: &[Serving]) -> Box<[AliasColumn]> {
    let total: u64 = serving.iter().map(|one| u64::from(one.weight)).sum();
    let count = serving.len() as u64;
    // What each has to give to columns, in units of which a column holds `total`.
    let mut left: Vec<u64> = serving.iter().map(|one| u64::from(one.weight) * count).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..serving.len()).partition(|&at| left[at] < total);
    let mut columns: Vec<AliasColumn> =
        serving.iter().map(|&own| AliasColumn { own, other: own, part: 1 << 32 }).collect();
    while let (Some(few), Some(&many)) = (small.pop(), large.last()) {
        columns[few].part = (left[few] << 32) / total;
        columns[few].other = serving[many];
        left[many] -= total - left[few];
        if left[many] < total {
            large.pop();
            small.push(many);
        }
    }
    columns.into()
}
