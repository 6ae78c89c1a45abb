//! The worker's pipes: few, big, lent while bulk flows, given up when it is quiet.

use super::session::{Millis, NEVER};
use crate::sys::pipe::Pipe;

/// Pipes of all workers together. An unprivileged user may hold 64 big ones (16,384 pages: pipe(7), `pipe-user-pages-soft`).
const PIPES: usize = 64;
/// After the kernel has refused a pipe, none is asked for again this long.
const REFUSED_PAUSE: Millis = 1000;
/// Spare pipes are closed when none was lent for this long.
const QUIET: Millis = 1000;

/// The most pipes that so many workers hold together: the same number each, and each at least one.
pub fn most_pipes(workers: usize) -> usize {
    (PIPES / workers).max(1) * workers
}

/// A worker's share of the pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    spare: Vec<Pipe>,
    lent: usize,
    limit: usize,
    big: bool,
    refused_until: Millis,
    used: Millis,
}

impl Pipes {
    /// One share of so many.
    pub(super) fn new(workers: usize, big: bool) -> Self {
        Self { spare: Vec::new(), lent: 0, limit: most_pipes(workers) / workers, big, refused_until: 0, used: 0 }
    }

    /// Pipes that exist, lent or spare.
    pub(super) fn count(&self) -> usize {
        self.lent + self.spare.len()
    }

    /// An empty pipe: the one used last, or a new one if there may be more.
    pub(super) fn lend(&mut self, now: Millis) -> Option<Pipe> {
        let pipe = match self.spare.pop() {
            Some(pipe) => pipe,
            None if self.lent < self.limit && now >= self.refused_until => match Pipe::new(self.big) {
                Ok(pipe) => pipe,
                Err(_) => {
                    self.refused_until = now + REFUSED_PAUSE;
                    return None;
                }
            },
            None => return None,
        };
        self.lent += 1;
        self.used = now;
        Some(pipe)
    }

    /// Takes a pipe back. One with bytes in it is never used again.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.lent -= 1;
        if pipe.filled() == 0 {
            self.spare.push(pipe);
        }
    }

    /// When to call [`Pipes::close_idle`].
    pub(super) fn due(&self) -> Millis {
        if self.spare.is_empty() { NEVER } else { self.used.saturating_add(QUIET) }
    }

    /// Closes the spare pipes if none was lent for a while.
    pub(super) fn close_idle(&mut self, now: Millis) {
        if now >= self.due() {
            self.spare = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_pipes_and_none_goes_without() {
        assert_eq!([1, 2, 3, 64, 65, 200].map(most_pipes), [64, 64, 63, 64, 65, 200]);
    }
}
