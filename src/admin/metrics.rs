//! The metrics: the counters, summed at the scrape, in Prometheus' text format 0.0.4.
//!
//! That format and not OpenMetrics: there `balancer_sessions` and `balancer_sessions_total` would be two families of one name.

use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::iter::Peekable;
use std::sync::{Arc, LazyLock};

use super::ready;
use super::view::{View, descriptors};
use crate::observe::condition::State;
use crate::observe::counters::{Closed, Durations, Probed, Refused, ServiceCounters};
use crate::observe::running::{Orphaned, Reloaded};
use crate::observe::stderr;
use crate::table::{Backend, Service};

/// The content type of what [`text`] answers.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as they are now.
pub(super) fn text(view: &View) -> String {
    let mut text = Text(String::new());
    process(&mut text, view);
    let table = view.table.load();
    let all: Vec<_> = table.all().map(Arc::clone).collect();
    services(&mut text, &all);
    backends(&mut text, &all);
    conditions(&mut text, &table.services);
    redundancy(&mut text, &table.services, &view.running.orphans.load());
    text.0
}

fn process(text: &mut Text, view: &View) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.family("build_info", "gauge", "The program's version; always 1.", [(version, 1)]);
    let mut single = |name, kind, help, value: u64| text.family(name, kind, help, [([], value)]);
    let worker = &view.counters;
    single("config_generation", "gauge", "Configurations applied so far.", view.table.load().generation);
    let loaded = view.running.file.load().loaded.as_second();
    let help = "When the running configuration was loaded, in seconds since 1970.";
    single("config_last_reload_timestamp_seconds", "gauge", help, u64::try_from(loaded).unwrap_or(0));
    single("workers", "gauge", "Event loops.", view.workers as u64);
    single("pipes", "gauge", "Kernel pipes held for splicing, lent or spare.", worker.sum(|w| w.pipes.get()));
    single("pipes_max", "gauge", "Kernel pipes that may be held.", view.pipes_max);
    let refused = worker.sum(|w| w.pipes_refused.get());
    single("pipes_refused_total", "counter", "Bulk flows that went on by copying for want of a pipe.", refused);
    let dropped = view.access_log.dropped();
    single("access_log_dropped_total", "counter", "Lines of the access log that were dropped.", dropped);
    let help = "Lines of standard error that were dropped: nobody read it, or it could not be written.";
    single("log_lines_dropped_total", "counter", help, stderr::dropped());
    let refused = worker.sum(|w| w.buffers_refused.get());
    single("buffers_refused_total", "counter", "Receives that had to wait for a free buffer.", refused);
    let unlisted = worker.sum(|w| w.unlisted.get());
    let help = "Clients reset because no service lists the address of a socket that the service manager has passed.";
    single("unlisted_clients_total", "counter", help, unlisted);
    single("wakes_total", "counter", "Turns of the workers' loops.", worker.sum(|w| w.wakes.get()));
    if let Some(descriptors) = descriptors() {
        single("descriptors", "gauge", "Descriptors open.", descriptors);
    }
    single("descriptors_max", "gauge", "The limit of descriptors.", view.descriptors_max);
    let reloads =
        Reloaded::ALL.map(|result| ([("result", result.label())], view.running.reloads[result as usize].get()));
    text.family("config_reloads_total", "counter", "Reloads asked for, by result.", reloads);
}

