//! What is said of a service: a line for each change of a backend's state, and the service's own state.

use super::State;
use super::tracked::Tracked;
use crate::observe::timeline::{Event, Kind};
use crate::table::{Backend, Role};

impl Tracked {
    /// Who, from what to what, why, and what is left to serve.
    pub(super) fn tell(&self, place: usize, from: State, reason: &str, kind: Kind, by: Option<&str>) {
        let watched = &self.backends[place];
        let Backend { name, address, .. } = &*watched.backend;
        let role = if watched.role == Role::Backup { "backup" } else { "backend" };
        let (service, to) = (&self.state.name, watched.state());
        let left = self.left();
        let alert = self.backends.iter().all(|watched| matches!(watched.state(), State::Down | State::Drained));
        let level = match to {
            _ if alert => log::Level::Error,
            State::Up => log::Level::Info,
            _ => log::Level::Warn,
        };
        let text = format!("{role} {name} ({address}): {} -> {}: {reason}; {left}", from.label(), to.label());
        log::log!(level, "{service}: {text}");
        let event = Event { by: by.map(Into::into), state: Some(self.label().to_owned()), ..Event::new(kind, text) };
        self.timeline.record(event.of(service).with(name));
    }

    /// The service's state in a word.
    fn label(&self) -> &'static str {
        let up =
            |role| self.backends.iter().filter(move |watched| watched.role == role && watched.state() == State::Up);
        let primaries = self.backends.iter().filter(|watched| watched.role == Role::Primary).count();
        match (up(Role::Primary).count(), up(Role::Backup).count()) {
            (0, 0) => "down",
            (up, _) if up == primaries => "ok",
            _ => "degraded",
        }
    }

    /// What is left to serve.
    pub(super) fn left(&self) -> String {
        let count = |role| {
            let all = self.backends.iter().filter(|watched| watched.role == role);
            let up = all.clone().filter(|watched| watched.state() == State::Up).count();
            (up, all.count())
        };
        let ((up, all), (backups_up, backups)) = (count(Role::Primary), count(Role::Backup));
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
