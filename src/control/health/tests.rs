//! Each rule of a backend's health by itself, then random histories against a naive model.

use std::time::{Duration, Instant};

use super::{Change, Event, Health, Settings};
use crate::observe::condition::State;
use crate::observe::counters::Probed;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: Settings =
    Settings { rise: 2, fall: 3, passive: Some(3), interval: Duration::from_secs(2), probed: true };
const UNPROBED: Settings = Settings { probed: false, ..SETTINGS };
const PASS: Event<'_> = Event::Probe(Probed::Passed, "connected");
const REFUSED: Event<'_> = Event::Probe(Probed::Refused, "connect refused");
const LOCAL: Event<'_> = Event::Probe(Probed::LocalFault, "no descriptor");
const TRAFFIC: Event<'_> = Event::TrafficFailing(3, "connect timed out");

/// A backend and its clock, which stands still unless it is moved.
struct Tried {
    health: Health,
    now: Instant,
}

impl Tried {
    fn new(settings: Settings) -> Self {
        Self { health: Health::new(settings), now: Instant::now() }
    }

    fn up() -> Self {
        let mut tried = Self::new(SETTINGS);
        tried.changes(PASS, State::Up, "first probe passed");
        tried
    }

    #[track_caller]
    fn changes(&mut self, event: Event<'_>, to: State, reason: &str) {
        let from = self.health.state();
        let change = self.health.on(event, self.now);
        assert_eq!(change, Some(Change { from, to, reason: reason.to_owned() }));
        assert_eq!(self.health.state(), to);
    }

