//! A reload applies all of a file or nothing, and costs no connection.
//!
//! covers: src/cli/check, src/cli/reload, src/config, src/duration, src/control/reload, src/forward/listener
//! kernel features: multishot_accept

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Acceptor, Backend, Balancer, Load, Machine, PATIENCE, Port, Setup, connect, exchange, free_port, metric,
    read_to_end, served_by, wait_until,
};

const GENERATION: &str = "/config/generation";

/// What came of the last reload, and what is said of it.
fn last(balancer: &Balancer) -> (String, String) {
    let status: Value = serde_json::from_str(&balancer.get("/v1/status")).expect("JSON");
    let text = |key: &str| status["config"]["last_reload"][key].as_str().unwrap_or_default().to_owned();
    (text("result"), text("message"))
}

/// Reloads by a signal, and waits until that has come to something.
fn hang_up(balancer: &Balancer) {
    let reloads = balancer.metric("balancer_config_reloads_total");
    balancer.signal(Signal::HUP);
    wait_until("the reload has ended", PATIENCE, || balancer.metric("balancer_config_reloads_total") > reloads);
}

fn line(name: &str, address: SocketAddr) -> String {
    format!("      {name}: \"{address}\"\n")
}

#[test]
fn a_hundred_reloads_under_load_cost_no_connection() {
    let machine = Machine::shared();
    let (a, b, c) = (Backend::echo(), Backend::echo(), Backend::echo());
    let (port, other) = (free_port(), free_port());
    let setup = Setup::new().process("reload: { guard: 0% }").backend("a", a.address).backend("b", b.address);
    let balancer = machine.start(setup.listen_on(&[&format!("127.0.0.1:{port}")]));
    let plain = balancer.configuration();
    // What comes and goes: a backend, weights, the way to balance, deadlines, a second listener, a second service.
    let more = plain
        .replace(&line("b", b.address), &(line("b", b.address) + &line("c", c.address)))
        .replace(&line("a", a.address), &format!("      a: {{ address: \"{}\", weight: 3 }}\n", a.address))
        .replace("probe: none", "probe: tcp")
        .replace(&format!("[\"127.0.0.1:{port}\"]"), &format!("[\"127.0.0.1:{port}\", \"127.0.0.1:{other}\"]"))
        + &format!(
            "    balance: least_connections\n    timeouts: {{ idle: 5m }}\n  extra:\n    listen: 127.0.0.1:0\n    backends:\n{}",
            line("a", a.address)
        );
    let load = Load::start(balancer.address(), 8, 50);
    load.go_on(200);
    for round in 0..100 {
        if round % 2 == 0 {
            balancer.configure(if round % 4 == 0 { &more } else { &plain });
        }
        balancer.reload();
        load.go_on(20);
    }
    let served = load.stop();
    assert!(served > 2000, "{served}");
    assert_eq!(balancer.number(GENERATION), 101);
    balancer.await_no_session();
    let status = balancer.status();
    assert_eq!(status.sum("/services/web/refused_by"), 0);
    assert_eq!(status.number("/services/web/total"), served + 50);
    balancer.stop();
}

