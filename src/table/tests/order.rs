//! Who is asked before whom, and what is said when nobody is left.

use super::*;

#[test]
fn names_are_those_of_the_configuration() {
    let names = Algorithm::ALL.map(Algorithm::name);
    assert_eq!(names, ["round_robin", "least_connections", "random_two", "source_hash", "first"]);
}

#[test]
fn every_algorithm_passes_over_those_away_tried_or_full() {
    for algorithm in Algorithm::ALL {
        let mut members = limited(&[0, 0, 1, 0]);
        members[0].share = 0;
        let service = service(pool(algorithm, members));
        let _full = Permit::take(&service.backends[2]).unwrap();
        let tried = [Arc::clone(&service.backends[1])];
        for client in 0..500 {
            let permit = pick(&service, &tried, Some(address(client))).unwrap();
            assert_eq!(number(&permit), 3, "{algorithm:?}");
        }
    }
}

#[test]
fn one_free_place_among_many_full_ones_is_found() {
    for algorithm in Algorithm::ALL {
        let service = service(pool(algorithm, limited(&[1; 300])));
        let mut held: Vec<_> = (0..300).map(|client| pick(&service, &[], Some(address(client))).unwrap()).collect();
        assert_eq!(pick(&service, &[], Some(address(1))).unwrap_err(), Unpicked::Full, "{algorithm:?}");
        let freed = number(&held.swap_remove(123));
        assert_eq!(visit(&service, 77), freed, "{algorithm:?}");
    }
}

#[test]
fn backups_take_the_surplus_alone_in_their_order() {
    for algorithm in Algorithm::ALL {
        let pool = Pool { backups: backups(&[1, 2]), ..pool(algorithm, limited(&[2, 1])) };
        let service = service(pool);
        let mut held: Vec<_> = (0..6).map(|client| pick(&service, &[], Some(address(client))).unwrap()).collect();
        assert!(held[..3].iter().all(|permit| number(permit) < 100), "{algorithm:?}");
        assert_eq!(held[3..].iter().map(number).collect::<Vec<_>>(), [100, 101, 101], "{algorithm:?}");
        assert_eq!(pick(&service, &[], Some(address(7))).unwrap_err(), Unpicked::Full, "{algorithm:?}");
        let freed = number(&held.remove(0));
        assert_eq!(visit(&service, 8), freed, "{algorithm:?}: a free primary goes before a backup");
    }
}

#[test]
fn backups_serve_while_all_primaries_are_down_and_no_longer() {
    let mut members = members(&[1, 1]);
    members.iter_mut().for_each(|member| member.share = 0);
    let mut backups = backups(&[0, 0]);
    backups[0].may_serve = false;
    let down = Pool { backups, try_all: true, ..pool(Algorithm::RoundRobin, members) };
    let mut up = down.clone();
    up.members[1].share = Member::WHOLE;
    let (down, up) = (service(down), service(up));
    assert!(!down.trying_all, "a backup may serve");
    assert_eq!((visit(&down, 0), visit(&up, 0)), (101, 1));
    let tried = [Arc::clone(&up.backends[1])];
    assert_eq!(number(&pick(&up, &tried, None).unwrap()), 101, "after the only primary has failed this client");
}

#[test]
fn without_anybody_the_answer_tells_starting_from_down() {
    for algorithm in Algorithm::ALL {
        let mut members = members(&[1, 1]);
        members.iter_mut().for_each(|member| member.share = 0);
        let pool = pool(algorithm, members);
        let starting = service(Pool { starting: true, try_all: true, ..pool.clone() });
        assert_eq!(pick(&starting, &[], Some(address(0))).unwrap_err(), Unpicked::Starting);
        assert_eq!(pick(&service(pool), &[], Some(address(0))).unwrap_err(), Unpicked::Down);
    }
}

#[test]
fn without_anybody_up_all_can_be_tried() {
    for algorithm in Algorithm::ALL {
        let mut members = members(&[1, 1, 1]);
        members.iter_mut().for_each(|member| member.share = 0);
        let service = service(Pool { try_all: true, ..pool(algorithm, members) });
        assert!(service.trying_all);
        let mut tried = Vec::new();
        for _ in 0..3 {
            tried.push(Arc::clone(pick(&service, &tried, Some(address(5))).unwrap().owner()));
        }
        assert_eq!(pick(&service, &tried, Some(address(5))).unwrap_err(), Unpicked::Exhausted, "{algorithm:?}");
    }
}

#[test]
fn tried_by_all_differs_from_full() {
    for algorithm in Algorithm::ALL {
        let pool = Pool { backups: backups(&[1]), ..pool(algorithm, limited(&[1, 1])) };
        let service = service(pool);
        let mut tried: Vec<_> = service.backends.to_vec();
        let _full = Permit::take(&service.backups[0]).unwrap();
        assert_eq!(pick(&service, &tried, Some(address(0))).unwrap_err(), Unpicked::Full, "{algorithm:?}");
        tried.push(Arc::clone(&service.backups[0]));
        assert_eq!(pick(&service, &tried, Some(address(0))).unwrap_err(), Unpicked::Exhausted, "{algorithm:?}");
    }
}

#[test]
fn a_service_without_backends_is_down() {
    for algorithm in Algorithm::ALL {
        let service = service(Pool { try_all: true, ..pool(algorithm, Vec::new()) });
        assert_eq!(pick(&service, &[], Some(address(0))).unwrap_err(), Unpicked::Down, "{algorithm:?}");
    }
}

#[test]
fn first_fills_in_the_order_of_the_file_and_returns_to_the_first() {
    let service = service(pool(Algorithm::First, limited(&[2, 1, 2])));
    let mut held: Vec<_> = (0..5).map(|_| pick(&service, &[], None).unwrap()).collect();
    assert_eq!(held.iter().map(number).collect::<Vec<_>>(), [0, 0, 1, 2, 2]);
    held.remove(4);
    held.remove(0);
    assert_eq!(number(&pick(&service, &[], None).unwrap()), 0);
}

#[test]
fn who_is_held_out_is_not_tried_either_when_nobody_is_left() {
    let mut down = members(&[1, 1, 1]);
    down.iter_mut().for_each(|member| member.share = 0);
    down[1].drained = true;
    for algorithm in Algorithm::ALL {
        let tried = service(Pool { try_all: true, ..pool(algorithm, down.clone()) });
        assert!(tried.trying_all);
        let visited: Vec<_> = (0..40).map(|client| visit(&tried, client)).collect();
        assert!(!visited.contains(&1), "{algorithm:?}: {visited:?}");
    }
    down.iter_mut().for_each(|member| member.drained = true);
    let nobody = service(Pool { try_all: true, ..pool(Algorithm::RoundRobin, down) });
    assert!(!nobody.trying_all);
    assert_eq!(pick(&nobody, &[], None).err(), Some(Unpicked::Down));
}

#[test]
fn the_least_loaded_goes_first_and_equals_take_turns() {
    let service = service(pool(Algorithm::LeastConnections, members(&[1, 1, 1])));
    assert_eq!((0..6).map(|client| visit(&service, client)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    let _long: Vec<_> = [0, 0, 2].iter().map(|&busy| Permit::take(&service.backends[busy]).unwrap()).collect();
    assert_eq!((0..3).map(|client| visit(&service, client)).collect::<Vec<_>>(), [1, 1, 1]);
}
