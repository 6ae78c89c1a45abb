//! The status document: what `GET /v1/status` answers and `balancer status` reads.

use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ready;
use super::view::{View, descriptors};
use crate::observe::condition;
use crate::observe::counters::{Closed, Counter, Refused, ServiceCounters};
use crate::observe::running::{LastReload, Orphaned};
use crate::table::{Backend, Role, Service};

/// The whole process. Every time is RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it started to serve.
    pub started: String,
    /// It was told to stop, and accepts no client any more.
    #[serde(default)]
    pub stopping: bool,
    /// Number of workers.
    pub workers: u64,
    /// Sessions open now.
    pub sessions: u32,
    /// How many there may be.
    pub max_connections: Option<u32>,
    /// Pipes held now, lent or spare.
    pub pipes: u64,
    /// How many there may be.
    pub pipes_max: u64,
    /// Times a bulk flow went on by copying because no pipe could be had.
    pub pipes_refused: u64,
    /// Times a receive had to wait for a free buffer.
    pub buffers_refused: u64,
    /// Turns of all the workers' loops.
    pub wakes: u64,
    /// Lines of the access log that were dropped.
    #[serde(default)]
    pub access_log_dropped: u64,
    /// Descriptors open now, where the kernel says it.
    pub descriptors: Option<u64>,
    /// How many there may be.
    pub descriptors_max: u64,
    /// The file it runs on.
    pub config: ConfigStatus,
    /// The services in the order of the configuration.
    pub services: IndexMap<String, ServiceStatus>,
    /// Backends that a reload removed and that still have sessions.
    #[serde(default)]
    pub leaving: Vec<Leaving>,
    /// Backends that a reload removed, and that are watched on.
    #[serde(default)]
    pub orphans: Vec<Orphan>,
}

/// The configuration that the process runs on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file; null where the configuration is built in.
    pub path: Option<String>,
    /// SHA-256 of what was read, in lower-case hexadecimal; empty where the configuration is built in.
    pub sha256: String,
    /// Counts the configurations applied, the first included.
    pub generation: u64,
    /// When it was read.
    pub loaded: String,
    /// `same`, `changed` or `missing`; null where there is no file, or where it cannot be read now.
    pub on_disk: Option<String>,
    /// The last reload that was asked for.
    #[serde(default)]
    pub last_reload: Option<ReloadStatus>,
}

/// What became of a reload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When it ended.
    pub at: String,
    /// `applied`, `invalid`, `refused` or `failed`.
    pub result: String,
    /// Why nothing was applied.
    pub message: Option<String>,
}

/// What a reload removed, while it still has sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leaving {
    /// The service.
    pub service: String,
    /// Its backend.
    pub backend: String,
    /// Where that listens.
    pub address: String,
    /// Sessions open with it.
    pub connections: u32,
}

/// One service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The addresses really listened on; empty until they are bound.
    pub listen: Vec<String>,
    /// How a backend is chosen.
    pub balance: String,
    /// `ok`, `degraded` or `down`.
    pub state: String,
    /// Sessions open now, those still being connected included.
    pub connections: u32,
    /// How many there may be.
    pub max_connections: Option<u32>,
    /// Clients that wait for a place in a backend; among the sessions open.
    #[serde(default)]
    pub queued: u32,
    /// The most sessions that were ever open at once.
    #[serde(default)]
    pub peak: u32,
    /// How many of its backends can serve.
    #[serde(default)]
    pub redundancy: RedundancyStatus,
    /// Clients accepted, also those refused afterwards.
    pub accepted: u64,
    /// Sessions established with a backend.
    pub total: u64,
    /// Clients refused.
    pub refused: u64,
    /// The same by reason, every reason listed.
    pub refused_by: IndexMap<String, u64>,
    /// Sessions ended, by reason, every reason listed.
    pub closed: IndexMap<String, u64>,
    /// The backends in the order of the configuration, then the backups.
    pub backends: IndexMap<String, BackendStatus>,
}

