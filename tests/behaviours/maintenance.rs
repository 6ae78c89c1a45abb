//! Taking backends out for a limited time: nobody is refused, nobody is forgotten outside, and what was decided outlives the process.
//!
//! covers: src/cli/drain, src/cli/drill, src/cli/timeline, src/cli/whatif, src/control/capacity, src/control/fleet/announce, src/control/fleet/maintenance, src/control/fleet/orphans, src/control/maintenance

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Backend, Balancer, Blackhole, Kills, Load, Machine, PATIENCE, Port, Setup, admitted, connect, exchange, free_port,
    is_reset, post, seed, served_by, wait_until,
};

pub(super) const PROBED: &str = "health: { interval: 100ms, timeout: 80ms, slow_start: 0s }";

pub(super) fn two(a: &Backend, b: &Backend) -> Setup {
    // A port of its own, so that it is the same after a restart.
    let setup = Setup::new().http().listen(format!("127.0.0.1:{}", free_port()));
    setup.backend("web-01", a.address).backend("web-02", b.address).setting(PROBED)
}

#[track_caller]
pub(super) fn done(balancer: &Balancer, arguments: &[&str]) -> String {
    let (code, out, err) = balancer.command(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    out
}

#[track_caller]
fn refused(balancer: &Balancer, arguments: &[&str]) -> String {
    let (code, _, err) = balancer.command(arguments);
    assert_eq!(code, Some(1), "{arguments:?}: {err}");
    err
}

pub(super) fn up(balancer: &Balancer) {
    for backend in ["web-01", "web-02"] {
        balancer.await_state(&format!("/services/web/backends/{backend}/state"), "up");
    }
}

fn state(balancer: &Balancer, backend: &str) -> String {
    balancer.status().text(&format!("/services/web/backends/{backend}/state"))
}

/// The timeline's events as `kind text`.
pub(super) fn story(balancer: &Balancer) -> Vec<String> {
    let json: Value = serde_json::from_str(&done(balancer, &["timeline", "--json"])).expect("JSON");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let events = json["events"].as_array().expect("events");
    events.iter().map(|event| format!("{} {}", text(event, "kind"), text(event, "text"))).collect()
}

#[track_caller]
pub(super) fn in_order(story: &[String], due: &[(&str, &str)]) {
    let mut rest = story.iter();
    for (kind, text) in due {
        let found = rest.any(|line| line.starts_with(&format!("{kind} ")) && line.contains(text));
        assert!(found, "no {kind} with {text:?} in its place: {story:#?}");
    }
}

#[test]
fn a_server_taken_out_for_a_test_and_forgotten_comes_back_by_itself() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let balancer = machine.start(two(&a, &b));
    up(&balancer);
    let open = (connect(balancer.address()), connect(balancer.address()));
    [&open.0, &open.1].into_iter().for_each(exchange);
    let load = Load::start(balancer.address(), 4, 20);
    load.go_on(100);

    let said = done(&balancer, &["drain", "web/web-02", "--for", "2s", "--reason", "kernel upgrade"]);
    assert!(said.contains("web/web-02 is drained until") && said.contains("left to serve: 1 of 2 backends"), "{said}");
    let drain = balancer.status();
    assert_eq!(drain.text("/services/web/backends/web-02/state"), "drained");
    assert_eq!(drain.text("/services/web/backends/web-02/drain/by"), "root");
    assert_eq!(drain.text("/services/web/backends/web-02/drain/reason"), "kernel upgrade");
    assert_eq!(drain.text("/services/web/backends/web-02/drain/kind"), "drain");
    assert_eq!(drain.text("/services/web/state"), "degraded");
    assert_eq!(drain.number("/services/web/redundancy/missing"), 1);
    assert_eq!(balancer.metric("balancer_backend_drained"), 1.0);
    assert_eq!(balancer.metric("balancer_redundancy_missing"), 1.0);
    // Those that were being connected when it was taken out are through now.
    load.go_on(50);
    let total = || balancer.of_backend("web-02", "total");
    let before = total();
    load.go_on(200);
    assert_eq!(total(), before, "a client came to the server that is out");
    [&open.0, &open.1].into_iter().for_each(exchange);

    // Nobody puts it back.
    balancer.await_state("/services/web/backends/web-02/state", "up");
    load.go_on(200);
    assert!(total() > before + 50, "it serves its share again");
    load.stop();
    assert_eq!(balancer.status().sum("/services/web/refused_by"), 0);
    assert!(balancer.metric("balancer_redundancy_missing_seconds_total") > 1.5);
    in_order(
        &story(&balancer),
        &[
            ("start", "serves as process"),
            ("drain", "backend web-02"),
            ("reminder", "web-02 is still drained by root"),
            ("lease_ended", "drained -> starting: the maintenance by root is over"),
            ("state", "starting -> up: first probe passed; left to serve: 2 of 2"),
        ],
    );
    assert_eq!(balancer.logged("web-02 is still drained by root"), 1);
    drop(open);
    balancer.stop();
}

