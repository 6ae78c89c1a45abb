//! How a session comes to its end: both sides have finished, one breaks, a deadline strikes.

use super::{
    CLIENT_RESET_GRACE, Closed, Direction, Flow, InFlight, LONGEST_LOOK, Millis, NEVER, Outcome, Phase, Refused,
    Session, Side, TcpLiveness, millis, todo,
};

impl Session {
    /// The source has finished and all that it sent is delivered.
    pub(super) fn ended(&mut self, direction: Direction, now: Millis) {
        match self.phase {
            Phase::Open => {
                self.flow(direction).end();
                self.active = now;
                let first = *self.finished.get_or_insert_with(|| direction.source());
                let both = self.flows.iter().all(Flow::ended);
                // The close that follows at once says the second end by itself. Operations in flight need the shutdown to complete.
                if !both || self.in_flight != 0 {
                    self.note(todo::FINISH, direction.sink());
                }
                // The end, too, wants to be acknowledged; it counts as one byte.
                self.wrote(direction.sink(), 1, now);
                if both {
                    let reason = if first == Side::Client { Closed::Client } else { Closed::Backend };
                    self.decided(Outcome::Closed(reason), now);
                } else {
                    self.watch_if_blind(direction, now);
                }
            }
            // The end of a broken side's bytes: what comes after them is the reset.
            Phase::PassingOn { broken, .. } if broken == direction.source() => self.drained(direction),
            _ => {}
        }
    }

    /// A side's connection is broken; `during`: an operation of that direction met it, not the watch.
    pub(super) fn broken(&mut self, side: Side, during: Option<Direction>, now: Millis) {
        let (from, towards) = (Direction::from(side), Direction::from(side.other()));
        match self.phase {
            Phase::Connecting { .. } | Phase::Waiting { .. } => self.close(Outcome::Closed(reset_by(side)), now),
            Phase::Open => {
                self.flow(towards).cut();
                self.phase =
                    Phase::PassingOn { broken: side, progress: now, backlog: usize::MAX, look: NEVER, step: 1 };
                self.watch(side.other());
                if during == Some(from) && !self.flow(from).dries() || self.flow(from).over() {
                    self.drained(from);
                } else {
                    self.note(todo::MEASURE, from.sink());
                }
            }
            Phase::PassingOn { broken, .. } if broken != side => self.close(Outcome::Closed(reset_by(broken)), now),
            Phase::PassingOn { .. } if during == Some(from) => {
                if !self.flow(from).dries() {
                    self.drained(from);
                }
            }
            Phase::PassingOn { .. } | Phase::Closing { .. } => {}
        }
    }

    /// All that the broken side sent is written; now its way to the other side's kernel is watched.
    fn drained(&mut self, direction: Direction) {
        self.flow(direction).cut();
        if let Phase::PassingOn { step, .. } = &mut self.phase {
            *step = 1;
        }
        self.note(todo::MEASURE, direction.sink());
    }

    pub(super) fn backlog(&mut self, side: Side, bytes: usize, now: Millis) {
        match self.phase {
            Phase::PassingOn { broken, progress, backlog, step, .. } if broken != side => {
                // OperationKind its kernel delivers is progress, too: a slow one reports room for more only when a third of its queue is free.
                let progress = if bytes < backlog { now } else { progress };
                let arrived = bytes == 0 && self.flow(Direction::from(broken)).over();
                if arrived || now >= self.give_up(broken, progress) {
                    return self.close(Outcome::Closed(reset_by(broken)), now);
                }
                let step_after = (step * 2).min(LONGEST_LOOK);
                self.phase = Phase::PassingOn { broken, progress, backlog: bytes, look: now + step, step: step_after };
            }
            Phase::Open => self.peers[side as usize].measured(bytes),
            _ => {}
        }
    }

