//! Each in turn, as often as its weight says.

use std::sync::Arc;

use super::algorithm::Candidates;
use super::backend::{Backend, Permit};
use super::rotation::{Rotation, Superseded};

/// Those who may serve, and whose turn it is.
#[derive(Debug)]
pub(super) struct RoundRobin {
    rotation: Arc<Rotation>,
}

impl RoundRobin {
    pub(super) fn new(rotation: Arc<Rotation>) -> Self {
        Self { rotation }
    }

    pub(super) fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// The next in turn. Who is tried or full is passed over by taking the next step. Exact across workers.
    #[inline]
    pub(super) fn choose(&self, candidates: &Candidates<'_>) -> Result<Option<Permit<Backend>>, Superseded> {
        // A step usually succeeds at once. Where most are full, stepping could go on for a whole period of the order, so it is
        // cut short and everyone is looked at once.
        for _ in 0..2 * self.rotation.serving().len() {
            let Some(index) = self.rotation.step()? else { return Ok(None) };
            if let Some(permit) = candidates.take(index) {
                return Ok(Some(permit));
            }
        }
        let indices = || self.rotation.serving().iter().map(|one| one.index);
        Ok(candidates.scan(indices, self.rotation.steps()))
    }
}
