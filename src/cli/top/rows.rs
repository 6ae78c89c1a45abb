//! The rows of the list: services with their backends, chosen by the filter, in the order that was asked for.

use std::cmp::Reverse;

use super::model::{Model, Rates};
use crate::admin::status::{BackendStatus, Leaving, Orphan, ServiceStatus};

/// The order of services, and of the backends within each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// As the configuration has them.
    #[default]
    File,
    /// Those in trouble first.
    State,
    /// Those with most sessions open first.
    Sessions,
    /// Those with most new sessions first.
    New,
    /// Those that carry most bytes first.
    Bytes,
}

impl Sort {
    /// The next one in turn.
    pub(super) fn next(self) -> Self {
        match self {
            Self::File => Self::State,
            Self::State => Self::Sessions,
            Self::Sessions => Self::New,
            Self::New => Self::Bytes,
            Self::Bytes => Self::File,
        }
    }

    /// Its name on the screen.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::State => "state",
            Self::Sessions => "open",
            Self::New => "new/s",
            Self::Bytes => "bytes/s",
        }
    }

    /// What comes first has the smallest key.
    fn key(self, state: &str, connections: u32, rates: Rates) -> (u8, Reverse<u64>) {
        // Thousandths tell slow rates apart.
        let most = |rate: f64| Reverse((rate * 1e3) as u64);
        match self {
            Self::File => (0, Reverse(0)),
            Self::State => (urgency(state), Reverse(0)),
            Self::Sessions => (0, Reverse(connections.into())),
            Self::New => (0, most(rates.sessions.unwrap_or(0.0))),
            Self::Bytes => (0, most(rates.bytes())),
        }
    }
}

fn urgency(state: &str) -> u8 {
    match state {
        "down" => 0,
        "degraded" => 1,
        "drained" => 2,
        "starting" => 3,
        _ => 4,
    }
}

/// Which thing a row shows, whatever place it has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A service.
    Service(String),
    /// A backend in the pool, by service and name.
    Backend(String, String),
    /// A backend that a reload removed, by service, name and address.
    Removed(String, String, String),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row<'a> {
    /// A service.
    Service(&'a str, &'a ServiceStatus),
    /// One of the backends of the service above.
    Backend(&'a str, &'a str, &'a BackendStatus),
    /// Removed, and still watched.
    Orphan(&'a Orphan),
    /// Removed, and only its sessions are left.
    Leaving(&'a Leaving),
}

impl Row<'_> {
    /// What it shows.
    pub(super) fn key(&self) -> Key {
        match *self {
            Self::Service(name, _) => Key::Service(name.into()),
            Self::Backend(service, name, _) => Key::Backend(service.into(), name.into()),
            Self::Orphan(Orphan { service, backend, address, .. })
            | Self::Leaving(Leaving { service, backend, address, .. }) => {
                Key::Removed(service.clone(), backend.clone(), address.clone())
            }
        }
    }

    /// How long its name is, with what stands before and behind it.
    pub(super) fn name_length(&self) -> usize {
        match *self {
            Self::Service(name, _) => name.len(),
            Self::Backend(_, name, BackendStatus { role, .. }) if role == "backup" => name.len() + " (backup)".len(),
            Self::Backend(_, name, _) => name.len(),
            Self::Orphan(Orphan { backend, .. }) | Self::Leaving(Leaving { backend, .. }) => backend.len(),
        }
    }

    /// Whether a filter lets it through.
    fn is_shown(&self, filter: &str) -> bool {
        let full = |service: &str, backend: &str| format!("{service}/{backend}");
        match *self {
            Self::Service(name, service) => is_shown(filter, &[name], &[&service.state]),
            Self::Backend(service, name, BackendStatus { address, state, role, .. }) => {
                is_shown(filter, &[&full(service, name), address], &[state, role])
            }
            Self::Orphan(Orphan { service, backend, address, state, .. }) => {
                is_shown(filter, &[&full(service, backend), address], &[state, "orphan"])
            }
            Self::Leaving(Leaving { service, backend, address, .. }) => {
                is_shown(filter, &[&full(service, backend), address], &["leaving"])
            }
        }
    }
}

/// The rows to show.
pub(super) fn rows<'a>(model: &'a Model, filter: &str, sort: Sort) -> Vec<Row<'a>> {
    let status = &model.status;
    let mut services: Vec<_> = status.services.iter().map(|(name, service)| (name.as_str(), service)).collect();
    services.sort_by_key(|(name, service)| sort.key(&service.state, service.connections, model.rates(name)));
    let mut rows = Vec::new();
    for (name, service) in services {
        let mut below = Vec::new();
        let mut backends: Vec<_> = service.backends.iter().collect();
        backends.sort_by_key(|(backend, shown)| {
            let rates = model.history(name, backend).map(|history| history.rates).unwrap_or_default();
            sort.key(&shown.state, shown.connections, rates)
        });
        below.extend(backends.into_iter().map(|(backend, shown)| Row::Backend(name, backend, shown)));
        below.extend(removed(model, |service| service == name));
        let whole = is_shown(filter, &[name], &[]);
        below.retain(|row| whole || row.is_shown(filter));
        if !below.is_empty() || Row::Service(name, service).is_shown(filter) {
            rows.push(Row::Service(name, service));
            rows.append(&mut below);
        }
    }
    // Those whose service has left, too.
    let whole = removed(model, |service| !status.services.contains_key(service));
    rows.extend(whole.filter(|row| row.is_shown(filter)));
    rows
}

/// Backends of some services that a reload removed.
fn removed<'a>(model: &'a Model, of: impl Fn(&str) -> bool + Copy) -> impl Iterator<Item = Row<'a>> {
    let orphans = model.status.orphans.iter();
    let is_orphan = |leaving: &Leaving| {
        let mut orphans = model.status.orphans.iter();
        orphans.any(|o| (&o.service, &o.backend, &o.address) == (&leaving.service, &leaving.backend, &leaving.address))
    };
    let leaving = model.status.leaving.iter().filter(move |leaving| of(&leaving.service) && !is_orphan(leaving));
    orphans.filter(move |orphan| of(&orphan.service)).map(Row::Orphan).chain(leaving.map(Row::Leaving))
}

/// Whether any of the texts contains the filter, or any of the words begins with it, whatever the case. A word is matched
/// from its beginning, so that `up` finds no backup.
fn is_shown(filter: &str, texts: &[&str], words: &[&str]) -> bool {
    let filter = filter.to_lowercase();
    texts.iter().any(|text| text.to_lowercase().contains(&filter)) || words.iter().any(|word| word.starts_with(&filter))
}