fn services(text: &mut Text, services: &[Arc<Service>]) {
    let mut each = |name, kind, help, value: fn(&Service) -> u64| {
        text.family(name, kind, help, each_service(services).map(|(labels, service)| (labels, value(service))));
    };
    each("sessions", "gauge", "Sessions open now.", |service| service.state.permits.taken().into());
    each("queued", "gauge", "Sessions that wait for a place.", |service| service.state.queue.waiting().into());
    each("sessions_total", "counter", "Sessions established.", Service::total);
    let closed = each_service(services).flat_map(|([name], service)| {
        Closed::ALL.map(|reason| {
            let count = |worker: &ServiceCounters| worker.closed[reason as usize].get();
            ([name, ("reason", reason.label())], service.state.counters.sum(count))
        })
    });
    text.family("sessions_closed_total", "counter", "Sessions ended, by reason.", closed);
    let refused = each_service(services).flat_map(|([name], service)| {
        Refused::ALL.map(|reason| {
            let count = |worker: &ServiceCounters| worker.refused[reason as usize].get();
            ([name, ("reason", reason.label())], service.state.counters.sum(count))
        })
    });
    text.family("sessions_refused_total", "counter", "Clients refused, by reason.", refused);
    let help = "How long sessions lasted.";
    text.histograms("session_duration_seconds", help, each_service(services), |service, of| {
        service.state.counters.sum(|w| of(&w.duration))
    });
}

fn backends(text: &mut Text, services: &[Arc<Service>]) {
    let bytes = each_backend(services).flat_map(|([service, name], backend)| {
        let (to, from) = (backend.counters.sum(|w| w.bytes_in.get()), backend.counters.sum(|w| w.bytes_out.get()));
        [("in", to), ("out", from)].map(|(direction, bytes)| ([service, name, ("direction", direction)], bytes))
    });
    text.family("bytes_total", "counter", "Bytes relayed; in is from client to backend.", bytes);
    let mut each = |name, kind, help, value: fn(&Backend) -> u64| {
        text.family(name, kind, help, each_backend(services).map(|(labels, backend)| (labels, value(backend))));
    };
    each("backend_sessions", "gauge", "Sessions open now with the backend.", |backend| backend.permits.taken().into());
    each("backend_sessions_total", "counter", "Sessions established with the backend.", |backend| {
        backend.counters.sum(|w| w.sessions.get())
    });
    each("backend_connect_failures_total", "counter", "Connects that failed by the backend's fault.", |backend| {
        backend.counters.sum(|w| w.connect_failures.get())
    });
    let help = "How long successful connects took.";
    text.histograms("backend_connect_seconds", help, each_backend(services), |backend, of| {
        backend.counters.sum(|w| of(&w.connect_time))
    });
}

/// How many of each service's backends can serve, whatever the cause; and who was removed and is still there.
fn redundancy(text: &mut Text, services: &[Arc<Service>], orphans: &[Orphaned]) {
    // Each is read once, so that one scrape does not contradict itself.
    let all: Vec<_> = each_service(services).map(|(name, service)| (name, service.state.redundancy.read())).collect();
    let expected = all.iter().map(|&(name, reading)| (name, reading.expected));
    text.family("redundancy_expected", "gauge", "Backends of the configuration; backups do not count.", expected);
    let missing = all.iter().map(|&(name, reading)| (name, reading.missing()));
    text.family("redundancy_missing", "gauge", "Backends that cannot serve, whatever the cause.", missing);
    let seconds = all.iter().map(|&(name, reading)| (name, reading.missing_for.as_secs_f64()));
    let help = "For how long each missing backend was missing, in sum.";
    text.family("redundancy_missing_seconds_total", "counter", help, seconds);
    let survivable = each_service(services).filter_map(|(name, service)| Some((name, ready::survivable(service)?)));
    let help = "Servers that could fail while the rest still carries the peak; only where all have max_connections.";
    text.family("survivable_failures", "gauge", help, survivable);
    let orphans: Vec<_> = orphans.iter().map(|orphan| (orphan, orphan.address.to_string())).collect();
    let up = orphans.iter().map(|(orphan, address)| {
        let labels = [("service", &*orphan.service), ("backend", &*orphan.backend), ("address", &**address)];
        (labels, u8::from(orphan.condition.state == State::Up))
    });
    text.family("orphan_up", "gauge", "Whether a backend that a reload removed is healthy: 1 or 0.", up);
}