/// One backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Where it listens.
    pub address: String,
    /// `primary` or `backup`.
    pub role: String,
    /// `starting`, `up`, `down` or `drained`.
    pub state: String,
    /// Since when it is in that state.
    pub since: String,
    /// Why.
    pub reason: String,
    /// Its share against its neighbours'.
    pub weight: u16,
    /// Sessions open now, those still being connected included.
    pub connections: u32,
    /// How many there may be.
    pub max_connections: Option<u32>,
    /// The most sessions that were ever open with it at once.
    #[serde(default)]
    pub peak: u32,
    /// Sessions established with it.
    pub total: u64,
    /// Connects that failed by its fault.
    pub failures: u64,
    /// Bytes from clients to it.
    pub bytes_in: u64,
    /// Bytes from it to clients.
    pub bytes_out: u64,
    /// How long the last probe took, in milliseconds, whether it passed or not.
    pub probe_ms: Option<f64>,
    /// The drain that is on it, if any.
    pub drain: Option<Drain>,
}

/// A backend drained for a limited time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Drain {
    /// Who took it out.
    #[serde(default)]
    pub by: String,
    /// Why it was taken out; empty where nobody said.
    pub reason: String,
    /// Since when.
    #[serde(default)]
    pub since: String,
    /// When it comes back by itself.
    pub until: String,
    /// `drain` or `drill`.
    #[serde(default)]
    pub kind: String,
}

/// How many of a service's backends can serve.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RedundancyStatus {
    /// Backends of the configuration; backups do not count.
    pub expected: usize,
    /// Those of them that can serve.
    pub serving: usize,
    /// Those that cannot.
    pub missing: usize,
    /// For how long each missing one was missing, in sum, in seconds.
    pub missing_seconds: f64,
    /// How many servers could fail while the rest still carries the most sessions that were ever open; null where a server has no
    /// `max_connections`.
    pub survivable_failures: Option<usize>,
}

/// A backend that a reload removed, and that is watched on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orphan {
    /// The service that it was removed from.
    pub service: String,
    /// Its name there.
    pub backend: String,
    /// Where it listens.
    pub address: String,
    /// `starting`, `up` or `down`.
    pub state: String,
    /// Since when it is in that state.
    pub since: String,
    /// Why.
    pub reason: String,
    /// When it was removed.
    pub removed: String,
    /// By which reload.
    pub generation: u64,
    /// Until when it is watched.
    pub until: String,
}

impl Status {
    /// The process as it is now; `on_disk`: the configuration's file, as [`super::Disk`] has found it.
    pub(super) fn of(view: &View, on_disk: Option<&'static str>) -> Self {
        let file = view.running.file.load_full();
        let table = view.table.load();
        let listening = view.running.listening.load();
        let reload = |last: &LastReload| ReloadStatus {
            at: time(last.at),
            result: last.result.label().into(),
            message: last.message.clone(),
        };
        let service = |service: &Arc<Service>| {
            let name = &service.state.name;
            let listen = listening.get(name).cloned().unwrap_or_default();
            (name.to_string(), ServiceStatus::of(service, listen))
        };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: time(view.started),
            stopping: view.running.is_stopping(),
            workers: view.workers as u64,
            sessions: view.sessions.taken(),
            max_connections: view.sessions.limit(),
            pipes: view.counters.sum(|worker| worker.pipes.get()),
            pipes_max: view.pipes_max,
            pipes_refused: view.counters.sum(|worker| worker.pipes_refused.get()),
            buffers_refused: view.counters.sum(|worker| worker.buffers_refused.get()),
            wakes: view.counters.sum(|worker| worker.wakes.get()),
            access_log_dropped: view.access_log.dropped(),
            descriptors: descriptors(),
            descriptors_max: view.descriptors_max,
            config: ConfigStatus {
                path: file.path.as_ref().map(|path| path.display().to_string()),
                sha256: file.sha256.iter().flatten().map(|byte| format!("{byte:02x}")).collect(),
                generation: table.generation,
                loaded: time(file.loaded),
                on_disk: on_disk.map(Into::into),
                last_reload: view.running.last.load().as_deref().map(reload),
            },
            services: table.services.iter().map(service).collect(),
            leaving: ready::leaving(&table)
                .filter(|(_, backend)| backend.permits.taken() > 0)
                .map(|(service, backend)| Leaving {
                    service: service.state.name.to_string(),
                    backend: backend.name.to_string(),
                    address: backend.address.to_string(),
                    connections: backend.permits.taken(),
                })
                .collect(),
            orphans: view.running.orphans.load().iter().map(Orphan::of).collect(),
        }
    }
}

