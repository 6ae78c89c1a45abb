//! The end of a history: whether the outcome is the right one, in time, and nothing was lost that need not be.

use balancer::forward::flow::Direction;
use balancer::forward::session::{Millis, Outcome, Side};
use balancer::observe::counters::{Closed, Refused};

use crate::world::{SIDES, World};

/// How late a deadline may be noticed.
const LATE: Millis = 100;
/// How long a reset may stay unseen, or unpassed without progress.
const PROMPT: Millis = 500;
/// Writes that the session sees within 50 ms of one another count as one; each may be seen 10 ms late.
const COALESCED: Millis = 50 + 10;
/// OperationKind a session may not know yet: completions that queue, an acknowledgement between two looks.
const UNSEEN: Millis = 200;

impl World {
    /// Judges the outcome of a history that is over.
    pub(crate) fn judge(&mut self, outcome: Outcome) {
        let decided = self.record.decided.unwrap_or(self.now);
        match outcome {
            Outcome::Closed(Closed::Client) => self.clean(Side::Client),
            Outcome::Closed(Closed::Backend) => self.clean(Side::Backend),
            Outcome::Closed(Closed::ClientReset) => self.reset_passed_on(Side::Client, decided),
            Outcome::Closed(Closed::BackendReset) => {
                self.reset_passed_on(Side::Backend, decided);
                self.last_words(decided);
            }
            Outcome::Closed(Closed::Idle) => {
                assert!(self.record.connected && self.record.finished.is_none() && self.record.broken.is_none());
                self.on_time(decided, self.limits.idle);
            }
            Outcome::Closed(Closed::HalfClosed) => {
                assert!(self.record.finished.is_some() && self.record.broken.is_none());
                self.on_time(decided, self.limits.half_closed);
            }
            Outcome::Closed(Closed::Unresponsive) => {
                assert!(
                    SIDES.into_iter().any(|side| self.unresponsive(side, decided)),
                    "a peer that answers is called unresponsive"
                );
            }
            Outcome::Closed(reason @ (Closed::Drain | Closed::Error)) => assert_eq!(self.record.stopped, Some(reason)),
            Outcome::Refused(reason) => {
                let exhausted = reason == Refused::ConnectFailed && self.record.connects == self.limits.attempts;
                assert!(!self.record.connected, "refused although it was connected");
                let tired = reason == Refused::QueueTimeout
                    && self.record.waiting
                    && self
                        .record
                        .patience
                        .is_some_and(|until| (until..=until.max(self.record.queued) + LATE).contains(&decided));
                let stopped = reason == Refused::Stopping && self.record.stopped.is_some();
                assert!(self.record.unserved == Some(reason) || exhausted || stopped || tired, "refused for no reason");
            }
        }
        if !matches!(outcome, Outcome::Closed(Closed::Client | Closed::Backend)) {
            assert!(self.record.resets[0], "the client is not reset");
            assert!(self.record.resets[1] == self.kernel.established, "the backend is not reset");
        }
        self.nothing_overlooked(outcome, decided);
        self.coverage.ended(outcome);
        self.coverage.bytes += SIDES.map(|side| self.connections[side as usize].inbox.entered()).iter().sum::<u64>();
    }

    /// Everything arrived, then the ends, and no reset.
    fn clean(&self, first: Side) {
        assert_eq!(self.record.finished, Some(first), "the wrong one is said to have finished first");
        assert_eq!(self.record.resets, [false; 2], "a clean end with a reset");
        for direction in Direction::BOTH {
            let source = &self.connections[direction.source() as usize];
            let sink = &self.connections[direction.sink() as usize];
            assert!(source.ended, "{direction:?} is finished although its source is not");
            assert_eq!(sink.sending.entered(), source.received.entered(), "{direction:?} lost its last bytes");
            if sink.broken.is_none() && !sink.vanished {
                assert_eq!(sink.inbox.entered(), source.received.entered());
                assert!(sink.saw_end && !sink.saw_reset, "{:?} saw no clean end", direction.sink());
            }
        }
    }