#[test]
fn a_wrong_a_missing_and_a_cut_file_change_nothing_and_the_next_good_one_works() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let balancer = machine.start(Setup::new().backend("a", a.address).backend("b", b.address));
    let (good, file) = (balancer.configuration(), balancer.file());
    let untouched = |result: &str, why: &str| {
        assert_eq!(balancer.number(GENERATION), 1);
        let (last, message) = last(&balancer);
        assert_eq!(last, result, "{message}");
        assert!(message.contains(why), "{message} instead of {why}");
        assert_eq!(served_by(balancer.address()), "a");
        assert_eq!(served_by(balancer.address()), "b");
    };

    balancer.edit("probe: none", "porbe: none");
    let why = balancer.reload_refused();
    let place = format!("{}:10:15: `health` has no key `porbe`; did you mean `probe`?", file.display());
    assert!(
        why.contains(&place)
            && why.contains("\n        health: { porbe: none, ")
            && why.contains("\n                  ^\n"),
        "{why}"
    );
    untouched("invalid", &place);
    assert_eq!(balancer.status().text("/config/on_disk"), "changed");
    hang_up(&balancer);
    balancer.await_logged("reload invalid: ");
    balancer.await_logged("nothing has changed");

    std::fs::rename(&file, file.with_file_name("balancer.yml")).expect("renaming");
    let why = balancer.reload_refused();
    assert!(why.contains("no such file; beside it is `balancer.yml`"), "{why}");
    assert!(why.contains("put a readable one at ") && !why.contains("$BALANCER_CONFIG"), "{why}");
    untouched("invalid", "no such file");
    assert_eq!(balancer.status().text("/config/on_disk"), "missing");

    // Wherever it is cut: it is no configuration, or trips the guard, or has lost settings that it can do without.
    let keeps = good.find("      b: ").expect("the second backend");
    for length in (0..keeps).step_by(7) {
        balancer.configure(&good[..length]);
        let why = balancer.reload_refused();
        assert!(why.contains("nothing has changed: "), "{length}: {why}");
    }
    untouched("invalid", "");

    let better = good.replace(&line("b", b.address), "");
    balancer.configure(&better);
    assert_eq!(
        balancer.reload(),
        format!("web: backend b ({}) removed; capacity 2 → 1\nreloaded: generation 2\n", b.address)
    );
    assert_eq!(last(&balancer), ("applied".into(), String::new()));
    assert_eq!(balancer.status().text("/config/on_disk"), "same");
    assert_eq!((served_by(balancer.address()), served_by(balancer.address())), ("a".into(), "a".into()));
    let reloads = |result| balancer.metric(&format!("balancer_config_reloads_total{{result=\"{result}\"}}")) as u64;
    assert_eq!((reloads("applied"), reloads("refused"), reloads("failed")), (1, 0, 0));
    assert!(reloads("invalid") > 3);
    balancer.stop();
}

#[test]
fn a_listener_that_cannot_bind_leaves_everything_as_it_was() {
    let machine = Machine::shared();
    // On addresses where no other test's connection can have the port meanwhile.
    let port_of = |address: &str| TcpListener::bind(address).expect("a port");
    let (a, b, taken) = (Backend::named("a"), Backend::named("b"), port_of("127.0.0.78:0"));
    let setup = Setup::new();
    let socket = setup.directory().join("web.sock");
    let balancer = machine.start(setup.backend("a", a.address));
    let (good, free) = (balancer.configuration(), port_of("127.0.0.79:0").local_addr().expect("an address"));
    let taken_address = taken.local_addr().expect("an address");
    let extra = |listen: &str| format!("  extra:\n    listen: [{listen}]\n    backends:\n{}", line("b", b.address));
    let listen = format!("\"{free}\", \"unix:{}\", \"{taken_address}\"", socket.display());
    balancer.configure(&format!("{}{}", good.replace(&line("a", a.address), &line("b", b.address)), extra(&listen)));
    let (code, _, why) = balancer.command(&["reload", "--force"]);
    assert_eq!(code, Some(1));
    assert!(why.contains(&format!("service extra: cannot listen on {taken_address}: Address")), "{why}");
    assert_eq!(last(&balancer).0, "failed");
    assert_eq!(balancer.number(GENERATION), 1);
    assert_eq!(served_by(balancer.address()), "a");
    assert!(TcpStream::connect(free).is_err(), "a listener of a reload that failed is left");
    assert!(!socket.exists(), "a socket of a reload that failed is left");
    drop(taken);
    let (code, _, why) = balancer.command(&["reload", "--force"]);
    assert_eq!(code, Some(0), "{why}");
    assert_eq!((served_by(balancer.address()), served_by(taken_address)), ("b".into(), "b".into()));
    assert!(socket.exists());
    balancer.stop();
    assert!(!socket.exists());
}

#[test]
fn a_storm_of_good_and_bad_reloads_leaves_the_last_good_one_and_nothing_else() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::new().process("reload: { guard: 0% }").backend("a", a.address).backend("b", b.address);
    let balancer = machine.start(setup);
    let good = balancer.configuration();
    let texts = |round: usize| match round % 5 {
        0 => good.replace(&line("b", b.address), ""),
        1 => good.replace("services:", "servcies:"),
        2 => format!("{good}  extra:\n    listen: 127.0.0.1:0\n    backends:\n{}", line("a", a.address)),
        3 => good[..good.len() / 2].to_owned(),
        _ => good.clone(),
    };
    let settled = || {
        wait_until("nothing is leaving", PATIENCE, || balancer.status().listen("extra").is_empty());
        balancer.await_no_session();
    };
    // The first rounds make what is kept: pools, pages of the allocator.
    for round in 0..20 {
        balancer.configure(&texts(round));
        balancer.command(&["reload"]);
    }
    settled();
    let process = balancer.process();
    let look = || (process.threads().len(), process.descriptors());
    let (before, resident) = (look(), process.resident());
    for round in 0..200 {
        balancer.configure(&texts(round));
        if round % 3 == 0 {
            balancer.signal(Signal::HUP);
        } else {
            balancer.command(&["reload"]);
        }
        if round % 10 == 0 {
            served_by(balancer.address());
        }
    }
    hang_up(&balancer);
    settled();
    assert_eq!((served_by(balancer.address()), served_by(balancer.address())).0.len(), 1);
    assert_eq!(balancer.status().text("/config/on_disk"), "same");
    // What the first rounds had removed may have been open still when they were counted.
    wait_until(&format!("no more than {before:?} threads and descriptors"), PATIENCE, || {
        let (threads, descriptors) = look();
        threads <= before.0 && descriptors <= before.1
    });
    let grown = process.resident().saturating_sub(resident);
    assert!(grown < 2 << 20, "{grown} bytes more are resident");
    balancer.stop();
}

