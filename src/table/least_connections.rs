//! The fewest open sessions for its weight, exact across workers.

use std::sync::Arc;

use super::algorithm::Candidates;
use super::backend::{Backend, Permit};
use super::rotation::{Rotation, Superseded};

/// How often a pick looks again because another worker was faster. Each time, that one has got on.
const LOOKS: usize = 64;

/// Those who may serve, and whose turn it is among equals.
#[derive(Debug)]
pub(super) struct LeastConnections {
    /// Where to begin to look: with nothing to tell them apart, each is first as often as its weight says.
    rotation: Arc<Rotation>,
    /// Where each backend stands among those who may serve, by its index.
    positions: Box<[u32]>,
}

impl LeastConnections {
    pub(super) fn new(rotation: Arc<Rotation>) -> Self {
        let mut positions = vec![0; rotation.serving().last().map_or(0, |one| one.index as usize + 1)];
        rotation.serving().iter().zip(0..).for_each(|(one, position)| positions[one.index as usize] = position);
        Self { rotation, positions: positions.into() }
    }

    pub(super) fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    pub(super) fn choose(&self, candidates: &Candidates<'_>) -> Result<Option<Permit<Backend>>, Superseded> {
        let Some(index) = self.rotation.step()? else { return Ok(None) };
        let start = self.positions[index as usize] as usize;
        for _ in 0..LOOKS {
            let Some((index, taken)) = self.least(candidates, start) else { return Ok(None) };
            // Only if it is still the number that was compared: otherwise another worker has changed what is least.
            if let Some(permit) = Permit::take_after(&candidates.backends[index as usize], taken) {
                return Ok(Some(permit));
            }
        }
        Ok(self.least(candidates, start).and_then(|(index, _)| candidates.take(index)))
    }

    /// The least loaded one that is neither tried nor full, and how many sessions it has.
    fn least(&self, candidates: &Candidates<'_>, start: usize) -> Option<(u32, u32)> {
        let (before, after) = self.rotation.serving().split_at(start);
        let mut least: Option<(u32, u32)> = None;
        // More than any number of sessions: whoever comes first is less loaded.
        let (mut its, mut weight) = (1_u64 << 40, 1);
        for part in [after, before] {
            for &one in part {
                let permits = &candidates.backends[one.index as usize].permits;
                let taken = permits.taken();
                // taken / weight, compared without division.
                if u64::from(taken) * weight < its * u64::from(one.weight)
                    && !permits.are_full(taken)
                    && !candidates.is_tried(one.index)
                {
                    least = Some((one.index, taken));
                    if taken == 0 {
                        return least;
                    }
                    (its, weight) = (u64::from(taken), u64::from(one.weight));
                }
            }
        }
        least
    }
}
