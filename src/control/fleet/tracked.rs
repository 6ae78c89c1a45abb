//! One service and its backends as the control plane knows them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Change, State};
use crate::config;
use crate::control::health::Event as HealthEvent;
use crate::control::health::{self, Health};
use crate::control::probe::{Check, Id, Target};
use crate::observe::condition::{Condition, Drain};
use crate::observe::timeline::{Kind, Timeline};
use crate::table::{Algorithm, Backend, BackupMember, Member, Pool, Role, Service, ServiceState, Settings};

/// Steps in which a backend that starts slowly comes to its whole weight.
const STEPS: u16 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) state: Arc<ServiceState>,
    /// Primaries first, then backups, each in the order of the configuration.
    pub(super) backends: Vec<Watched>,
    /// Those that a reload removed and that still have sessions.
    pub(super) leaving: Vec<Arc<Backend>>,
    /// Sessions established with those that have left since.
    past_sessions: u64,
    /// Since the last table something has changed.
    pub(super) changed: bool,
    /// The service's state as the timeline has it; `None`: it has none yet.
    pub(super) told: Option<&'static str>,
    /// When it is next seen whether sessions are with backups still, where nothing else is amiss.
    pub(super) look: Option<Instant>,
    algorithm: Algorithm,
    settings: Settings,
    pub(super) try_all: bool,
    pub(super) slow_start: Duration,
    pub(super) timeline: Arc<Timeline>,
}

/// One backend.
#[derive(Debug)]
pub(super) struct Watched {
    /// The prober's name for it.
    pub(super) id: Id,
    pub(super) backend: Arc<Backend>,
    pub(super) role: Role,
    pub(super) health: Health,
    weight: u16,
    /// Whom to ask; `None` where nobody is asked.
    pub(super) target: Option<Target>,
    /// While its share grows: when that began, and how many steps are done.
    pub(super) ramp: Option<(Instant, u16)>,
    /// The drain that is on it.
    pub(super) drain: Option<Drain>,
    /// It was drained until its last change of state: it comes back as one that was down.
    pub(super) returning: bool,
    /// How it is, until the table that goes with it is published.
    unseen: Option<Condition>,
}

impl Tracked {
    /// A service that [`Tracked::configure`] has yet to fill.
    pub(super) fn new(state: Arc<ServiceState>, timeline: Arc<Timeline>) -> Self {
        Self {
            state,
            backends: Vec::new(),
            leaving: Vec::new(),
            past_sessions: 0,
            changed: true,
            told: None,
            look: None,
            algorithm: Algorithm::RoundRobin,
            settings: Settings::default(),
            try_all: false,
            slow_start: Duration::ZERO,
            timeline,
        }
    }

    /// A service that comes back while it still has sessions, from its last table: all its backends are leaving.
    pub(super) fn again(before: &Service, timeline: Arc<Timeline>) -> Self {
        let own = before.backends.iter().chain(&before.backups).chain(&before.leaving);
        let (leaving, past_sessions) = (own.cloned().collect(), before.past_sessions);
        Self { leaving, past_sessions, ..Self::new(Arc::clone(&before.state), timeline) }
    }

    /// Takes over what the configuration says. Backends that are there already keep their state, the others are new;
    /// `next_id` is the prober's name for the next one.
    /// Answers who was removed.
    pub(super) fn configure(
        &mut self,
        service: &config::Service,
        next_id: &mut Id,
        workers: usize,
        now: Instant,
    ) -> Vec<Watched> {
        self.changed = true;
        self.state.permits.set_limit(service.max_connections);
        self.state.queue.set_most(service.queue.size);
        self.algorithm = algorithm(service.balance);
        self.settings = Settings {
            connect_timeout: service.connect.timeout,
            connect_attempts: service.connect.attempts,
            queue_timeout: service.queue.timeout,
            idle: service.timeouts.idle,
            half_closed: service.timeouts.half_closed,
            unresponsive: service.timeouts.unresponsive,
        };
        self.try_all = service.health.when_all_down == config::WhenAllDown::TryAll;
        self.slow_start = service.health.slow_start;

        let key = |backend: &Backend| (Arc::clone(&backend.name), backend.address);
        let mut old: HashMap<_, _> =
            std::mem::take(&mut self.backends).into_iter().map(|watched| (key(&watched.backend), watched)).collect();
        let mut back: HashMap<_, _> = self.leaving.drain(..).map(|backend| (key(&backend), backend)).collect();
        let mut changes = Vec::new();
        let primaries = service.backends.iter().map(|backend| (Role::Primary, backend));
        let backups = service.backups.iter().map(|backend| (Role::Backup, backend));
        for (role, backend) in primaries.chain(backups) {
            let identity = (Arc::clone(&backend.name), backend.address);
            let watched = match old.remove(&identity) {
                Some(mut watched) => {
                    let change = watched.configure(backend, role, &service.health, now);
                    changes.push((self.backends.len(), change));
                    watched
                }
                None => {
                    *next_id += 1;
                    Watched::new(*next_id, back.remove(&identity), backend, role, &service.health, workers)
                }
            };
            self.backends.push(watched);
        }
        let removed = old.values().map(|watched| Arc::clone(&watched.backend));
        self.leaving = back.into_values().chain(removed).collect();
        changes.into_iter().for_each(|(index, change)| self.apply(index, change, now));
        old.into_values().collect()
    }

