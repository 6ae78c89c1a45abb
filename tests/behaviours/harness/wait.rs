//! Waiting for a condition with a deadline, and judging how long something took.

use std::fs;
use std::time::{Duration, Instant};

use super::Process;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How late a session's deadline may be kept: this is promised.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(100);

/// How often a deadline may seem to be kept late: not all that a busy machine does to a program is counted in [`Took::queued`].
const TRIES: usize = 3;

/// How late something else may come that is measured just once and is meant to be prompt.
pub(crate) const SLACK: Duration = Duration::from_millis(250);

/// How long something took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// From the beginning to the end.
    pub(crate) whole: Duration,
    /// For how much of it threads that it depends on were ready to run, and the kernel had given the cores to others: threads of
    /// the program, and the one that measures. The more the machine has to do, the longer; it is not the program's delay.
    pub(crate) queued: Duration,
}

impl Took {
    /// What the program, and not the machine's other work, took.
    pub(crate) fn own(self) -> Duration {
        self.whole.saturating_sub(self.queued)
    }
}

/// Measures how long something takes that a process does.
pub(crate) struct Stopwatch {
    start: Instant,
    process: Process,
    thread: std::thread::ThreadId,
    /// How long its threads had waited for a core by the start, and this one.
    before: (Duration, Duration),
    /// How long its threads have, when last looked at: it may have ended since.
    last: Duration,
}

impl Stopwatch {
    /// From now on.
    pub(crate) fn start(process: Process) -> Self {
        let before = (process.queued(), queued("/proc/thread-self/schedstat"));
        Self { start: Instant::now(), process, thread: std::thread::current().id(), before, last: before.0 }
    }

    /// What it took until now.
    pub(crate) fn took(&mut self) -> Took {
        let whole = self.start.elapsed();
        self.last = self.last.max(self.process.queued());
        // A thread that was made to measure has waited for nothing before.
        let own_before = if self.thread == std::thread::current().id() { self.before.1 } else { Duration::ZERO };
        let own = queued("/proc/thread-self/schedstat").saturating_sub(own_before);
        Took { whole, queued: self.last.saturating_sub(self.before.0) + own }
    }
}

/// How long a thread has waited for a core since it began: the second field of its schedstat (sched-stats in the kernel's manual).
pub(super) fn queued(schedstat: &str) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// Waits until `condition` holds; fails after `within`.
#[track_caller]
pub(crate) fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < within, "gave up after {within:?} waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fails unless something took at least `due`, and at most [`SLACK`] longer.
#[track_caller]
pub(crate) fn assert_took(took: Took, due: Duration) {
    // A deadline counts from what the program saw, which may be a few milliseconds before what the test saw.
    assert!(took.whole + Duration::from_millis(20) >= due, "came after {took:?}, before the {due:?} that are due");
    assert!(took.own() <= due + SLACK, "came after {took:?}, later than the {due:?} that are due");
}

/// Fails unless a deadline of `due` is kept, as an attempt measures it from just before what starts it: at most [`PUNCTUAL`] late.
#[track_caller]
pub(crate) fn assert_punctual<All: AsRef<[Took]>>(due: Duration, attempt: impl FnMut() -> All) {
    assert_between(due, due + PUNCTUAL, attempt);
}

/// Fails unless what an attempt measures takes no more than `most`: all of it, in one of a few attempts.
#[track_caller]
pub(crate) fn assert_within<All: AsRef<[Took]>>(most: Duration, attempt: impl FnMut() -> All) {
    assert_between(Duration::ZERO, most, attempt);
}

/// Fails unless what an attempt measures takes at least `due`, always, and no more than `most`: all of it, in one of a few attempts.
#[track_caller]
pub(crate) fn assert_between<All: AsRef<[Took]>>(due: Duration, most: Duration, mut attempt: impl FnMut() -> All) {
    let mut latest = Vec::new();
    for _ in 0..TRIES {
        let took = attempt();
        for took in took.as_ref() {
            // The program's clock has whole milliseconds.
            assert!(
                took.whole + Duration::from_millis(1) >= due,
                "came after {took:?}, before the {due:?} that are due"
            );
        }
        latest.push(*took.as_ref().iter().max_by_key(|took| took.own()).expect("something is measured"));
        if latest.iter().any(|took| took.own() <= most) {
            return;
        }
    }
    panic!("came after {latest:?}, each time later than the {most:?} that are allowed");
}

/// The value that `percent` of `samples` do not exceed.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}
