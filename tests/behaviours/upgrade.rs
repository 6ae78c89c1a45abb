//! The running program is replaced under load: nobody is refused or cut, and a new one that fails changes nothing.
//!
//! covers: src/cli/upgrade, src/control/handover, src/control/upgrade, src/forward/listener
//! kernel features: multishot_accept

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::{
    Backend, Balancer, Load, Machine, PATIENCE, Port, Setup, connect, exchange, free_port, run, served_by, wait_until,
};

#[test]
fn five_replacements_under_load_cost_no_connection_and_old_sessions_finish_where_they_began() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = Setup::new().http().backend("a", a.address).backend("b", b.address);
    let port = free_port();
    let mut balancer = machine.start(setup.listen(format!("127.0.0.1:{port}")));
    let address = balancer.address();
    let load = Load::start(address, 8, 20);
    load.go_on(200);
    let mut held = Vec::new();
    for workers in [2, 1, 3, 2, 2] {
        let client = connect(address);
        exchange(&client);
        balancer.configure(&balancer.configuration().replacen(
            &workers_line(&balancer),
            &format!("workers: {workers}\n"),
            1,
        ));
        let before = balancer.upgrade();
        assert_eq!(balancer.number("/workers"), workers);
        load.go_on(200);
        assert!(before.is_alive(), "it has sessions still");
        exchange(&client);
        held.push((before, client));
    }
    for (before, client) in held {
        exchange(&client);
        assert!(before.is_alive());
        drop(client);
    }
    let served = load.stop();
    assert!(served > 1000, "{served}");
    let successor = balancer.process();
    balancer.wait(PATIENCE);
    assert!(successor.is_alive());
    balancer.await_no_session();
    assert_eq!(balancer.status().sum("/services/web/refused_by"), 0);
    assert!(balancer.metric("balancer_descriptors") < 80.0, "descriptors of those before are left");
    balancer.stop();
}

fn workers_line(balancer: &Balancer) -> String {
    let text = balancer.configuration();
    text.lines().next().map(|line| format!("{line}\n")).expect("the first line")
}

#[test]
fn the_successor_takes_every_listener_over_whatever_the_file_says_by_then() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup = Setup::new();
    let socket = setup.directory().join("web.sock");
    let (kept, dropped, added) = (free_port(), free_port(), free_port());
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let listen = [format!("127.0.0.1:{kept}"), format!("127.0.0.1:{dropped}"), format!("unix:{}", socket.display())];
    let setup = setup.backend("a", a.address).listen_on(&listen.each_ref().map(String::as_str));
    let mut balancer = machine.start(setup.service("any").backend("b", b.address));
    let any = balancer.address_of("any");
    let client = connect(at(dropped));
    balancer.edit(&format!("127.0.0.1:{dropped}"), &format!("127.0.0.1:{added}"));
    let before = balancer.upgrade();
    assert_eq!(balancer.address_of("any"), any, "the port that the kernel chose stays");
    for (address, name) in [(at(kept), "a"), (at(added), "a"), (any, "b")] {
        assert_eq!(served_by(address), name);
    }
    UnixStream::connect(&socket).expect("the Unix socket is served");
    wait_until("what is not listed is not served", PATIENCE, || TcpStream::connect(at(dropped)).is_err());
    drop(client);
    wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    UnixStream::connect(&socket).expect("the end of the process before leaves the socket alone");
    assert_eq!(served_by(at(kept)), "a");
    balancer.signal(Signal::USR2);
    let before = balancer.number("/pid");
    let mut pid = before;
    wait_until("a signal does the same", PATIENCE, || {
        pid = balancer.number("/pid");
        pid != before
    });
    balancer.taken_over(pid);
    assert_eq!(served_by(at(kept)), "a");
    balancer.await_no_session();
    balancer.stop();
    assert!(!socket.exists());
}

/// Replaces the program by a script.
fn install(program: &Path, script: &str) {
    let new = program.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("writing a script");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("making it executable");
    std::fs::rename(&new, program).expect("installing it");
}