    /// Forgets removed backends that have no session any more.
    pub(super) fn forget_gone(&mut self) {
        for backend in self.leaving.extract_if(.., |backend| backend.permits.taken() == 0) {
            self.past_sessions += backend.counters.sum(|worker| worker.sessions.get());
            self.changed = true;
        }
    }

    /// The service as workers are to have it now; `before`: as they have it.
    pub(super) fn build(&self, before: Option<&Service>) -> Service {
        let (serving, primaries) = self.count(Role::Primary);
        self.state.redundancy.note(primaries, serving);
        match before {
            Some(before) => before.successor(self.pool(), self.settings),
            None => Service::new(Arc::clone(&self.state), self.pool(), self.settings),
        }
    }

    /// Its backends, or its backups.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Watched> {
        self.backends.iter().filter(move |watched| watched.role == role)
    }

    /// How many of these are up, and how many there are.
    pub(super) fn count(&self, role: Role) -> (usize, usize) {
        (self.of(role).filter(|watched| watched.state() == State::Up).count(), self.of(role).count())
    }

    fn pool(&self) -> Pool {
        let member = |watched: &Watched| Member {
            backend: Arc::clone(&watched.backend),
            weight: watched.weight,
            share: watched.share(),
            drained: watched.drain.is_some(),
        };
        let standby = |watched: &Watched| BackupMember {
            backend: Arc::clone(&watched.backend),
            may_serve: watched.state() == State::Up,
        };
        Pool {
            algorithm: self.algorithm,
            members: self.of(Role::Primary).map(member).collect(),
            backups: self.of(Role::Backup).map(standby).collect(),
            leaving: self.leaving.clone(),
            past_sessions: self.past_sessions,
            starting: self.backends.iter().any(|watched| watched.state() == State::Starting),
            try_all: self.try_all,
        }
    }

    /// Takes a change of a backend's state over, and writes its one line.
    pub(super) fn apply(&mut self, index: usize, change: Option<Change>, now: Instant) {
        let (Some(mut change), Some(watched)) = (change, self.backends.get_mut(index)) else { return };
        if watched.drain.is_some() {
            // How it is shows when it comes back.
            return;
        }
        let returning = std::mem::take(&mut watched.returning);
        let returns = change.to == State::Up && (change.from == State::Down || returning);
        if returning && change.to == State::Down {
            change.reason.push_str(", after its maintenance, which is over");
        }
        watched.ramp = (returns && !self.slow_start.is_zero()).then_some((now, 0));
        if change.to == State::Up {
            // What failed before its return is no reproach any more.
            watched.backend.succeeded();
        }
        watched.show(change.reason.clone());
        self.changed = true;
        let kind = if change.from == change.to { Kind::Disagree } else { Kind::State };
        self.announce(index, change.from, &change.reason, kind, None);
    }

    /// When [`Tracked::on_timer`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let step = |&(since, done): &(Instant, u16)| since + self.slow_start * u32::from(done + 1) / u32::from(STEPS);
        let of = |watched: &Watched| watched.ramp.iter().map(step).chain(watched.health.deadline()).min();
        self.backends.iter().filter_map(of).chain(self.look).min()
    }

    pub(super) fn on_timer(&mut self, now: Instant) {
        if self.look.is_some_and(|look| look <= now) {
            self.announce_service();
        }
        for index in 0..self.backends.len() {
            let watched = &mut self.backends[index];
            if let Some((since, done)) = watched.ramp {
                let passed = now.saturating_duration_since(since).as_micros() * u128::from(STEPS);
                let steps =
                    passed.checked_div(self.slow_start.as_micros()).unwrap_or(u128::MAX).min(STEPS.into()) as u16;
                if steps > done {
                    watched.ramp = (steps < STEPS).then_some((since, steps));
                    self.changed = true;
                }
            }
            let change = watched.health.on(HealthEvent::Tick, now);
            self.apply(index, change, now);
        }
    }
}

