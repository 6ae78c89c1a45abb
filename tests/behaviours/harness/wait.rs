//! Waiting for a condition with a deadline, and judging how long something took.

use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How late a session's deadline may be kept: this is promised.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(100);

/// How often a deadline may seem to be kept late, because a busy machine has held up the test's own threads.
const TRIES: usize = 3;

/// How late something else may come that is measured just once: it is meant to be prompt, the rest is for a busy machine.
pub(crate) const SLACK: Duration = Duration::from_millis(250);

/// Waits until `condition` holds; fails after `within`.
#[track_caller]
pub(crate) fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < within, "gave up after {within:?} waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fails unless `took` is at least `due` and at most [`SLACK`] later.
#[track_caller]
pub(crate) fn assert_took(took: Duration, due: Duration) {
    // A deadline counts from what the program saw, which may be a few milliseconds before what the test saw.
    assert!(took + Duration::from_millis(20) >= due, "came after {took:?}, before the {due:?} that are due");
    assert!(took <= due + SLACK, "came after {took:?}, later than the {due:?} that are due");
}

/// Fails unless a deadline of `due` is kept, as an attempt measures it from just before what starts it: at most [`PUNCTUAL`] late.
#[track_caller]
pub(crate) fn assert_punctual<Took: AsRef<[Duration]>>(due: Duration, attempt: impl FnMut() -> Took) {
    assert_between(due, due + PUNCTUAL, attempt);
}

/// Fails unless what an attempt measures takes at least `due`, always, and no more than `most`: all of it, in one of a few attempts.
#[track_caller]
pub(crate) fn assert_between<Took: AsRef<[Duration]>>(
    due: Duration,
    most: Duration,
    mut attempt: impl FnMut() -> Took,
) {
    let mut latest = Duration::MAX;
    for _ in 0..TRIES {
        let took = attempt();
        for &took in took.as_ref() {
            // The program's clock has whole milliseconds.
            assert!(took + Duration::from_millis(1) >= due, "came after {took:?}, before the {due:?} that are due");
        }
        latest = latest.min(took.as_ref().iter().copied().max().expect("something is measured"));
        if latest <= most {
            return;
        }
    }
    panic!("came after {latest:?} at best, later than the {most:?} that are allowed");
}

/// The value that `percent` of `samples` do not exceed.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}