impl ServiceStatus {
    fn of(service: &Service, listen: Vec<String>) -> Self {
        let counters = &service.state.counters;
        let by_reason = |label: &str, counter: &dyn Fn(&ServiceCounters) -> &Counter| {
            (label.to_owned(), counters.sum(|worker| counter(worker).get()))
        };
        let refused_by: IndexMap<_, _> = Refused::ALL
            .iter()
            .map(|&reason| by_reason(reason.label(), &|worker| &worker.refused[reason as usize]))
            .collect();
        let backends: IndexMap<_, _> = service
            .backends
            .iter()
            .zip(&service.weights)
            .map(|(backend, &weight)| (backend, Role::Primary, weight))
            // Backups have no shares: they are used in order.
            .chain(service.backups.iter().map(|backup| (backup, Role::Backup, 1)))
            .map(|(backend, role, weight)| (backend.name.to_string(), BackendStatus::of(backend, role, weight)))
            .collect();
        Self {
            listen,
            balance: service.algorithm.name().into(),
            state: ready::state(service).into(),
            connections: service.state.permits.taken(),
            max_connections: service.state.permits.limit(),
            queued: service.state.queue.waiting(),
            peak: service.state.permits.peak(),
            redundancy: RedundancyStatus::of(service),
            accepted: counters.sum(|worker| worker.accepted.get()),
            total: service.total(),
            refused: refused_by.values().sum(),
            refused_by,
            closed: Closed::ALL
                .iter()
                .map(|&reason| by_reason(reason.label(), &|worker| &worker.closed[reason as usize]))
                .collect(),
            backends,
        }
    }
}

impl BackendStatus {
    fn of(backend: &Backend, role: Role, weight: u16) -> Self {
        let condition = backend.condition.load();
        Self {
            address: backend.address.to_string(),
            role: role.label().into(),
            state: condition.state.label().into(),
            since: time(condition.since),
            reason: condition.reason.clone(),
            weight,
            connections: backend.permits.taken(),
            max_connections: backend.permits.limit(),
            peak: backend.permits.peak(),
            total: backend.counters.sum(|worker| worker.sessions.get()),
            failures: backend.counters.sum(|worker| worker.connect_failures.get()),
            bytes_in: backend.counters.sum(|worker| worker.bytes_in.get()),
            bytes_out: backend.counters.sum(|worker| worker.bytes_out.get()),
            probe_ms: condition.probe.map(|took| took.as_secs_f64() * 1e3),
            drain: condition.drain.as_ref().map(Drain::of),
        }
    }
}

impl Drain {
    fn of(drain: &condition::Drain) -> Self {
        Self {
            by: drain.by.clone(),
            reason: drain.reason.clone(),
            since: time(drain.since),
            until: time(drain.until),
            kind: drain.purpose.label().into(),
        }
    }
}

impl RedundancyStatus {
    fn of(service: &Service) -> Self {
        let reading = service.state.redundancy.read();
        Self {
            expected: reading.expected,
            serving: reading.serving,
            missing: reading.missing(),
            missing_seconds: reading.missing_for.as_secs_f64(),
            survivable_failures: ready::survivable(service),
        }
    }
}

impl Orphan {
    fn of(orphan: &Orphaned) -> Self {
        let Orphaned { service, backend, address, condition, removed, generation, until } = orphan;
        Self {
            service: service.to_string(),
            backend: backend.to_string(),
            address: address.to_string(),
            state: condition.state.label().into(),
            since: time(condition.since),
            reason: condition.reason.clone(),
            removed: time(*removed),
            generation: *generation,
            until: time(*until),
        }
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}
