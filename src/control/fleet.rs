//! Every backend that the process knows: its health, its slow start, and the tables that follow from them.

mod announce;
mod maintenance;
mod orphans;
mod tracked;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use self::orphans::Orphans;
use self::tracked::{Tracked, Watched};
use super::health::{Change, Event};
use super::probe::{Id, Outcome, Prober};
use crate::config::diff::Open;
use crate::config::{self, Config};
use crate::observe::condition::State;
use crate::observe::counters::Probed;
use crate::observe::timeline::Timeline;
use crate::table::{Backend, Service, ServiceState, Table};

/// See the module. The only one that publishes a table.
#[derive(Debug)]
pub struct Fleet {
    /// In the order of the configuration.
    services: Vec<Tracked>,
    /// Those that a reload removed and that still have sessions.
    leaving: Vec<Arc<Service>>,
    /// Where each probed backend stands: its service and its index there.
    probed: HashMap<Id, (usize, usize)>,
    next_id: Id,
    workers: usize,
    table: Arc<ArcSwap<Table>>,
    /// Those that a reload removed and that are watched on.
    orphans: Orphans,
    /// When it was last seen whether drills cost too much.
    looked: Instant,
    /// What is known of them has changed.
    orphans_changed: bool,
    /// Whom the prober asks has changed.
    rewatch: bool,
    /// Something has changed that is to outlive the process.
    unsaved: bool,
    /// Another process goes on with permits and removed backends.
    handed_over: bool,
    timeline: Arc<Timeline>,
}

impl Fleet {
    /// The backends of a configuration, none of them probed yet, and their first table. For so many workers.
    pub fn new(config: &Config, workers: usize, timeline: Arc<Timeline>) -> Self {
        let mut fleet = Self {
            services: Vec::new(),
            leaving: Vec::new(),
            probed: HashMap::new(),
            next_id: 0,
            workers,
            table: Arc::new(ArcSwap::from_pointee(Table::new(0, 0, Vec::new(), Vec::new()))),
            orphans: Orphans::default(),
            looked: Instant::now(),
            orphans_changed: false,
            rewatch: false,
            unsaved: false,
            handed_over: false,
            timeline,
        };
        fleet.apply(config, Instant::now());
        fleet
    }

    /// Where the current table stands.
    pub fn table(&self) -> &Arc<ArcSwap<Table>> {
        &self.table
    }

    /// Makes a configuration the one that holds, and publishes it: backends that were there before keep their state, new
    /// ones begin, removed ones leave.
    pub(super) fn apply(&mut self, config: &Config, now: Instant) {
        let before = self.table.load_full();
        let taken: HashSet<_> = before.all().map(|service| service.state.number).collect();
        let mut free = (0..).filter(|number| !taken.contains(number));
        let by_name: HashMap<_, _> =
            self.services.iter().zip(0..).map(|(tracked, index)| (Arc::clone(&tracked.state.name), index)).collect();
        let mut old: Vec<_> = std::mem::take(&mut self.services).into_iter().map(Some).collect();
        let mut removed = Vec::new();
        for service in &config.services {
            let kept = by_name.get(&service.name).and_then(|&index: &usize| old[index].take());
            let mut tracked = kept.unwrap_or_else(|| self.begin(service, &mut free));
            let gone = tracked.configure(service, &mut self.next_id, self.workers, now);
            removed.extend(gone.into_iter().map(|watched| (Arc::clone(&tracked.state.name), watched)));
            self.services.push(tracked);
        }
        let gone: Vec<_> = old.into_iter().flatten().collect();
        self.leaving.extend(gone.iter().filter_map(|tracked| before.service(tracked.state.number).cloned()));
        for tracked in gone {
            removed.extend(tracked.backends.into_iter().map(|watched| (Arc::clone(&tracked.state.name), watched)));
        }
        self.adopt_orphans(removed, before.generation + 1);
        self.number_all();
        self.rewatch = true;
        self.publish(before.generation + 1);
    }

    /// Notes where each probed backend stands.
    fn number_all(&mut self) {
        self.probed = HashMap::new();
        for (number, service) in self.services.iter().enumerate() {
            self.probed.extend(service.backends.iter().zip(0..).map(|(watched, index)| (watched.id, (number, index))));
        }
    }

    /// A service that is new, or comes back while it still has sessions. `free`: numbers that none has had in the table before.
    fn begin(&mut self, service: &config::Service, free: &mut impl Iterator<Item = usize>) -> Tracked {
        let back = self.leaving.iter().position(|leaving| leaving.state.name == service.name);
        if let Some(back) = back {
            return Tracked::again(&self.leaving.swap_remove(back), Arc::clone(&self.timeline));
        }
        let number = free.next().unwrap_or_default();
        let state = ServiceState::new(Arc::clone(&service.name), number, None, 0, self.workers);
        Tracked::new(Arc::new(state), Arc::clone(&self.timeline))
    }

