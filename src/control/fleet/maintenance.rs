//! Backends drained by a person, for a limited time; and what of a fleet outlives the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::orphans::Orphans;
use super::tracked::{Tracked, Watched};
use super::{Fleet, instant};
use crate::control::probe::Id;
use crate::control::store::{Saved, SavedDrain};
use crate::observe::condition::{Drain, Purpose, State};
use crate::observe::running::Orphaned;
use crate::observe::timeline::{Event, Kind};
use crate::table::{Backend, Role};

/// How often it is seen during a drill whether clients are refused.
const LOOK: Duration = Duration::from_millis(100);

impl Fleet {
    /// Drains a backend from now on; one that is drained already goes on with that on these terms. `guard`: the share of its
    /// backends, in per cent, that the service must keep serving, unless `force`.
    ///
    /// # Errors
    /// There is no such backend, or too few would be left: why, and what to do.
    pub(in crate::control) fn drain(
        &mut self,
        service: &str,
        backend: &str,
        drain: Drain,
        guard: u8,
        force: bool,
    ) -> Result<String, String> {
        let (service, index) = self.find(service, backend)?;
        let again = service.backends[index].drain.is_some();
        if again && drain.purpose == Purpose::Drill {
            // Its end would be the end of somebody's maintenance.
            return Err(format!(
                "{}/{backend} is drained already: bring it back first, with `balancer restore`",
                service.state.name
            ));
        }
        if !again && !force {
            service.may_lose(index, guard)?;
        }
        let drain = match drain.abort {
            Some((most, _)) => Drain { abort: Some((most, service.state.refused())), ..drain },
            None => drain,
        };
        let (until, by) = (drain.until, drain.by.clone());
        let kind = if drain.purpose == Purpose::Drill { Kind::Drill } else { Kind::Drain };
        service.start_drain(index, drain, kind, Some(&by));
        let (name, left) = (format!("{}/{backend}", service.state.name), service.left());
        self.unsaved = true;
        self.publish_changes();
        let word = if again { "still drained" } else { "drained" };
        Ok(format!("{name} is {word} until {until:.0}; {left}"))
    }

    /// Ends a drain now: the backend is probed, and serves again if it passes.
    ///
    /// # Errors
    /// There is no such backend, or it is not drained.
    pub(in crate::control) fn restore(&mut self, service: &str, backend: &str, by: &str) -> Result<String, String> {
        let (tracked, index) = self.find(service, backend)?;
        if tracked.backends[index].drain.is_none() {
            let state = tracked.backends[index].state().label();
            return Err(format!("{service}/{backend} is not drained: it is {state}"));
        }
        self.release(service, index, &format!("brought back by {by}"), Kind::Restore, Some(by), Instant::now());
        self.publish_changes();
        let (tracked, index) = self.find(service, backend)?;
        let when = if tracked.backends[index].state() == State::Up {
            "it serves"
        } else {
            "it serves as soon as it passes a probe"
        };
        Ok(format!("{service}/{backend} is brought back: {when}"))
    }

