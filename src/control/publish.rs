//! From a configuration to the table that workers read.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::{self, Config};
use crate::observe::condition::{Condition, State};
use crate::observe::counters::PerWorker;
use crate::table::{Backend, Places, Role, RoundRobin, Service, ServiceState, Settings, Table};

/// The first table of a configuration, for so many workers.
pub fn table(config: &Config, workers: usize) -> Table {
    Table { generation: 1, services: config.services.iter().map(|service| Arc::new(build(service, workers))).collect() }
}

fn build(service: &config::Service, workers: usize) -> Service {
    let backends = service.backends.iter().map(|backend| {
        Arc::new(Backend::new(
            Arc::clone(&backend.name),
            backend.address,
            Role::Primary,
            backend.max_connections,
            Condition::new(State::Up, "not probed"),
            workers,
        ))
    });
    let weights: Box<[u16]> = service.backends.iter().map(|backend| backend.weight.get()).collect();
    Service {
        state: Arc::new(ServiceState {
            name: Arc::clone(&service.name),
            places: Places::new(service.max_connections),
            cursor: AtomicU64::new(0),
            counters: PerWorker::new(workers),
        }),
        backends: backends.collect(),
        backups: Box::default(),
        order: RoundRobin::new(&weights),
        weights,
        settings: Settings {
            connect_timeout: service.connect.timeout,
            connect_attempts: service.connect.attempts,
            idle: service.timeouts.idle,
            half_closed: service.timeouts.half_closed,
            unresponsive: service.timeouts.unresponsive,
        },
    }
}
