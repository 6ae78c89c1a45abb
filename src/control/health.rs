//! One backend's health: what results of probes and failures of traffic make of its state.
//!
//! A pure state machine. Events and the time come in, a [`Change`] comes out when the state changes; it has no clock
//! and does no I/O, so that every history can be tried in a test. One [`Health`] belongs to one backend, its owner is
//! the control loop, and nobody else decides over `starting`, `up` and `down`. (`drained` is a person's decision, laid
//! over this one: probes go on meanwhile, unseen, and when it ends the backend begins anew as `starting`.)
//!
//! ```text
//!             first probe passed                fall failures in a row, or traffic failing
//!   starting ────────────────────► up ─────────────────────────────────────────────────────► down
//!       │                          ▲                                                         │ ▲
//!       └──────────────────────────┼───────────────── first probe failed ───────────────────┼─┘
//!                                  └─ rise passes in a row; without a probe: after a pause ──┘
//! ```
//!
//! - A fault of this machine is no event: it changes nothing and ends no run of passes or failures.
//! - Where probes pass and traffic fails, traffic is right. That they disagree is known from the first probe after such a
//!   fall: one that passed before says nothing of a server that has died since. Each time traffic proves right again
//!   within [`Health::SETTLED`] of such a return, the next return needs twice the passes, up to
//!   [`Health::MOST_DOUBLINGS`] doublings.
//! - Without a probe nothing but traffic can tell: a backend that it took down is tried again after a pause, which
//!   doubles in the same way, up to [`Health::LONGEST_PAUSE`].

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::observe::condition::State;
use crate::observe::counters::Probed;

/// What the configuration says of a backend's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Passes in a row that bring it up; 0 counts as 1.
    pub rise: u32,
    /// Failures in a row that take it down; 0 counts as 1.
    pub fall: u32,
    /// Connects of real traffic failed in a row that take it down; `None`: never.
    pub passive: Option<u32>,
    /// Between two probes; without a probe, the first pause before a backend that is down is tried again.
    pub interval: Duration,
    /// Whether it is probed at all.
    pub probed: bool,
}

/// What can happen to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A probe ended, with its result in words: `connect refused`.
    Probe(Probed, &'a str),
    /// So many connects of real traffic have failed in a row, the last one for this reason. Whoever counts begins anew
    /// at a connect that succeeds. One that counts on across a return makes the return a trial of one connect.
    TrafficFailing(u32, &'a str),
    /// [`Health::deadline`] may have passed.
    Tick,
}

/// A change of state, to be published and logged: one line each. Where only more is known of why, the state stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The state until now.
    pub from: State,
    /// The state from now on.
    pub to: State,
    /// Why, in words for people. Where the state stays: that traffic took it down, and its probes pass.
    pub reason: String,
}

/// One backend's health.
#[derive(Debug, Clone)]
pub struct Health {
    settings: Settings,
    phase: Phase,
    /// Why traffic took it down, until a probe has told what it thinks of that.
    accused: Option<String>,
    /// How often in a row traffic took it down soon after a return.
    relapses: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Starting,
    Up {
        failures: u32,
        /// When it returned, if traffic had taken it down.
        returned: Option<Instant>,
    },
    Down {
        by_traffic: bool,
        passes: u32,
        /// Passes in a row that bring it up.
        needed: u32,
        /// Without a probe: when it is tried again.
        again: Option<Instant>,
    },
}

impl Health {
    /// A backend that traffic does not take down for so long after a return has proved itself.
    pub const SETTLED: Duration = Duration::from_secs(60);
    /// The longest pause before a backend without a probe is tried again, unless the interval is longer.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
    /// How often the passes needed for a return may double.
    pub const MOST_DOUBLINGS: u32 = 4;

    /// A backend that is new: `starting`, or `up` at once if it is not probed.
    pub fn new(settings: Settings) -> Self {
        let phase = if settings.probed { Phase::Starting } else { Phase::Up { failures: 0, returned: None } };
        Self { settings, phase, accused: None, relapses: 0 }
    }

    /// The same backend as if it were new: nobody knows how it is until it is probed.
    pub fn renewed(&self) -> Self {
        Self::new(self.settings)
    }

