//! A process to look at, for the tests of this room and of its clients.

use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::{Disk, View};
use crate::observe::condition::{Condition, State};
use crate::observe::counters::PerWorker;
use crate::observe::running::{ConfigFile, Running};
use crate::table::{Algorithm, Backend, Member, Permits, Pool, Service, ServiceState, Settings, Table};

/// The number of workers.
pub(crate) const WORKERS: usize = 2;

/// One service of each name, each with one backend of each name and weights 1, 2, …
pub(crate) fn view(services: &[&str], backends: &[&str]) -> Arc<View> {
    let service = |(name, number): (&&str, usize)| {
        let member = |((name, port), weight): ((&&str, u16), u16)| {
            let (address, up) = (([10, 0, 0, 11], port).into(), Condition::new(State::Up, "not probed"));
            let backend = Backend::new((*name).into(), address, NonZeroU32::new(400), up, WORKERS);
            Member { backend: Arc::new(backend), weight, share: Member::WHOLE, drained: false }
        };
        let state = ServiceState::new((*name).into(), number, None, 0, WORKERS);
        let pool = Pool {
            algorithm: Algorithm::RoundRobin,
            members: backends.iter().zip(8080..).zip(1..).map(member).collect(),
            backups: Vec::new(),
            leaving: Vec::new(),
            past_sessions: 0,
            starting: false,
            try_all: false,
        };
        let settings = Settings::default();
        Arc::new(Service::new(Arc::new(state), pool, settings))
    };
    Arc::new(View {
        table: Arc::new(ArcSwap::from_pointee(Table::new(
            1,
            1,
            services.iter().zip(0..).map(service).collect(),
            Vec::new(),
        ))),
        started: Timestamp::now(),
        workers: WORKERS,
        running: Arc::new(Running::new(ConfigFile::new(Some("/does/not/exist.yaml".into()), Some([0; 32])))),
        disk: Disk::default(),
        sessions: Arc::new(Permits::new(NonZeroU32::new(9000))),
        counters: Arc::new(PerWorker::new(WORKERS)),
        pipes_max: 64,
        descriptors_max: 20000,
        access_log: Arc::default(),
        timeline: Arc::default(),
    })
}
