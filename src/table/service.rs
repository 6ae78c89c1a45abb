//! One service as a table has it, and the whole of a pick.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::algorithm::{Algorithm, Before, Candidates, Chooser};
use super::backend::{Backend, Permit};
use super::rotation::{Moved, Superseded};
use super::{ServiceState, Settings};

/// A primary, and how much of it may be used now.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who it is.
    pub backend: Arc<Backend>,
    /// Its weight in the configuration, 1 to 256.
    pub weight: u16,
    /// How much of its weight it may carry now, in 256ths: 0 when it may not serve, [`Member::WHOLE`] when it is whole, in
    /// between while it starts slowly.
    pub share: u16,
    /// A person drains it: it is not tried either when nobody else is left.
    pub drained: bool,
}

impl Member {
    /// The share of a backend that carries its whole weight.
    pub const WHOLE: u16 = 256;
}

/// A backup, and whether it may serve now.
#[derive(Debug, Clone)]
pub struct BackupMember {
    /// Who it is.
    pub backend: Arc<Backend>,
    /// It is up.
    pub may_serve: bool,
}

/// What a service is made of: its backends as they are now, and how to choose among them.
#[derive(Debug, Clone)]
pub struct Pool {
    /// How to choose among the members.
    pub algorithm: Algorithm,
    /// All primaries in the order of the configuration, whatever their state.
    pub members: Vec<Member>,
    /// All backups in the order of the configuration, whatever their state.
    pub backups: Vec<BackupMember>,
    /// Those that were removed and still have sessions.
    pub leaving: Vec<Arc<Backend>>,
    /// Sessions established with those that have left since.
    pub past_sessions: u64,
    /// Some backend or backup has not been probed yet.
    pub starting: bool,
    /// When nobody may serve and none is left unprobed, the algorithm chooses among all members as if they were up.
    pub try_all: bool,
}

/// One service as this table has it.
#[derive(Debug)]
pub struct Service {
    /// What lives longer than this table.
    pub state: Arc<ServiceState>,
    /// The backends in the order of the configuration, whatever their state.
    pub backends: Box<[Arc<Backend>]>,
    /// Weights of `backends` in the configuration, by the same index.
    pub weights: Box<[u16]>,
    /// How much of them the backends may carry now, in 256ths, by the same index. All whole where `trying_all`.
    pub shares: Box<[u16]>,
    /// The backups in the order of the configuration, whatever their state.
    pub backups: Box<[Arc<Backend>]>,
    /// Backends and backups that a reload removed, until their last session has ended. None is picked.
    pub leaving: Box<[Arc<Backend>]>,
    /// Sessions established with backends that have left since.
    pub past_sessions: u64,
    /// How it chooses.
    pub algorithm: Algorithm,
    /// Nobody may serve, and so all backends are tried as if they were up.
    pub trying_all: bool,
    /// Deadlines and attempts of sessions that begin under this table.
    pub settings: Settings,
    chooser: Chooser,
    /// Whether the backups may serve, by their index.
    backups_up: Box<[bool]>,
    starting: bool,
}

/// Why no backend could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpicked {
    /// None may serve, and some have not been probed yet.
    Starting,
    /// None may serve.
    Down,
    /// All that may serve and have not been tried carry their `max_connections`.
    Full,
    /// All that may serve have been tried for this client.
    Exhausted,
}

impl Service {
    /// A service as of now; a change of any backend's state is a new one. Building computes what picks then only look up: up to
    /// some milliseconds for thousands of backends.
    pub fn new(state: Arc<ServiceState>, pool: Pool, settings: Settings) -> Self {
        Self::build(state, pool, settings, None)
    }

    /// The same service after a change. What was computed and still holds is taken over, which spares `source_hash` most of it,
    /// and whose turn it is goes on where it was.
    pub fn successor(&self, pool: Pool, settings: Settings) -> Self {
        let identity = |backend: &Arc<Backend>| (Arc::clone(&backend.name), backend.address);
        let moved =
            (!self.backends.iter().map(identity).eq(pool.members.iter().map(|member| identity(&member.backend)))).then(
                || {
                    let members = pool.members.iter().map(|member| identity(&member.backend));
                    moved(self.backends.iter().map(identity), members.zip(0..).collect())
                },
            );
        let same_weights =
            moved.is_none() && pool.members.iter().map(|member| member.weight).eq(self.weights.iter().copied());
        let before = Before { chooser: &self.chooser, same_weights, moved };
        Self::build(Arc::clone(&self.state), pool, settings, Some(before))
    }