    /// What the configuration says of it.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Its state: `starting`, `up` or `down`.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Starting => State::Starting,
            Phase::Up { .. } => State::Up,
            Phase::Down { .. } => State::Down,
        }
    }

    /// When [`Event::Tick`] is due; only a backend without a probe that is down has such a moment.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { again, .. } => again,
            Phase::Starting | Phase::Up { .. } => None,
        }
    }

    /// Takes over changed settings. The state stays, and runs under way go on with the new numbers, but nothing waits
    /// for a probe that is not made any more: `starting` ends, and `down` gets its pause.
    pub fn configure(&mut self, settings: Settings, now: Instant) -> Option<Change> {
        self.settings = settings;
        let doublings = self.doublings();
        match &mut self.phase {
            Phase::Starting if !settings.probed => Some(self.rise("not probed".to_owned(), now)),
            Phase::Down { needed, again, .. } => {
                *needed = settings.rise.max(1).saturating_mul(1 << doublings);
                *again = match again {
                    _ if settings.probed => None,
                    Some(at) => Some(*at),
                    None => now.checked_add(settings.interval),
                };
                None
            }
            Phase::Starting | Phase::Up { .. } => None,
        }
    }

    /// Takes in an event; answers the change of state that it makes, if any.
    pub fn on(&mut self, event: Event<'_>, now: Instant) -> Option<Change> {
        match event {
            Event::Probe(Probed::LocalFault, _) => None,
            // The end of an attempt that was under way when a reload turned probes off.
            Event::Probe(..) if !self.settings.probed => None,
            Event::Probe(Probed::Passed, _) => self.passed(now),
            Event::Probe(result, detail) => self.failed(if detail.is_empty() { words(result) } else { detail }),
            Event::TrafficFailing(count, why) => self.traffic_failing(count, why, now),
            Event::Tick => self.tick(now),
        }
    }

    fn passed(&mut self, now: Instant) -> Option<Change> {
        let accused = self.accused.take();
        match &mut self.phase {
            Phase::Starting => Some(self.rise("first probe passed".to_owned(), now)),
            Phase::Up { failures, .. } => {
                *failures = 0;
                None
            }
            Phase::Down { passes, needed, .. } => {
                *passes += 1;
                let (returns, passed) = (*passes >= *needed, format!("{needed} of {needed} probes passed"));
                let Some(accused) = accused else { return returns.then(|| self.rise(passed, now)) };
                let although = format!("{accused} although its probes pass");
                Some(if returns {
                    self.rise(format!("{passed}: {although}"), now)
                } else {
                    self.change(self.phase, although)
                })
            }
        }
    }

    fn failed(&mut self, why: &str) -> Option<Change> {
        self.accused = None;
        let fall = self.settings.fall.max(1);
        let reason = match &mut self.phase {
            Phase::Starting => format!("first probe failed: {why}"),
            Phase::Up { failures, .. } => {
                *failures += 1;
                if *failures < fall {
                    return None;
                }
                format!("{why}, {fall} of {fall} probes failed")
            }
            Phase::Down { passes, .. } => {
                *passes = 0;
                return None;
            }
        };
        // The probes see by themselves what is wrong: their word is enough for the return.
        self.relapses = 0;
        Some(self.fall(reason, false, None))
    }

    fn traffic_failing(&mut self, count: u32, why: &str, now: Instant) -> Option<Change> {
        let limit = self.settings.passive?.max(1);
        let Phase::Up { returned, .. } = self.phase else { return None };
        if count < limit {
            return None;
        }
        let relapse = returned.is_some_and(|at| now.saturating_duration_since(at) < Self::SETTLED);
        self.relapses = if relapse { self.relapses.saturating_add(1) } else { 0 };
        let reason = match count {
            1 => format!("1 connect of a client failed ({why})"),
            _ => format!("{count} connects of clients failed in a row ({why})"),
        };
        self.accused = self.settings.probed.then(|| reason.clone());
        let again = if self.settings.probed { None } else { now.checked_add(self.pause()) };
        Some(self.fall(reason, true, again))
    }

    fn tick(&mut self, now: Instant) -> Option<Change> {
        let Phase::Down { again: Some(again), .. } = self.phase else { return None };
        (now >= again).then(|| self.rise("on trial, as it is not probed".to_owned(), now))
    }

    fn rise(&mut self, reason: String, now: Instant) -> Change {
        let returned = matches!(self.phase, Phase::Down { by_traffic: true, .. }).then_some(now);
        self.change(Phase::Up { failures: 0, returned }, reason)
    }

    fn fall(&mut self, reason: String, by_traffic: bool, again: Option<Instant>) -> Change {
        let needed = self.settings.rise.max(1).saturating_mul(1 << self.doublings());
        self.change(Phase::Down { by_traffic, passes: 0, needed, again }, reason)
    }

    fn change(&mut self, phase: Phase, reason: String) -> Change {
        let from = self.state();
        self.phase = phase;
        Change { from, to: self.state(), reason }
    }

    fn doublings(&self) -> u32 {
        self.relapses.min(Self::MOST_DOUBLINGS)
    }

    fn pause(&self) -> Duration {
        let interval = self.settings.interval;
        let doubled = interval.saturating_mul(1 << self.relapses.min(16));
        doubled.min(Self::LONGEST_PAUSE).max(interval)
    }
}

/// A failure in words, where the prober found no better ones.
fn words(result: Probed) -> &'static str {
    match result {
        Probed::Passed => "passed",
        Probed::Refused => "connect refused",
        Probed::TimedOut => "no answer in time",
        Probed::Reset => "connection reset",
        Probed::Unreachable => "unreachable",
        Probed::WrongStatus => "wrong status",
        Probed::WrongBytes => "wrong answer",
        Probed::LocalFault => "fault of this machine",
    }
}
