//! One service and its backends as the control plane knows them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Change, State};
use crate::config;
use crate::control::health::{self, Event, Health};
use crate::control::probe::{Check, Target};
use crate::observe::condition::Condition;
use crate::table::{Algorithm, Backend, Member, Role, Roster, Service, ServiceState, Settings, Standby};

/// Steps in which a backend that starts slowly comes to its whole weight.
const STEPS: u16 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) state: Arc<ServiceState>,
    /// Primaries first, then backups, each in the order of the configuration.
    pub(super) backends: Vec<Watched>,
    /// Since the last table something has changed.
    pub(super) changed: bool,
    algorithm: Algorithm,
    settings: Settings,
    try_all: bool,
    slow_start: Duration,
}

/// One backend.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) backend: Arc<Backend>,
    role: Role,
    pub(super) health: Health,
    weight: u16,
    /// Whom to ask; `None` where nobody is asked.
    target: Option<Target>,
    /// While its share grows: when that began, and how many steps are done.
    ramp: Option<(Instant, u16)>,
}

impl Tracked {
    pub(super) fn new(service: &config::Service, workers: usize) -> Self {
        let primaries = service.backends.iter().map(|backend| (Role::Primary, backend));
        let backups = service.backups.iter().map(|backend| (Role::Backup, backend));
        Self {
            state: Arc::new(ServiceState::new(
                Arc::clone(&service.name),
                service.max_connections,
                service.queue.size,
                workers,
            )),
            backends: primaries
                .chain(backups)
                .map(|(role, backend)| Watched::new(backend, role, &service.health, workers))
                .collect(),
            changed: false,
            algorithm: algorithm(service.balance),
            settings: Settings {
                connect_timeout: service.connect.timeout,
                connect_attempts: service.connect.attempts,
                queue: service.queue.timeout,
                idle: service.timeouts.idle,
                half_closed: service.timeouts.half_closed,
                unresponsive: service.timeouts.unresponsive,
            },
            try_all: service.health.when_all_down == config::WhenAllDown::TryAll,
            slow_start: service.health.slow_start,
        }
    }

    /// Whom to probe, by their places.
    pub(super) fn targets(&self) -> impl Iterator<Item = (usize, Target)> {
        self.backends.iter().enumerate().filter_map(|(place, watched)| Some((place, watched.target.clone()?)))
    }

    /// The service as workers are to have it now; `before`: as they have it.
    pub(super) fn build(&self, before: Option<&Service>) -> Service {
        match before {
            Some(before) => before.successor(self.roster(), self.settings),
            None => Service::new(Arc::clone(&self.state), self.roster(), self.settings),
        }
    }

    fn roster(&self) -> Roster {
        let of = |role| self.backends.iter().filter(move |watched| watched.role == role);
        let member = |watched: &Watched| Member {
            backend: Arc::clone(&watched.backend),
            weight: watched.weight,
            share: watched.share(),
        };
        let standby = |watched: &Watched| Standby {
            backend: Arc::clone(&watched.backend),
            may_serve: watched.health.state() == State::Up,
        };
        Roster {
            algorithm: self.algorithm,
            members: of(Role::Primary).map(member).collect(),
            backups: of(Role::Backup).map(standby).collect(),
            starting: self.backends.iter().any(|watched| watched.health.state() == State::Starting),
            try_all: self.try_all,
        }
    }

    /// Takes a change of a backend's state over, and writes its one line.
    pub(super) fn apply(&mut self, place: usize, change: Option<Change>, now: Instant) {
        let (Some(change), Some(watched)) = (change, self.backends.get_mut(place)) else { return };
        let returns = (change.from, change.to) == (State::Down, State::Up);
        watched.ramp = (returns && !self.slow_start.is_zero()).then_some((now, 0));
        if change.to == State::Up {
            // What failed before its return is no reproach any more.
            watched.backend.succeeded();
        }
        let probe = watched.backend.condition.load().probe;
        let reason = change.reason.clone();
        watched.backend.condition.store(Arc::new(Condition {
            state: change.to,
            since: Timestamp::now(),
            reason,
            probe,
        }));
        self.changed = true;
        self.tell(place, &change);
    }