#[test]
fn who_cannot_be_spared_is_not_taken_out_unless_somebody_insists() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::echo(), Backend::echo(), Backend::echo());
    let setup = two(&a, &b).backend("web-03", c.address).process("reload: { guard: 60% }");
    let balancer = machine.start(setup.service("solo").backend("only", a.address).setting(PROBED));
    up(&balancer);
    balancer.await_state("/services/solo/backends/only/state", "up");
    for (wrong, why) in [
        ("web/web-4", "web has no backend web-4; it has web-01, web-02, web-03"),
        ("wev/web-01", "there is no service wev; there is web, solo"),
    ] {
        let err = refused(&balancer, &["drain", wrong]);
        assert!(err.contains(why), "{err}");
    }
    for (wrong, why) in [
        (&["drain", "web-01"][..], "SERVICE/BACKEND is due"),
        (&["drain", "web/web-01", "--for", "10"], "its unit is missing"),
        (&["drain", "web/web-01", "--close-after", "soon"], "--close-after"),
        (&["whatif", "web/"], "SERVICE/BACKEND is due"),
    ] {
        let (code, _, err) = balancer.command(wrong);
        assert!(code == Some(2) && err.contains(why), "{wrong:?}: {err}");
    }
    assert!(refused(&balancer, &["drain", "web/web-01", "--for", "721h"]).contains("30 days"));
    assert!(refused(&balancer, &["restore", "web/web-01"]).contains("is not drained: it is up"));
    for (when, why) in
        [(&["--close-after", "1m"][..], "the drain is over by then"), (&["--spread", "1m"], "--close-after")]
    {
        let all = [&["drain", "web/web-01", "--for", "1m"][..], when].concat();
        let (code, _, err) = balancer.command(&all);
        assert!(code != Some(0) && err.contains(why), "{when:?}: {err}");
    }

    done(&balancer, &["drain", "web/web-01"]);
    let since = || balancer.status().text("/services/web/backends/web-01/since");
    let first = since();
    done(&balancer, &["drain", "web/web-01", "--for", "2h"]);
    assert_eq!(since(), first, "it is drained since then, whatever the terms");
    let err = refused(&balancer, &["drain", "web/web-02"]);
    assert!(err.contains("would have 1 of its 3 backends") && err.contains("--force"), "{err}");
    done(&balancer, &["drain", "web/web-02", "--force"]);
    let err = refused(&balancer, &["drain", "web/web-03"]);
    assert!(err.contains("the last one that can serve") && err.contains("--force"), "{err}");
    assert_eq!((state(&balancer, "web-02"), state(&balancer, "web-03")), ("drained".into(), "up".into()));
    assert!(refused(&balancer, &["drain", "solo/only"]).contains("the last one"));
    done(&balancer, &["drain", "solo/only", "--force", "--reason", "it must go"]);
    assert_eq!(balancer.status().text("/services/solo/state"), "down");
    let said = done(&balancer, &["restore", "solo/only"]);
    assert!(said.contains("it serves as soon as it passes a probe"), "{said}");
    balancer.await_state("/services/solo/backends/only/state", "up");
    // Again: a new time for the one that is out.
    let said = done(&balancer, &["drain", "web/web-02", "--for", "2h", "--reason", "it takes longer"]);
    assert!(said.contains("still drained"), "{said}");
    assert_eq!(balancer.status().text("/services/web/backends/web-02/drain/reason"), "it takes longer");
    balancer.stop();
}

