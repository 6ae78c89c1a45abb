//! Which way the bytes of a direction should take: copied, or spliced while the stream is bulk.

use balancer::forward::flow::SpliceEnd;

/// Full buffers in a row that make a stream bulk, and small turns in a row that end it.
const STREAK: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Path {
    pub(crate) bulk: bool,
    /// It has become bulk, and not been spliced yet.
    pub(crate) fresh: bool,
    streak: u32,
}

impl Path {
    pub(crate) fn received(&mut self, full: bool) {
        self.streak = if full { self.streak + 1 } else { 0 };
    }

    /// All that was received is sent: a change of path comes only now.
    pub(crate) fn copied(&mut self) {
        if self.streak >= STREAK {
            *self = Self { bulk: true, fresh: true, streak: 0 };
        }
    }

    /// Answers whether the stream is no longer bulk.
    pub(crate) fn moved(&mut self, small: bool, turn: SpliceEnd) -> bool {
        let refused = turn == SpliceEnd::NoPipe;
        if turn == SpliceEnd::Drained {
            self.streak = if small { self.streak + 1 } else { 0 };
        }
        let leaves = refused || self.streak >= STREAK;
        if leaves {
            *self = Self::default();
        }
        leaves
    }
}