    /// When [`Tracked::keep_time`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let step = |&(since, done): &(Instant, u16)| since + self.slow_start * u32::from(done + 1) / u32::from(STEPS);
        let of = |watched: &Watched| watched.ramp.iter().map(step).chain(watched.health.deadline()).min();
        self.backends.iter().filter_map(of).min()
    }

    pub(super) fn keep_time(&mut self, now: Instant) {
        for place in 0..self.backends.len() {
            let watched = &mut self.backends[place];
            if let Some((since, done)) = watched.ramp {
                let passed = now.saturating_duration_since(since).as_micros() * u128::from(STEPS);
                let steps =
                    passed.checked_div(self.slow_start.as_micros()).unwrap_or(u128::MAX).min(STEPS.into()) as u16;
                if steps > done {
                    watched.ramp = (steps < STEPS).then_some((since, steps));
                    self.changed = true;
                }
            }
            let change = watched.health.on(Event::Tick, now);
            self.apply(place, change, now);
        }
    }

    /// Who, from what to what, why, and what is left to serve.
    fn tell(&self, place: usize, change: &Change) {
        let Watched { backend, role, .. } = &self.backends[place];
        let Backend { name, address, .. } = &**backend;
        let kind = if *role == Role::Backup { "backup" } else { "backend" };
        let (service, from, to) = (&self.state.name, change.from.label(), change.to.label());
        let left = self.left();
        let alert = self.backends.iter().all(|watched| watched.health.state() == State::Down);
        let level = match change.to {
            _ if alert => log::Level::Error,
            State::Up => log::Level::Info,
            _ => log::Level::Warn,
        };
        log::log!(level, "{service}: {kind} {name} ({address}): {from} -> {to}: {}; {left}", change.reason);
    }

    fn left(&self) -> String {
        let count = |role| {
            let all = self.backends.iter().filter(|watched| watched.role == role);
            let up = all.clone().filter(|watched| watched.health.state() == State::Up).count();
            (up, all.count())
        };
        let ((up, all), (backups_up, backups)) = (count(Role::Primary), count(Role::Backup));
        if up + backups_up == 0 {
            return if self.backends.iter().any(|watched| watched.health.state() == State::Starting) {
                "nobody is known to serve yet: clients wait for the first probes".to_owned()
            } else if self.try_all {
                "NOBODY IS LEFT TO SERVE: every backend is tried all the same".to_owned()
            } else {
                "NOBODY IS LEFT TO SERVE: clients are refused".to_owned()
            };
        }
        let backups = if backups == 0 { String::new() } else { format!(", {backups_up} of {backups} backups") };
        format!("left to serve: {up} of {all} backends{backups}")
    }
}

impl Watched {
    fn new(backend: &config::Backend, role: Role, health: &config::Health, workers: usize) -> Self {
        let check = match &health.probe {
            config::Probe::None => None,
            config::Probe::Tcp => Some(Check::Tcp),
            config::Probe::Http(http) => {
                Some(Check::Http { path: http.path.clone(), host: http.host.clone(), status: http.status.clone() })
            }
            config::Probe::Expect(expect) => {
                Some(Check::Expect { send: expect.send.clone(), receive: expect.receive.clone() })
            }
        };
        let settings = health::Settings {
            rise: health.rise,
            fall: health.fall,
            passive: health.passive,
            interval: health.interval,
            probed: check.is_some(),
        };
        let state = Health::new(settings);
        let why = if check.is_some() { "not probed yet" } else { "not probed" };
        let condition = Condition::new(state.state(), why);
        let (name, address, limit) = (Arc::clone(&backend.name), backend.address, backend.max_connections);
        let own = Backend::new(name, address, limit, condition, workers);
        own.set_alarm(health.passive.and_then(NonZeroU32::new));
        Self {
            backend: Arc::new(own),
            role,
            health: state,
            weight: backend.weight.get(),
            target: check.map(|check| Target {
                address: backend.probed_at(health),
                check,
                interval: health.interval,
                timeout: health.timeout,
            }),
            ramp: None,
        }
    }

    /// How much of its weight it may carry now, in 256ths.
    fn share(&self) -> u16 {
        match (self.health.state(), self.ramp) {
            (State::Up, None) => Member::WHOLE,
            (State::Up, Some((_, done))) => Member::WHOLE * (done + 1) / STEPS,
            _ => 0,
        }
    }
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
