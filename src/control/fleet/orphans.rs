//! Backends that a reload removed. They go on being watched for a while, so that a healthy server is not forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::tracked::Watched;
use crate::control::health::{Event as HealthEvent, Health, Settings};
use crate::control::probe::{Id, Outcome, Target};
use crate::control::store::SavedOrphan;
use crate::observe::condition::{Condition, State};
use crate::observe::counters::Probed;
use crate::observe::running::Orphaned;
use crate::observe::timeline::{Event, Kind, Timeline};

/// How long a removed backend is watched.
const WATCHED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// One line in so long says that it is healthy and no longer a backend.
const LINE: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug)]
pub(super) struct Orphan {
    /// The prober's name for it.
    pub(super) id: Id,
    pub(super) target: Target,
    pub(super) shown: Orphaned,
    health: Health,
    /// When it is next said that it is healthy and not in the configuration.
    line: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Orphans(pub(super) Vec<Orphan>);

impl Orphans {
    /// Orphans watched at once; one of an earlier reload gives way.
    pub(super) const MOST: usize = 64;

    /// Whether one more of the reload of this time can be watched. Generations begin anew in each process, times do not.
    pub(super) fn has_room_for(&self, reload: Timestamp) -> bool {
        self.0.len() < Self::MOST || self.0.first().is_some_and(|oldest| oldest.shown.removed != reload)
    }

    /// Watches a backend on that a reload has removed. One that was never probed cannot be.
    pub(super) fn adopt(
        &mut self,
        service: &Arc<str>,
        gone: Watched,
        (removed, generation): (Timestamp, u64),
        timeline: &Timeline,
    ) {
        let Some(target) = gone.target else { return };
        let condition = Condition::clone(&gone.backend.condition.load());
        let state = gone.health.state();
        let shown = Orphaned {
            service: Arc::clone(service),
            backend: Arc::clone(&gone.backend.name),
            address: gone.backend.address,
            condition: Condition { state, drain: None, ..condition },
            removed,
            generation,
            until: removed.saturating_add(WATCHED).unwrap_or(Timestamp::MAX),
        };
        let text = format!(
            "backend {} ({}) was removed by the reload to generation {generation}, {}: it is watched until {:.0}; `balancer forget {service}/{}` ends that",
            shown.backend,
            shown.address,
            state.label(),
            shown.until,
            shown.backend,
        );
        log::info!("{service}: {text}");
        timeline.record(Event::new(Kind::Orphan, text).of(service).with(&shown.backend));
        self.push(Orphan { id: gone.id, target, shown, health: gone.health, line: Instant::now() + LINE });
    }

    /// Watches on what an earlier process has left.
    pub(super) fn restore(&mut self, id: Id, saved: SavedOrphan) {
        let SavedOrphan { service, backend, address, target, rise, fall, removed, generation, until } = saved;
        let settings = Settings { rise, fall, passive: None, interval: target.interval, probed: true };
        let shown = Orphaned {
            service: service.into(),
            backend: backend.into(),
            address,
            condition: Condition::new(State::Starting, "not probed yet"),
            removed,
            generation,
            until,
        };
        self.push(Orphan { id, target, shown, health: Health::new(settings), line: Instant::now() + LINE });
    }

    fn push(&mut self, orphan: Orphan) {
        if self.0.len() >= Self::MOST {
            self.0.remove(0);
        }
        self.0.push(orphan);
    }

    /// A probe has ended. Answers whether that was of an orphan and has changed something.
    pub(super) fn probed(&mut self, outcome: &Outcome, now: Instant, timeline: &Timeline) -> bool {
        let Some(orphan) = self.0.iter_mut().find(|orphan| orphan.id == outcome.id) else { return false };
        let condition = &mut orphan.shown.condition;
        if outcome.result != Probed::LocalFault {
            condition.probe = Some(outcome.took);
        }
        let Some(change) = orphan.health.on(HealthEvent::Probe(outcome.result, &outcome.detail), now) else {
            return false;
        };
        let (from, to) = (change.from.label(), change.to.label());
        let probe = condition.probe;
        *condition = Condition { state: change.to, since: Timestamp::now(), reason: change.reason, probe, drain: None };
        let text = format!("{}: {from} -> {to}: {}", orphan.shown, orphan.shown.condition.reason);
        log::info!("{text}");
        timeline.record(Event::new(Kind::Orphan, text).of(&orphan.shown.service).with(&orphan.shown.backend));
        true
    }

