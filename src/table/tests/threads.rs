//! What stays exact while several workers pick at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use arc_swap::ArcSwap;

use super::*;

const THREADS: usize = 4;

/// What each of several threads holds after so many picks.
fn hold(service: &Service, picks: u32) -> Vec<Permit<Backend>> {
    thread::scope(|scope| {
        let picking = |_| scope.spawn(|| (0..picks).map(|_| pick(service, &[], None).unwrap()).collect::<Vec<_>>());
        let threads: Vec<_> = (0..THREADS).map(picking).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn taken(service: &Service) -> Vec<u32> {
    service.backends.iter().map(|backend| backend.permits.taken()).collect()
}

#[test]
fn round_robin_gives_whole_periods_exactly() {
    let service = service(pool(Algorithm::RoundRobin, members(&[1, 2, 5])));
    let held = hold(&service, 10_000);
    assert_eq!(taken(&service), [5_000, 10_000, 25_000]);
    drop(held);
    assert_eq!(taken(&service), [0, 0, 0]);
}

#[test]
fn least_connections_never_leaves_a_less_loaded_one_behind() {
    // A place is taken only while the number compared is still true, and none is given back: so loads never differ by more than
    // one session, and a multiple of the weights' sum is spread exactly.
    for weights in [[1, 1, 1], [1, 2, 5], [256, 3, 41]] {
        let sum = weights.iter().map(|&weight| u32::from(weight)).sum::<u32>();
        let service = service(pool(Algorithm::LeastConnections, members(&weights)));
        let _held = hold(&service, 25 * sum);
        let expected = weights.map(|weight| u32::from(weight) * 25 * THREADS as u32);
        assert_eq!(taken(&service), expected, "weights {weights:?}");
    }
}

#[test]
fn a_limit_is_reached_exactly_and_never_overshot() {
    for algorithm in Algorithm::ALL {
        let limits = [3, 5, 1];
        let service = service(pool(algorithm, limited(&limits)));
        let inside = [const { AtomicU32::new(0) }; 3];
        thread::scope(|scope| {
            for thread in 0..THREADS as u32 {
                let (service, inside) = (&service, &inside);
                scope.spawn(move || {
                    for round in 0..5_000 {
                        let client = Some(address(thread * 5_000 + round));
                        let held: Vec<_> = (0..4).filter_map(|_| pick(service, &[], client).ok()).collect();
                        for permit in &held {
                            let count = inside[number(permit)].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(count <= limits[number(permit)], "{algorithm:?} overshot");
                        }
                        for permit in &held {
                            inside[number(permit)].fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let held: Vec<_> = (0..9).map(|client| pick(&service, &[], Some(address(client))).unwrap()).collect();
        assert_eq!(taken(&service), limits, "{algorithm:?}");
        assert_eq!(pick(&service, &[], Some(address(9))).unwrap_err(), Unpicked::Full);
        drop(held);
        assert_eq!(taken(&service), [0; 3], "{algorithm:?}");
    }
}

#[test]
fn turns_stay_exact_while_workers_pick_and_tables_change() {
    // The first two serve all the time, the others come and go.
    let all = members(&[1, 2, 1, 3]);
    let serving = |step: usize| {
        let share = |at: usize| if at < 2 || step >> (at - 2) & 1 == 1 { Member::WHOLE } else { 0 };
        let members = all.iter().enumerate().map(|(at, member)| Member { share: share(at), ..member.clone() });
        pool(Algorithm::RoundRobin, members.collect())
    };
    let published = ArcSwap::from_pointee(service(serving(0)));
    let (visits, stop) = ([const { AtomicU32::new(0) }; 4], AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // As a worker does: where the table has been superseded, the one that is published by then counts.
                    if let Some(picked) = published.load().pick(&[], None) {
                        visits[number(&picked.unwrap())].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for step in 0..20_000 {
            let before = published.load_full();
            let next = Arc::new(before.successor(serving(step), before.settings));
            published.store(Arc::clone(&next));
            next.take_over();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let [one, two, ..] = visits.map(|visits| i64::from(visits.into_inner()));
    assert!(one > 1000, "{one} picks are too few to say anything");
    assert!((2 * one - two).abs() <= 2, "{one} and {two} for weights 1 and 2");
}
