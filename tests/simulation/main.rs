//! Seeded histories of a session: the pure state machine between a model kernel and two model peers, on a virtual clock.
//!
//! Each history comes from one number, its seed: the peers' scripts, the queues' sizes, when what completes. After every step the
//! rules of `record.rs` hold, at the end those of `verdict.rs`; a failure prints the seed and the last steps.
//!
//! ```text
//! cargo test --test simulation                             # the histories of the seeds from 0 on
//! BALANCER_SEED=12345 cargo test --test simulation         # that history alone, the whole of it on standard error
//! BALANCER_HISTORIES=5000000 cargo test --test simulation  # more of them
//! ```

mod conditions;
mod connection;
mod coverage;
mod kernel;
mod path;
mod peer;
mod queue;
mod record;
mod verdict;
mod worker;
mod world;

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use coverage::Coverage;
use world::World;

const HISTORIES: u64 = 300_000;
const THREADS: u64 = 2;
/// Steps shown of a history that fails.
const SHOWN: usize = 60;

#[test]
fn every_history_keeps_the_rules() {
    if let Some(seed) = number("BALANCER_SEED") {
        let (history, outcome) = replay(seed);
        let _ = std::io::stderr().write_all((history.join("\n") + "\n").as_bytes());
        assert!(outcome.is_ok(), "seed {seed}: {}", outcome.unwrap_err());
        return;
    }
    let histories = number("BALANCER_HISTORIES").unwrap_or(HISTORIES);
    let failed = AtomicBool::new(false);
    // OperationKind fails is told once, by its report.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let parts = std::thread::scope(|scope| {
        let run = |thread| {
            let failed = &failed;
            scope.spawn(move || some(thread, histories, failed))
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    std::panic::set_hook(hook);
    let mut coverage = Coverage::default();
    for part in parts {
        match part {
            Ok(Ok(reached)) => coverage += reached,
            Ok(Err(failure)) => panic!("{failure}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    assert_eq!(coverage.histories, histories);
    println!("{:#?}", coverage.counts());
    if histories >= HISTORIES {
        let missed: Vec<_> = coverage.counts().into_iter().filter(|&(_, count)| count == 0).collect();
        assert!(missed.is_empty(), "no history reached {missed:?}");
    }
}

/// Every `THREADS`th history from `first` on.
fn some(first: u64, histories: u64, failed: &AtomicBool) -> Result<Coverage, String> {
    let mut coverage = Coverage::default();
    for seed in (first..histories).step_by(THREADS as usize) {
        if failed.load(Relaxed) {
            coverage.histories += 1;
            continue;
        }
        let mut world = World::new(seed, std::mem::take(&mut coverage), None);
        if catch_unwind(AssertUnwindSafe(|| world.run())).is_err() {
            failed.store(true, Relaxed);
            return Err(report(seed));
        }
        coverage = world.coverage;
    }
    Ok(coverage)
}

/// Runs a history that has failed once more, to tell how it went.
fn report(seed: u64) -> String {
    let (history, outcome) = replay(seed);
    let shown = history[history.len().saturating_sub(SHOWN)..].join("\n");
    let failure = outcome.err().unwrap_or_else(|| "but not when run again".to_owned());
    format!("\n{shown}\n\nseed {seed}: {failure}\nthe whole of it: BALANCER_SEED={seed} cargo test --test simulation\n")
}

fn replay(seed: u64) -> (Vec<String>, Result<(), String>) {
    let mut world = World::new(seed, Coverage::default(), Some(Vec::new()));
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run())).map_err(|panic| message(&*panic));
    (world.into_history(), outcome)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