    /// When [`Orphans::on_timer`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let until = |orphan: &Orphan| super::instant(orphan.shown.until);
        self.0.iter().map(|orphan| orphan.line.min(until(orphan))).min()
    }

    /// Says of the healthy ones that they are not in the configuration, and lets those go whose time is over. Answers whether any went.
    pub(super) fn on_timer(&mut self, now: Instant) -> bool {
        for orphan in self.0.iter_mut().filter(|orphan| orphan.line <= now) {
            orphan.line = now + LINE;
            if orphan.shown.condition.state == State::Up {
                log::warn!(
                    "{}: healthy, and out of the pool: put it back into the file, or run `balancer forget {}/{}`",
                    orphan.shown,
                    orphan.shown.service,
                    orphan.shown.backend
                );
            }
        }
        let before = self.0.len();
        let today = Timestamp::now();
        self.0.retain(|orphan| orphan.shown.until > today);
        self.0.len() < before
    }

    /// As a later process can go on with them.
    pub(super) fn saved(&self) -> Vec<SavedOrphan> {
        let saved = |orphan: &Orphan| {
            let Orphaned { service, backend, address, removed, generation, until, .. } = &orphan.shown;
            let Settings { rise, fall, .. } = orphan.health.settings();
            SavedOrphan {
                service: service.to_string(),
                backend: backend.to_string(),
                address: *address,
                target: orphan.target.clone(),
                rise,
                fall,
                removed: *removed,
                generation: *generation,
                until: *until,
            }
        };
        self.0.iter().map(saved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::probe::Check;

    fn saved(port: u16, until: Timestamp) -> SavedOrphan {
        let address = ([10, 0, 0, 1], port).into();
        let second = Duration::from_secs(1);
        SavedOrphan {
            service: "web".to_owned(),
            backend: format!("web-{port}"),
            address,
            target: Target { address, check: Check::Tcp, interval: second, timeout: second },
            rise: 2,
            fall: 3,
            removed: Timestamp::now(),
            generation: 2,
            until,
        }
    }

    #[test]
    fn there_are_never_too_many_and_the_first_one_gives_way() {
        let mut orphans = Orphans::default();
        let before = Timestamp::now();
        let saved = |port| SavedOrphan { removed: before, ..saved(port, Timestamp::MAX) };
        (1..=70).for_each(|port| orphans.restore(port.into(), saved(port)));
        let ports: Vec<_> = orphans.0.iter().map(|orphan| orphan.shown.address.port()).collect();
        assert_eq!(ports, (7..=70).collect::<Vec<_>>());
        assert!(!orphans.has_room_for(before), "those of one reload do not displace each other");
        assert!(orphans.has_room_for(before + Duration::from_secs(1)));
    }

    #[test]
    fn a_line_is_due_each_day_and_the_end_comes_with_its_time() {
        let mut orphans = Orphans::default();
        orphans.restore(1, saved(1, Timestamp::MAX));
        orphans.restore(2, saved(2, Timestamp::now()));
        let now = Instant::now();
        assert!(orphans.due().is_some_and(|due| due <= now + Duration::from_secs(1)));
        assert!(orphans.on_timer(now));
        assert_eq!(orphans.0.len(), 1);
        let day = now + LINE + Duration::from_secs(1);
        assert!(orphans.0[0].line <= day);
        assert!(!orphans.on_timer(day));
        assert_eq!(orphans.0[0].line, day + LINE);
    }
}
