//! How many of a service's backends can serve, and for how long in sum some could not, whatever the cause.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// See the module. The control plane writes it, everybody may read it.
#[derive(Debug, Default)]
pub struct Redundancy(Mutex<Reading>);

/// The redundancy of one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// Backends of the configuration; backups do not count.
    pub expected: usize,
    /// Those of them that can serve.
    pub serving: usize,
    /// The time that each missing backend was missing, in sum.
    pub missing_for: Duration,
    since: Option<Instant>,
}

impl Reading {
    /// Backends that cannot serve.
    pub fn missing(&self) -> usize {
        self.expected.saturating_sub(self.serving)
    }

    fn at(mut self, now: Instant) -> Self {
        if let Some(since) = self.since {
            let missing = u32::try_from(self.missing()).unwrap_or(u32::MAX);
            self.missing_for += now.saturating_duration_since(since).saturating_mul(missing);
        }
        self.since = Some(now);
        self
    }
}

impl Redundancy {
    /// From now on so many are expected, and so many of them can serve.
    pub fn note(&self, expected: usize, serving: usize) {
        let mut reading = self.inner();
        *reading = Reading { expected, serving, ..reading.at(Instant::now()) };
    }

    /// As it is now.
    pub fn read(&self) -> Reading {
        self.inner().at(Instant::now())
    }

    fn inner(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many failures a service survives: so many of its servers, the largest first, can vanish, and those who are left, each with
/// its limit, still carry `peak` sessions. `limits`: of all who can serve, backups included. `None` where a server has no limit:
/// what it can carry is not known.
pub fn survivable(limits: &[Option<u32>], peak: u32) -> Option<usize> {
    let mut limits: Vec<u64> = limits.iter().map(|limit| limit.map(u64::from)).collect::<Option<_>>()?;
    limits.sort_unstable();
    let mut failures = 0;
    while limits.len() > 1 {
        limits.pop();
        if limits.iter().sum::<u64>() < u64::from(peak) {
            break;
        }
        failures += 1;
    }
    Some(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_backend_counts_for_itself() {
        let start = Instant::now();
        let later = |reading: Reading, seconds| reading.at(start + Duration::from_secs(seconds));
        let reading = later(Reading { expected: 3, serving: 1, ..Reading::default() }, 0);
        let reading = later(reading, 10);
        assert_eq!((reading.missing(), reading.missing_for), (2, Duration::from_secs(20)));
        let reading = later(Reading { serving: 3, ..reading }, 100);
        assert_eq!((reading.missing(), reading.missing_for), (0, Duration::from_secs(20)));
    }

    #[test]
    fn failures_are_survived_while_the_peak_fits_in_what_is_left() {
        let hundred = |n| vec![Some(100); n];
        assert_eq!(survivable(&hundred(3), 100), Some(2));
        assert_eq!(survivable(&hundred(3), 150), Some(1));
        assert_eq!(survivable(&hundred(3), 250), Some(0));
        assert_eq!(survivable(&hundred(1), 0), Some(0), "the last one is never dispensable");
        assert_eq!(survivable(&[], 0), Some(0));
        assert_eq!(survivable(&[Some(10), Some(1000)], 50), Some(0), "the largest may be the one that fails");
        assert_eq!(survivable(&[Some(10), None], 5), None);
    }
}
