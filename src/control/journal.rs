//! The workers' events as log lines: one line a second for each kind that a client can cause.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::probe::Outcome;
use crate::messages::WorkerEvent;
use crate::observe::counters::{Probed, Refused};
use crate::observe::timeline::{Event, Kind, Timeline};
use crate::sys::{Errno, shortage};
use crate::table::Published;

/// Lines of one kind are at least this far apart.
const PAUSE: Duration = Duration::from_secs(1);

/// The timeline gets one event in so long of what goes on.
const GOES_ON: Duration = Duration::from_secs(60);

/// When each kind of line was last written, and what goes on.
#[derive(Debug)]
pub(super) struct Journal {
    timeline: Arc<Timeline>,
    table: Published,
    /// Clients refused of which the timeline knows, by service and reason; and when more is to be told of those who go on.
    refusals: HashMap<(Arc<str>, Refused), Refusals>,
    /// When something of this kind was last seen.
    seen: HashMap<String, Instant>,
    connect_failed: Option<Instant>,
    local_fault: Option<Instant>,
    refused: Option<Instant>,
    probe_fault: Option<Instant>,
}

/// After the first event of those who are refused, the second one follows so soon; each next pause is four times as long, up to
/// [`GOES_ON`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Refusals {
    told: u64,
    pause: Duration,
    due: Option<Instant>,
}

impl Journal {
    pub(super) fn new(timeline: Arc<Timeline>, table: Published) -> Self {
        Self {
            timeline,
            table,
            refusals: HashMap::new(),
            seen: HashMap::new(),
            connect_failed: None,
            local_fault: None,
            refused: None,
            probe_fault: None,
        }
    }

    /// When [`Journal::look`] has something to do.
    pub(super) fn due(&self) -> Option<tokio::time::Instant> {
        self.refusals.values().filter_map(|refusals| refusals.due).min().map(Into::into)
    }

    /// Tells the timeline how many clients were refused since it was last told.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.refusals.iter().filter(|(_, r)| r.due.is_some_and(|due| due <= now)).collect();
        let due: Vec<_> = due.into_iter().map(|((service, reason), _)| (Arc::clone(service), *reason)).collect();
        for (service, reason) in due {
            self.refusing(&service, reason);
        }
    }

    /// Tells the timeline of those who have begun to be refused, whoever was reported: of all that a worker refuses in a second it
    /// events one client, and a busy service would hide the others. The counters have them all.
    fn look_for_new(&mut self) {
        let table = self.table.load_full();
        let all = table.all().flat_map(|service| Refused::ALL.map(|reason| (&service.state, reason)));
        for (state, reason) in all {
            let known = self.refusals.get(&(Arc::clone(&state.name), reason));
            let told = known.map_or(0, |refusals| refusals.told);
            if known.is_none_or(|refusals| refusals.due.is_none()) && state.refused_for(reason) != told {
                self.refusing(&state.name, reason);
            }
        }
    }

    /// Tells the timeline the last of it.
    pub(super) fn close(&mut self) {
        self.look_for_new();
        let all: Vec<_> = self.refusals.keys().cloned().collect();
        all.into_iter().for_each(|(service, reason)| self.refusing(&service, reason));
    }

    fn refusing(&mut self, service: &Arc<str>, reason: Refused) {
        let table = self.table.load();
        let state = table.all().find(|other| other.state.name == *service).map(|service| &service.state);
        let count = state.map_or(0, |state| state.refused_for(reason));
        // What a reload has removed is not counted any more.
        self.refusals.retain(|(name, _), _| table.all().any(|other| other.state.name == *name));
        let refusals = self.refusals.entry((Arc::clone(service), reason)).or_default();
        let more = count.saturating_sub(std::mem::replace(&mut refusals.told, count));
        refusals.pause = if refusals.due.is_some() { (refusals.pause * 4).min(GOES_ON) } else { FIRST_PAUSE };
        refusals.due = (more > 0).then(|| Instant::now() + refusals.pause);
        if more > 0 {
            let kind = match reason {
                Refused::ProcessLimit | Refused::ServiceLimit | Refused::BackendLimit | Refused::QueueTimeout => {
                    Kind::Limit
                }
                _ => Kind::Refused,
            };
            let clients = if more == 1 { "1 client was".to_owned() } else { format!("{more} clients were") };
            let event = Event::new(kind, format!("{clients} refused: {}", reason.label()));
            self.timeline.record(Event { count: more, ..event.of(service) });
        }
    }

    /// Tells the timeline of what goes on, once when it begins.
    fn going_on(&mut self, what: &str, event: impl FnOnce() -> Event) {
        let now = Instant::now();
        self.seen.retain(|_, last| now.duration_since(*last) < GOES_ON);
        if self.seen.insert(what.to_owned(), now).is_none() {
            self.timeline.record(event());
        }
    }

    /// Writes that a probe failed by a fault of this machine: such a probe says nothing, and clients may wait for it.
    pub(super) fn note_probe(&mut self, outcome: &Outcome) {
        if outcome.result == Probed::LocalFault && may(&mut self.probe_fault) {
            log::warn!("cannot probe a backend: {}: this machine's own fault, no backend is blamed", outcome.detail);
        }
    }

    /// Writes a report, unless one of its kind has just been written.
    pub(super) fn note(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Opened { client, service, backend } => {
                let client = client.map_or_else(|| "a Unix socket".to_owned(), |client| client.to_string());
                log::info!("{service}: session from {client} to {backend}");
            }
            WorkerEvent::ConnectFailed { service, backend, address, error } if may(&mut self.connect_failed) => {
                log::warn!("{service}: backend {backend} ({address}): {}", connect_failure(error));
            }
            WorkerEvent::LocalFault { doing, error } => {
                let text = format!(
                    "cannot {doing}: {error}: this machine's own fault, no backend is blamed; {}",
                    remedy(error)
                );
                if may(&mut self.local_fault) {
                    log::warn!("{text}");
                }
                self.going_on(doing, || Event::new(Kind::Short, text));
            }
            WorkerEvent::Refused { service, reason } => {
                // The local fault that led to it has its own line.
                if reason != Refused::Descriptors && may(&mut self.refused) {
                    log::warn!("{service}: clients are refused: {} ({})", refusal(reason), reason.label());
                }
                self.look_for_new();
            }
            WorkerEvent::Backup { service, backend } => {
                let text = format!("backup {backend} serves what the backends cannot carry");
                self.going_on(&format!("backup {service}/{backend}"), || {
                    Event::new(Kind::Backup, text).of(&service).with(&backend)
                });
            }
            WorkerEvent::NoPipe => {
                let text = "no pipe could be had: bulk goes on by copying";
                self.going_on("pipe", || Event::new(Kind::Short, text));
            }
            _ => {}
        }
    }
}

