//! The first in the order of the file that has a free permit.

use super::algorithm::{Candidates, Serving};
use super::backend::{Backend, Permit};

/// Those who may serve, in the order of the file.
#[derive(Debug)]
pub(super) struct First {
    order: Box<[u32]>,
}

impl First {
    pub(super) fn new(serving: &[Serving]) -> Self {
        Self { order: serving.iter().map(|one| one.index).collect() }
    }

    pub(super) fn choose(&self, candidates: &Candidates<'_>) -> Option<Permit<Backend>> {
        self.order.iter().find_map(|&index| candidates.take(index))
    }
}
