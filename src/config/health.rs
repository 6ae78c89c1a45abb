//! How a service learns which of its backends can serve: probes, failed connects of its traffic, and what follows.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The health checks of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked of a backend.
    pub probe: Probe,
    /// The port that is probed instead of the backend's own.
    pub port: Option<NonZeroU16>,
    /// From one probe's start to the next, 100 ms to 1 h; never shorter than the timeout.
    pub interval: Duration,
    /// How long one probe may take, 10 ms to 1 h.
    pub timeout: Duration,
    /// Passes in a row that bring a backend up, 1 to 100.
    pub rise: u32,
    /// Failures in a row that take a backend down, 1 to 100.
    pub fall: u32,
    /// Failed connects of real traffic in a row that take a backend down, 1 to 100; `None`: they never do.
    pub passive: Option<u32>,
    /// How long the share of a backend that came back grows to the whole, at most 1 h; zero: it has the whole at once.
    pub slow_start: Duration,
    /// What happens to clients when neither a backend nor a backup is up.
    pub when_all_down: WhenAllDown,
}

impl Health {
    /// Shorter intervals would be a load of their own; with longer ones nobody would hear of a failure in time.
    pub const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
    /// Shorter timeouts would find the scheduler, not the backend.
    pub const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
}

impl Default for Health {
    fn default() -> Self {
        Self {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            passive: Some(3),
            slow_start: Duration::ZERO,
            when_all_down: WhenAllDown::Refuse,
        }
    }
}

/// What is asked of a backend, and what answer passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection that is established passes.
    Tcp,
    /// Nothing is asked: a backend is up until its traffic says otherwise.
    None,
    /// An HTTP request, and the status of its answer.
    Http(HttpProbe),
    /// Bytes that are sent, and bytes that the answer must contain.
    Expect(ExpectProbe),
}

/// An HTTP probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// The request's target: begins with `/`; printable ASCII without blanks, at most [`HttpProbe::LONGEST`] bytes.
    pub path: String,
    /// The `Host` field: not empty, printable ASCII without blanks, at most [`HttpProbe::LONGEST`] bytes; `None`: the
    /// address that is probed.
    pub host: Option<String>,
    /// The statuses that pass, within 100 to 599; never empty.
    pub status: RangeInclusive<u16>,
}

impl HttpProbe {
    /// The longest path and host, in bytes.
    pub const LONGEST: usize = 4096;
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self { path: "/".to_owned(), host: None, status: 200..=399 }
    }
}

/// A probe of a protocol in which the first bytes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectProbe {
    /// What is sent once the connection is established; empty: nothing. At most [`ExpectProbe::LONGEST`] bytes.
    pub send: Vec<u8>,
    /// What the answer must contain: 1 to [`ExpectProbe::LONGEST`] bytes.
    pub receive: Vec<u8>,
}

impl ExpectProbe {
    /// The longest text that is sent or expected, in bytes.
    pub const LONGEST: usize = 4096;
}

/// What happens to clients when neither a backend nor a backup is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAllDown {
    /// They are refused at once.
    #[default]
    Refuse,
    /// They are sent to the backends as if all of them were up.
    TryAll,
}
