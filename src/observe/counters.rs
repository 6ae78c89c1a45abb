//! Counters that each worker writes alone and that are summed on reading.
//!
//! Nothing here is shared between writers, so an increment is a plain load and store of the worker's own cache line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count that only ever grows, written by one thread, readable by all.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Replaces the value: for gauges that one worker owns.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// One `T` a worker, each on cache lines of its own.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// Room for `workers` writers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Padded::default()).collect())
    }

    /// What worker `index` writes. Panics if there is no such worker.
    #[inline]
    pub fn of(&self, index: usize) -> &T {
        &self.0[index].0
    }

    /// The sum of one number over all workers.
    pub fn sum(&self, number: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().map(|padded| number(&padded.0)).sum()
    }
}

/// What one worker counts of one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Sessions established with it.
    pub sessions: Counter,
    /// Connects that failed by its fault (refused, timed out, unreachable), never by a local one.
    pub connect_failures: Counter,
    /// Bytes handed to the backend's socket, client to backend.
    pub bytes_in: Counter,
    /// Bytes handed to clients' sockets, backend to client.
    pub bytes_out: Counter,
    /// How long successful connects took.
    pub connect_time: Durations,
}

/// What the prober, alone, counts of one backend.
#[derive(Debug, Default)]
pub struct ProbeCounters {
    /// Probes ended, by result.
    pub results: [Counter; Probed::ALL.len()],
    /// How long those took that passed.
    pub time: Durations,
}

/// What one worker counts of one service.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    /// Clients accepted, also those refused afterwards.
    pub accepted: Counter,
    /// Sessions that ended, by reason.
    pub closed: [Counter; Closed::ALL.len()],
    /// Clients refused, by reason.
    pub refused: [Counter; Refused::ALL.len()],
    /// How long sessions lasted.
    pub duration: Durations,
}

/// What one worker counts of itself.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Pipes it holds now, lent or spare (a gauge).
    pub pipes: Counter,
    /// Times a bulk flow went on by copying because no pipe could be had.
    pub pipes_refused: Counter,
    /// Times a receive found no free buffer and had to wait for one.
    pub buffers_refused: Counter,
    /// Clients reset because no service lists the address to which they came.
    pub unlisted: Counter,
    /// Turns of its loop.
    pub wakes: Counter,
}

/// A histogram of durations with fixed bounds.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Counter; Self::BOUNDS.len() + 1],
    /// Microseconds in sum.
    sum_micros: Counter,
}

impl Durations {
    /// Upper bounds of the buckets in seconds; one more bucket holds the rest.
    pub const BOUNDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 3600.0];

    /// Records one duration in microseconds.
    pub fn record(&self, micros: u64) {
        let seconds = micros as f64 / 1e6;
        let bucket = Self::BOUNDS.partition_point(|&bound| bound < seconds);
        self.buckets[bucket].add(1);
        self.sum_micros.add(micros);
    }

    /// The count in bucket `index`, not cumulative; the last index is the rest.
    pub fn bucket(&self, index: usize) -> u64 {
        self.buckets[index].get()
    }

    /// Microseconds in sum.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros.get()
    }
}

named! {
    /// Why a session ended.
    Closed {
        /// Both sides finished, the client first.
        Client = "client",
        /// Both sides finished, the backend first.
        Backend = "backend",
        /// The client reset, or its connection broke.
        ClientReset = "client_reset",
        /// The backend reset, or its connection broke.
        BackendReset = "backend_reset",
        /// No byte either way for `timeouts.idle`.
        Idle = "idle",
        /// No byte for `timeouts.half_closed` after one side had finished.
        HalfClosed = "half_closed",
        /// A peer's kernel acknowledged nothing for `timeouts.unresponsive`.
        Unresponsive = "unresponsive",
        /// Still open when a stop's `drain` was over, or closed with a drained backend.
        Drain = "drain",
        /// Reserved for a local fault in the middle of a session: none ends one today.
        Error = "error",
    }
}

named! {
    /// Why a client was refused.
    Refused {
        /// The process carries `max_connections` sessions.
        ProcessLimit = "process_limit",
        /// The service carries `max_connections` sessions.
        ServiceLimit = "service_limit",
        /// Every backend carries its `max_connections` sessions.
        BackendLimit = "backend_limit",
        /// No place came free in time.
        QueueTimeout = "queue_timeout",
        /// The service has no backend that can serve.
        NoBackend = "no_backend",
        /// Each backend tried failed to connect.
        ConnectFailed = "connect_failed",
        /// This machine had no descriptor or local port left: a local fault.
        Descriptors = "descriptors",
        /// The process is stopping.
        Stopping = "stopping",
    }
}

named! {
    /// How a probe ended.
    Probed {
        /// The backend is well.
        Passed = "passed",
        /// Nobody listens there.
        Refused = "refused",
        /// No answer within `health.timeout`.
        TimedOut = "timed_out",
        /// The connection was reset.
        Reset = "reset",
        /// No way leads there, or somebody on it says so.
        Unreachable = "unreachable",
        /// An HTTP status outside of the range that is due, or no HTTP at all.
        WrongStatus = "wrong_status",
        /// The answer is not the one that is due, or ended too early.
        WrongBytes = "wrong_bytes",
        /// This machine lacked something: says nothing about the backend.
        LocalFault = "local_fault",
    }
}