    /// Watches a removed backend no longer.
    ///
    /// # Errors
    /// None of this name is watched.
    pub(in crate::control) fn forget(&mut self, service: &str, backend: &str, by: &str) -> Result<String, String> {
        let of = |shown: &Orphaned| (&*shown.service, &*shown.backend) == (service, backend);
        let before = self.orphans.0.len();
        self.orphans.0.retain(|orphan| !of(&orphan.shown));
        if self.orphans.0.len() == before {
            let known: Vec<_> =
                self.orphans.0.iter().map(|o| format!("{}/{}", o.shown.service, o.shown.backend)).take(10).collect();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) };
            return Err(format!("{service}/{backend} is no removed backend that is watched; {known}"));
        }
        let text = format!("backend {backend} is forgotten: nobody watches it any more");
        log::info!("{service}: {text}");
        self.timeline.record(Event::new(Kind::Forget, text).of(service).with(backend).by(by));
        (self.orphans_changed, self.unsaved, self.rewatch) = (true, true, true);
        Ok(format!("{service}/{backend} is not watched any more"))
    }

    /// Sessions with these backends are to be closed now, spread over a time.
    pub(in crate::control) fn close_due(&mut self) -> Vec<(Arc<str>, Arc<Backend>, Duration)> {
        let now = Timestamp::now();
        let mut due = Vec::new();
        for service in &mut self.services {
            for watched in &mut service.backends {
                if let Some(drain) = &mut watched.drain
                    && let Some((at, spread)) = closing(drain)
                    && at <= now
                {
                    drain.close = None;
                    due.push((Arc::clone(&service.state.name), Arc::clone(&watched.backend), spread));
                    self.unsaved = true;
                }
            }
        }
        due
    }

    /// Goes on with what an earlier process has left.
    pub(in crate::control) fn go_on(&mut self, saved: Saved) {
        let now = Timestamp::now();
        self.unsaved = !saved.is_empty();
        for SavedDrain { service, backend, address, drain } in saved.drains {
            let timeline = Arc::clone(&self.timeline);
            let note = |text: String| {
                log::warn!("{service}: {text}");
                timeline.record(Event::new(Kind::LeaseEnded, text).of(&service).with(&backend));
            };
            match self.find(&service, &backend) {
                _ if drain.until <= now => {
                    note(format!("backend {backend} was drained until {:.0}: that is over", drain.until))
                }
                _ if drain.purpose == Purpose::Drill => {
                    note(format!("the drill with backend {backend} ended with the process"))
                }
                Ok((tracked, index)) if tracked.backends[index].backend.address == address => {
                    // Nobody has done it now: that was told when it was done.
                    tracked.start_drain(index, drain, Kind::State, None)
                }
                _ => note(format!("backend {backend} ({address}) was drained, and is in the configuration no more")),
            }
        }
        for orphan in saved.orphans {
            if orphan.until > now && !self.serves_at(orphan.address) {
                self.next_id += 1;
                self.orphans.restore(self.next_id, orphan);
            }
        }
        (self.orphans_changed, self.rewatch) = (true, true);
        self.publish_changes();
    }

    /// What is to outlive the process, where that has changed.
    pub(in crate::control) fn unsaved(&mut self) -> Option<Saved> {
        std::mem::take(&mut self.unsaved).then(|| self.saved())
    }

    /// What is to outlive the process.
    pub(in crate::control) fn saved(&self) -> Saved {
        let of = |service: &Tracked, watched: &Watched| {
            watched.drain.clone().map(|drain| SavedDrain {
                service: service.state.name.to_string(),
                backend: watched.backend.name.to_string(),
                address: watched.backend.address,
                drain,
            })
        };
        let drains =
            self.services.iter().flat_map(|service| service.backends.iter().filter_map(move |w| of(service, w)));
        Saved { drains: drains.collect(), orphans: self.orphans.saved() }
    }

    /// The removed backends as everybody may see them, where something has changed.
    pub(in crate::control) fn changed_orphans(&mut self) -> Option<Vec<Orphaned>> {
        let all = || self.orphans.0.iter().map(|orphan| orphan.shown.clone()).collect();
        std::mem::take(&mut self.orphans_changed).then(all)
    }

    /// Whom the prober asks has changed.
    pub(in crate::control) fn is_to_watch(&self) -> bool {
        self.rewatch
    }

    /// When [`Fleet::end_drains`] has something to do.
    pub(super) fn drains_due(&self) -> Option<Instant> {
        let due = |drain: &Drain| {
            let close = closing(drain).map(|(at, _)| instant(at));
            if self.handed_over {
                return close;
            }
            let look = drain.abort.map(|_| self.looked + LOOK);
            let half = (!drain.reminded).then(|| instant(half_time(drain)));
            [Some(instant(drain.until)), close, look, half].into_iter().flatten().min()
        };
        let drains = self.services.iter().flat_map(|service| &service.backends).filter_map(|w| w.drain.as_ref());
        drains.filter_map(due).min()
    }

    /// Reminds of drains, and ends those whose time is over, and drills that cost too much.
    pub(super) fn end_drains(&mut self, now: Instant) {
        if self.handed_over {
            return;
        }
        self.looked = now;
        let today = Timestamp::now();
        let mut over = Vec::new();
        for service in &mut self.services {
            for index in 0..service.backends.len() {
                let Some(drain) = &service.backends[index].drain else { continue };
                let (by, until) = (drain.by.clone(), drain.until);
                let costs = drain.abort.map(|(most, before)| (service.state.refused().saturating_sub(before), most));
                if let Some((lost, most)) = costs
                    && lost >= most
                {
                    over.push((
                        Arc::clone(&service.state.name),
                        index,
                        format!("drill aborted: {lost} clients were refused"),
                    ));
                } else if until <= today {
                    let what = if drain.purpose == Purpose::Drill { "drill" } else { "maintenance" };
                    over.push((Arc::clone(&service.state.name), index, format!("the {what} by {by} is over")));
                } else if !drain.reminded && half_time(drain) <= today {
                    service.remind(index);
                    self.unsaved = true;
                }
            }
        }
        for (service, index, reason) in over {
            self.release(&service, index, &reason, Kind::LeaseEnded, None, now);
        }
    }

    fn release(&mut self, service: &str, index: usize, reason: &str, kind: Kind, by: Option<&str>, now: Instant) {
        self.next_id += 1;
        let id = self.next_id;
        if let Some(tracked) = self.services.iter_mut().find(|tracked| &*tracked.state.name == service) {
            tracked.end_drain(index, id, reason, kind, by, now);
        }
        self.number_all();
        (self.unsaved, self.rewatch) = (true, true);
    }

    /// Watches removed backends on, unless another one of the configuration stands at their address; and no longer those that are back.
    pub(super) fn adopt_orphans(&mut self, removed: Vec<(Arc<str>, Watched)>, generation: u64) {
        let (reload, mut more) = (Timestamp::now(), 0);
        for (service, watched) in removed {
            if let Some(drain) = &watched.drain {
                let text = format!("backend {} was drained by {}, and is removed", watched.backend.name, drain.by);
                self.timeline.record(Event::new(Kind::LeaseEnded, text).of(&service).with(&watched.backend.name));
                self.unsaved = true;
            }
            if self.serves_at(watched.backend.address) {
                continue;
            }
            if self.orphans.has_room_for(reload) {
                self.orphans.adopt(&service, watched, (reload, generation), &self.timeline);
                (self.orphans_changed, self.unsaved) = (true, true);
            } else {
                more += 1;
            }
        }
        if more > 0 {
            log::warn!("{more} more removed backends are not watched: there is room for {}", Orphans::MOST);
        }
        let back: Vec<_> = self
            .orphans
            .0
            .iter()
            .map(|orphan| orphan.shown.address)
            .filter(|address| self.serves_at(*address))
            .collect();
        if !back.is_empty() {
            self.orphans.0.retain(|orphan| !back.contains(&orphan.shown.address));
            (self.orphans_changed, self.unsaved) = (true, true);
        }
    }

    fn serves_at(&self, address: std::net::SocketAddr) -> bool {
        self.services.iter().flat_map(|service| &service.backends).any(|watched| watched.backend.address == address)
    }

    fn find(&mut self, service: &str, backend: &str) -> Result<(&mut Tracked, usize), String> {
        let names = |names: Vec<&str>| {
            let more = if names.len() > 10 { ", …" } else { "" };
            format!("{}{more}", names[..names.len().min(10)].join(", "))
        };
        let Some(at) = self.services.iter().position(|tracked| &*tracked.state.name == service) else {
            let all = self.services.iter().map(|tracked| &*tracked.state.name).collect();
            return Err(format!("there is no service {service}; there is {}", names(all)));
        };
        let tracked = &mut self.services[at];
        match tracked.backends.iter().position(|watched| &*watched.backend.name == backend) {
            Some(index) => Ok((tracked, index)),
            None => {
                let all = tracked.backends.iter().map(|watched| &*watched.backend.name).collect();
                Err(format!("{service} has no backend {backend}; it has {}", names(all)))
            }
        }
    }
}

