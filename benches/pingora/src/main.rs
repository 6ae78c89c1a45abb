//! The pick beside the selection of `pingora-load-balancing`, in one run. Its build needs CMake.
//!
//! ```text
//! cargo run --release --manifest-path benches/pingora/Cargo.toml
//! ```

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use balancer::observe::condition::{Condition, State};
use balancer::table::{Algorithm, Backend, Permit, Member, Pool, Service, ServiceState, Settings};
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent, FNVHash, Random, RoundRobin};

const SIZES: [u16; 3] = [2, 100, 1000];
const ROUNDS: u32 = 200_000;

fn main() {
    println!("median ns a pick of {SIZES:?} backends");
    for algorithm in Algorithm::ALL {
        line(&format!("balancer {}", algorithm.name()), |size| ours(algorithm, size));
    }
    line("pingora RoundRobin", theirs::<RoundRobin>);
    line("pingora Random", theirs::<Random>);
    line("pingora FNVHash", theirs::<FNVHash>);
    line("pingora Consistent (Ketama)", theirs::<Consistent>);
}

fn line(name: &str, mut measure: impl FnMut(u16) -> f64) {
    let [a, b, c] = SIZES.map(&mut measure);
    println!("{name:<28} {a:>8.1} {b:>8.1} {c:>8.1}");
}

/// The median of eleven runs.
fn median(mut pick: impl FnMut(u32)) -> f64 {
    let mut runs: Vec<f64> = (0..11)
        .map(|_| {
            let begun = Instant::now();
            (0..ROUNDS / 11).for_each(|round| pick(round.wrapping_mul(0x9e37_79b9)));
            begun.elapsed().as_nanos() as f64 / f64::from(ROUNDS / 11)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[5]
}

/// The choice, the place in the backend, and giving the permit back; each backend has a session already.
fn ours(algorithm: Algorithm, size: u16) -> f64 {
    let service = service(algorithm, size);
    let _held: Vec<_> = service.backends.iter().map(Permit::take).collect();
    median(|client| {
        let client = service.needs_client().then(|| IpAddr::from(Ipv4Addr::from_bits(client)));
        let _ = black_box(service.pick(&[], client));
    })
}

/// The choice, with its check of the backend's health, and a copy of the backend; it counts no open sessions.
fn theirs<S: BackendSelection + Send + Sync + 'static>(size: u16) -> f64
where
    S::Iter: BackendIter,
    S::Config: 'static,
{
    let addresses = (1..=size).map(|port| format!("127.0.0.1:{port}"));
    let Ok(balancer) = LoadBalancer::<S>::try_from_iter(addresses) else { return f64::NAN };
    median(|client| {
        black_box(balancer.select(&client.to_be_bytes(), 256));
    })
}

fn service(algorithm: Algorithm, size: u16) -> Service {
    let member = |number: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], number));
        let condition = Condition::new(State::Up, "not probed");
        let backend = Backend::new(format!("b-{number}").into(), address, None, condition, 1);
        Member { backend: Arc::new(backend), weight: 1, share: Member::WHOLE, drained: false }
    };
    let state = ServiceState::new("bench".into(), 0, None, 0, 1);
    let members = (1..=size).map(member).collect();
    let pool = Pool { algorithm, members, backups: Vec::new(), leaving: Vec::new(), past_sessions: 0, starting: false, try_all: false };
    let settings = Settings::default();
    Service::new(Arc::new(state), pool, settings)
}
