//! From a configuration to the table that workers read.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::{self, Config};
use crate::observe::condition::{Condition, State};
use crate::observe::counters::PerWorker;
use crate::table::{Algorithm, Backend, Line, Member, Places, Role, Roster, Service, ServiceState, Settings, Table};

/// The first table of a configuration, for so many workers.
pub fn table(config: &Config, workers: usize) -> Table {
    Table {
        generation: 1,
        edition: 1,
        services: config.services.iter().map(|service| Arc::new(build(service, workers))).collect(),
    }
}

fn build(service: &config::Service, workers: usize) -> Service {
    let member = |backend: &config::Backend| Member {
        backend: Arc::new(Backend::new(
            Arc::clone(&backend.name),
            backend.address,
            Role::Primary,
            backend.max_connections,
            Condition::new(State::Up, "not probed"),
            workers,
        )),
        weight: backend.weight.get(),
        share: Member::WHOLE,
    };
    let state = ServiceState {
        name: Arc::clone(&service.name),
        places: Places::new(service.max_connections),
        line: Line::new(service.queue.size),
        cursor: AtomicU64::new(0),
        counters: PerWorker::new(workers),
    };
    let roster = Roster {
        algorithm: algorithm(service.balance),
        members: service.backends.iter().map(member).collect(),
        backups: Vec::new(),
        starting: false,
        try_all: false,
    };
    let settings = Settings {
        connect_timeout: service.connect.timeout,
        connect_attempts: service.connect.attempts,
        queue: service.queue.timeout,
        idle: service.timeouts.idle,
        half_closed: service.timeouts.half_closed,
        unresponsive: service.timeouts.unresponsive,
    };
    Service::new(Arc::new(state), roster, settings)
}

fn algorithm(balance: config::Balance) -> Algorithm {
    match balance {
        config::Balance::RoundRobin => Algorithm::RoundRobin,
        config::Balance::LeastConnections => Algorithm::LeastConnections,
        config::Balance::RandomTwo => Algorithm::RandomTwo,
        config::Balance::SourceHash => Algorithm::SourceHash,
        config::Balance::First => Algorithm::First,
    }
}
