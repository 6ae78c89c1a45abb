//! Taking backends out for a limited time and bringing them back, and what the process must not forget of that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::store::{Done, StateDirectory, Store};
use super::{Control, NOT_SERVING, Parts, State, handover, now};
use crate::messages::{Command, Draining, Outcome};
use crate::observe::condition::Drain;
use crate::observe::timeline::{self, Event, Kind};

/// Nobody is drained for longer: whoever wants that takes the backend out of the file.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// A shorter time would be over before anybody notices.
const SHORTEST: Duration = Duration::from_secs(1);

/// What to do where the state directory cannot be used.
const REMEDY: &str = "make it a directory that this process alone may write to, or name another one";

/// Who wants to know what came of it.
type Answer = oneshot::Sender<Outcome>;

/// The state directory in this process's hands. Dropping it leaves it to the next one.
#[derive(Debug, Default)]
pub(super) struct StateStore {
    store: Option<Store>,
    _timeline: Option<timeline::Writer>,
}

impl Control {
    /// Opens the state directory and goes on with what is kept there. `successor`: another process has it, and will leave it.
    pub(super) fn open_state(&mut self, successor: bool) {
        let Parts { config, timeline, fleet, .. } = &mut self.parts;
        let left = if successor { handover::leases() } else { None };
        let Some(directory) = &config.state else {
            return left.into_iter().for_each(|left| fleet.go_on(left));
        };
        // First, so that what comes of the leases is on disk, too.
        let timeline = timeline.keep_in(directory, successor);
        // Only what is this process's, or will be, is taken up.
        let store = StateDirectory::take(directory, successor).and_then(|place| {
            fleet.go_on(place.load());
            Store::open(place)
        });
        left.into_iter().for_each(|left| fleet.go_on(left));
        match (&store, &timeline) {
            (Ok(_), Ok(_)) => {}
            (Err(why), Err(_)) => {
                log::warn!("state: {why}: drains and the timeline are kept in memory, a restart forgets them; {REMEDY}")
            }
            (Err(why), Ok(_)) => {
                let what = "drains are kept in memory, a restart forgets them";
                log::warn!("state: {why}: {what}; {REMEDY}");
            }
            (Ok(_), Err(why)) => {
                let what = "the timeline is kept in memory, a restart forgets it";
                let remedy = if why.lacks_room() { "make room there for its 4 MiB" } else { REMEDY };
                log::warn!("state: {why}: {what}; {remedy}");
            }
        }
        self.state_store = StateStore { store: store.ok(), _timeline: timeline.ok() };
        self.save_and_watch(None);
    }

    /// The state directory, where it can be written to.
    pub(super) fn kept_in(&self) -> Option<PathBuf> {
        self.parts.config.state.clone().filter(|_| self.state_store.store.is_some())
    }

    /// Leaves the state directory to another process.
    pub(super) fn leave_state(&mut self) {
        self.state_store = StateStore::default();
    }

    pub(super) fn drain(&mut self, draining: Draining, by: String, answer: Answer) {
        let Draining { service, backend, length, reason, purpose, force, close, abort } = draining;
        let outcome = self.may_decide().and_then(|()| {
            if !(SHORTEST..=LONGEST).contains(&length) {
                return Err("a backend is drained for 1s to 720h (30 days)".to_owned());
            }
            let since = Timestamp::now();
            let after = |length: Duration| {
                SignedDuration::try_from(length)
                    .ok()
                    .and_then(|length| since.saturating_add(length).ok())
                    .unwrap_or(Timestamp::MAX)
            };
            let (until, close) = (after(length), close.map(|(at, spread)| (after(at), spread)));
            let abort = abort.map(|most| (most.max(1), 0));
            let drain = Drain { purpose, by, reason, since, until, reminded: false, close, abort };
            self.parts.fleet.drain(&service, &backend, drain, self.parts.config.reload.guard, force)
        });
        self.decided(outcome, answer);
    }

    pub(super) fn restore(&mut self, service: &str, backend: &str, by: &str, answer: Answer) {
        let outcome = self.may_decide().and_then(|()| self.parts.fleet.restore(service, backend, by));
        self.decided(outcome, answer);
    }

    pub(super) fn forget(&mut self, service: &str, backend: &str, by: &str, answer: Answer) {
        let outcome = self.may_decide().and_then(|()| self.parts.fleet.forget(service, backend, by));
        self.decided(outcome, answer);
    }

    fn may_decide(&self) -> Result<(), String> {
        match self.state {
            _ if self.upgrading.is_some() => Err("an upgrade is under way: try again".to_owned()),
            State::Serving => Ok(()),
            _ => Err(NOT_SERVING.to_owned()),
        }
    }

    fn decided(&mut self, outcome: Outcome, answer: Answer) {
        match outcome {
            Ok(said) => {
                self.wake_workers(true);
                let has_disk = self.state_store.store.is_some();
                let done = move |written: Result<(), String>| {
                    let said = match written {
                        Ok(()) => said,
                        Err(why) => format!("{said}; a restart would forget it: {why}"),
                    };
                    let _ = answer.send(Ok(said));
                };
                if has_disk {
                    self.save_and_watch(Some(Box::new(done)));
                } else {
                    self.save_and_watch(None);
                    done(Err("there is no state directory that could be written to".to_owned()));
                }
            }
            Err(why) => _ = answer.send(Err(why)),
        }
    }

    /// After anything that may have changed who is drained or watched: has the prober ask them, and the disk keep it.
    /// `done` is told when it is on disk.
    pub(super) fn save_and_watch(&mut self, done: Option<Done>) {
        let Parts { fleet, running, .. } = &mut self.parts;
        if fleet.is_to_watch() {
            fleet.watch(&mut self.prober);
        }
        if let Some(orphans) = fleet.changed_orphans() {
            running.orphans.store(Arc::new(orphans));
        }
        match (fleet.unsaved(), &self.state_store.store) {
            (Some(saved), Some(store)) => store.save(&saved, done),
            (_, _) => done.into_iter().for_each(|done| done(Ok(()))),
        }
    }

    /// Does what the clock asks for.
    pub(super) fn on_timer(&mut self) {
        let published = self.parts.fleet.on_timer(now());
        for (service, backend, spread) in self.parts.fleet.close_due() {
            let (name, address) = (&backend.name, backend.address);
            self.tell_all(|| Command::CloseSessions {
                service: Arc::clone(&service),
                backend: Arc::clone(name),
                address,
                spread,
            });
        }
        self.save_and_watch(None);
        self.wake_workers(published);
    }

    /// Notes an event of the whole process.
    pub(super) fn record(&self, kind: Kind, by: Option<&str>, text: impl Into<String>) {
        let event = Event::new(kind, text);
        self.parts.timeline.record(Event { by: by.map(Into::into), ..event });
    }
}
