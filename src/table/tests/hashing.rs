//! Whether a client stays where it is, and who moves when a backend goes.

use super::*;
use crate::table::maglev;

const CLIENTS: u32 = 50_000;

fn slots(service: &Service) -> Vec<usize> {
    (0..CLIENTS).map(|client| visit(service, client)).collect()
}

fn with_share(share: u16) -> Vec<usize> {
    let mut members = members(&[1; 10]);
    members[3].share = share;
    slots(&service(pool(Algorithm::SourceHash, members)))
}

#[test]
fn entries_follow_the_weights_within_two_percent() {
    for weights in [vec![1; 2], vec![1; 100], vec![1, 2, 5], vec![256, 1], (1..=30).collect(), vec![7; 1000]] {
        let identities = weights.iter().zip(0..).map(|(&weight, at)| (format!("b-{at} 10.0.0.1:80"), weight));
        let table = maglev::table(identities);
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        for (backend, &weight) in weights.iter().enumerate() {
            let entries = table.iter().filter(|&&entry| usize::from(entry) == backend).count() as f64;
            let expected = maglev::SIZE as f64 * f64::from(weight) / sum;
            assert!((entries / expected - 1.0).abs() < 0.02, "{entries} entries instead of {expected}");
        }
    }
}

#[test]
fn a_backend_that_leaves_moves_only_its_own_clients_and_they_return() {
    let (before, without) = (with_share(Member::WHOLE), with_share(0));
    let mut spread = vec![0; 10];
    for (&before, &without) in before.iter().zip(&without) {
        assert_ne!(without, 3);
        if before == 3 {
            spread[without] += 1;
        } else {
            assert_eq!(before, without, "a client moved whose backend had stayed");
        }
    }
    spread.remove(3);
    // 99.9 % of samples of an even spread lie below 26.1 with eight degrees of freedom.
    let chi_square = chi_square(&spread, &[1; 9]);
    assert!(chi_square < 26.1, "its clients went to {spread:?}, a chi-square of {chi_square}");
    assert_eq!(before, with_share(Member::WHOLE));
}

#[test]
fn a_growing_share_only_ever_wins_clients() {
    let mut before = with_share(0);
    for share in [1, 64, 128, 255, Member::WHOLE] {
        let now = with_share(share);
        for (&before, &now) in before.iter().zip(&now) {
            assert!(before == now || now == 3, "a client moved from {before} to {now}");
        }
        before = now;
    }
}

#[test]
fn a_reload_without_a_backend_moves_few_others() {
    let before = with_share(Member::WHOLE);
    let mut left = members(&[1; 10]);
    left.remove(3);
    let after = slots(&service(pool(Algorithm::SourceHash, left)));
    let stayed = before.iter().zip(&after).filter(|(before, _)| **before != 3);
    let (all, moved) = stayed.fold((0.0, 0.0), |(all, moved), (b, a)| (all + 1.0, moved + f64::from(u8::from(b != a))));
    let part = moved / all;
    assert!(part < 0.01, "{part} of the others' clients moved");
}

#[test]
fn a_client_is_the_same_in_both_notations_and_by_all_of_its_ipv6_address() {
    let service = service(pool(Algorithm::SourceHash, members(&[1; 50])));
    let place = |address: &str| number(&pick(&service, &[], Some(address.parse().unwrap())).unwrap());
    assert_eq!(place("192.0.2.7"), place("::ffff:192.0.2.7"));
    let hosts: std::collections::HashSet<_> = (0..200).map(|host| place(&format!("2001:db8::{host:x}"))).collect();
    let nets: std::collections::HashSet<_> = (0..200).map(|net| place(&format!("2001:db8:{net:x}::1"))).collect();
    // 200 throws into 50 slots leave about one of them empty.
    assert!(hosts.len() > 40 && nets.len() > 40, "{} and {} slots", hosts.len(), nets.len());
}

#[test]
fn clients_without_an_address_are_spread() {
    let service = service(pool(Algorithm::SourceHash, members(&[1; 4])));
    let mut counts = [0; 4];
    (0..4_000).for_each(|_| counts[number(&pick(&service, &[], None).unwrap())] += 1);
    // 99.9 % of the right samples lie below 16.3 with three degrees of freedom.
    assert!(chi_square(&counts, &[1; 4]) < 16.3, "{counts:?}");
}

#[test]
fn a_successor_sends_clients_where_a_new_service_would() {
    let all = members(&[1, 2, 3, 4]);
    let first = service(pool(Algorithm::SourceHash, all.clone()));
    let mut down = all.clone();
    down[1].share = 0;
    let mut heavier = all.clone();
    heavier[1].weight = 9;
    for changed in [down, heavier, all[..3].to_vec()] {
        let pool = pool(Algorithm::SourceHash, changed);
        assert_eq!(slots(&first.successor(pool.clone(), first.settings)), slots(&service(pool)));
    }
}

#[test]
fn where_most_are_away_those_who_are_left_share_the_clients() {
    let mut members = members(&[1; 64]);
    members.iter_mut().enumerate().for_each(|(at, member)| member.share = if at % 32 == 7 { Member::WHOLE } else { 0 });
    let counts = visits(&service(pool(Algorithm::SourceHash, members)), 20_000);
    // 99.9 % of the right samples lie below 10.8 with one degree of freedom.
    assert!(chi_square(&[counts[7], counts[39]], &[1, 1]) < 10.8, "{counts:?}");
    assert_eq!(counts[7] + counts[39], 20_000);
}
