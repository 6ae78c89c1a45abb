//! Whether a peer's kernel still answers: what was written to it, and since when it has acknowledged nothing.
//!
//! `TCP_USER_TIMEOUT` cannot tell a vanished peer from a paused reader whose kernel answers window probes; `tcpi_last_ack_recv` can.

use super::session::{Millis, NEVER, millis};
use crate::sys::socket::TcpLiveness;

/// A write after so long a pause may start the clock anew, if all before it is acknowledged.
const PAUSE: Millis = 50;

/// One end of a session as far as its signs of life go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// When it was last written to; `NEVER` before.
    written: Millis,
    /// How much was written then.
    last: usize,
    /// Nothing written before this is unacknowledged, unless the last acknowledgement is younger anyway.
    outstanding: Millis,
    /// When to ask for signs of life.
    look: Millis,
    /// At the last look a window probe was unanswered.
    probing: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self { written: NEVER, last: 0, outstanding: 0, look: NEVER, probing: false }
    }
}

impl Peer {
    /// When to ask for signs of life.
    pub(super) fn look(&self) -> Millis {
        self.look
    }

    /// Bytes were written. Answers whether the backlog is to be measured.
    #[inline]
    pub(super) fn wrote(&mut self, bytes: usize, now: Millis, limit: Millis) -> bool {
        let first = self.written == NEVER;
        if first {
            self.outstanding = now;
        }
        let paused = !first && now >= self.written.saturating_add(PAUSE);
        // A send and the splice turn right behind it are measured together.
        self.last = if self.written == now { self.last.saturating_add(bytes) } else { bytes };
        self.written = now;
        if self.look == NEVER {
            self.look = now.saturating_add(limit);
        }
        paused
    }

    /// The backlog right after the last write: if it is no more than that write, the clock starts there.
    pub(super) fn measured(&mut self, backlog: usize) {
        if backlog <= self.last {
            self.outstanding = self.written;
        }
    }

    /// Judges signs of life, asked for at `look`. Answers whether the peer has acknowledged nothing for `limit`.
    pub(super) fn unresponsive(&mut self, signs: Option<TcpLiveness>, now: Millis, limit: Millis) -> bool {
        self.look = NEVER;
        let Some(signs) = signs else { return false };
        let acknowledged = now.saturating_sub(millis(signs.since_acknowledgement));
        if signs.unacknowledged || signs.unanswered_probes > 0 {
            // No event tells when a probe went out: the clock starts where one is first seen unanswered, and again if the peer has
            // acknowledged something since, because then this is another probe.
            if !signs.unacknowledged && (!self.probing || acknowledged >= self.outstanding) {
                self.outstanding = now;
            }
            self.probing = !signs.unacknowledged;
            let due = acknowledged.max(self.outstanding).saturating_add(limit);
            // One packet may get lost: until the next probe, as long after it as the stall has taken, one says nothing.
            if now >= due && !signs.unacknowledged && signs.unanswered_probes == 1 {
                self.look = now + (limit / 4).max(1);
                return false;
            }
            self.look = due.max(now + 1);
            return now >= due;
        }
        self.probing = false;
        if signs.unsent {
            self.look = now + (limit / 4).max(1);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMIT: Millis = 30_000;

    fn signs(ago: Millis) -> TcpLiveness {
        TcpLiveness {
            since_acknowledgement: Duration::from_millis(ago),
            unacknowledged: false,
            unanswered_probes: 0,
            unsent: false,
            since_sent: None,
        }
    }

    #[test]
    fn a_peer_that_acknowledges_nothing_is_unresponsive_at_the_limit() {
        let mut peer = Peer::default();
        assert!(!peer.wrote(10, 5_000, LIMIT));
        assert_eq!(peer.look(), 35_000);
        let silent = TcpLiveness { unacknowledged: true, ..signs(31_000) };
        assert!(peer.unresponsive(Some(silent), 35_000, LIMIT));
    }

    #[test]
    fn an_old_acknowledgement_is_no_reproach_when_the_data_is_young() {
        let mut peer = Peer::default();
        peer.wrote(10, 0, LIMIT);
        // Quiet for long, then a write just before the look: everything before it was acknowledged.
        assert!(peer.wrote(10, 29_900, LIMIT));
        peer.measured(10);
        let waiting = TcpLiveness { unacknowledged: true, ..signs(29_999) };
        assert!(!peer.unresponsive(Some(waiting), 30_000, LIMIT));
        assert_eq!(peer.look(), 59_900);
    }

    #[test]
    fn a_paused_reader_whose_kernel_answers_probes_lives_on() {
        let mut peer = Peer::default();
        peer.wrote(10, 0, LIMIT);
        let paused = TcpLiveness { unsent: true, ..signs(60_000) };
        for now in (30_000..600_000).step_by(7_500) {
            assert!(!peer.unresponsive(Some(paused), now, LIMIT));
            assert_eq!(peer.look(), now + 7_500);
        }
        // A probe just sent is not yet unanswered for long.
        let probing = TcpLiveness { unanswered_probes: 2, ..paused };
        assert!(!peer.unresponsive(Some(probing), 600_000, LIMIT));
        assert!(peer.unresponsive(
            Some(TcpLiveness { since_acknowledgement: Duration::from_secs(120), ..probing }),
            630_000,
            LIMIT
        ));
    }

    #[test]
    fn a_probe_under_way_at_two_looks_is_not_one_unanswered_probe() {
        let mut peer = Peer::default();
        peer.wrote(10, 0, LIMIT);
        let probing = TcpLiveness { unanswered_probes: 2, unsent: true, ..signs(20_000) };
        assert!(!peer.unresponsive(Some(probing), 30_000, LIMIT));
        // Answered 20 ms later; the next one went out just before the clock would have run down.
        let next = TcpLiveness { since_acknowledgement: Duration::from_millis(30_000), ..probing };
        assert!(!peer.unresponsive(Some(next), 60_020, LIMIT));
        let never = TcpLiveness { since_acknowledgement: Duration::from_millis(60_000), ..probing };
        assert!(peer.unresponsive(Some(never), 90_020, LIMIT));
    }

    #[test]
    fn a_single_window_probe_that_gets_lost_is_no_reproach_and_the_next_one_is() {
        let mut peer = Peer::default();
        peer.wrote(10, 0, LIMIT);
        let since = |ago, probes| TcpLiveness { unanswered_probes: probes, unsent: true, ..signs(ago) };
        assert!(!peer.unresponsive(Some(since(60_000, 1)), 60_000, LIMIT));
        for now in (90_000..150_000).step_by(7_500) {
            assert!(!peer.unresponsive(Some(since(now, 1)), now, LIMIT));
            assert_eq!(peer.look(), now + 7_500);
        }
        assert!(peer.unresponsive(Some(since(150_000, 2)), 150_000, LIMIT));
    }

    #[test]
    fn a_peer_that_has_acknowledged_all_is_not_asked_again_before_the_next_write() {
        let mut peer = Peer::default();
        peer.wrote(10, 0, LIMIT);
        assert!(!peer.unresponsive(Some(signs(29_999)), 30_000, LIMIT));
        assert_eq!(peer.look(), NEVER);
        peer.wrote(10, 40_000, LIMIT);
        assert_eq!(peer.look(), 70_000);
    }
}