#[test]
fn a_new_program_that_fails_leaves_the_old_one_serving_which_says_why() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let mut balancer = machine.start(Setup::new().copied().backend("a", a.address));
    let (pid, program) = (balancer.number("/pid"), balancer.program());
    let address = balancer.address();
    let refused = |balancer: &Balancer, why: &str| {
        let (code, out, err) = balancer.command(&["upgrade"]);
        assert_eq!((code, &*out), (Some(1), ""), "{err}");
        assert!(
            err.starts_with("error: upgrade failed, the running process keeps serving: ") && err.contains(why),
            "{err}"
        );
        balancer.await_logged("upgrade failed, this process keeps serving: ");
        assert_eq!(balancer.number("/pid"), pid);
        assert_eq!(served_by(address), "a");
    };
    let good = program.with_extension("good");
    run("cp", &[&program, &good]);
    install(&program, "echo broken >&2; exit 7");
    refused(&balancer, "ended before it was ready (exit status: 7)");
    wait_until("what it said is in the log", PATIENCE, || balancer.has_logged("broken"));
    install(&program, "kill -9 $$");
    refused(&balancer, "ended before it was ready (signal: 9 (SIGKILL))");
    std::fs::remove_file(&program).expect("removing");
    refused(&balancer, "cannot start ");

    std::fs::rename(&good, &program).expect("installing it");
    let text = balancer.configuration();
    balancer.edit("listen:", "lisetn:");
    refused(&balancer, "did you mean `listen`?");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let extra = format!(
        "  extra:\n    listen: {}\n    backends: {{ a: \"{}\" }}\n",
        taken.local_addr().expect("an address"),
        a.address
    );
    balancer.configure(&format!("{text}{extra}"));
    refused(&balancer, "service extra: cannot listen on ");
    balancer.configure(&text);
    let before = balancer.upgrade();
    wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    assert_eq!(served_by(address), "a");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn the_process_before_stops_when_told_to_and_says_no_to_everything_else() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let mut balancer = machine.start(Setup::new().process("drain: 300ms").backend("a", a.address));
    let (before_the_upgrade, address) = (connect(balancer.address()), balancer.address());
    exchange(&before_the_upgrade);
    let before = balancer.upgrade();
    before.signal(Signal::HUP);
    wait_until("a reload is refused", PATIENCE, || balancer.has_logged("this process takes no clients any more: ask"));
    before.signal(Signal::USR2);
    wait_until("an upgrade is refused", PATIENCE, || {
        balancer.has_logged("upgrade failed, this process keeps serving: this process takes no clients any more")
    });
    exchange(&before_the_upgrade);
    before.signal(Signal::TERM);
    crate::harness::assert_ends_with_reset(&before_the_upgrade);
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
    exchange(&connect(address));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn clients_who_come_during_the_change_wait_for_the_first_probes_and_are_served() {
    let machine = Machine::shared();
    let (a, gone) = (Backend::named("a"), Port::refusing());
    let health = "health: { interval: 200ms, timeout: 150ms }";
    let setup = Setup::new().backend("a", a.address).backend("gone", gone.address).setting(health);
    let mut balancer = machine.start(setup);
    for _ in 0..3 {
        let before = balancer.upgrade();
        let names: Vec<_> = (0..5).map(|_| served_by(balancer.address())).collect();
        assert_eq!(names, ["a"; 5]);
        wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    }
    assert_eq!(balancer.status().sum("/services/web/refused_by"), 0);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_client_who_comes_alone_at_any_moment_of_the_change_is_seen_by_one_of_the_two() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let mut balancer = machine.start(Setup::new().backend("a", a.address));
    // The kernel wakes one of those who accept. Nobody else comes who could wake the other.
    let load = Load::start(balancer.address(), 1, 0);
    // scripts/check.sh --long makes a thousand.
    let upgrades = std::env::var("BALANCER_UPGRADES").ok().and_then(|number| number.parse().ok()).unwrap_or(12);
    for _ in 0..upgrades {
        let before = balancer.upgrade();
        load.go_on(5);
        wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    }
    load.stop();
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_process_with_few_descriptors_left_can_be_replaced() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    // Two workers on 150 addresses: 300 sockets, and of what is held back for other things not as many are left.
    let listen: Vec<_> = (1..=150).map(|host| format!("127.0.1.{host}:0")).collect();
    let listen: Vec<_> = listen.iter().map(String::as_str).collect();
    let setup = Setup::new().listen_on(&listen).backend("a", a.address).descriptors(580, 580);
    let mut balancer = machine.start(setup);
    for _ in 0..2 {
        let before = balancer.upgrade();
        assert_eq!(served_by(balancer.address()), "a");
        balancer.await_no_session();
        wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    }
    balancer.stop();
}
