//! Whose turn it is: smooth weighted round robin as a flat order and one atomic step. A change of who serves makes a new order,
//! which goes on where the old one was, exactly and for all workers, without a lock.
//!
//! A backend of weight w has w turns in a period, the k-th at the fraction (k + 1/2) / w of it, whoever else serves: two backends
//! alternate in the same way whether a third comes or goes. So the place of an order is the time of its last turn, and the next
//! order goes on with its own first turn behind that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::algorithm::{Serving, Weighted};

/// Of a cursor: another order has taken over. The last step stands in the bits from [`LAST`] on; those below count the steps that
/// came too late, which nobody uses.
const CLOSED: u64 = 1 << 63;
/// Of a cursor: where the order goes on is not known yet; the other bits count the steps taken from there.
const UNRESOLVED: u64 = 1 << 62;
/// In a closed cursor: where the last step stands, plus one; 0 where no step was taken.
const LAST: u32 = 32;
/// Bits behind the point of a turn's time.
const FRACTION: u32 = 30;
/// No turn was taken ever.
const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Sorted. Above, a turn's time, twice its fraction of the period; below, for ties, the backend's index.
    order: Box<[u64]>,
    weighted: Weighted,
    /// Of all weights.
    divisor: u32,
    /// Counts the steps; see [`CLOSED`] and [`UNRESOLVED`].
    cursor: AtomicU64,
    /// The last turn before this order's first one, a packed [`Turn`].
    resumed: AtomicU64,
    before: ArcSwapOption<Before>,
}

/// What an order goes on from.
#[derive(Debug)]
struct Before {
    rotation: Arc<Rotation>,
    moved: Option<Moved>,
}

/// Where backends stand after a reload: for each old index the new index behind which it goes on.
pub(super) type Moved = Arc<[u32]>;

/// A newer table is published: its order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superseded;

impl Rotation {
    /// An order of its own, from its beginning; or one that goes on where `before` is. Weights up to 4,096: 256, in sixteenths.
    pub(super) fn new(weighted: Weighted, before: Option<(&Arc<Self>, Option<Moved>)>) -> Arc<Self> {
        if let Some((same, None)) = &before
            && same.weighted == weighted
        {
            return Arc::clone(same);
        }
        let divisor =
            weighted.serving.iter().fold(0, |divisor, one| greatest_common_divisor(divisor, one.weight)).max(1);
        // Times (2k + 1) / w that differ do so by 2^-24 or more, as no weight is above 2^12: so the bits behind the point keep
        // their order and their ties.
        let turns = |one: &Serving| {
            let (index, weight) = (u64::from(one.index), u64::from(one.weight / divisor));
            (0..weight).map(move |k| (((2 * k + 1) << FRACTION) / weight) << 32 | index)
        };
        let mut order: Box<[u64]> = weighted.serving.iter().flat_map(turns).collect();
        order.sort_unstable();
        let before = before.map(|(turns, moved)| Arc::new(Before { rotation: Arc::clone(turns), moved }));
        Arc::new(Self {
            order,
            weighted,
            divisor,
            cursor: AtomicU64::new(if before.is_some() { UNRESOLVED } else { 0 }),
            resumed: AtomicU64::new(NEVER),
            before: ArcSwapOption::new(before),
        })
    }

    /// Takes one step and answers the index of the backend whose turn it is; `None` where nobody serves.
    ///
    /// # Errors
    /// A newer table is published.
    #[inline]
    pub(super) fn step(&self) -> Result<Option<u32>, Superseded> {
        if self.order.is_empty() {
            return Ok(None);
        }
        let mut step = self.cursor.fetch_add(1, Ordering::Relaxed);
        if step >= UNRESOLVED {
            if step & CLOSED != 0 {
                return Err(Superseded);
            }
            step = self.resolve() + (step & !UNRESOLVED);
        }
        Ok(Some(self.order[(step % self.order.len() as u64) as usize] as u32))
    }

    /// Those who may serve.
    pub(super) fn serving(&self) -> &[Serving] {
        &self.weighted.serving
    }

    /// A number that grows with the steps.
    pub(super) fn steps(&self) -> u64 {
        self.cursor.load(Ordering::Relaxed)
    }

