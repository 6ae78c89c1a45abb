//! Waiting for a condition with a deadline, and judging how long something took.

use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How late a deadline may be kept: 100 ms are promised, the rest is for the scheduling of the test's own threads.
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

/// The value that `percent` of `samples` do not exceed.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}
