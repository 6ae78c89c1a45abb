//! What is known of the balancer: the last answer, and what differs between it and the ones before.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::poll::{Connected, Event, Poll};
use crate::admin::status::{BackendStatus, Status};

/// Samples kept of each backend: as many as a wide terminal shows.
const SAMPLES: usize = 120;

/// The last answer, with what can be told only from several.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) status: Status,
    /// What has happened, oldest first; `None` where the balancer keeps no timeline.
    pub(super) events: Option<Vec<Event>>,
    /// The wall clock at the last answer: ages are told from it, and stand still while nobody answers.
    pub(super) now: Timestamp,
    at: Instant,
    /// Why the last attempt brought no answer.
    trouble: Option<String>,
    services: HashMap<String, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    rates: Rates,
    refused: Option<f64>,
    backends: HashMap<String, History>,
}

/// What happens in a second; `None` where one answer alone does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) sessions: Option<f64>,
    pub(super) bytes_in: Option<f64>,
    pub(super) bytes_out: Option<f64>,
}

impl Rates {
    /// Bytes both ways.
    pub(super) fn bytes(&self) -> f64 {
        self.bytes_in.unwrap_or(0.0) + self.bytes_out.unwrap_or(0.0)
    }
}

/// What is remembered of a backend.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) rates: Rates,
    /// Milliseconds of the connects since the poll before, on average.
    pub(super) connect: Samples,
    /// Milliseconds of the last probe at each poll.
    pub(super) probe: Samples,
    connected: Connected,
}

/// Numbers in the order they came; `None` where there was nothing to measure.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Option<f64>>);

impl Samples {
    fn add(&mut self, sample: Option<f64>) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// All that are kept.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = Option<f64>> + '_ {
        self.0.iter().copied()
    }

    /// The newest that was measured.
    pub(super) fn last(&self) -> Option<f64> {
        self.all().rev().flatten().next()
    }

    /// The lowest and the highest.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let values = || self.all().flatten();
        Some((values().reduce(f64::min)?, values().reduce(f64::max)?))
    }
}

impl Model {
    /// What one answer tells.
    pub(super) fn new(poll: Poll) -> Self {
        let Poll { at, now, status, connects, events } = poll;
        let mut services = HashMap::new();
        for (name, service) in &status.services {
            let mut watched = Watched::default();
            for (backend, now) in &service.backends {
                let mut history = History { connected: connects.of(name, backend), ..History::default() };
                history.probe.add(now.probe_ms);
                watched.backends.insert(backend.clone(), history);
            }
            services.insert(name.clone(), watched);
        }
        Self { status, events, now, at, trouble: None, services }
    }

    /// Takes in the next answer.
    pub(super) fn update(&mut self, poll: Poll) {
        let seconds = poll.at.saturating_duration_since(self.at).as_secs_f64();
        // Another process counts anew.
        let same = poll.status.pid == self.status.pid && poll.status.started == self.status.started;
        let known = same && seconds > 0.0;
        let rate = |before: u64, now: u64| (known && now >= before).then(|| (now - before) as f64 / seconds);
        let mut services = HashMap::new();
        for (name, service) in &poll.status.services {
            let before = self.status.services.get(name);
            let mut watched = self.services.remove(name).unwrap_or_default();
            let mut backends = HashMap::new();
            for (backend, now) in &service.backends {
                let before = before.and_then(|service| service.backends.get(backend));
                let before = before.filter(|before| before.address == now.address);
                let kept = watched.backends.remove(backend).filter(|_| before.is_some());
                let mut history = kept.unwrap_or_default();
                let counted = |count: fn(&BackendStatus) -> u64| before.and_then(|b| rate(count(b), count(now)));
                history.rates = Rates {
                    sessions: counted(|backend| backend.total),
                    bytes_in: counted(|backend| backend.bytes_in),
                    bytes_out: counted(|backend| backend.bytes_out),
                };
                let connected = poll.connects.of(name, backend);
                let count = connected.count - history.connected.count;
                let took = (connected.seconds - history.connected.seconds).max(0.0);
                history.connect.add((same && before.is_some() && count > 0.0).then(|| took / count * 1e3));
                history.connected = connected;
                history.probe.add(now.probe_ms);
                backends.insert(backend.clone(), history);
            }
            watched.rates = Rates {
                sessions: before.and_then(|before| rate(before.total, service.total)),
                bytes_in: sum(backends.values().map(|history| history.rates.bytes_in)),
                bytes_out: sum(backends.values().map(|history| history.rates.bytes_out)),
            };
            watched.refused = before.and_then(|before| rate(before.refused, service.refused));
            watched.backends = backends;
            services.insert(name.clone(), watched);
        }
        let Poll { at, now, status, events, .. } = poll;
        *self = Self { status, events, now, at, trouble: None, services };
    }

    /// Notes that nobody has answered.
    pub(super) fn fail(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Why nobody answers, if that is so, and since when there was no answer.
    pub(super) fn trouble(&self, now: Instant) -> Option<(&str, Duration)> {
        Some((self.trouble.as_deref()?, now.saturating_duration_since(self.at)))
    }

    /// When the last answer came.
    pub(super) fn answered(&self) -> Instant {
        self.at
    }

    /// What a service carries.
    pub(super) fn rates(&self, service: &str) -> Rates {
        self.services.get(service).map(|service| service.rates).unwrap_or_default()
    }

    /// Clients that a service refuses in a second.
    pub(super) fn refused(&self, service: &str) -> Option<f64> {
        self.services.get(service)?.refused
    }

    /// What all services carry.
    pub(super) fn whole(&self) -> Rates {
        let rates = || self.services.values().map(|service| service.rates);
        Rates {
            sessions: sum(rates().map(|rates| rates.sessions)),
            bytes_in: sum(rates().map(|rates| rates.bytes_in)),
            bytes_out: sum(rates().map(|rates| rates.bytes_out)),
        }
    }

    /// What is remembered of a backend.
    pub(super) fn history(&self, service: &str, backend: &str) -> Option<&History> {
        self.services.get(service)?.backends.get(backend)
    }
}

/// The sum of what is known, if anything is.
fn sum(rates: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    rates.flatten().reduce(|sum, rate| sum + rate)
}
