//! Who may use the machine: most tests share it, those that measure have it to themselves.

use std::fs::File;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Instant;

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

/// Leave to use the machine, for as long as it is held: beside other tests, or with no other test running.
pub(crate) struct Machine {
    alone: bool,
    since: Instant,
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
        Self { alone: false, since: Instant::now() }
    }

    /// For tests that measure time, processor or memory, or load the machine. They come when nobody is left who shares it:
    /// in between, each would leave the machine empty while the last of those who share it end.
    pub(crate) fn alone() -> Self {
        raise_descriptor_limit();
        let turns = Turns::lock();
        Turns::wait(turns, |turns| turns.alone || turns.sharing + turns.willing > 0).alone = true;
        Self { alone: true, since: Instant::now() }
    }

    /// Adds a line to the file that `BALANCER_TEST_TIMES` names: seconds, `shared` or `alone`, the test.
    fn note_time(&self) {
        let Some(file) = std::env::var_os("BALANCER_TEST_TIMES") else { return };
        let (took, thread) = (self.since.elapsed().as_secs_f64(), std::thread::current());
        let kind = if self.alone { "alone" } else { "shared" };
        let line = format!("{took:.3}\t{kind}\t{}\n", thread.name().unwrap_or("?"));
        // One write, so that lines of tests that end together stay whole.
        let file = File::options().create(true).append(true).open(file);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
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

    /// Runs `balancer run` to its end: its exit code, and what it says on standard error.
    pub(crate) fn end_of_run(&self, setup: &Setup) -> (Option<i32>, String) {
        Balancer::ends(setup, "run")
    }

    /// Runs `balancer check` on a configuration: its exit code, and what it says on standard error.
    pub(crate) fn check(&self, setup: &Setup) -> (Option<i32>, String) {
        Balancer::ends(setup, "check")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.note_time();
        let mut turns = Turns::lock();
        if self.alone {
            turns.alone = false;
        } else {
            turns.sharing -= 1;
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