#[test]
fn a_drain_outlives_reload_kill_and_upgrade() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let mut balancer = machine.start(two(&a, &b).copied());
    up(&balancer);
    done(&balancer, &["drain", "web/web-02", "--for", "1h", "--reason", "disk"]);
    let until = balancer.status().text("/services/web/backends/web-02/drain/until");
    let holds = |balancer: &Balancer| {
        balancer.await_state("/services/web/backends/web-01/state", "up");
        assert_eq!(balancer.status().text("/services/web/backends/web-02/drain/until"), until);
        assert_eq!(balancer.status().text("/services/web/backends/web-02/drain/by"), "root");
        for _ in 0..6 {
            assert_eq!(served_by(balancer.address()), "a");
        }
    };
    balancer.edit("interval: 100ms", "interval: 120ms");
    balancer.reload();
    holds(&balancer);
    balancer.die_and_start_again();
    holds(&balancer);
    balancer.upgrade();
    holds(&balancer);
    // Who goes on with it has not done it: it was done once.
    let done_once = |line: &&String| line.starts_with("drain ");
    wait_until("the file is taken over", PATIENCE, || story(&balancer).iter().any(|line| line.starts_with("upgrade ")));
    assert_eq!(story(&balancer).iter().filter(done_once).count(), 1);
    let err = refused(&balancer, &["drill", "web/web-02", "--for", "1s"]);
    assert!(err.contains("is drained already"), "a drill would end it: {err}");
    assert_eq!(balancer.status().text("/services/web/backends/web-02/drain/until"), until);
    // The successor keeps it, too, and not the one before.
    done(&balancer, &["restore", "web/web-02"]);
    balancer.await_state("/services/web/backends/web-02/state", "up");
    in_order(
        &story(&balancer),
        &[
            ("start", ""),
            ("drain", "disk"),
            ("reload", "generation 2"),
            ("start", ""),
            ("upgrade", "takes over"),
            ("restore", ""),
        ],
    );
    balancer.stop();
}

#[test]
fn a_server_that_fails_when_its_time_is_over_is_down_and_nobodys_maintenance() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Port::refusing());
    let listener = b.listen();
    let setup = Setup::new().backend("web-01", a.address).backend("web-02", b.address).setting(PROBED);
    let balancer = machine.start(setup);
    up(&balancer);
    done(&balancer, &["drain", "web/web-02", "--for", "1s"]);
    drop(listener);
    balancer.await_state("/services/web/backends/web-02/state", "down");
    balancer
        .await_logged("starting -> down: first probe failed: connect refused, after its maintenance, which is over");
    let status = balancer.status();
    assert!(status.text("/services/web/backends/web-02/reason").contains("after its maintenance"));
    balancer.stop();
}

#[test]
fn a_server_that_comes_back_from_maintenance_starts_slowly() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::new().backend("web-01", a.address).backend("web-02", b.address);
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 80ms, slow_start: 1h }"));
    up(&balancer);
    let served = || (0..64).filter(|_| served_by(balancer.address()) == "b").count();
    assert_eq!(served(), 32, "at the start of the process there is nothing to be slow about");
    done(&balancer, &["drain", "web/web-02"]);
    assert_eq!(served(), 0);
    done(&balancer, &["restore", "web/web-02"]);
    balancer.await_state("/services/web/backends/web-02/state", "up");
    let share = served();
    assert!((1..10).contains(&share), "{share} of 64 at the beginning of an hour");
    balancer.stop();
}