    #[track_caller]
    fn changes_nothing(&mut self, events: &[Event<'_>]) {
        let state = self.health.state();
        for &event in events {
            assert_eq!(self.health.on(event, self.now), None, "{event:?}");
        }
        assert_eq!(self.health.state(), state);
    }
}

#[test]
fn the_first_probe_decides_alone() {
    let mut well = Tried::new(SETTINGS);
    assert_eq!(well.health.state(), State::Starting);
    well.changes(PASS, State::Up, "first probe passed");
    let mut ill = Tried::new(SETTINGS);
    ill.changes(REFUSED, State::Down, "first probe failed: connect refused");
    // From then on rise counts.
    ill.changes_nothing(&[PASS]);
    ill.changes(PASS, State::Up, "2 of 2 probes passed");
}

#[test]
fn down_after_exactly_fall_failures_in_a_row() {
    let mut tried = Tried::up();
    tried.changes_nothing(&[REFUSED, REFUSED, PASS, REFUSED, REFUSED]);
    let wrong = Event::Probe(Probed::WrongStatus, "status 500");
    tried.changes(wrong, State::Down, "status 500, 3 of 3 probes failed");
    tried.changes_nothing(&[REFUSED, wrong, REFUSED, REFUSED]);
}

#[test]
fn up_after_exactly_rise_passes_in_a_row() {
    let mut tried = Tried::new(SETTINGS);
    tried.changes(REFUSED, State::Down, "first probe failed: connect refused");
    tried.changes_nothing(&[PASS, REFUSED, PASS]);
    tried.changes(PASS, State::Up, "2 of 2 probes passed");
}

#[test]
fn a_failure_without_words_is_named_by_its_result() {
    let mut tried = Tried::new(SETTINGS);
    tried.changes(Event::Probe(Probed::Reset, ""), State::Down, "first probe failed: connection reset");
}

#[test]
fn a_local_fault_changes_and_counts_nothing() {
    let mut tried = Tried::new(SETTINGS);
    tried.changes_nothing(&[LOCAL, LOCAL, LOCAL, LOCAL]);
    tried.changes(PASS, State::Up, "first probe passed");
    // It neither adds to a run of failures nor ends it.
    tried.changes_nothing(&[LOCAL, REFUSED, LOCAL, REFUSED, LOCAL]);
    tried.changes(REFUSED, State::Down, "connect refused, 3 of 3 probes failed");
    tried.changes_nothing(&[PASS, LOCAL]);
    tried.changes(PASS, State::Up, "2 of 2 probes passed");
}

#[test]
fn failing_traffic_takes_it_down_although_probes_pass_and_rise_counts_from_zero() {
    let mut tried = Tried::new(Settings { rise: 3, ..SETTINGS });
    tried.changes(PASS, State::Up, "first probe passed");
    tried.changes_nothing(&[PASS, PASS, PASS, Event::TrafficFailing(2, "connect timed out")]);
    let reason = "3 connects of clients failed in a row (connect timed out)";
    tried.changes(TRAFFIC, State::Down, reason);
    tried.changes_nothing(&[TRAFFIC, LOCAL]);
    // Said once, by the first probe after it: one from before says nothing of a server that has died since.
    tried.changes(PASS, State::Down, &format!("{reason} although its probes pass"));
    tried.changes_nothing(&[PASS, REFUSED, PASS, PASS]);
    tried.changes(PASS, State::Up, "3 of 3 probes passed");
}

#[test]
fn a_single_pass_that_brings_it_back_says_the_disagreement_with_the_return() {
    let mut tried = Tried::new(Settings { rise: 1, ..SETTINGS });
    tried.changes(PASS, State::Up, "first probe passed");
    let reason = "3 connects of clients failed in a row (connect timed out)";
    tried.changes(TRAFFIC, State::Down, reason);
    tried.changes(PASS, State::Up, &format!("1 of 1 probes passed: {reason} although its probes pass"));
}

#[test]
fn where_the_next_probe_fails_too_no_disagreement_is_said() {
    let mut tried = Tried::up();
    tried.changes(TRAFFIC, State::Down, "3 connects of clients failed in a row (connect timed out)");
    tried.changes_nothing(&[REFUSED, PASS]);
    tried.changes(PASS, State::Up, "2 of 2 probes passed");
}

#[test]
fn with_passive_off_traffic_takes_nothing_down() {
    let mut tried = Tried::new(Settings { passive: None, ..SETTINGS });
    tried.changes(PASS, State::Up, "first probe passed");
    tried.changes_nothing(&[TRAFFIC, Event::TrafficFailing(1000, "connect refused")]);
}

/// Fails traffic, then counts the passes that it takes to return.
fn passes_to_return(tried: &mut Tried) -> usize {
    assert!(tried.health.on(TRAFFIC, tried.now).is_some_and(|change| change.to == State::Down));
    let returns = |change: Option<Change>| change.is_some_and(|change| change.to == State::Up);
    (1..1000).find(|_| returns(tried.health.on(PASS, tried.now))).expect("it returns")
}

#[test]
fn one_that_only_its_probes_call_well_needs_twice_the_passes_each_time() {
    let mut tried = Tried::up();
    let needed: Vec<_> = (0..7).map(|_| passes_to_return(&mut tried)).collect();
    assert_eq!(needed, [2, 4, 8, 16, 32, 32, 32]);
    // Proved: no relapse.
    tried.now += Health::SETTLED;
    assert_eq!(passes_to_return(&mut tried), 2);
    assert_eq!(passes_to_return(&mut tried), 4);
    // Probes that see the fault by themselves are trusted with the return.
    tried.changes_nothing(&[REFUSED, REFUSED]);
    tried.changes(REFUSED, State::Down, "connect refused, 3 of 3 probes failed");
    tried.changes_nothing(&[PASS]);
    tried.changes(PASS, State::Up, "2 of 2 probes passed");
    assert_eq!(passes_to_return(&mut tried), 2);
}

#[test]
fn without_a_probe_it_is_up_at_once_and_only_traffic_takes_it_down() {
    let mut tried = Tried::new(UNPROBED);
    assert_eq!(tried.health.state(), State::Up);
    assert_eq!(tried.health.deadline(), None);
    tried.changes_nothing(&[REFUSED, REFUSED, REFUSED, REFUSED, Event::Tick]);
    tried.changes(TRAFFIC, State::Down, "3 connects of clients failed in a row (connect timed out)");
    assert_eq!(tried.health.deadline(), Some(tried.now + 2 * SECOND));
    tried.now += 2 * SECOND - Duration::from_nanos(1);
    tried.changes_nothing(&[Event::Tick, PASS, PASS]);
    tried.now += Duration::from_nanos(1);
    tried.changes(Event::Tick, State::Up, "on trial, as it is not probed");
    assert_eq!(tried.health.deadline(), None);
    // Whoever counts may count on, so that one connect decides the trial.
    let fourth = Event::TrafficFailing(4, "connect refused");
    tried.changes(fourth, State::Down, "4 connects of clients failed in a row (connect refused)");
}

/// Fails traffic, then waits until it is tried again; answers for how many seconds.
fn pause(tried: &mut Tried) -> u64 {
    assert!(tried.health.on(TRAFFIC, tried.now).is_some_and(|change| change.to == State::Down));
    let until = tried.health.deadline().expect("it is tried again");
    let pause = until - tried.now;
    tried.now = until;
    assert!(tried.health.on(Event::Tick, tried.now).is_some_and(|change| change.to == State::Up));
    pause.as_secs()
}

#[test]
fn without_a_probe_the_pause_doubles_to_a_minute_while_it_fails_again() {
    let mut tried = Tried::new(UNPROBED);
    let pauses: Vec<_> = (0..50).map(|_| pause(&mut tried)).collect();
    assert_eq!(pauses[..7], [2, 4, 8, 16, 32, 60, 60]);
    assert!(pauses[7..].iter().all(|&pause| pause == 60), "{pauses:?}");
    tried.now += Health::SETTLED;
    assert_eq!(pause(&mut tried), 2);
    // An interval that is longer than a minute is never cut short.
    let mut slow = Tried::new(Settings { interval: 90 * SECOND, ..UNPROBED });
    assert_eq!([pause(&mut slow), pause(&mut slow)], [90, 90]);
}

#[test]
fn turning_probes_off_leaves_nothing_waiting_for_one() {
    let mut starting = Tried::new(SETTINGS);
    let change = starting.health.configure(UNPROBED, starting.now);
    assert_eq!(change, Some(Change { from: State::Starting, to: State::Up, reason: "not probed".to_owned() }));

    let mut down = Tried::new(SETTINGS);
    down.changes(REFUSED, State::Down, "first probe failed: connect refused");
    assert_eq!(down.health.configure(UNPROBED, down.now), None);
    assert_eq!(down.health.deadline(), Some(down.now + 2 * SECOND));
    // And back: from then on only probes bring it up.
    assert_eq!(down.health.configure(SETTINGS, down.now), None);
    assert_eq!(down.health.deadline(), None);
    down.changes_nothing(&[PASS]);
    down.changes(PASS, State::Up, "2 of 2 probes passed");
}

#[test]
fn new_numbers_hold_for_runs_under_way() {
    let mut tried = Tried::up();
    tried.changes_nothing(&[REFUSED, REFUSED]);
    assert_eq!(tried.health.configure(Settings { fall: 2, rise: 3, ..SETTINGS }, tried.now), None);
    tried.changes(REFUSED, State::Down, "connect refused, 2 of 2 probes failed");
    tried.changes_nothing(&[PASS]);
    assert_eq!(tried.health.configure(Settings { rise: 1, ..SETTINGS }, tried.now), None);
    tried.changes(PASS, State::Up, "1 of 1 probes passed");
}

/// A probed backend, said as naively as can be: it looks back over everything since the last change of state.
struct Model {
    settings: Settings,
    state: State,
    /// Probes since the last change, local faults left out.
    probes: Vec<bool>,
    doublings: u32,
    /// When it returned from an eviction by traffic.
    returned: Option<Instant>,
    by_traffic: bool,
}

impl Model {
    fn on(&mut self, event: Event<'_>, now: Instant) -> State {
        let failing = match event {
            Event::Probe(Probed::LocalFault, _) | Event::Tick => return self.state,
            Event::Probe(result, _) => {
                self.probes.push(result == Probed::Passed);
                None
            }
            Event::TrafficFailing(count, _) => Some(count),
        };
        let run = |value| self.probes.iter().rev().take_while(|&&passed| passed == value).count() as u32;
        let needed = self.settings.rise << self.doublings;
        let next = match (self.state, failing) {
            (State::Starting, None) => {
                if self.probes == [true] {
                    State::Up
                } else {
                    State::Down
                }
            }
            (State::Up, None) if run(false) >= self.settings.fall => State::Down,
            (State::Up, Some(count)) if self.settings.passive.is_some_and(|limit| count >= limit) => State::Down,
            (State::Down, None) if run(true) >= needed => State::Up,
            (state, _) => state,
        };
        if next == State::Down && self.state != State::Down {
            let soon = self.returned.is_some_and(|at| now < at + Health::SETTLED);
            self.doublings =
                if failing.is_some() && soon { (self.doublings + 1).min(Health::MOST_DOUBLINGS) } else { 0 };
            self.by_traffic = failing.is_some();
        }
        if next == State::Up && self.state != State::Up {
            self.returned = (self.state == State::Down && self.by_traffic).then_some(now);
        }
        if next != self.state {
            self.probes.clear();
        }
        self.state = next;
        next
    }
}

#[test]
fn random_histories_agree_with_a_naive_model() {
    let mut seen = [0; 4];
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = Settings {
            rise: random.u32(1..5),
            fall: random.u32(1..5),
            passive: random.bool().then(|| random.u32(1..5)),
            ..SETTINGS
        };
        let (mut tried, bias) = (Tried::new(settings), random.u32(1..10));
        let mut model = Model {
            settings,
            state: State::Starting,
            probes: Vec::new(),
            doublings: 0,
            returned: None,
            by_traffic: false,
        };
        let mut accused = false;
        for step in 0..300 {
            tried.now += Duration::from_millis(random.u64(0..4000));
            let event = match random.u32(0..20) {
                0 => LOCAL,
                1 => Event::Tick,
                2..5 => Event::TrafficFailing(random.u32(0..6), "connect refused"),
                _ if random.u32(0..10) < bias => PASS,
                _ => Event::Probe(*random.choice(&Probed::ALL[1..7]).expect("six failures"), "failed"),
            };
            let from = tried.health.state();
            let change = tried.health.on(event, tried.now);
            let state = model.on(event, tried.now);
            assert_eq!(tried.health.state(), state, "seed {seed}, step {step}, {event:?}");
            let disagrees = change.as_ref().is_some_and(|change| change.reason.ends_with("although its probes pass"));
            let told = change.map(|change| (change.from, change.to)).filter(|(from, to)| from != to || !disagrees);
            assert_eq!(told, (from != state).then_some((from, state)));
            // It is the first probe after a fall by traffic that says so, and no other.
            let first = accused && matches!(event, Event::Probe(Probed::Passed, _));
            assert_eq!(disagrees, first, "seed {seed}, step {step}, {event:?}");
            accused = match event {
                Event::TrafficFailing(..) => accused || from != state,
                Event::Probe(Probed::LocalFault, _) | Event::Tick => accused,
                Event::Probe(..) => false,
            };
            seen[usize::from(from != state) + 2 * usize::from(matches!(event, Event::TrafficFailing(..)))] += 1;
        }
    }
    // The histories do contain changes by probes and by traffic.
    assert!(seen.iter().all(|&count| count > 1000), "{seen:?}");
}
