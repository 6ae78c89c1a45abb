//! One look at the running balancer: its status, what its metrics say of connects, and the last events.

use std::collections::HashMap;
use std::time::Instant;

use jiff::Timestamp;
use serde::Deserialize;

use crate::admin::status::Status;
use crate::cli::client::Target;

/// The last events, newest last. More than a high terminal has lines for nobody reads here.
const TIMELINE: &str = "/v1/timeline?since=24h&limit=50";

/// What the metrics call the time of connects to a backend.
const CONNECTS: &str = "balancer_backend_connect_seconds_";

/// What the balancer said, and when.
#[derive(Debug)]
pub(super) struct Poll {
    /// When the answer had come, for rates.
    pub(super) at: Instant,
    /// The same by the wall clock, for ages.
    pub(super) now: Timestamp,
    pub(super) status: Status,
    pub(super) connects: Connects,
    /// What has happened; `None` where the balancer keeps no timeline.
    pub(super) events: Option<Vec<Event>>,
}

/// An entry of the timeline.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    /// When, RFC 3339 in UTC.
    pub(super) time: String,
    /// Whose it is, where it is a service's.
    pub(super) service: Option<String>,
    /// What happened, in words.
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Timeline {
    events: Vec<Event>,
}

/// Asks once.
///
/// # Errors
/// Nobody can be reached, or the answer is not understood: why, and what to do.
pub(super) fn poll(target: &Target) -> anyhow::Result<Poll> {
    let status = target.status()?;
    let (at, now) = (Instant::now(), Timestamp::now());
    let metrics = target.get("/metrics")?;
    let connects = Connects::read(&String::from_utf8_lossy(&metrics));
    // An older balancer has none, which is no fault.
    let events = target.get(TIMELINE).ok().and_then(|answer| serde_json::from_slice::<Timeline>(&answer).ok());
    Ok(Poll { at, now, status, connects, events: events.map(|timeline| timeline.events) })
}

/// How many connects each backend has had so far, and how long they took in sum.
#[derive(Debug, Default)]
pub(super) struct Connects(HashMap<String, HashMap<String, Connected>>);

/// The successful connects of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Connected {
    pub(super) seconds: f64,
    pub(super) count: f64,
}

impl Connects {
    /// Picks them out of the metrics.
    pub(super) fn read(metrics: &str) -> Self {
        let mut found = Self::default();
        for line in metrics.lines() {
            let _ = found.line(line);
        }
        found
    }

    /// Names have no character that the format would escape.
    fn line(&mut self, line: &str) -> Option<()> {
        let line = line.strip_prefix(CONNECTS)?;
        let (what, rest) = line.split_once("{service=\"")?;
        if what == "bucket" {
            return None;
        }
        let (service, rest) = rest.split_once("\",backend=\"")?;
        let (backend, value) = rest.split_once("\"} ")?;
        let value = value.parse().ok()?;
        if !self.0.contains_key(service) {
            self.0.insert(service.into(), HashMap::new());
        }
        let backends = self.0.get_mut(service)?;
        if !backends.contains_key(backend) {
            backends.insert(backend.into(), Connected::default());
        }
        let connected = backends.get_mut(backend)?;
        match what {
            "sum" => connected.seconds = value,
            _ => connected.count = value,
        }
        Some(())
    }

    /// Those of a backend.
    pub(super) fn of(&self, service: &str, backend: &str) -> Connected {
        self.0.get(service).and_then(|backends| backends.get(backend)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_are_read_from_the_metrics() {
        let connects = Connects::read(
            "# TYPE balancer_backend_connect_seconds histogram\n\
            balancer_backend_connect_seconds_bucket{service=\"web\",backend=\"web-01\",le=\"+Inf\"} 9\n\
            balancer_backend_connect_seconds_sum{service=\"web\",backend=\"web-01\"} 0.25\n\
            balancer_backend_connect_seconds_count{service=\"web\",backend=\"web-01\"} 3\n\
            balancer_backend_up{service=\"web\",backend=\"web-01\"} 1\n",
        );
        assert_eq!(connects.of("web", "web-01"), Connected { seconds: 0.25, count: 3.0 });
        assert_eq!(connects.of("web", "web-02"), Connected::default());
    }
}