impl Tracked {
    /// Drains a backend, or goes on with that on other terms.
    pub(super) fn start_drain(&mut self, index: usize, drain: Drain, kind: Kind, by: Option<&str>) {
        let Some(watched) = self.backends.get_mut(index) else { return };
        let from = watched.state();
        let why = drain.why();
        let reason = format!("by {} until {}: {why}", drain.by, clock(drain.until));
        watched.drain = Some(drain);
        watched.ramp = None;
        watched.show(reason.clone());
        self.changed = true;
        self.announce(index, from, &reason, kind, by);
    }

    /// Lets a backend serve again, once it is probed: `id` is the prober's name for it from now on.
    pub(super) fn end_drain(&mut self, index: usize, id: Id, reason: &str, kind: Kind, by: Option<&str>, now: Instant) {
        let Some(watched) = self.backends.get_mut(index) else { return };
        watched.drain = None;
        watched.id = id;
        watched.health = watched.health.renewed();
        watched.returning = watched.health.state() == State::Starting;
        watched.ramp = (!watched.returning && !self.slow_start.is_zero()).then_some((now, 0));
        watched.backend.succeeded();
        watched.show(reason.to_owned());
        self.changed = true;
        self.announce(index, State::Drained, reason, kind, by);
    }

    /// Says once that half of a drain's time is over.
    pub(super) fn remind(&mut self, index: usize) {
        let Some(watched) = self.backends.get_mut(index) else { return };
        let Some(drain) = &mut watched.drain else { return };
        drain.reminded = true;
        let why = drain.why();
        let text = format!(
            "backend {} is still drained by {} until {}, half of its time is over: {why}",
            watched.backend.name,
            drain.by,
            clock(drain.until)
        );
        log::warn!("{}: {text}", self.state.name);
        let event = Event::new(Kind::Reminder, text).of(&self.state.name).with(&watched.backend.name);
        watched.show_drain();
        self.timeline.record(event);
    }

