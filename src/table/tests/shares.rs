//! Whether each gets the part that its weight and its slow start say. All draws are seeded: the cursor begins at 0.

use super::*;
use crate::table::algorithm::weighted;

/// What is open with each after so many sessions that stay.
fn held(service: &Service, sessions: u32) -> Vec<u32> {
    let _held: Vec<_> = (0..sessions).map(|client| pick(service, &[], Some(address(client))).unwrap()).collect();
    service.backends.iter().map(|backend| backend.permits.taken()).collect()
}

#[test]
fn idle_backends_are_visited_by_weight() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
        assert_eq!(visits(&service(pool(algorithm, members(&[1, 2, 5]))), 800), [100, 200, 500], "{algorithm:?}");
    }
    // 99.9 % of samples of the right distribution lie below 13.8 with two degrees of freedom.
    for algorithm in [Algorithm::RandomTwo, Algorithm::SourceHash] {
        let counts = visits(&service(pool(algorithm, members(&[1, 2, 5]))), 80_000);
        let chi_square = chi_square(&counts, &[1, 2, 5]);
        assert!(chi_square < 13.8, "{algorithm:?}: {counts:?} has a chi-square of {chi_square}");
    }
}

#[test]
fn backends_that_are_equally_busy_for_their_weights_are_visited_by_weight_too() {
    let service = service(pool(Algorithm::LeastConnections, members(&[1, 2])));
    let [a, b] = [0, 1].map(|at| &service.backends[at]);
    let _long = [a, b, b].map(|backend| Permit::take(backend).unwrap());
    assert_eq!(visits(&service, 300), [100, 200]);
}

#[test]
fn two_choices_keep_loads_close() {
    // Two backends are both always looked at, so the less loaded one is always found.
    let counts = held(&service(pool(Algorithm::RandomTwo, members(&[1, 1]))), 1001);
    assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
    // A single random choice leaves a standard deviation of 10, and so a range of about 50.
    let counts = held(&service(pool(Algorithm::RandomTwo, members(&[1; 100]))), 10_000);
    let range = counts.iter().max().unwrap() - counts.iter().min().unwrap();
    assert!(range <= 10, "loads differ by {range}");
    let counts = held(&service(pool(Algorithm::RandomTwo, members(&[1, 2, 5]))), 8_000);
    let within = |(&count, weight): (&u32, u32)| count.abs_diff(weight * 1000) <= weight * 20;
    assert!(counts.iter().zip([1, 2, 5]).all(within), "{counts:?} is not 1:2:5 within 2 %");
}

#[test]
fn one_that_outweighs_all_others_is_still_compared_with_them() {
    let service = service(pool(Algorithm::RandomTwo, members(&[256, 1, 1])));
    let counts = held(&service, 2_580);
    assert!(counts[0] >= 2_450 && counts[1].min(counts[2]) >= 5, "{counts:?}");
}

#[test]
fn a_slow_start_carries_its_share() {
    let starting = |algorithm, share| {
        let mut members = members(&[1, 1]);
        members[1].share = share;
        service(pool(algorithm, members))
    };
    assert_eq!(visits(&starting(Algorithm::RoundRobin, 64), 100), [80, 20]);
    assert_eq!(visits(&starting(Algorithm::LeastConnections, 64), 100), [80, 20]);
    assert_eq!(held(&starting(Algorithm::LeastConnections, 64), 100), [80, 20]);
    let counts = visits(&starting(Algorithm::RandomTwo, 64), 40_000);
    // 99.9 % of the right samples lie below 10.8 with one degree of freedom.
    assert!(chi_square(&counts, &[4, 1]) < 10.8, "{counts:?}");
    // Its own half of the clients, a quarter of them admitted; the others hash again, and half of those come back to it, a
    // quarter admitted, and so on: p = 1/8 + 3/8 p = 1/5.
    let counts = visits(&starting(Algorithm::SourceHash, 64), 40_000);
    assert!(chi_square(&counts, &[4, 1]) < 10.8, "{counts:?}");
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::RandomTwo] {
        assert!(visits(&starting(algorithm, 1), 10_000)[1] > 0, "{algorithm:?}: the smallest share is one");
    }
}

#[test]
fn whole_weights_stay_exact_and_the_order_of_turns_bounded() {
    let turns = |members: &[Member]| weighted(members).serving.iter().map(|one| one.weight).sum::<u32>();
    let mut few = members(&[256, 100]);
    few[0].share = 128;
    assert_eq!(weighted(&few).serving.iter().map(|one| one.weight).collect::<Vec<_>>(), [2048, 1600], "in sixteenths");
    let mut many = members(&(0..1000).map(|at| 256 - at % 2).collect::<Vec<_>>());
    assert_eq!(turns(&many), 255_500);
    many[0].share = 128;
    assert_eq!(turns(&many), 255_500 - 128, "whole numbers where sixteenths would be too many");
    let middling = (0..100).map(|at| Member { share: 128, ..many[at].clone() }).collect::<Vec<_>>();
    assert!(turns(&middling) <= 65_536 && turns(&middling) > 32_768);
}
