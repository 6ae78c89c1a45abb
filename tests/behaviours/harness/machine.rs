//! Who may use the machine: most tests share it, those that measure have it to themselves.

use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Balancer, Setup};

/// How many tests share the machine at once: on two cores, as they wait more than they work.
const SHARING: usize = 4;

static TURNS: Mutex<Turns> = Mutex::new(Turns { sharing: 0, willing: 0, alone: false });
static ENDED: Condvar = Condvar::new();

/// Who has the machine, and who waits for it.
struct Turns {
    /// Tests that share it now.
    sharing: usize,
    /// Tests that wait to share it.
    willing: usize,
    /// Whether a test has it to itself.
    alone: bool,
}

impl Turns {
    fn lock() -> MutexGuard<'static, Self> {
        TURNS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as `not_yet` holds.
    fn wait(turns: MutexGuard<'static, Self>, not_yet: impl FnMut(&mut Self) -> bool) -> MutexGuard<'static, Self> {
        ENDED.wait_while(turns, not_yet).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to use the machine, for as long as it is held.
pub(crate) enum Machine {
    /// Beside other tests.
    Shared,
    /// With no other test running.
    Alone,
}

impl Machine {
    /// For tests that only care for what happens.
    pub(crate) fn shared() -> Self {
        raise_descriptor_limit();
        let mut turns = Turns::lock();
        turns.willing += 1;
        let mut turns = Turns::wait(turns, |turns| turns.alone || turns.sharing == SHARING);
        turns.willing -= 1;
        turns.sharing += 1;
        Self::Shared
    }

    /// For tests that measure time, processor or memory, or load the machine. They come when nobody is left who shares it:
    /// in between, each would leave the machine empty while the last of those who share it end.
    pub(crate) fn alone() -> Self {
        raise_descriptor_limit();
        let turns = Turns::lock();
        Turns::wait(turns, |turns| turns.alone || turns.sharing + turns.willing > 0).alone = true;
        Self::Alone
    }

    /// Starts the program and waits until it serves.
    pub(crate) fn start(&self, setup: Setup) -> Balancer {
        Balancer::start(setup)
    }

    /// Runs `balancer run` on a configuration with which it cannot start: what it says.
    #[track_caller]
    pub(crate) fn start_fails(&self, setup: &Setup) -> String {
        let (code, said) = Balancer::ends(setup, "run");
        assert_eq!(code, Some(1), "{said}");
        said
    }

    /// Runs `balancer check` on a configuration: its exit code, and what it says on standard error.
    pub(crate) fn check(&self, setup: &Setup) -> (Option<i32>, String) {
        Balancer::ends(setup, "check")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let mut turns = Turns::lock();
        match self {
            Self::Shared => turns.sharing -= 1,
            Self::Alone => turns.alone = false,
        }
        ENDED.notify_all();
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