    /// Goes on where the order before is, if nobody has taken a step yet, and lets go of that one. Its table must be published:
    /// whoever steps in the older order from now on is told to look for the newer one.
    pub(super) fn take_over(&self) {
        if self.before.load().is_some() {
            self.resolve();
            self.before.store(None);
        }
    }

    /// Where this order began. Finds that out once: whoever comes first, and all who come at the same time find the same.
    #[cold]
    fn resolve(&self) -> u64 {
        let mut cursor = self.cursor.load(Ordering::Acquire);
        if cursor & UNRESOLVED == 0 || cursor & CLOSED != 0 {
            return self.beginning();
        }
        // Where there is none any more, somebody has just been here.
        if let Some(before) = &*self.before.load() {
            let last = before.rotation.close();
            let moved = |turn: Turn| match &before.moved {
                Some(moved) => Turn { behind: turn.behind.checked_sub(1).map_or(0, |old| moved[old as usize]), ..turn },
                None => turn,
            };
            self.resumed.store(last.map_or(NEVER, |turn| moved(turn).pack()), Ordering::Release);
        }
        let beginning = self.beginning();
        while cursor & UNRESOLVED != 0 && cursor & CLOSED == 0 {
            let resolved = beginning + (cursor & !UNRESOLVED);
            match self.cursor.compare_exchange_weak(cursor, resolved, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => cursor = now,
            }
        }
        beginning
    }

    /// The first step of this order, once it is known what it goes on from.
    fn beginning(&self) -> u64 {
        Turn::unpack(self.resumed.load(Ordering::Acquire)).map_or(0, |turn| self.first_behind(turn))
    }

    /// No step is taken in this order any more. Answers the last turn, the same to everybody; `None` if there never was one.
    fn close(&self) -> Option<Turn> {
        let beginning = self.resolve();
        let mut cursor = self.cursor.load(Ordering::Acquire);
        while cursor & CLOSED == 0 {
            let last = if cursor == beginning { 0 } else { (cursor - 1) % self.order.len() as u64 + 1 };
            match self.cursor.compare_exchange_weak(cursor, CLOSED | last << LAST, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => cursor = CLOSED | last << LAST,
                Err(now) => cursor = now,
            }
        }
        match (cursor & !CLOSED) >> LAST {
            0 => Turn::unpack(self.resumed.load(Ordering::Acquire)),
            last => self.turn(last as usize - 1),
        }
    }

    /// The turn at a position of the order.
    fn turn(&self, position: usize) -> Option<Turn> {
        let turn = self.order[position];
        let (time, index) = (turn >> 32, turn as u32);
        let at = self.weighted.serving.binary_search_by_key(&index, |one| one.index).ok()?;
        let weight = self.weighted.serving[at].weight;
        // The time was rounded down by less than 1 / 2^30; times the weight that is far less than a half.
        let odd = (time * u64::from(weight / self.divisor) + (1 << (FRACTION - 1))) >> FRACTION;
        Some(Turn { behind: index + 1, odd: odd as u32, weight, resolution: self.weighted.resolution })
    }

    /// The position of the first turn behind another order's.
    fn first_behind(&self, turn: Turn) -> u64 {
        let (odd, resolution, weight) = (u64::from(turn.odd), u64::from(turn.resolution), u64::from(turn.weight));
        // Its time in units of this order's period, which is longer or shorter by the divisors and resolutions of both.
        let (above, below) = (odd * resolution * u64::from(self.divisor), weight * u64::from(self.weighted.resolution));
        let time = ((above % (2 * below)) << FRACTION) / below;
        let from = time << 32 | u64::from(turn.behind);
        (self.order.partition_point(|&turn| turn < from) % self.order.len().max(1)) as u64
    }
}

/// A turn as every order understands it: `odd / (2 * weight)` is its time in a period in which a weight of 1 has one turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Among turns of the same time, those from this index on come next.
    behind: u32,
    /// 2k + 1, below 2^13.
    odd: u32,
    /// In parts of `resolution`, at most 2^12.
    weight: u32,
    /// A power of two, at most 16.
    resolution: u32,
}

impl Turn {
    fn pack(self) -> u64 {
        let Self { behind, odd, weight, resolution } = self;
        u64::from(behind) << 32
            | u64::from(resolution.trailing_zeros()) << 26
            | u64::from(weight) << 13
            | u64::from(odd)
    }