fn may(last: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let may = last.is_none_or(|last| now - last >= PAUSE);
    if may {
        *last = Some(now);
    }
    may
}

/// Why a client is refused, in words for people.
fn refusal(reason: Refused) -> &'static str {
    match reason {
        Refused::ProcessLimit => "the process carries max_connections sessions",
        Refused::ServiceLimit => "the service carries max_connections sessions",
        Refused::BackendLimit => "every backend carries its max_connections sessions",
        Refused::QueueTimeout => "no backend had room within queue.timeout",
        Refused::NoBackend => "no backend can serve",
        Refused::ConnectFailed => "each backend that was tried failed to connect",
        Refused::Descriptors => "this machine has no descriptor or local port left",
        Refused::Stopping => "the process is stopping",
    }
}

/// What became of a connect, in words for people.
pub(super) fn connect_failure(error: Errno) -> String {
    match error {
        Errno::CONNREFUSED => "connect refused".to_owned(),
        Errno::CANCELED | Errno::TIMEDOUT => "connect timed out".to_owned(),
        Errno::HOSTUNREACH | Errno::NETUNREACH => "unreachable".to_owned(),
        Errno::CONNRESET => "connect reset".to_owned(),
        error => format!("connect failed: {error}"),
    }
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN => {
            "widen net.ipv4.ip_local_port_range, or set net.ipv4.tcp_tw_reuse=1"
        }
        Errno::AFNOSUPPORT => {
            "IPv6 is switched off here, or RestrictAddressFamilies= in the unit leaves it out: allow it, or give the backend an IPv4 address"
        }
        other => shortage::remedy(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_socket_lacks_comes_with_what_to_do() {
        for (error, words) in [
            (Errno::ADDRNOTAVAIL, "ip_local_port_range"),
            (Errno::AFNOSUPPORT, "RestrictAddressFamilies="),
            (Errno::MFILE, "LimitNOFILE="),
        ] {
            let said = remedy(error);
            assert!(said.contains(words), "{error}: {said}");
        }
    }
}
