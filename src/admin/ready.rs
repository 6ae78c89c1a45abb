//! Who can serve: what the readiness and the status of a service come from.

use std::fmt::Write;
use std::sync::Arc;

use crate::observe::condition::{Standing, State};
use crate::observe::redundancy;
use crate::table::{Backend, Service, Table};

/// Backends named in one line; a service may have thousands.
const NAMED: usize = 10;

/// A service's backends, then its backups.
pub(super) fn all(service: &Service) -> impl Iterator<Item = &Arc<Backend>> {
    service.backends.iter().chain(&service.backups)
}

/// Backends that a reload removed, with their services, while either is remembered.
pub(super) fn leaving(table: &Table) -> impl Iterator<Item = (&Arc<Service>, &Arc<Backend>)> {
    let removed =
        table.services.iter().flat_map(|service| service.leaving.iter().map(move |backend| (service, backend)));
    let whole = table.leaving.iter();
    removed.chain(whole.flat_map(|service| all(service).chain(&service.leaving).map(move |backend| (service, backend))))
}

/// Whether a backend may serve.
pub(super) fn is_up(backend: &Backend) -> bool {
    backend.condition.load().state == State::Up
}

/// How many servers could fail while the rest still carries the most sessions that were ever open.
pub(super) fn survivable(service: &Service) -> Option<usize> {
    let limits: Vec<_> = all(service).filter(|backend| is_up(backend)).map(|backend| backend.permits.limit()).collect();
    redundancy::survivable(&limits, service.state.permits.peak())
}

/// A service's state in a word.
pub(super) fn state(service: &Service) -> &'static str {
    let up = |backends: &[Arc<Backend>]| backends.iter().filter(|backend| is_up(backend)).count();
    let standing = Standing {
        backends: service.backends.len(),
        up: up(&service.backends),
        backups_up: up(&service.backups),
        on_backups: service.backups.iter().any(|backup| backup.permits.taken() > 0),
    };
    standing.label()
}

/// Why clients should go elsewhere: one line for each service that nobody can serve, or that the process is `stopping`; empty where
/// all is well.
pub(super) fn unready(table: &Table, stopping: bool) -> String {
    if stopping {
        return "the process is stopping: no client is accepted any more\n".to_owned();
    }
    let mut text = String::new();
    for service in table.services.iter().filter(|service| !all(service).any(|backend| is_up(backend))) {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{}: no backend can serve", service.state.name);
        for (index, backend) in all(service).take(NAMED).enumerate() {
            let condition = backend.condition.load();
            let separator = if index == 0 { ": " } else { ", " };
            let _ = write!(text, "{separator}{} {}: {}", backend.name, condition.state.label(), condition.reason);
        }
        let more = all(service).count().saturating_sub(NAMED);
        let _ = if more > 0 { writeln!(text, ", and {more} more") } else { writeln!(text) };
    }
    text
}
