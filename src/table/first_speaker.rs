//! Who speaks first in a service's sessions: the client, as with HTTP, TLS or redis, or the backend, as with SMTP or MySQL.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Sessions in a row that their clients opened, after which the next client is expected to do so, too.
const STREAK: u8 = 8;

/// What the last sessions of a service were opened by. Shared by all workers; a count lost between two of them does no harm.
#[derive(Debug, Default)]
pub struct FirstSpeaker(AtomicU8);

impl FirstSpeaker {
    /// The next session's client is expected to speak first.
    #[inline]
    pub fn by_client(&self) -> bool {
        self.0.load(Relaxed) >= STREAK
    }

    /// In a session the client has spoken first; or the backend has, or nobody for a while.
    #[inline]
    pub fn seen(&self, client: bool) {
        let before = self.0.load(Relaxed);
        let after = if client { before.saturating_add(1).min(STREAK) } else { 0 };
        if after != before {
            self.0.store(after, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_sessions_opened_by_clients_counts_and_one_other_ends_it() {
        let first_speaker = FirstSpeaker::default();
        for _ in 0..3 {
            for _ in 0..STREAK {
                assert!(!first_speaker.by_client());
                first_speaker.seen(true);
            }
            first_speaker.seen(true);
            assert!(first_speaker.by_client());
            first_speaker.seen(false);
        }
        assert!(!first_speaker.by_client());
    }
}