impl Watched {
    /// A backend that is new in the configuration; `back`: as it was when an earlier configuration had it.
    fn new(
        id: Id,
        back: Option<Arc<Backend>>,
        backend: &config::Backend,
        role: Role,
        health: &config::Health,
        workers: usize,
    ) -> Self {
        let target = target(backend, health);
        let own = Health::new(settings(health));
        let why = if target.is_some() { "not probed yet" } else { "not probed" };
        let condition = Condition::new(own.state(), why);
        let backend_state = match back {
            Some(back) => {
                back.condition.store(Arc::new(condition));
                back.succeeded();
                back.permits.set_limit(backend.max_connections);
                back
            }
            None => {
                let name = Arc::clone(&backend.name);
                Arc::new(Backend::new(name, backend.address, backend.max_connections, condition, workers))
            }
        };
        backend_state.set_alarm(health.passive.and_then(NonZeroU32::new));
        Self {
            id,
            backend: backend_state,
            role,
            health: own,
            weight: backend.weight.get(),
            target,
            ramp: None,
            drain: None,
            returning: false,
            unseen: None,
        }
    }

    /// Takes over what the configuration says of it now.
    fn configure(
        &mut self,
        backend: &config::Backend,
        role: Role,
        health: &config::Health,
        now: Instant,
    ) -> Option<Change> {
        self.role = role;
        self.weight = backend.weight.get();
        self.backend.permits.set_limit(backend.max_connections);
        self.backend.set_alarm(health.passive.and_then(NonZeroU32::new));
        self.target = target(backend, health);
        if health.slow_start.is_zero() {
            self.ramp = None;
        }
        self.health.configure(settings(health), now)
    }

    /// Whether it may serve: what its health says, unless it is drained.
    pub(super) fn state(&self) -> State {
        if self.drain.is_some() { State::Drained } else { self.health.state() }
    }

    /// Has everybody see how it is, and why, once the next table is published: who reads that it is up finds it serving.
    pub(super) fn show(&mut self, reason: String) {
        let before = self.backend.condition.load();
        let (state, drain, probe) = (self.state(), self.drain.clone(), before.probe);
        let since = if state == before.state { before.since } else { Timestamp::now() };
        self.unseen = Some(Condition { state, since, reason, probe, drain });
    }

    /// The table that has what is to be seen is published.
    pub(super) fn show_state(&mut self) {
        if let Some(condition) = self.unseen.take() {
            self.backend.condition.store(Arc::new(condition));
        }
    }

    /// Shows everybody its drain, which has not changed its state.
    pub(super) fn show_drain(&self) {
        self.backend.condition.rcu(|condition| Condition { drain: self.drain.clone(), ..(**condition).clone() });
    }

    /// How much of its weight it may carry now, in 256ths.
    fn share(&self) -> u16 {
        match (self.state(), self.ramp) {
            (State::Up, None) => Member::WHOLE,
            (State::Up, Some((_, done))) => Member::WHOLE * (done + 1) / STEPS,
            _ => 0,
        }
    }
}

/// Whom to ask about a backend's health, and what.
fn target(backend: &config::Backend, health: &config::Health) -> Option<Target> {
    let check = match &health.probe {
        config::Probe::None => return None,
        config::Probe::Tcp => Check::Tcp,
        config::Probe::Http(http) => {
            Check::Http { path: http.path.clone(), host: http.host.clone(), status: http.status.clone() }
        }
        config::Probe::Expect(expect) => Check::Expect { send: expect.send.clone(), receive: expect.receive.clone() },
    };
    Some(Target { address: backend.probed_at(health), check, interval: health.interval, timeout: health.timeout })
}

fn settings(health: &config::Health) -> health::Settings {
    health::Settings {
        rise: health.rise,
        fall: health.fall,
        passive: health.passive,
        interval: health.interval,
        probed: health.probe != config::Probe::None,
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
