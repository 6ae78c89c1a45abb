//! Who may use the machine: most tests share it, those that measure have it to themselves.

use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Balancer, Setup};

static TURNS: RwLock<()> = RwLock::new(());

/// Leave to use the machine, for as long as it is held.
#[expect(dead_code, reason = "the guards are held for what their drop does")]
pub(crate) enum Machine {
    /// Beside other tests.
    Shared(RwLockReadGuard<'static, ()>),
    /// With no other test running.
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Machine {
    /// For tests that only care for what happens.
    pub(crate) fn shared() -> Self {
        raise_descriptor_limit();
        Self::Shared(TURNS.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For tests that measure time, processor or memory, or load the machine.
    pub(crate) fn alone() -> Self {
        raise_descriptor_limit();
        Self::Alone(TURNS.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the program and waits until it serves.
    pub(crate) fn start(&self, setup: Setup) -> Balancer {
        Balancer::start(setup)
    }
}

/// Thousands of clients and backends live in this process: raises the soft limit to the hard one, and says which it is.
pub(crate) fn raise_descriptor_limit() -> u64 {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
            .expect("raising the soft descriptor limit");
    });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