    pub(super) fn inspected(&mut self, side: Side, signs: Option<TcpLiveness>, now: Millis) {
        if self.peers[side as usize].unresponsive(signs, now, self.limits.unresponsive) {
            return self.close(Outcome::Closed(Closed::Unresponsive), now);
        }
        // Bytes that only now leave the kernel's queue for a slow reader move, too.
        if let Some(since_sent) = signs.and_then(|signs| signs.since_sent) {
            self.active = self.active.max(now.saturating_sub(millis(since_sent)));
        }
        if self.todo & (0b11 << todo::INSPECT) == 0 && now >= self.silent_until() {
            let reason = if self.finished.is_some() { Closed::HalfClosed } else { Closed::Idle };
            self.close(Outcome::Closed(reason), now);
        }
    }

    pub(super) fn deadline(&mut self, now: Millis) {
        if self.watch <= now {
            self.watch_blind();
        }
        match self.phase {
            Phase::Connecting { since, attempt, cancelled: false }
                if now >= since.saturating_add(self.limits.connect) =>
            {
                self.phase = Phase::Connecting { since, attempt, cancelled: true };
                self.cancel |= InFlight::Connect.bit() & self.in_flight;
            }
            Phase::Open => {
                let silent = now >= self.silent_until();
                for side in [Side::Client, Side::Backend] {
                    if silent || self.peers[side as usize].look() <= now {
                        self.note(todo::INSPECT, side);
                    }
                }
            }
            Phase::PassingOn { broken, progress, backlog, look, step }
                if now >= look.min(self.give_up(broken, progress)) =>
            {
                self.phase = Phase::PassingOn { broken, progress, backlog, look: NEVER, step };
                self.note(todo::MEASURE, broken.other());
            }
            Phase::Waiting { .. } if now >= self.patience => self.close(Outcome::Refused(Refused::QueueTimeout), now),
            Phase::Connecting { .. } | Phase::Waiting { .. } | Phase::PassingOn { .. } | Phase::Closing { .. } => {}
        }
    }

    /// A backend is being connected.
    pub fn connects(&self) -> bool {
        matches!(self.phase, Phase::Connecting { .. })
    }

    /// The backend is not to serve it any more. Who is only being connected is spared: a connect that is cancelled has failed, so that
    /// the next backend is tried.
    pub(super) fn leave_drained_backend(&mut self, now: Millis) {
        match self.phase {
            Phase::Connecting { .. } => self.cancel |= InFlight::Connect.bit() & self.in_flight,
            Phase::Waiting { .. } => {}
            _ => self.close(Outcome::Closed(Closed::Drain), now),
        }
    }

    /// Ends the session with a reset of both sides: whatever cuts a session short must not look like a clean end.
    pub(super) fn close(&mut self, outcome: Outcome, now: Millis) {
        let connecting = matches!(self.phase, Phase::Connecting { .. } | Phase::Waiting { .. });
        self.todo = 0;
        self.decided(outcome, now);
        self.note(todo::RESET, Side::Client);
        if connecting {
            self.cancel |= InFlight::Connect.bit() & self.in_flight;
        } else {
            self.note(todo::RESET, Side::Backend);
        }
    }

    pub(super) fn decided(&mut self, outcome: Outcome, now: Millis) {
        self.phase = Phase::Closing { outcome, since: now };
        self.watch = NEVER;
        self.todo &= todo::LAST;
    }

    pub(super) fn phase_since(&mut self, now: Millis) {
        if let Phase::Closing { since, .. } = &mut self.phase {
            *since = now;
        }
    }

    /// When the session ends if no byte moves.
    pub(super) fn silent_until(&self) -> Millis {
        self.active.saturating_add(if self.finished.is_some() { self.limits.half_closed } else { self.limits.idle })
    }

    /// When a reset is passed on although not everything before it is delivered.
    pub(super) fn give_up(&self, broken: Side, progress: Millis) -> Millis {
        let grace = if broken == Side::Client { CLIENT_RESET_GRACE } else { self.limits.half_closed };
        progress.saturating_add(grace)
    }
}

fn reset_by(side: Side) -> Closed {
    match side {
        Side::Client => Closed::ClientReset,
        Side::Backend => Closed::BackendReset,
    }
}