    /// Has every backend probed that is to be, and nobody else.
    pub(super) fn watch(&mut self, prober: &mut Prober) {
        self.rewatch = false;
        let orphans: HashSet<_> = self.orphans.0.iter().map(|orphan| orphan.id).collect();
        prober.keep(|id| self.probed.contains_key(&id) || orphans.contains(&id));
        for orphan in &self.orphans.0 {
            prober.watch(orphan.id, orphan.target.clone());
        }
        for watched in self.services.iter().flat_map(|service| &service.backends) {
            match &watched.target {
                Some(target) => prober.watch(watched.id, target.clone()),
                None => prober.forget(watched.id),
            }
        }
    }

    /// The number of a service of the configuration that holds.
    pub(super) fn number(&self, service: &str) -> Option<usize> {
        self.services.iter().find(|tracked| &*tracked.state.name == service).map(|tracked| tracked.state.number)
    }

    /// A probe has ended. Answers whether a table was published.
    pub(super) fn probed(&mut self, outcome: &Outcome, now: Instant) -> bool {
        let Some(&(number, index)) = self.probed.get(&outcome.id) else {
            self.orphans_changed |= self.orphans.probed(outcome, now, &self.timeline);
            return false;
        };
        let Some(service) = self.services.get_mut(number) else { return false };
        let Some(watched) = service.backends.get_mut(index) else { return false };
        let counters = &watched.backend.probes;
        counters.results[outcome.result as usize].add(1);
        if outcome.result == Probed::Passed {
            counters.time.record(u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX));
        }
        if outcome.result != Probed::LocalFault {
            watched.backend.condition.rcu(|condition| {
                let mut condition = (**condition).clone();
                condition.probe = Some(outcome.took);
                condition
            });
        }
        let change = watched.health.on(Event::Probe(outcome.result, &outcome.detail), now);
        service.apply(index, change, now);
        self.publish_changes()
    }

    /// Connects of real traffic have failed in a row. Answers whether a table was published.
    pub(super) fn failing(
        &mut self,
        (service, backend, address): (&str, &str, SocketAddr),
        failures: u32,
        why: &str,
        now: Instant,
    ) -> bool {
        let Some(service) = self.services.iter_mut().find(|tracked| &*tracked.state.name == service) else {
            return false;
        };
        // A reload may have given the name to another server since.
        let is_it = |backend: &Backend, name: &str| &*backend.name == name && backend.address == address;
        let Some(index) = service.backends.iter().position(|watched| is_it(&watched.backend, backend)) else {
            return false;
        };
        let change = service.backends[index].health.on(Event::TrafficFailing(failures, why), now);
        service.apply(index, change, now);
        self.publish_changes()
    }

    /// A backup of a service has got a session.
    pub(super) fn on_backup(&mut self, service: &str) {
        self.services.iter_mut().filter(|tracked| &*tracked.state.name == service).for_each(Tracked::announce_service);
    }

    /// How many of all backends and backups are up.
    pub(super) fn up(&self) -> (usize, usize) {
        let all = || self.services.iter().flat_map(|service| &service.backends);
        (all().filter(|watched| watched.state() == State::Up).count(), all().count())
    }

    /// Some have not been probed yet.
    pub(super) fn is_starting(&self) -> bool {
        self.services.iter().flat_map(|service| &service.backends).any(|w| w.state() == State::Starting)
    }

    /// When [`Fleet::on_timer`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let services = self.services.iter().filter_map(Tracked::due);
        services.chain(self.drains_due()).chain(self.orphans.due()).min()
    }

    /// Does what is due: backends without a probe are tried again, slow starts go on. Answers whether a table was published.
    pub(super) fn on_timer(&mut self, now: Instant) -> bool {
        self.services.iter_mut().for_each(|service| service.on_timer(now));
        self.end_drains(now);
        if self.orphans.on_timer(now) {
            (self.orphans_changed, self.unsaved, self.rewatch) = (true, true, true);
        }
        self.publish_changes()
    }

    /// Leaves permits and removed backends to another process: what is left here are the sessions that are to be closed.
    pub(super) fn hand_over(&mut self) {
        self.handed_over = true;
        self.orphans = Orphans::default();
    }

    /// Forgets what a reload removed and what has no session any more; `may_come`: clients of this service may still arrive.
    pub(super) fn forget_gone(&mut self, may_come: impl Fn(usize) -> bool) {
        let before = self.leaving.len();
        self.leaving.retain(|service| service.state.permits.taken() > 0 || may_come(service.state.number));
        let gone = self.leaving.len() < before;
        self.services.iter_mut().for_each(Tracked::forget_gone);
        if gone || self.services.iter().any(|service| service.changed) {
            self.publish(self.table.load().generation);
        }
    }

    /// Whether something that a reload removed still has sessions.
    pub(super) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty() || self.services.iter().any(|service| !service.leaving.is_empty())
    }

    /// Publishes a new table if anything has changed.
    fn publish_changes(&mut self) -> bool {
        let changed = self.services.iter().any(|service| service.changed);
        if changed {
            self.publish(self.table.load().generation);
        }
        changed
    }

    /// Publishes a new table; services that have not changed are shared with the one before.
    fn publish(&mut self, generation: u64) {
        let before = self.table.load();
        let services = self.services.iter_mut().map(|service| {
            let built = before.service(service.state.number);
            let changed = std::mem::take(&mut service.changed);
            if changed {
                service.announce_service();
            }
            match built.filter(|_| !changed) {
                Some(built) => Arc::clone(built),
                None => Arc::new(service.build(built.map(|built| &**built))),
            }
        });
        let table = Table::new(generation, before.version + 1, services.collect(), self.leaving.clone());
        let table = Arc::new(table);
        self.table.store(Arc::clone(&table));
        let is_new =
            |service: &Service| !before.service(service.state.number).is_some_and(|it| std::ptr::eq(&**it, service));
        table.services.iter().filter(|service| is_new(service)).for_each(|service| service.take_over());
        self.services.iter_mut().flat_map(|service| &mut service.backends).for_each(Watched::show_state);
    }
}