#[test]
fn what_was_refused_and_where_probes_and_traffic_disagree_is_in_the_timeline() {
    let machine = Machine::shared();
    let (a, probed) = (Backend::echo(), Backend::echo());
    let gone = Port::refusing();
    let setup = Setup::new().backend("web-01", a.address);
    let setup = setup.backend_with("web-02", gone.address, &format!("probe_address: \"{}\"", probed.address));
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 80ms, rise: 10, passive: 1 }"));
    up(&balancer);
    balancer.edit("rise: 10", "rise: two hundred");
    assert!(balancer.reload_refused().contains("rise"));
    balancer.connect();
    let second = balancer.connect();
    balancer.await_logged("although its probes pass");
    in_order(
        &story(&balancer),
        &[
            ("reload_refused", "reload invalid"),
            ("state", "up -> down: 1 connect of a client failed (connect refused); left to serve: 1 of 2 backends"),
            ("disagree", "although its probes pass"),
        ],
    );
    drop(second);
    balancer.stop();
}

#[test]
fn sessions_of_a_drained_backend_are_closed_little_by_little_where_that_is_asked_for() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let balancer = machine.start(two(&a, &b));
    up(&balancer);
    let clients: Vec<TcpStream> = (0..40).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    let start = Instant::now();
    done(&balancer, &["drain", "web/web-02", "--for", "1h", "--close-after", "500ms", "--spread", "1s"]);
    let connections = || balancer.of_backend("web-02", "connections");
    assert_eq!(connections(), 20, "they finish by themselves at first");
    let mut seen = Vec::new();
    wait_until("all are closed", PATIENCE, || {
        seen.push(connections());
        seen.last() == Some(&0)
    });
    assert!(start.elapsed() >= Duration::from_millis(1300), "not all at once: {:?}", start.elapsed());
    seen.dedup();
    assert!(seen.len() >= 5, "they are closed one by one: {seen:?}");
    assert_eq!(balancer.of_backend("web-01", "connections"), 20, "the others have nothing to do with it");
    balancer.await_closed("drain", 20);
    let ended = clients.iter().filter(|client| {
        client.set_nonblocking(true).expect("a socket");
        matches!(Read::read(&mut &**client, &mut [0; 8]), Err(error) if is_reset(&error))
    });
    assert_eq!(ended.count(), 20, "a cut does not look like an end");
    drop(clients);
    balancer.stop();
}

