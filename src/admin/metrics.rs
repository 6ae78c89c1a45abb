//! The metrics: the counters, summed at the scrape, in Prometheus' text format 0.0.4.
//!
//! That format and not OpenMetrics: there `balancer_sessions` and `balancer_sessions_total` would be two families of one name.

use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::sync::{Arc, LazyLock};

use super::ready;
use super::view::{View, descriptors};
use crate::observe::condition::State;
use crate::observe::counters::{BackendCounters, Closed, Durations, Probed, Refused, ServiceCounters};
use crate::observe::running::{Orphaned, Reloaded};
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
    text.family("build_info", "gauge", "The program's version; always 1.");
    text.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut single = |name, kind, help, value: u64| {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    };
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
    let refused = worker.sum(|w| w.buffers_refused.get());
    single("buffers_refused_total", "counter", "Receives that had to wait for a free buffer.", refused);
    single("wakes_total", "counter", "Turns of the workers' loops.", worker.sum(|w| w.wakes.get()));
    if let Some(descriptors) = descriptors() {
        single("descriptors", "gauge", "Descriptors open.", descriptors);
    }
    single("descriptors_max", "gauge", "The limit of descriptors.", view.descriptors_max);
    text.family("config_reloads_total", "counter", "Reloads asked for, by result.");
    for result in Reloaded::ALL {
        let count = view.running.reloads[result as usize].get();
        text.sample("config_reloads_total", &[("result", result.label())], count);
    }
}

fn services(text: &mut Text, services: &[Arc<Service>]) {
    text.family("sessions", "gauge", "Sessions open now.");
    for service in services {
        text.sample("sessions", &[("service", &service.state.name)], service.state.places.taken());
    }
    text.family("sessions_total", "counter", "Sessions established.");
    for service in services {
        text.sample("sessions_total", &[("service", &service.state.name)], service.total());
    }
    text.family("sessions_closed_total", "counter", "Sessions ended, by reason.");
    for service in services {
        for reason in Closed::ALL {
            let labels = [("service", &*service.state.name), ("reason", reason.label())];
            let count = |worker: &ServiceCounters| worker.closed[reason as usize].get();
            text.sample("sessions_closed_total", &labels, service.state.counters.sum(count));
        }
    }
    text.family("sessions_refused_total", "counter", "Clients refused, by reason.");
    for service in services {
        for reason in Refused::ALL {
            let labels = [("service", &*service.state.name), ("reason", reason.label())];
            let count = |worker: &ServiceCounters| worker.refused[reason as usize].get();
            text.sample("sessions_refused_total", &labels, service.state.counters.sum(count));
        }
    }
    text.family("session_duration_seconds", "histogram", "How long sessions lasted.");
    for service in services {
        let labels = [("service", &*service.state.name)];
        text.histogram("session_duration_seconds", &labels, |of| service.state.counters.sum(|w| of(&w.duration)));
    }
}

fn backends(text: &mut Text, services: &[Arc<Service>]) {
    let sum = |backend: &Backend, count: fn(&BackendCounters) -> u64| backend.counters.sum(count);

    text.family("bytes_total", "counter", "Bytes relayed; in is from client to backend.");
    for ([service, name], backend) in each_backend(services) {
        text.sample("bytes_total", &[service, name, ("direction", "in")], sum(backend, |w| w.bytes_in.get()));
        text.sample("bytes_total", &[service, name, ("direction", "out")], sum(backend, |w| w.bytes_out.get()));
    }
    text.family("backend_sessions", "gauge", "Sessions open now with the backend.");
    for (labels, backend) in each_backend(services) {
        text.sample("backend_sessions", &labels, backend.places.taken());
    }
    text.family("backend_sessions_total", "counter", "Sessions established with the backend.");
    for (labels, backend) in each_backend(services) {
        text.sample("backend_sessions_total", &labels, sum(backend, |w| w.sessions.get()));
    }
    text.family("backend_connect_failures_total", "counter", "Connects that failed by the backend's fault.");
    for (labels, backend) in each_backend(services) {
        text.sample("backend_connect_failures_total", &labels, sum(backend, |w| w.connect_failures.get()));
    }
    text.family("backend_connect_seconds", "histogram", "How long successful connects took.");
    for (labels, backend) in each_backend(services) {
        text.histogram("backend_connect_seconds", &labels, |of| backend.counters.sum(|w| of(&w.connect_time)));
    }
}