    /// Its table is published: the order of turns goes on where it was, and whoever picks from an older table is told so.
    pub fn take_over(&self) {
        self.chooser.take_over();
    }

    fn build(state: Arc<ServiceState>, pool: Pool, settings: Settings, before: Option<Before<'_>>) -> Self {
        let Pool { algorithm, mut members, backups, leaving, past_sessions, starting, try_all } = pool;
        let anyone = members.iter().any(|member| member.share > 0) || backups.iter().any(|backup| backup.may_serve);
        // Before every first probe has ended, nobody knows yet that all are down.
        let trying_all = try_all && !anyone && !starting && members.iter().any(|member| !member.drained);
        if trying_all {
            members.iter_mut().filter(|member| !member.drained).for_each(|member| member.share = Member::WHOLE);
        }
        Self {
            state,
            chooser: Chooser::new(algorithm, &members, before),
            weights: members.iter().map(|member| member.weight).collect(),
            shares: members.iter().map(|member| member.share).collect(),
            backends: members.into_iter().map(|member| member.backend).collect(),
            backups_up: backups.iter().map(|backup| backup.may_serve).collect(),
            backups: backups.into_iter().map(|backup| backup.backend).collect(),
            leaving: leaving.into(),
            past_sessions,
            algorithm,
            trying_all,
            settings,
            starting,
        }
    }

    /// Sessions established with any of its backends so far, also with those that have left: it never goes back.
    pub fn total(&self) -> u64 {
        let backends = self.backends.iter().chain(&self.backups).chain(&self.leaving);
        let sessions = backends.map(|backend| backend.counters.sum(|worker| worker.sessions.get())).sum::<u64>();
        sessions + self.past_sessions
    }

    /// Whether a pick depends on the client's address.
    pub fn needs_client(&self) -> bool {
        self.algorithm == Algorithm::SourceHash
    }

    /// A permit of the backend that this client goes to: of a primary by the algorithm, passing over those in `tried` and those
    /// that are full; of a backup, in their order, only when no primary can be had. `None`: a newer table is published, and counts.
    /// Lock-free.
    #[inline]
    pub fn pick(&self, tried: &[Arc<Backend>], client: Option<IpAddr>) -> Option<Result<Permit<Backend>, Unpicked>> {
        let candidates = Candidates { backends: &self.backends, tried, cursor: &self.state.cursor };
        match self.chooser.choose(&candidates, client) {
            Ok(Some(permit)) => Some(Ok(permit)),
            Ok(None) => Some(self.pick_backup(tried)),
            Err(Superseded) => None,
        }
    }

    /// Whether this one of the service may serve and has a free permit.
    pub fn has_permit(&self, one: &Arc<Backend>) -> bool {
        let primaries = self.backends.iter().zip(self.shares.iter().map(|share| *share > 0));
        let mut all = primaries.chain(self.backups.iter().zip(self.backups_up.iter().copied()));
        !one.permits.are_full(one.permits.taken()) && all.any(|(own, may_serve)| may_serve && Arc::ptr_eq(own, one))
    }

    fn pick_backup(&self, tried: &[Arc<Backend>]) -> Result<Permit<Backend>, Unpicked> {
        let is_tried = |backend: &Arc<Backend>| tried.iter().any(|t| Arc::ptr_eq(t, backend));
        let ready = || self.backups.iter().zip(&self.backups_up).filter(|(_, may)| **may).map(|(backup, _)| backup);
        if let Some(permit) = ready().filter(|backup| !is_tried(backup)).find_map(Permit::take) {
            return Ok(permit);
        }
        let serving = self.backends.iter().zip(&self.shares).filter(|(_, share)| **share > 0).map(|(one, _)| one);
        let mut all = serving.chain(ready());
        Err(match all.next() {
            None if self.starting => Unpicked::Starting,
            None => Unpicked::Down,
            Some(first) if !is_tried(first) || !all.all(is_tried) => Unpicked::Full,
            Some(_) => Unpicked::Exhausted,
        })
    }
}

/// For each backend before, where the turns go on after it: behind itself, or behind the last one before it that is still there.
fn moved<I: std::hash::Hash + Eq>(before: impl Iterator<Item = I>, now: HashMap<I, u32>) -> Moved {
    let mut behind = 0;
    before
        .map(|backend| {
            behind = now.get(&backend).map_or(behind, |index| index + 1);
            behind
        })
        .collect()
}