    /// Whether the service can do without a backend.
    fn may_lose(&self, index: usize, guard: u8) -> Result<(), String> {
        let watched = &self.backends[index];
        if watched.state() != State::Up {
            return Ok(());
        }
        let name = format!("{}/{}", self.state.name, watched.backend.name);
        let force = "if you mean it, add --force";
        let others =
            self.backends.iter().enumerate().filter(|(other, watched)| *other != index && watched.state() == State::Up);
        if others.clone().count() == 0 {
            return Err(format!("{name} is the last one that can serve: without it clients are refused; {force}"));
        }
        let (_, primaries) = self.count(Role::Primary);
        let left = others.filter(|(_, watched)| watched.role == Role::Primary).count();
        if watched.role == Role::Primary && left * 100 < usize::from(guard) * primaries {
            return Err(format!(
                "without {name} {} would have {left} of its {primaries} backends, and reload.guard wants {guard}% kept; {force}",
                self.state.name
            ));
        }
        Ok(())
    }
}

/// When open sessions are closed, and over what time: only while the backend is drained.
fn closing(drain: &Drain) -> Option<(Timestamp, Duration)> {
    drain.close.filter(|(at, _)| *at < drain.until)
}

fn half_time(drain: &Drain) -> Timestamp {
    let half = drain.until.duration_since(drain.since) / 2;
    drain.since.saturating_add(half.max(SignedDuration::ZERO)).unwrap_or(drain.until)
}

/// A time of day for people, in UTC; with its date where that is another day.
fn clock(at: Timestamp) -> String {
    let (at, now) = (format!("{at:.0}"), format!("{:.0}", Timestamp::now()));
    match (at.split_once('T'), now.split_once('T')) {
        (Some((date, time)), Some((today, _))) if date == today => time.to_owned(),
        _ => at,
    }
}