#[test]
fn who_is_still_being_connected_to_a_backend_that_is_closed_is_served_by_another_and_left_alone_there() {
    let machine = Machine::shared();
    let (sick, b) = (Blackhole::new(), Backend::named("b"));
    let setup = Setup::new().backend("sick", sick.address).backend("b", b.address).setting("balance: first");
    // More than the close takes: nobody is rescued by it.
    let balancer = machine.start(setup.setting("connect: { timeout: 8s }"));
    let clients: Vec<TcpStream> = (0..6).map(|_| balancer.connect()).collect();
    balancer.await_number("/services/web/backends/sick/connections", 6);
    done(&balancer, &["drain", "web/sick", "--for", "1h", "--close-after", "10ms", "--spread", "2s"]);
    wait_until("all are served elsewhere", Duration::from_secs(5), || balancer.of_backend("b", "connections") == 6);
    // Those who fail over by themselves are with another backend when their turn comes.
    let late = balancer.connect();
    for client in clients.iter().chain([&late]) {
        let mut name = [0; 2];
        (&mut &*client).read_exact(&mut name).expect("a name");
        assert_eq!(&name, b"b\n");
        exchange(client);
    }
    assert_eq!((balancer.closed("drain"), balancer.number("/services/web/refused")), (0, 0));
    assert_eq!(balancer.of_backend("sick", "failures"), 0, "it has failed nobody");
    drop((clients, late));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn who_has_gone_from_a_sick_backend_to_another_is_not_closed_with_it() {
    let machine = Machine::shared();
    let (sick, b) = (Blackhole::new(), Backend::echo());
    let setup = Setup::new().workers(1).backend("sick", sick.address).backend("b", b.address);
    let setup = setup.setting("balance: first").setting("connect: { timeout: 700ms }");
    let balancer = machine.start(setup);
    let clients: Vec<TcpStream> = (0..4).map(|_| balancer.connect()).collect();
    balancer.await_number("/services/web/backends/sick/connections", 4);
    done(&balancer, &["drain", "web/sick", "--for", "1h", "--close-after", "10ms", "--spread", "4s"]);
    // The turns of the last three are one to three seconds from now.
    std::thread::sleep(Duration::from_millis(3500));
    clients.iter().for_each(exchange);
    assert_eq!((balancer.closed("drain"), balancer.number("/services/web/refused")), (0, 0));
    drop(clients);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn nobody_leaves_a_backend_any_more_that_is_restored() {
    nobody_leaves_after(&[&["restore", "web/web-02"]]);
}

#[test]
fn nobody_leaves_a_backend_any_more_whose_drain_goes_on_without_closing() {
    nobody_leaves_after(&[&["drain", "web/web-02", "--for", "1h"]]);
}

#[test]
fn nobody_leaves_a_backend_by_an_earlier_drain_than_the_one_that_holds_it_out() {
    nobody_leaves_after(&[&["restore", "web/web-02"], &["drain", "web/web-02", "--for", "1h"]]);
}

#[track_caller]
fn nobody_leaves_after(orders: &[&[&str]]) {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let balancer = machine.start(two(&a, &b));
    up(&balancer);
    let clients: Vec<TcpStream> = (0..20).map(|_| balancer.connect()).collect();
    clients.iter().for_each(exchange);
    done(&balancer, &["drain", "web/web-02", "--for", "1h", "--close-after", "10ms", "--spread", "2s"]);
    wait_until("the first have left", PATIENCE, || balancer.closed("drain") >= 2);
    orders.iter().for_each(|order| _ = done(&balancer, order));
    // Who is being reset by then still counts.
    std::thread::sleep(Duration::from_millis(100));
    let closed = balancer.closed("drain");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(balancer.closed("drain"), closed);
    assert_eq!(balancer.number("/sessions"), 20 - closed);
    drop(clients);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_backend_that_has_taken_over_the_name_of_another_is_closed_alone() {
    let machine = Machine::shared();
    let (a, before, after) = (Port::refusing(), Backend::echo(), Backend::echo());
    let setup = Setup::new().backend("web-01", a.address).backend("web-02", before.address);
    let balancer = machine.start(setup);
    let old = balancer.connect();
    exchange(&old);
    balancer.edit(&format!("\"{}\"", before.address), &format!("\"{}\"", after.address));
    balancer.reload();
    let new = balancer.connect();
    exchange(&new);
    assert_eq!((before.open(), after.open()), (1, 1));
    done(&balancer, &["drain", "web/web-02", "--for", "1h", "--close-after", "10ms"]);
    crate::harness::assert_ends_with_reset(&new);
    balancer.await_closed("drain", 1);
    exchange(&old);
    drop((old, new));
    balancer.await_no_session();
    assert_eq!(balancer.closed("drain"), 1);
    balancer.stop();
}

#[test]
fn a_removed_server_is_watched_until_somebody_says_otherwise() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Port::refusing());
    let listener = b.listen();
    let setup = Setup::new().http().listen(format!("127.0.0.1:{}", free_port()));
    let setup = setup.backend("web-01", a.address).backend("web-02", b.address).setting(PROBED);
    let mut balancer = machine.start(setup);
    up(&balancer);
    let line = format!("      web-02: \"{}\"\n", b.address);
    balancer.edit(&line, "");
    balancer.reload();
    let orphan = |key: &str| balancer.status().text(&format!("/orphans/0/{key}"));
    assert_eq!((orphan("service"), orphan("backend")), ("web".into(), "web-02".into()));
    assert_eq!((orphan("state"), balancer.number("/orphans/0/generation")), ("up".into(), 2));
    assert_eq!(balancer.metric("balancer_orphan_up"), 1.0);
    let page = done(&balancer, &["status"]);
    assert!(page.contains(&format!("outside: web/web-02 ({}), up", b.address)), "{page}");
    assert!(page.contains("by reload 2, watched on; `balancer forget` ends that"), "{page}");
    balancer.await_logged("web-02");
    // It is really watched.
    drop(listener);
    balancer.await_state("/orphans/0/state", "down");
    assert_eq!(balancer.metric("balancer_orphan_up"), 0.0);
    let listener = b.listen();
    balancer.await_state("/orphans/0/state", "up");
    // A restart does not forget it.
    balancer.die_and_start_again();
    balancer.await_state("/orphans/0/state", "up");
    // Put back, it is no orphan any more.
    let with = format!("      web-01: \"{}\"\n{line}", a.address);
    balancer.edit(&format!("      web-01: \"{}\"\n", a.address), &with);
    balancer.reload();
    assert!(balancer.get("/v1/status").contains("\"orphans\": []"));
    balancer.edit(&line, "");
    balancer.reload();
    assert!(refused(&balancer, &["forget", "web/web-03"]).contains("there is web/web-02"));
    done(&balancer, &["forget", "web/web-02"]);
    assert!(balancer.get("/v1/status").contains("\"orphans\": []"));
    in_order(
        &story(&balancer),
        &[
            ("orphan", "was removed by the reload to generation 2, up"),
            ("orphan", "up -> down"),
            ("start", ""),
            ("forget", "web-02"),
        ],
    );
    drop(listener);
    balancer.stop();
}

#[test]
fn what_a_loss_would_mean_is_told_on_paper_and_tried_for_real() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let setup = Setup::new().backend_with("web-01", a.address, "max_connections: 4");
    let setup = setup.backend_with("web-02", b.address, "max_connections: 4").setting(PROBED);
    let setup = setup.setting(&format!("backups: {{ web-09: {{ address: \"{}\", max_connections: 1 }} }}", c.address));
    let balancer = machine.start(setup);
    up(&balancer);
    balancer.await_state("/services/web/backends/web-09/state", "up");
    let held: Vec<_> = (0..6).filter_map(|_| admitted(balancer.address())).collect();
    assert_eq!(held.len(), 6);
    assert_eq!(balancer.metric("balancer_survivable_failures"), 0.0);
    let text = done(&balancer, &["whatif", "web/web-02"]);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["web-01", "3", "4", "4", "4"]), "{text}");
    assert!(rows.contains(&vec!["web-09", "(backup)", "0", "1", "1", "1"]), "{text}");
    assert!(text.contains("1 session would find no place now"), "{text}");
    assert_eq!(state(&balancer, "web-02"), "up", "on paper only");

    // For real: nobody comes, so nobody is refused.
    let text = done(&balancer, &["drill", "web/web-02", "--for", "1s"]);
    assert!(text.contains("web/web-02 was out for 1s") && text.contains("nobody was refused"), "{text}");
    assert_eq!(state(&balancer, "web-02"), "up");
    // A second time clients come, and it ends with the first one refused.
    let (code, out, err) = std::thread::scope(|scope| {
        let drill = scope.spawn(|| balancer.command(&["drill", "web/web-02", "--for", "1h"]));
        balancer.await_state("/services/web/backends/web-02/state", "drained");
        let mut more = Vec::new();
        while let Some(client) = admitted(balancer.address()) {
            more.push(client);
            assert!(more.len() < 10, "there are no places for so many");
        }
        drill.join().expect("the drill")
    });
    assert_eq!(code, Some(1), "{out}");
    assert!(err.contains("refused while web/web-02 was out"), "{err}");
    assert!(out.contains("web/web-02 is back"), "{out}");
    in_order(
        &story(&balancer),
        &[
            ("drill", "web-02"),
            ("lease_ended", "the drill by root is over"),
            ("drill", ""),
            ("lease_ended", "drill aborted"),
        ],
    );
    drop(held);
    balancer.stop();
}