/// What the control plane knows and counts of the backends.
fn conditions(text: &mut Text, services: &[Arc<Service>]) {
    let up = each_backend(services).map(|(labels, backend)| (labels, u8::from(ready::is_up(backend))));
    text.family("backend_up", "gauge", "Whether the backend may serve: 1 or 0.", up);
    let drained = each_backend(services)
        .map(|(labels, backend)| (labels, u8::from(backend.condition.load().state == State::Drained)));
    text.family("backend_drained", "gauge", "Whether the backend is drained by a person: 1 or 0.", drained);
    let probes = each_backend(services).flat_map(|([service, name], backend)| {
        let count = |result| backend.probes.results[result as usize].get();
        Probed::ALL.map(|result| ([service, name, ("result", result.label())], count(result)))
    });
    text.family("probes_total", "counter", "Probes ended, by result.", probes);
    let help = "How long probes took that passed.";
    text.histograms("probe_seconds", help, each_backend(services), |backend, of| of(&backend.probes.time));
}

/// A label and its value.
type Label<'a> = (&'static str, &'a str);

/// Every service, with the label that names it.
fn each_service(services: &[Arc<Service>]) -> impl Iterator<Item = ([Label<'_>; 1], &Service)> {
    services.iter().map(|service| ([("service", &*service.state.name)], &**service))
}

/// Every backend of every service, with the labels that name it. One that is leaving has its series as long as nobody else
/// bears its name.
fn each_backend(services: &[Arc<Service>]) -> impl Iterator<Item = ([Label<'_>; 2], &Backend)> {
    services.iter().flat_map(|service| {
        let labels = |backend| [("service", &*service.state.name), ("backend", backend)];
        let mut seen = HashSet::new();
        let all = ready::all(service).chain(&service.leaving).filter(move |backend| seen.insert(&*backend.name));
        all.map(move |backend| (labels(&backend.name), &**backend))
    })
}

/// A writer of the text format. Writing into a `String` cannot fail, so its results are dropped.
struct Text(String);

impl Text {
    /// A family with all its samples; nothing where there are none.
    fn family<'a, const N: usize>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], impl Display)>,
    ) {
        for (labels, value) in self.begin(name, kind, help, samples) {
            self.series(name, "", &labels, None, value);
        }
    }

    /// A family of histograms, where `sum` sums a number of one over all who write it. The format's buckets are cumulative, and the
    /// last is the count.
    fn histograms<'a, const N: usize, T>(
        &mut self,
        name: &str,
        help: &str,
        all: impl IntoIterator<Item = ([Label<'a>; N], T)>,
        sum: impl Fn(&T, &dyn Fn(&Durations) -> u64) -> u64,
    ) {
        static BOUNDS: LazyLock<Vec<String>> =
            LazyLock::new(|| Durations::BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).collect());
        for (labels, one) in self.begin(name, "histogram", help, all) {
            let mut count = 0;
            for (index, bound) in BOUNDS.iter().enumerate() {
                count += sum(&one, &|durations| durations.bucket(index));
                self.series(name, "_bucket", &labels, Some(bound), count);
            }
            let seconds = sum(&one, &Durations::sum_micros) as f64 / 1e6;
            self.series(name, "_sum", &labels, None, seconds);
            self.series(name, "_count", &labels, None, count);
        }
    }

    /// Begins a family if it has samples: they must all follow before the next one begins.
    fn begin<S: IntoIterator>(&mut self, name: &str, kind: &str, help: &str, samples: S) -> Peekable<S::IntoIter> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            let _ = writeln!(self.0, "# HELP balancer_{name} {help}\n# TYPE balancer_{name} {kind}");
        }
        samples
    }

    /// A sample of a family's part, such as its `_bucket`, with one label more for its upper bound.
    fn series(&mut self, name: &str, part: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        for text in ["balancer_", name, part] {
            self.0.push_str(text);
        }
        let mut separator = '{';
        for (label, text) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.0.push(std::mem::replace(&mut separator, ','));
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.escaped(text);
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if separator == ',' { "}" } else { "" });
    }

    fn escaped(&mut self, text: &str) {
        if !text.contains(['\\', '"', '\n']) {
            return self.0.push_str(text);
        }
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}
