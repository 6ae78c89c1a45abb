//! Every backend that the process knows: its health, its slow start, and the tables that follow from them.

mod tracked;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use self::tracked::Tracked;
use super::health::{Change, Event};
use super::probe::{Id, Outcome, Prober};
use crate::config::Config;
use crate::observe::condition::State;
use crate::observe::counters::Probed;
use crate::table::Table;

/// See the module. The only one that publishes a table.
#[derive(Debug)]
pub struct Fleet {
    services: Vec<Tracked>,
    table: Arc<ArcSwap<Table>>,
}

impl Fleet {
    /// The backends of a configuration, none of them probed yet, and their first table. For so many workers.
    pub fn new(config: &Config, workers: usize) -> Self {
        let services: Vec<_> = config.services.iter().map(|service| Tracked::new(service, workers)).collect();
        let built = services.iter().map(|service| Arc::new(service.build(None))).collect();
        let table = Arc::new(ArcSwap::from_pointee(Table { generation: 1, edition: 1, services: built }));
        Self { services, table }
    }

    /// Where the current table stands.
    pub fn table(&self) -> &Arc<ArcSwap<Table>> {
        &self.table
    }

    /// Has every backend probed that is to be.
    pub(super) fn watch(&self, prober: &mut Prober) {
        for (number, service) in self.services.iter().enumerate() {
            for (place, target) in service.targets() {
                prober.watch(id(number, place), target);
            }
        }
    }

    /// A probe has ended. Answers whether a table was published.
    pub(super) fn probed(&mut self, outcome: &Outcome, now: Instant) -> bool {
        let (number, place) = who(outcome.id);
        let Some(service) = self.services.get_mut(number) else { return false };
        let Some(watched) = service.backends.get_mut(place) else { return false };
        let counters = &watched.backend.probes;
        counters.results[outcome.result as usize].add(1);
        if outcome.result == Probed::Passed {
            counters.time.record(u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX));
            watched.backend.condition.rcu(|condition| {
                let mut condition = (**condition).clone();
                condition.probe = Some(outcome.took);
                condition
            });
        }
        let change = watched.health.on(Event::Probe(outcome.result, &outcome.detail), now);
        service.apply(place, change, now);
        self.publish()
    }

    /// Connects of real traffic have failed in a row. Answers whether a table was published.
    pub(super) fn failing(&mut self, service: &str, backend: &str, failures: u32, why: &str, now: Instant) -> bool {
        let Some(service) = self.services.iter_mut().find(|tracked| &*tracked.state.name == service) else {
            return false;
        };
        let Some(place) = service.backends.iter().position(|watched| &*watched.backend.name == backend) else {
            return false;
        };
        let change = service.backends[place].health.on(Event::TrafficFailing(failures, why), now);
        service.apply(place, change, now);
        self.publish()
    }

    /// When [`Fleet::keep_time`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.services.iter().filter_map(Tracked::due).min()
    }

    /// Does what is due: backends without a probe are tried again, slow starts go on. Answers whether a table was published.
    pub(super) fn keep_time(&mut self, now: Instant) -> bool {
        self.services.iter_mut().for_each(|service| service.keep_time(now));
        self.publish()
    }

    /// Publishes a new table if anything has changed; services that have not are shared with the one before.
    fn publish(&mut self) -> bool {
        if !self.services.iter().any(|service| service.changed) {
            return false;
        }
        let before = self.table.load();
        let services = self.services.iter_mut().zip(&before.services).map(|(service, built)| {
            if std::mem::take(&mut service.changed) { Arc::new(service.build(Some(built))) } else { Arc::clone(built) }
        });
        let table = Table { generation: before.generation, edition: before.edition + 1, services: services.collect() };
        self.table.store(Arc::new(table));
        true
    }
}

/// The prober's name for a backend: its service and its place there.
fn id(service: usize, place: usize) -> Id {
    (service as Id) << 32 | place as Id
}

fn who(id: Id) -> (usize, usize) {
    ((id >> 32) as usize, (id & u64::from(u32::MAX)) as usize)
}
