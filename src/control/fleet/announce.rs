//! What is said of a service: a line for each change of a backend's state, and the service's own state.

use std::time::{Duration, Instant};

use super::State;
use super::tracked::Tracked;
use crate::observe::condition::Standing;
use crate::observe::timeline::{Event, Kind};
use crate::table::{Backend, Role};

/// How often it is seen whether backups have sessions still.
const LOOK: Duration = Duration::from_secs(5);

impl Tracked {
    /// Who, from what to what, why, and what is left to serve.
    pub(super) fn announce(&mut self, index: usize, from: State, reason: &str, kind: Kind, by: Option<&str>) {
        let label = self.record_state();
        let watched = &self.backends[index];
        let Backend { name, address, .. } = &*watched.backend;
        let role = if watched.role == Role::Backup { "backup" } else { "backend" };
        let (service, to) = (&self.state.name, watched.state());
        let alert = self.backends.iter().all(|watched| matches!(watched.state(), State::Down | State::Drained));
        let level = match to {
            _ if alert && from != to => log::Level::Error,
            State::Up => log::Level::Info,
            _ => log::Level::Warn,
        };
        // Where the state is what it was, so is what is left.
        let (change, left) = match from == to {
            true => (to.label().to_owned(), String::new()),
            false => (format!("{} -> {}", from.label(), to.label()), format!("; {}", self.left())),
        };
        let text = format!("{role} {name} ({address}): {change}: {reason}{left}");
        log::log!(level, "{service}: {text}");
        let event = Event { by: by.map(Into::into), state: Some(label.to_owned()), ..Event::new(kind, text) };
        self.timeline.record(event.of(service).with(name));
    }

    /// Tells the timeline of a state of the service that came without any backend's: sessions are with backups, or are not any
    /// more, or a reload has changed who belongs to it.
    pub(super) fn announce_service(&mut self) {
        let before = self.told;
        let state = self.record_state();
        if before.is_some_and(|before| before != state) {
            let on_backups =
                if self.look.is_some() { "; no backend is missing, but backups have open sessions" } else { "" };
            let text = format!("{state}: {}{on_backups}", self.left());
            let event = Event { state: Some(state.to_owned()), ..Event::new(Kind::State, text) };
            self.timeline.record(event.of(&self.state.name));
        }
    }

    /// The service's state in a word, of which the timeline is told now.
    fn record_state(&mut self) -> &'static str {
        let ((up, backends), (backups_up, _)) = (self.count(Role::Primary), self.count(Role::Backup));
        let on_backups = self.of(Role::Backup).any(|watched| watched.backend.permits.taken() > 0);
        let standing = Standing { backends, up, backups_up, on_backups };
        let alone = standing.on_backups && standing.up == standing.backends;
        self.look = alone.then(|| Instant::now() + LOOK);
        self.told.insert(standing.label())
    }

    /// What is left to serve.
    pub(super) fn left(&self) -> String {
        let ((up, all), (backups_up, backups)) = (self.count(Role::Primary), self.count(Role::Backup));
        if up + backups_up == 0 {
            return if self.backends.iter().any(|watched| watched.state() == State::Starting) {
                "nobody is known to serve yet: clients wait for the first probes".to_owned()
            } else if self.try_all {
                "NOBODY IS LEFT TO SERVE: every backend is tried all the same".to_owned()
            } else {
                "NOBODY IS LEFT TO SERVE: clients are refused".to_owned()
            };
        }
        let backups = if backups == 0 { String::new() } else { format!(", {backups_up} of {backups} backups") };
        format!("left to serve: {up} of {all} backends{backups}")
    }
}
