//! How each algorithm spreads sessions: a seeded simulation of clients and servers around the real picks, for docs/BALANCING.md.
//!
//! ```text
//! cargo bench --bench balancing
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use balancer::observe::condition::{Condition, State};
use balancer::table::{Algorithm, Backend, Member, Permit, Pool, Service, ServiceState, Settings};
use fastrand::Rng;

const BACKENDS: usize = 10;
/// Seconds simulated, and of these how many are left out of every figure but the last, while sessions build up.
const SECONDS: f64 = 600.0;
const WARM_UP: f64 = 100.0;

fn main() {
    println!(
        "| algorithm | alike | unequal lengths | 20 clients | slow servers | weights | stays | in use | returns | slow_start |"
    );
    println!("| --- {}|", "| --: ".repeat(9));
    for algorithm in Algorithm::ALL {
        let run = |change: &dyn Fn(&mut Scenario)| {
            let mut scenario = Scenario::new(algorithm);
            change(&mut scenario);
            scenario.run()
        };
        let alike = run(&|_| {});
        let lengths = run(&|s| (s.long, s.rate) = (0.05, 84.0));
        let few = run(&|s| s.clients = 20);
        // 6 of 8.5 seconds of work a second.
        let slow = run(&|s| (s.speed, s.length, s.rate) = (Some(unequal()), 0.1, 51.0));
        let weighted = run(&|s| {
            (s.speed, s.length, s.rate) = (Some(unequal()), 0.1, 51.0);
            s.weights = unequal().map(|speed| (speed * 4.0) as u16);
        });
        let limited = run(&|s| s.limit = NonZeroU32::new(100));
        let returning = run(&|s| (s.length, s.returns) = (60.0, Some(0.0)));
        let slowly = run(&|s| (s.length, s.returns) = (60.0, Some(60.0)));
        println!(
            "| `{}` | {:.2} | {:.2} | {:.2} | {} | {} | {:.0} % | {:.1} | {:.1} | {:.1} |",
            algorithm.name(),
            alike.busiest,
            lengths.busiest,
            few.busiest,
            seconds(slow.p99),
            seconds(weighted.p99),
            alike.stays * 100.0,
            limited.in_use,
            returning.fresh,
            slowly.fresh,
        );
    }
}

/// Two of the ten have a quarter of the others' speed.
fn unequal() -> [f64; BACKENDS] {
    let mut speed = [1.0; BACKENDS];
    (speed[3], speed[7]) = (0.25, 0.25);
    speed
}

fn seconds(p99: f64) -> String {
    if p99 < 10.0 { format!("{p99:.1} s") } else { format!("{p99:.0} s") }
}

/// Clients and servers.
struct Scenario {
    algorithm: Algorithm,
    /// New sessions a second, at random times.
    rate: f64,
    /// Mean length of a session, or of its work, in seconds; exponential.
    length: f64,
    /// This part of the sessions is a hundred times as long as the others, whose mean is then 1 s.
    long: f64,
    /// Seconds of work a second that a server does, shared by its sessions; without it, sessions last as long as they want.
    speed: Option<[f64; BACKENDS]>,
    weights: [u16; BACKENDS],
    limit: Option<NonZeroU32>,
    clients: u32,
    /// The last backend is away until the warm-up ends, then starts as slowly as this many seconds.
    returns: Option<f64>,
}

/// OperationKind came of it.
#[derive(Default)]
struct Figures {
    /// Sessions open with the busiest over the average, as new sessions find it.
    busiest: f64,
    /// The duration in seconds that 1 % of the sessions exceed; of those that have ended.
    p99: f64,
    /// The part of the sessions that went to the backend of their client's session before.
    stays: f64,
    /// Backends with any session, on average.
    in_use: f64,
    /// New sessions of the returning backend in its first 3 seconds over an even share of them.
    fresh: f64,
}

/// One server: when each session ends, on its own clock, which runs as fast as each of its sessions is served.
#[derive(Default)]
struct Server {
    clock: f64,
    /// By the end, as the bits of a positive number, which sort as it does; with the begin.
    open: BTreeMap<(u64, u64), (f64, Permit<Backend>)>,
}

impl Server {
    fn pace(&self, speed: Option<f64>) -> f64 {
        speed.map_or(1.0, |speed| speed / self.open.len().max(1) as f64)
    }

    /// Seconds until its next session ends.
    fn next(&self, speed: Option<f64>) -> f64 {
        self.open
            .first_key_value()
            .map_or(f64::INFINITY, |(&(end, _), _)| ((f64::from_bits(end) - self.clock) / self.pace(speed)).max(0.0))
    }
}