impl Open for Fleet {
    fn with_service(&self, service: &str) -> u32 {
        let of = |tracked: &&Tracked| &*tracked.state.name == service;
        self.services.iter().find(of).map_or(0, |tracked| tracked.state.permits.taken())
    }

    fn with_backend(&self, service: &str, backend: &config::Backend) -> u32 {
        let of = |tracked: &&Tracked| &*tracked.state.name == service;
        let backends = self.services.iter().find(of).into_iter().flat_map(|tracked| &tracked.backends);
        backends
            .map(|watched| &watched.backend)
            .find(|own| (&own.name, own.address) == (&backend.name, backend.address))
            .map_or(0, |own| own.permits.taken())
    }
}

/// When a time of day comes; the wall clock may be set, so whoever waits until then looks at it again.
fn instant(at: Timestamp) -> Instant {
    let ahead = at.duration_since(Timestamp::now());
    // At most an hour, so that a clock that is set meanwhile is seen.
    Instant::now() + Duration::try_from(ahead).unwrap_or_default().min(Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Permit, Settings};

    fn config(backends: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("services: {{ web: {{ listen: 127.0.0.1:0, backends: {{ {backends} }} }} }}");
        std::fs::write(file.path(), text).unwrap();
        config::load(file.path()).unwrap().config
    }

    #[test]
    fn the_time_shown_is_that_of_the_last_probe_whatever_came_of_it() {
        let mut fleet = Fleet::new(&config("a: 10.0.0.1:80"), 1, Arc::default());
        let id = fleet.services[0].backends[0].id;
        let mut shown = |result, took| {
            let took = Duration::from_millis(took);
            fleet.probed(&Outcome { id, result, detail: "so it went".to_owned(), took }, Instant::now());
            fleet.table().load().services[0].backends[0].condition.load().probe.map(|took| took.as_millis())
        };
        assert_eq!(shown(Probed::Passed, 1), Some(1));
        assert_eq!(shown(Probed::TimedOut, 1000), Some(1000));
        // It was not made.
        assert_eq!(shown(Probed::LocalFault, 0), Some(1000));
        assert_eq!(shown(Probed::Refused, 2), Some(2));
    }

    #[test]
    fn what_a_table_has_by_default_is_what_the_configuration_has() {
        let fleet = Fleet::new(&config("a: 10.0.0.1:80"), 1, Arc::default());
        assert_eq!(fleet.table().load().services[0].settings, Settings::default());
    }

    #[test]
    fn the_sessions_of_a_backend_that_has_left_are_counted_once_in_every_table() {
        let mut fleet = Fleet::new(&config("a: 10.0.0.1:80, b: 10.0.0.2:80"), 1, Arc::default());
        let table = Arc::clone(fleet.table());
        let b = Arc::clone(&table.load().services[0].backends[1]);
        let permit = Permit::take(&b).unwrap();
        b.counters.of(0).sessions.add(3);
        fleet.apply(&config("a: 10.0.0.1:80"), Instant::now());
        let while_it_leaves = table.load_full();
        drop(permit);
        fleet.forget_gone(|_| false);
        let after = table.load_full();
        assert!(after.services[0].leaving.is_empty());
        // Whoever reads has the one table or the other.
        assert_eq!([while_it_leaves, after].map(|table| table.services[0].total()), [3, 3]);
        // The service leaves and comes back.
        fleet.leaving = vec![Arc::clone(&table.load().services[0])];
        fleet.services.clear();
        fleet.apply(&config("a: 10.0.0.1:80"), Instant::now());
        assert_eq!(table.load().services[0].total(), 3);
    }

    #[test]
    fn a_new_service_is_built_once() {
        let mut fleet = Fleet::new(&config("a: 127.0.0.1:1"), 2, Arc::default());
        let version = fleet.table.load().version;
        assert!(!fleet.on_timer(Instant::now()), "nothing has changed since");
        assert_eq!(fleet.table.load().version, version);
    }
}