    /// A reset was there, and did not wait without progress for longer than it may.
    fn reset_passed_on(&self, side: Side, decided: Millis) {
        let other = &self.connections[side.other() as usize];
        let Some(broken) = self.connections[side as usize].broken else { panic!("{side:?} has reset nothing") };
        let grace = if side == Side::Client { PROMPT } else { self.limits.half_closed + PROMPT };
        let since = if self.record.connected { broken.max(other.progress) } else { broken };
        assert!(decided <= since + grace, "the reset of {side:?} waited {} ms", decided - since);
        if let (Some(drained), true) = (self.record.drained, other.backlog() == 0 && other.broken.is_none()) {
            let since = drained.max(other.progress);
            assert!(decided <= since + UNSEEN, "the reset of {side:?} waited for nothing for {} ms", decided - since);
        }
    }

    /// Every byte before the backend's reset reached the client, unless the client itself did not take it.
    fn last_words(&mut self, decided: Millis) {
        let client = &self.connections[Side::Client as usize];
        let heard = self.record.broken.map_or(0, |(_, since)| since);
        let gave_up = decided + UNSEEN >= client.progress.max(heard) + self.limits.half_closed;
        let excused = client.broken.is_some() || gave_up;
        assert!(self.record.lost == 0 || excused, "{} bytes before the backend's reset are lost", self.record.lost);
        self.coverage.last_words_delivered += u64::from(self.record.lost == 0 && self.record.finished.is_none());
        self.coverage.last_words_given_up += u64::from(self.record.lost > 0 && gave_up);
    }

    fn unresponsive(&self, side: Side, decided: Millis) -> bool {
        // Where both directions are shut, a reset goes unheard: such a side is dead as well.
        self.connections[side as usize].broken.is_some()
            || self.silent_since(side).is_some_and(|since| decided + COALESCED >= since + self.limits.unresponsive)
    }

    fn on_time(&self, decided: Millis, limit: Millis) {
        // Bytes that leave the kernel's queue count, where the kernel tells of them.
        let sent =
            |side: Side| self.connections[side as usize].progress * u64::from(!self.connections[side as usize].mute);
        let age = decided - SIDES.into_iter().map(sent).fold(self.record.active, Millis::max);
        assert!((limit..=limit + LATE).contains(&age), "a limit of {limit} ms struck after {age} ms");
    }

    /// Since when a side that has vanished leaves something unanswered: bytes, or window probes.
    fn silent_since(&self, side: Side) -> Option<Millis> {
        let connection = &self.connections[side as usize];
        if !connection.vanished || connection.mute {
            None
        } else if connection.in_flight() {
            Some(connection.heard.max(connection.outstanding))
        } else {
            // One alone may be lost.
            (connection.probes > 1).then_some(connection.probed)
        }
    }

    /// Nothing that should have ended the session earlier was there.
    fn nothing_overlooked(&mut self, outcome: Outcome, decided: Millis) {
        let resets = [Closed::ClientReset, Closed::BackendReset].map(Outcome::Closed);
        for side in SIDES {
            let connection = &self.connections[side as usize];
            if side == Side::Backend && !self.record.connected {
                continue;
            }
            if let Some(broken) = connection.broken
                && !resets.contains(&outcome)
                && !(connection.ended && connection.finished)
                && self.record.broken.is_none()
            {
                assert!(decided <= broken + PROMPT, "a reset of {side:?} went unseen");
            }
            if self.record.broken.is_none()
                && self.record.connected
                && let Some(since) = self.silent_since(side)
            {
                // A closed window is looked at from time to time only: the clock starts where a probe is first seen unanswered.
                let limit = self.limits.unresponsive;
                let due = if connection.inbox.room() == 0 {
                    (since + 2 * limit + UNSEEN).max(connection.probed_again + limit / 4)
                } else {
                    since + limit
                };
                self.coverage.silent += 1;
                assert!(decided <= due + LATE + UNSEEN, "{side:?} was silent for {} ms", decided - since);
            }
        }
    }
}