#[test]
fn a_removed_backends_sessions_finish_and_its_series_leave_with_the_last_of_them() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Acceptor::new());
    let balancer = machine.start(Setup::new().backend("a", a.address).backend("b", b.address));
    // It has been given to a before the next one comes.
    exchange(&balancer.connect());
    let (client, mut at_b) = balancer.session(&b);
    balancer.edit(&line("b", b.address), "");
    let changes = balancer.reload();
    assert!(
        changes.starts_with(&format!("web: backend b ({}) removed (1 session will finish)", b.address)),
        "{changes}"
    );
    let series = || metric(&balancer.get("/metrics"), "balancer_backend_sessions{service=\"web\",backend=\"b\"}");
    assert_eq!(series(), Some(1.0));
    assert_eq!(balancer.status().text("/leaving/0/backend"), "b");
    let (_, page, _) = balancer.command(&["status"]);
    assert!(page.contains(&format!("leaving: web/b ({}), 1 session open", b.address)), "{page}");
    let total = balancer.number("/services/web/total");
    at_b.write_all(b"still here").expect("the session goes on");
    drop(at_b);
    assert_eq!(read_to_end(&client).0, b"still here");
    drop(client);
    wait_until("its series are gone", PATIENCE, || series().is_none());
    assert_eq!(balancer.number("/services/web/total"), total, "a counter never goes back");
    assert!(!balancer.get("/metrics").contains("backend=\"b\""));
    balancer.stop();
}

#[test]
fn a_removed_service_serves_those_who_have_come_and_nobody_else() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = Setup::new().backend("a", a.address).service("db").backend("b", b.address);
    let balancer = machine.start(setup);
    let address = balancer.address_of("db");
    let open = connect(address);
    exchange(&open);
    let whole = balancer.configuration();
    let cut = whole.find("  db:").expect("the second service");
    balancer.configure(&whole[..cut]);
    let why = balancer.reload_refused();
    assert!(why.contains("db would keep 0 of its 1 backend; reload.guard wants 50% kept"), "{why}");
    assert!(why.contains("`balancer reload --force`"), "{why}");
    hang_up(&balancer);
    assert_eq!((last(&balancer).0, balancer.number(GENERATION)), ("refused".into(), 1));
    let (code, changes, _) = balancer.command(&["reload", "--force"]);
    assert_eq!((code, changes.lines().next()), (Some(0), Some("db: removed (1 session will finish)")));
    wait_until("nobody is let in", PATIENCE, || TcpStream::connect(address).is_err());
    exchange(&open);
    assert!(balancer.get("/metrics").contains("balancer_sessions{service=\"db\"} 1\n"));
    // It may come back before they have left, and knows them.
    balancer.configure(&whole.replace(
        "    listen: \"127.0.0.1:0\"\n    backends:\n      b:",
        &format!("    listen: \"{address}\"\n    backends:\n      b:"),
    ));
    balancer.reload();
    balancer.await_number("/services/db/connections", 1);
    exchange(&connect(balancer.address_of("db")));
    drop(open);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_new_backend_is_probed_before_it_serves_and_known_ones_keep_their_state() {
    let machine = Machine::shared();
    let (a, dead, new) = (Backend::named("a"), Port::refusing(), Port::refusing());
    let health = "health: { interval: 100ms, timeout: 80ms, rise: 2, fall: 2 }";
    let setup = Setup::new().backend("a", a.address).backend("dead", dead.address).setting(health);
    let balancer = machine.start(setup);
    let state = |name: &str| format!("/services/web/backends/{name}/state");
    balancer.await_state(&state("a"), "up");
    balancer.await_state(&state("dead"), "down");
    let since = balancer.status().text("/services/web/backends/dead/since");
    let (served, probes) = (served_by(balancer.address()), balancer.probes("a", "passed"));
    assert_eq!(served, "a");
    balancer.edit(&line("dead", dead.address), &(line("dead", dead.address) + &line("new", new.address)));
    balancer.reload();
    balancer.await_state(&state("new"), "down");
    assert_eq!(balancer.status().text("/services/web/backends/new/reason"), "first probe failed: connect refused");
    assert_eq!(balancer.status().text("/services/web/backends/dead/since"), since, "nothing has happened to it");
    assert!(balancer.of_backend("a", "total") >= 1 && balancer.probes("a", "passed") >= probes);
    assert_eq!(balancer.of_backend("new", "failures"), 0, "no client was given to it");
    let _now = Backend::named_on(new.listen(), "new");
    balancer.await_state(&state("new"), "up");
    // The workers hear of it right after the status.
    wait_until("it serves", PATIENCE, || served_by(balancer.address()) == "new");
    let names: Vec<_> = (0..4).map(|_| served_by(balancer.address())).collect();
    assert_eq!(names.iter().filter(|name| *name == "new").count(), 2, "{names:?}");
    // Not probed any more: who is down gets its second chance, who is up stays.
    balancer.edit(health, "health: { probe: none, interval: 100ms, timeout: 80ms, passive: off }");
    balancer.reload();
    assert_eq!(balancer.status().text(&state("a")), "up");
    balancer.await_state(&state("dead"), "up");
    balancer.stop();
}