#[test]
fn a_drill_ends_whatever_becomes_of_who_began_it() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let mut balancer = machine.start(two(&a, &b));
    up(&balancer);
    let drill = |balancer: &Balancer, length: &str| {
        let socket = balancer.file().with_file_name("admin.sock");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.args(["drill", "web/web-02", "--for", length, "--socket"]).arg(socket);
        let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
        let child = Kills(child.expect("the drill"));
        balancer.await_state("/services/web/backends/web-02/state", "drained");
        child
    };
    // Ctrl-C brings it back at once, and so does a session that is lost.
    for signal in [Signal::INT, Signal::HUP] {
        let mut child = drill(&balancer, "1h");
        child.process().signal(signal);
        assert!(child.wait(PATIENCE).0.success());
        balancer.await_state("/services/web/backends/web-02/state", "up");
    }
    // It is killed: the time does it.
    drill(&balancer, "1s").kill();
    balancer.await_state("/services/web/backends/web-02/state", "up");
    // The balancer dies: the next one puts it back.
    let _child = drill(&balancer, "1h");
    let kept = balancer.file().with_file_name("state/leases.json");
    wait_until("it is on disk", PATIENCE, || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("drill")));
    balancer.die_and_start_again();
    balancer.await_state("/services/web/backends/web-02/state", "up");
    balancer.await_logged("the drill with backend web-02 ended with the process");
    balancer.stop();
}