    fn unpack(packed: u64) -> Option<Self> {
        let bits = |from: u32, count: u32| (packed >> from) as u32 & ((1 << count) - 1);
        (packed != NEVER).then(|| Self {
            behind: (packed >> 32) as u32,
            odd: bits(0, 13),
            weight: bits(13, 13),
            resolution: 1 << bits(26, 3),
        })
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(weights: &[u32]) -> Weighted {
        let all = weights.iter().zip(0..).map(|(&weight, index)| Serving { index, weight });
        Weighted { serving: all.filter(|one| one.weight > 0).collect(), resolution: 1 }
    }

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let turns = Rotation::new(weighted(weights), None);
        (0..count).map(|_| turns.step().unwrap().unwrap() as usize).collect()
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

    /// The next turns of an order, as letters.
    fn letters(turns: &Rotation, count: usize) -> String {
        (0..count).map(|_| char::from(b'a' + turns.step().unwrap().unwrap() as u8)).collect()
    }

    fn next(before: &Arc<Rotation>, weights: &[u32]) -> Arc<Rotation> {
        Rotation::new(weighted(weights), Some((before, None)))
    }

    #[test]
    fn an_order_goes_on_where_the_one_before_was() {
        let abc = Rotation::new(weighted(&[1, 1, 1]), None);
        assert_eq!(letters(&abc, 4), "abca");
        let ab = next(&abc, &[1, 1, 0]);
        assert_eq!(letters(&ab, 6), "bababa");
        assert_eq!(abc.step(), Err(Superseded));
        let abc = next(&ab, &[1, 1, 1]);
        assert_eq!(letters(&abc, 4), "bcab");
        // Nobody picks meanwhile: c has just had its turn.
        assert_eq!(letters(&abc, 1), "c");
        let abc = next(&next(&next(&abc, &[1, 1, 0]), &[0, 0, 0]), &[1, 1, 1]);
        assert_eq!(letters(&abc, 3), "abc");
    }

    #[test]
    fn an_order_over_the_same_backends_is_the_same() {
        let before = Rotation::new(weighted(&[1, 2]), None);
        assert!(Arc::ptr_eq(&before, &next(&before, &[1, 2])));
    }

    #[test]
    fn a_new_order_begins_at_its_beginning_where_nobody_has_had_a_turn() {
        let before = Rotation::new(weighted(&[1, 1, 0]), None);
        assert_eq!(letters(&next(&before, &[1, 1, 1]), 3), "abc");
    }

    #[test]
    fn an_order_lets_go_of_the_one_before_once_it_has_taken_over() {
        let before = Rotation::new(weighted(&[1, 1]), None);
        let after = next(&before, &[1, 0]);
        let held = Arc::strong_count(&before);
        after.take_over();
        assert_eq!(Arc::strong_count(&before), held - 1);
        assert_eq!((before.step(), letters(&after, 2)), (Err(Superseded), "aa".to_owned()));
    }

    #[test]
    fn backends_that_a_reload_moves_or_removes_keep_the_order_going() {
        let before = Rotation::new(weighted(&[1, 1, 1]), None);
        assert_eq!(letters(&before, 2), "ab");
        // b is gone, and x stands before the others: x, a, c.
        let after = Rotation::new(weighted(&[1, 1, 1]), Some((&before, Some([2, 2, 3].into()))));
        assert_eq!(letters(&after, 4), "cabc");
    }

    #[test]
    fn those_who_always_serve_share_exactly_whoever_comes_and_goes_and_however_often() {
        let mut random = fastrand::Rng::with_seed(49);
        for _ in 0..300 {
            let fixed: Vec<u32> = (0..3).map(|_| random.u32(1..=12)).collect();
            let mut turns = Rotation::new(weighted(&fixed), None);
            let (mut seen, mut others) = (Vec::new(), [0, 0]);
            while seen.len() < 200 {
                for _ in 0..random.usize(0..9) {
                    let turn = turns.step().unwrap().unwrap();
                    seen.extend((turn < 3).then_some(turn));
                }
                others.iter_mut().for_each(|weight| *weight = random.u32(0..=4));
                turns = next(&turns, &[&fixed[..], &others].concat());
            }
            let alone = Rotation::new(weighted(&fixed), None);
            let expected: Vec<u32> = seen.iter().map(|_| alone.step().unwrap().unwrap()).collect();
            assert_eq!(seen, expected, "weights {fixed:?}");
        }
    }
}