#[test]
fn an_address_may_move_to_another_service_without_a_gap() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let (one, two) = (free_port(), free_port());
    let setup = Setup::new().listen(format!("127.0.0.1:{one}")).backend("a", a.address);
    let balancer = machine.start(setup.service("db").listen(format!("127.0.0.1:{two}")).backend("b", b.address));
    let text = balancer.configuration();
    let swapped = text.replace(&one.to_string(), "ONE").replace(&two.to_string(), &one.to_string());
    balancer.configure(&swapped.replace("ONE", &two.to_string()));
    let held: Vec<_> = ["web", "db"].map(|service| balancer.address_of(service)).map(connect).into();
    balancer.reload();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!((balancer.address_of("web"), balancer.address_of("db")), (at(two), at(one)));
    assert_eq!((served_by(at(one)), served_by(at(two))), ("b".into(), "a".into()));
    drop(held);
    // From one address to all of them, and back.
    balancer.edit(&format!("127.0.0.1:{one}"), &format!("0.0.0.0:{one}"));
    balancer.reload();
    assert_eq!(served_by(at(one)), "b");
    balancer.edit(&format!("0.0.0.0:{one}"), &format!("127.0.0.1:{one}"));
    balancer.reload();
    assert_eq!(served_by(at(one)), "b");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn limits_and_deadlines_change_for_those_who_come_later() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new().backend("a", a.address).setting("max_connections: 1").setting("timeouts: { idle: 1h }");
    let balancer = machine.start(setup);
    let first = connect(balancer.address());
    exchange(&first);
    balancer.edit("max_connections: 1", "max_connections: 2");
    balancer.edit("idle: 1h", "idle: 200ms");
    balancer.reload();
    let second = connect(balancer.address());
    exchange(&second);
    balancer.await_closed("idle", 1);
    exchange(&first);
    balancer.edit("max_connections: 2", "max_connections: 1");
    balancer.reload();
    // Refused, perhaps before the connect has returned.
    drop(TcpStream::connect(balancer.address()));
    balancer.await_refused("service_limit", 1);
    exchange(&first);
    balancer.stop_after(first);
}

#[test]
fn what_only_a_new_process_can_change_is_refused_by_name() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(Setup::new().backend("a", a.address));
    balancer.edit("workers: 2", "workers: 3");
    let why = balancer.reload_refused();
    assert!(why.contains("cannot change its `workers`"), "{why}");
    assert_eq!(last(&balancer).0, "refused");
    balancer.edit("workers: 3", "workers: 2");
    assert_eq!(balancer.reload(), "nothing has changed\nreloaded: generation 2\n");
    balancer.edit("workers: 2", "workers: 2\nmax_connections: 4000000000");
    let why = balancer.reload_refused();
    assert!(why.contains("max_connections: 4000000000 sessions need more descriptors"), "{why}");
    assert_eq!(last(&balancer).0, "failed");
    balancer.stop();
}