#[test]
fn the_timeline_is_there_when_the_process_is_not() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Port::refusing());
    let setup = Setup::new().backend("web-01", a.address).backend("web-02", b.address).setting(PROBED);
    let state = setup.directory().join("state");
    let balancer = machine.start(setup);
    balancer.await_state("/services/web/backends/web-02/state", "down");
    let program = env!("CARGO_BIN_EXE_balancer");
    let file = balancer.file();
    let on_disk = || balancer.command(&["timeline", "--state", state.to_str().expect("a path")]).1;
    wait_until("it is on disk", PATIENCE, || on_disk().contains("web-02"));
    balancer.process().signal(Signal::KILL);
    wait_until("it is dead", PATIENCE, || !balancer.process().is_alive());
    let read = |arguments: &[&str]| {
        let output = std::process::Command::new(program).arg("timeline").args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (String::from_utf8(output.stdout).expect("text"), said)
    };
    let (text, said) = read(&["--config", file.to_str().expect("a path")]);
    assert!(said.contains("no balancer at ") && said.contains("this is what is on disk in "), "{said}");
    assert!(text.contains("backend web-02") && text.contains("starting -> down"), "{text}");
    let (page, _) = read(&["--markdown", "--state", state.to_str().expect("a path")]);
    assert!(page.contains("| web | ") && page.contains("## Who changed what"), "{page}");
    assert!(read(&["--since", "0s", "--state", state.to_str().expect("a path")]).0.contains("nothing has happened"));
}

#[test]
fn killed_at_any_moment_it_leaves_a_state_that_can_be_read() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = two(&a, &b);
    let state = setup.directory().join("state");
    let mut balancer = machine.start(setup);
    let mut random = fastrand::Rng::with_seed(seed());
    let mut last = 0;
    for _ in 0..100 {
        let socket = balancer.file().with_file_name("admin.sock");
        let writer = std::thread::spawn(move || {
            for number in last + 1.. {
                let body = format!(
                    r#"{{ "backend": "web/web-02", "for": "1h", "reason": "number {number}", "force": true }}"#
                );
                if !post(&socket, "/v1/drain", &body).is_ok_and(|answer| answer.contains("message")) {
                    return number - 1;
                }
            }
            0
        });
        std::thread::sleep(Duration::from_micros(random.u64(0..30_000)));
        balancer.die_and_start_again();
        last = writer.join().expect("the writer");
        if last == 0 {
            continue;
        }
        // What was answered was on disk before; what was under way may be, too.
        let reason = balancer.status().text("/services/web/backends/web-02/drain/reason");
        let found: u64 = reason.strip_prefix("number ").and_then(|number| number.parse().ok()).expect("a number");
        assert!((last..=last + 1).contains(&found), "{found} is known, {last} was answered");
        let (code, out, err) = balancer.command(&["timeline", "--state", state.to_str().expect("a path")]);
        assert_eq!(code, Some(0), "{err}");
        let told = |number: u64| [";", " (by"].iter().any(|end| out.contains(&format!(": number {number}{end}")));
        assert!(last < 2 || told(last - 1), "more than the last event is missing: {out}");
        last = found;
    }
    assert!(last > 100, "{last} drains in all");
    balancer.stop();
}

