//! OperationKind choosing a backend costs: each algorithm's pick from tables of several sizes, beside a plain modulo over the same cursor.
//!
//! ```text
//! cargo bench --bench pick
//! ```

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use balancer::observe::condition::{Condition, State};
use balancer::table::{Algorithm, Backend, Member, Pool, Service, ServiceState, Settings};
use divan::Bencher;

const SIZES: [u16; 3] = [2, 100, 1000];

fn main() {
    divan::main();
}

fn service(algorithm: Algorithm, backends: u16, limit: Option<NonZeroU32>) -> Service {
    let member = |number: u16| Member {
        backend: Arc::new(Backend::new(
            format!("b-{number}").into(),
            SocketAddr::from(([127, 0, 0, 1], number)),
            limit,
            Condition::new(State::Up, "not probed"),
            1,
        )),
        weight: 1,
        share: Member::WHOLE,
        drained: false,
    };
    let state = ServiceState::new("bench".into(), 0, None, 0, 1);
    let pool = Pool {
        algorithm,
        members: (1..=backends).map(member).collect(),
        backups: Vec::new(),
        leaving: Vec::new(),
        past_sessions: 0,
        starting: false,
        try_all: false,
    };
    let settings = Settings::default();
    Service::new(Arc::new(state), pool, settings)
}

/// The choice, the place in the backend, and giving the permit back.
fn pick(bencher: Bencher<'_, '_>, service: &Service) {
    let mut client = 0_u32;
    bencher.bench_local(|| {
        client = client.wrapping_add(0x9e37_79b9);
        let client = service.needs_client().then(|| IpAddr::from(Ipv4Addr::from_bits(client)));
        black_box(service.pick(&[], client)).is_some_and(|picked| picked.is_ok())
    });
}

#[divan::bench(args = SIZES)]
fn round_robin(bencher: Bencher<'_, '_>, backends: u16) {
    pick(bencher, &service(Algorithm::RoundRobin, backends, None));
}

/// Each has a session already: with one that has none the search ends.
#[divan::bench(args = SIZES)]
fn least_connections(bencher: Bencher<'_, '_>, backends: u16) {
    let service = service(Algorithm::LeastConnections, backends, None);
    let _held: Vec<_> = (0..backends).map(|_| service.pick(&[], None)).collect();
    pick(bencher, &service);
}

#[divan::bench(args = SIZES)]
fn random_two(bencher: Bencher<'_, '_>, backends: u16) {
    pick(bencher, &service(Algorithm::RandomTwo, backends, None));
}

#[divan::bench(args = SIZES)]
fn source_hash(bencher: Bencher<'_, '_>, backends: u16) {
    pick(bencher, &service(Algorithm::SourceHash, backends, None));
}

/// All full but the last.
#[divan::bench(args = SIZES)]
fn first(bencher: Bencher<'_, '_>, backends: u16) {
    let service = service(Algorithm::First, backends, NonZeroU32::new(1));
    let _held: Vec<_> = (1..backends).map(|_| service.pick(&[], None)).collect();
    pick(bencher, &service);
}

/// OperationKind a change of any backend's state costs the control plane.
#[divan::bench(args = [Algorithm::RoundRobin, Algorithm::RandomTwo, Algorithm::SourceHash], sample_count = 10)]
fn building_for_1000(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    bencher.bench_local(|| service(algorithm, 1000, None));
}

/// The same where the service before had the same backends.
#[divan::bench(sample_count = 10)]
fn succeeding_for_1000_by_source_hash(bencher: Bencher<'_, '_>) {
    let before = service(Algorithm::SourceHash, 1000, None);
    let member = |backend: &Arc<Backend>| Member {
        backend: Arc::clone(backend),
        weight: 1,
        share: Member::WHOLE,
        drained: false,
    };
    let pool = Pool {
        algorithm: Algorithm::SourceHash,
        members: before.backends.iter().map(member).collect(),
        backups: Vec::new(),
        leaving: Vec::new(),
        past_sessions: 0,
        starting: false,
        try_all: false,
    };
    bencher.with_inputs(|| pool.clone()).bench_local_values(|pool| before.successor(pool, before.settings));
}

/// The least that a shared cursor can cost: one atomic step, one modulo, one reference counted.
#[divan::bench(args = SIZES)]
fn plain_modulo(bencher: Bencher<'_, '_>, backends: u16) {
    let service = service(Algorithm::RoundRobin, backends, None);
    let (all, cursor) = (&service.backends, AtomicU64::new(0));
    bencher.bench_local(|| {
        let step = cursor.fetch_add(1, Ordering::Relaxed) as usize;
        black_box(Arc::clone(&all[step % all.len()]));
    });
}