#[test]
fn a_file_that_never_ends_does_not_hold_the_others_up() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let balancer = machine.start(Setup::new().backend("a", a.address));
    let (good, file) = (balancer.configuration(), balancer.file());
    std::fs::remove_file(&file).expect("removing");
    crate::harness::run("mkfifo", &[&file]);
    balancer.signal(Signal::HUP);
    // Meanwhile everything goes on.
    for _ in 0..20 {
        assert_eq!(served_by(balancer.address()), "a");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(balancer.status().text("/services/web/state"), "ok");
    // Whoever opens it for writing ends the wait.
    std::fs::write(&file, &good).expect("writing");
    wait_until("it was read in the end", PATIENCE, || balancer.number(GENERATION) == 2);
    balancer.stop();
}

#[test]
fn the_administration_may_move_and_answers_whoever_has_asked_for_it() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let setup = Setup::new();
    let (old, new) = (setup.directory().join("admin.sock"), setup.directory().join("moved.sock"));
    let balancer = machine.start(setup.backend("a", a.address));
    let port = free_port();
    let (before, after) =
        (format!("socket: {}", old.display()), format!("socket: {}, http: 127.0.0.1:{port}", new.display()));
    balancer.edit(&before, &after);
    let changes = balancer.reload();
    let lines: Vec<_> = changes.lines().collect();
    assert_eq!(lines[0], format!("admin.socket {} → {}", old.display(), new.display()));
    assert_eq!(lines[1], format!("admin.http none → 127.0.0.1:{port}"));
    wait_until("the old socket is gone", PATIENCE, || !old.exists());
    let curl = |arguments: &[&str]| crate::harness::run("curl", &[&["-sS", "--max-time", "5"], arguments].concat());
    let at_new = new.to_str().expect("UTF-8");
    assert_eq!(curl(&["--unix-socket", at_new, "http://balancer/healthz"]), "ok\n");
    assert_eq!(curl(&[&format!("http://127.0.0.1:{port}/readyz")]), "ok\n");
    // A place that cannot be had leaves the administration where it is.
    balancer.edit(&format!("{port}"), &format!("{}", a.address.port()));
    let (code, _, why) = balancer.command_at(&new, &["reload"]);
    assert_eq!(code, Some(1));
    assert!(why.contains(&format!("admin.http: cannot listen on {}", a.address)), "{why}");
    assert_eq!(curl(&[&format!("http://127.0.0.1:{port}/healthz")]), "ok\n");
    // Back again, and the TCP listener goes.
    balancer
        .configure(&balancer.configuration().replace(&format!(", http: {}", a.address), "").replace("moved", "admin"));
    balancer.signal(Signal::HUP);
    wait_until("it answers at its old place", PATIENCE, || old.exists() && !new.exists());
    wait_until("nobody listens on TCP", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(balancer.number(GENERATION), 3);
    assert_eq!(served_by(balancer.address()), "a");
    balancer.await_no_session();
    balancer.stop();
    assert!(!old.exists());
}

#[test]
fn the_access_log_may_be_switched_on_to_another_file_and_off() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let setup = Setup::new();
    let files = ["one.log", "two.log"].map(|name| setup.directory().join(name));
    let balancer = machine.start(setup.process("access_log: off").backend("a", a.address));
    let session = || {
        served_by(balancer.address());
        balancer.await_no_session();
    };
    let lines = |file: &std::path::Path| std::fs::read_to_string(file).unwrap_or_default().lines().count();
    session();
    let [one, two] = files.each_ref().map(|file| file.display().to_string());
    balancer.edit("access_log: off", &format!("access_log: {one}"));
    assert!(balancer.reload().starts_with(&format!("access_log off → {one}\n")));
    session();
    session();
    balancer.edit(&one, &two);
    balancer.reload();
    session();
    balancer.edit(&two, "/does/not/exist/log");
    let why = balancer.reload_refused();
    assert!(why.contains("access_log: cannot open /does/not/exist/log: "), "{why}");
    session();
    balancer.edit("/does/not/exist/log", "off");
    balancer.reload();
    session();
    wait_until("every line is where it belongs", PATIENCE, || (lines(&files[0]), lines(&files[1])) == (2, 2));
    assert_eq!(balancer.metric("balancer_access_log_dropped_total"), 0.0);
    balancer.stop();
}