#[test]
fn without_a_state_directory_it_says_so_once_and_works() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = two(&a, &b);
    let directory = setup.directory().join("closed");
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o500)).expect("its mode");
    std::fs::set_permissions(setup.directory(), std::fs::Permissions::from_mode(0o777)).expect("its mode");
    let setup = setup.process(&format!("state: {}", directory.display())).run_as(65534);
    let balancer = machine.start(setup);
    up(&balancer);
    balancer.await_logged("drains and the timeline are kept in memory");
    let said = done(&balancer, &["drain", "web/web-02", "--for", "1s"]);
    assert!(said.contains("a restart would forget it"), "{said}");
    balancer.await_state("/services/web/backends/web-02/state", "up");
    in_order(&story(&balancer), &[("start", ""), ("drain", ""), ("lease_ended", "")]);
    assert_eq!(balancer.logged("are kept in memory"), 1);
    balancer.stop();
}

#[test]
fn what_clients_suffer_is_in_the_timeline_with_their_number() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = Setup::new().backend_with("web-01", a.address, "max_connections: 1");
    let setup = setup.setting(&format!("backups: {{ web-09: {{ address: \"{}\", max_connections: 1 }} }}", b.address));
    let balancer = machine.start(setup);
    let held = (balancer.connect(), balancer.connect());
    [&held.0, &held.1].into_iter().for_each(exchange);
    for _ in 0..5 {
        assert!(admitted(balancer.address()).is_none(), "there is no place");
    }
    balancer.await_refused("backend_limit", 5);
    let told = || story(&balancer).iter().filter(|line| line.starts_with("limit ")).count();
    wait_until("it is told", PATIENCE, || told() > 0);
    in_order(
        &story(&balancer),
        &[("backup", "web-09 serves what the backends cannot carry"), ("limit", "backend_limit")],
    );
    assert!(told() <= 2, "not once a client");
    drop(held);
    let file = balancer.file().with_file_name("state");
    balancer.process().signal(Signal::TERM);
    wait_until("it has stopped", PATIENCE, || !balancer.process().is_alive());
    let events = balancer.command(&["timeline", "--json", "--state", file.to_str().expect("a path")]).1;
    let json: Value = serde_json::from_str(&events).expect("JSON");
    let counts = json["events"].as_array().expect("events").iter().filter_map(|event| event["count"].as_u64());
    assert_eq!(counts.sum::<u64>(), 5, "{events}");
}

#[test]
fn who_is_refused_by_a_quiet_service_is_in_the_timeline_also_while_a_busy_one_refuses_many() {
    let machine = Machine::shared();
    let gone = Port::refusing();
    let setup = Setup::new().workers(1).backend("a", gone.address).service("quiet").backend("a", gone.address);
    let balancer = machine.start(setup);
    let (busy, quiet) = (balancer.address(), balancer.address_of("quiet"));
    assert!(admitted(busy).is_none());
    // Of those whom a worker refuses within a second it reports the first.
    assert!(admitted(quiet).is_none());
    let told = || {
        let json: Value = serde_json::from_str(&done(&balancer, &["timeline", "--json"])).expect("JSON");
        let events = json["events"].as_array().expect("events");
        events.iter().any(|event| event["service"] == "quiet" && event["count"] == 1)
    };
    wait_until("the quiet one's client is told, too", PATIENCE, || admitted(busy).is_none() && told());
    balancer.stop();
}