impl Scenario {
    fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            rate: 50.0,
            length: 10.0,
            long: 0.0,
            speed: None,
            weights: [1; BACKENDS],
            limit: None,
            clients: 1000,
            returns: None,
        }
    }

    fn run(&self) -> Figures {
        let mut random = Rng::with_seed(1);
        let backends = self.backends();
        let state = state();
        let mut service = self.service(&state, &backends, 0.0);
        let mut servers: [Server; BACKENDS] = Default::default();
        let mut last: HashMap<u32, usize> = HashMap::new();
        let (mut durations, mut found, mut figures) = (Vec::new(), 0.0, Figures::default());
        let (mut now, mut built, mut arrival, mut number, mut fresh) = (0.0, 0.0, 0.0, 0, [0.0; 2]);
        while now < SECONDS {
            let ends = servers.iter().enumerate().map(|(at, server)| (server.next(self.speed.map(|s| s[at])), at));
            let (wait, at) = ends.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0));
            let step = wait.min(arrival - now);
            for (at, server) in servers.iter_mut().enumerate() {
                server.clock += step * server.pace(self.speed.map(|speed| speed[at]));
            }
            now += step;
            if now < arrival {
                if let Some((_, (begun, _place))) = servers[at].open.pop_first()
                    && begun > WARM_UP
                {
                    durations.push(now - begun);
                }
                continue;
            }
            arrival += exponential(&mut random, 1.0 / self.rate);
            if self.returns.is_some() && now.floor() != built {
                built = now.floor();
                service = self.service(&state, &backends, now);
            }
            let (client, length) = (random.u32(0..self.clients), self.length(&mut random));
            let Some(Ok(permit)) = service.pick(&[], Some(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + client))))
            else {
                continue;
            };
            let chosen = usize::from(permit.address.port());
            if now > WARM_UP {
                let open = servers.each_ref().map(|server| server.open.len() as f64);
                found += 1.0;
                figures.busiest +=
                    open.iter().copied().fold(0.0, f64::max) / (open.iter().sum::<f64>() / BACKENDS as f64);
                figures.in_use += open.iter().filter(|&&open| open > 0.0).count() as f64;
                figures.stays += f64::from(u8::from(last.get(&client) == Some(&chosen)));
                if now < WARM_UP + 3.0 {
                    fresh[usize::from(chosen == BACKENDS - 1)] += 1.0;
                }
            }
            last.insert(client, chosen);
            number += 1;
            let end = (servers[chosen].clock + length).to_bits();
            servers[chosen].open.insert((end, number), (now, permit));
        }
        durations.sort_by(f64::total_cmp);
        Figures {
            busiest: figures.busiest / found,
            p99: durations[durations.len() * 99 / 100],
            stays: figures.stays / found,
            in_use: figures.in_use / found,
            fresh: fresh[1] / (fresh[0] + fresh[1]) * BACKENDS as f64,
        }
    }

    fn length(&self, random: &mut Rng) -> f64 {
        let mean = match self.long {
            0.0 => self.length,
            long if random.f64() < long => 100.0,
            _ => 1.0,
        };
        exponential(random, mean)
    }

    fn backends(&self) -> Vec<Arc<Backend>> {
        let backend = |at: usize| {
            let (address, up) = (([10, 0, 0, 1], at as u16).into(), Condition::new(State::Up, "simulated"));
            Arc::new(Backend::new(format!("web-{at:02}").into(), address, self.limit, up, 1))
        };
        (0..BACKENDS).map(backend).collect()
    }

    /// The service as the control plane would build it at this time.
    fn service(&self, state: &Arc<ServiceState>, backends: &[Arc<Backend>], now: f64) -> Service {
        let share = |at| match self.returns {
            Some(_) if at == BACKENDS - 1 && now < WARM_UP => 0,
            Some(slow) if at == BACKENDS - 1 && now < WARM_UP + slow => {
                ((now - WARM_UP) / slow * f64::from(Member::WHOLE)).max(1.0) as u16
            }
            _ => Member::WHOLE,
        };
        let members = backends.iter().enumerate();
        let members = members.map(|(at, backend)| Member {
            backend: Arc::clone(backend),
            weight: self.weights[at],
            share: share(at),
            drained: false,
        });
        let pool = Pool {
            algorithm: self.algorithm,
            members: members.collect(),
            backups: Vec::new(),
            leaving: Vec::new(),
            past_sessions: 0,
            starting: false,
            try_all: false,
        };
        let settings = Settings::default();
        Service::new(Arc::clone(state), pool, settings)
    }
}

fn state() -> Arc<ServiceState> {
    Arc::new(ServiceState::new("simulated".into(), 0, None, 0, 1))
}

fn exponential(random: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}