/// How many of each service's backends can serve, whatever the cause; and who was removed and is still there.
fn redundancy(text: &mut Text, services: &[Arc<Service>], orphans: &[Orphaned]) {
    let all: Vec<_> = services.iter().map(|service| ([("service", &*service.state.name)], service)).collect();
    text.family("redundancy_expected", "gauge", "Backends of the configuration; backups do not count.");
    for (labels, service) in &all {
        text.sample("redundancy_expected", labels, service.state.redundancy.read().expected);
    }
    text.family("redundancy_missing", "gauge", "Backends that cannot serve, whatever the cause.");
    for (labels, service) in &all {
        text.sample("redundancy_missing", labels, service.state.redundancy.read().missing());
    }
    let help = "For how long each missing backend was missing, in sum.";
    text.family("redundancy_missing_seconds_total", "counter", help);
    for (labels, service) in &all {
        let seconds = service.state.redundancy.read().missing_for.as_secs_f64();
        text.sample("redundancy_missing_seconds_total", labels, seconds);
    }
    // A family without a sample would say nothing.
    let survivable: Vec<_> =
        all.iter().filter_map(|(labels, service)| Some((labels, ready::survivable(service)?))).collect();
    if !survivable.is_empty() {
        let help =
            "Servers that could fail while the rest still carries the peak; only where all have max_connections.";
        text.family("survivable_failures", "gauge", help);
    }
    for (labels, failures) in survivable {
        text.sample("survivable_failures", labels, failures);
    }
    if !orphans.is_empty() {
        text.family("orphan_up", "gauge", "Whether a backend that a reload removed is healthy: 1 or 0.");
    }
    for orphan in orphans {
        let address = orphan.address.to_string();
        let labels = [("service", &*orphan.service), ("backend", &*orphan.backend), ("address", &address)];
        text.sample("orphan_up", &labels, u8::from(orphan.condition.state == State::Up));
    }
}

/// What the control plane knows and counts of the backends.
fn conditions(text: &mut Text, services: &[Arc<Service>]) {
    text.family("backend_up", "gauge", "Whether the backend may serve: 1 or 0.");
    for (labels, backend) in each_backend(services) {
        text.sample("backend_up", &labels, u8::from(ready::is_up(backend)));
    }
    text.family("backend_drained", "gauge", "Whether the backend is held out by a person: 1 or 0.");
    for (labels, backend) in each_backend(services) {
        text.sample("backend_drained", &labels, u8::from(backend.condition.load().state == State::Drained));
    }
    text.family("probes_total", "counter", "Probes ended, by result.");
    for ([service, name], backend) in each_backend(services) {
        for result in Probed::ALL {
            let count = backend.probes.results[result as usize].get();
            text.sample("probes_total", &[service, name, ("result", result.label())], count);
        }
    }
    text.family("probe_seconds", "histogram", "How long probes took that passed.");
    for (labels, backend) in each_backend(services) {
        text.histogram("probe_seconds", &labels, |of| of(&backend.probes.time));
    }
}

/// A label and its value.
type Label<'a> = (&'static str, &'a str);

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
    /// Begins a family: all its samples must follow before the next one begins.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP balancer_{name} {help}\n# TYPE balancer_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.series(name, "", labels, None, value);
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

    /// One histogram, of which `sum` sums a number over all who write it. The format's buckets are cumulative, and the last is the count.
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], sum: impl Fn(&dyn Fn(&Durations) -> u64) -> u64) {
        static BOUNDS: LazyLock<Vec<String>> =
            LazyLock::new(|| Durations::BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).collect());
        let mut count = 0;
        for (index, bound) in BOUNDS.iter().enumerate() {
            count += sum(&|durations| durations.bucket(index));
            self.series(name, "_bucket", labels, Some(bound), count);
        }
        let seconds = sum(&Durations::sum_micros) as f64 / 1e6;
        self.series(name, "_sum", labels, None, seconds);
        self.series(name, "_count", labels, None, count);
    }
}
