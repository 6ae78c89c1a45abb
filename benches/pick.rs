//! What choosing a backend costs: the pick from tables of several sizes, beside a plain modulo over the same cursor.
//!
//! ```text
//! cargo bench --bench pick
//! ```

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use balancer::config::{Backend, Balance, Config, Connect, Listen, Service, Timeouts, Weight};
use balancer::control;
use balancer::table::Table;
use divan::Bencher;

const SIZES: [u16; 3] = [2, 100, 1000];

fn main() {
    divan::main();
}

fn table(backends: u16) -> Table {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let service = Service {
        name: "bench".into(),
        listen: vec![Listen::Tcp(address(1))],
        balance: Balance::RoundRobin,
        backends: (1..=backends)
            .map(|number| Backend {
                name: format!("b-{number}").into(),
                address: address(number),
                weight: Weight::ONE,
                max_connections: None,
                probe_address: None,
            })
            .collect(),
        backups: Vec::new(),
        health: Default::default(),
        connect: Connect::default(),
        timeouts: Timeouts::default(),
        max_connections: None,
        queue: Default::default(),
    };
    let config = Config {
        workers: None,
        drain: Config::DRAIN,
        max_connections: None,
        admin: Default::default(),
        access_log: Default::default(),
        services: vec![service],
    };
    control::table(&config, 1)
}

/// The step of the cursor, the place in the backend, and giving the place back.
#[divan::bench(args = SIZES)]
fn round_robin(bencher: Bencher<'_, '_>, backends: u16) {
    let table = table(backends);
    bencher.bench_local(|| black_box(table.services[0].pick(&[], None)).is_ok());
}

/// The least that a shared cursor can cost: one atomic step, one modulo, one reference counted.
#[divan::bench(args = SIZES)]
fn plain_modulo(bencher: Bencher<'_, '_>, backends: u16) {
    let table = table(backends);
    let (all, cursor) = (&table.services[0].backends, AtomicU64::new(0));
    bencher.bench_local(|| {
        let step = cursor.fetch_add(1, Ordering::Relaxed) as usize;
        black_box(Arc::clone(&all[step % all.len()]));
    });
}
