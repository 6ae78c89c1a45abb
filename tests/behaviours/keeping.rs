//! What the state directory keeps: also what happens at a start, on disks that can do less, for one balancer at a time.
//!
//! covers: src/control/journal, src/control/store, src/observe/timeline

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::maintenance::{PROBED, done, in_order, story, two, up};
use crate::harness::{
    Backend, Balancer, Disk, Machine, PATIENCE, Port, Setup, Took, admitted, assert_ends_with_reset, assert_within,
    connect, exchange, free_port, post, wait_until,
};

/// Holds web-02 out until this process ends, or until an hour is over.
fn drill(balancer: &Balancer) {
    let body = r#"{ "backend": "web/web-02", "for": "1h", "abort_if_refused": 9 }"#;
    let answer = post(&balancer.socket(), "/v1/drain", body).expect("an answer");
    assert!(answer.contains("is drained until"), "{answer}");
}

/// The timeline's lines in the file, whoever runs.
fn on_disk(balancer: &Balancer) -> String {
    let state = balancer.file().with_file_name("state");
    balancer.command(&["timeline", "--state", state.to_str().expect("a path")]).1
}

/// Waits until it is drained.
fn drained(balancer: &Balancer) {
    balancer.await_state("/services/web/backends/web-02/state", "drained");
}

/// The names of the removed backends that are watched, oldest first.
fn orphans(balancer: &Balancer) -> Vec<String> {
    let status: Value = serde_json::from_str(&balancer.get("/v1/status")).expect("JSON");
    let orphans = status["orphans"].as_array().expect("orphans").iter();
    orphans.map(|orphan| orphan["backend"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_happens_at_a_start_is_on_disk_like_everything_else() {
    const ENDED: &str = "the drill with backend web-02 ended with the process";
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let mut balancer = machine.start(two(&a, &b));
    up(&balancer);
    drill(&balancer);
    balancer.die_and_start_again();
    up(&balancer);
    wait_until("the file has it", PATIENCE, || on_disk(&balancer).contains(ENDED));
    // A lease that goes on is told again, too.
    done(&balancer, &["drain", "web/web-02", "--for", "1h", "--reason", "disk"]);
    for _ in 0..2 {
        balancer.die_and_start_again();
    }
    wait_until("the file has it", PATIENCE, || on_disk(&balancer).matches("starting -> drained").count() == 2);
    in_order(&story(&balancer), &[("drill", ""), ("lease_ended", ENDED), ("start", ""), ("drain", ""), ("start", "")]);
    balancer.stop();
}

#[test]
fn a_second_balancer_takes_nothing_from_the_one_that_has_the_state_directory() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let first = machine.start(two(&a, &b));
    up(&first);
    done(&first, &["drain", "web/web-02", "--for", "1h"]);
    let state = first.file().with_file_name("state");
    let second = || machine.start(two(&a, &b).process(&format!("state: {}", state.display())));
    let other = second();
    other.await_logged("is in use by another balancer");
    up(&other);
    other.stop();
    // Nor does it put a file aside that it does not understand.
    let leases = state.join("leases.json");
    fs::write(&leases, "of another version").expect("writing");
    let other = second();
    up(&other);
    assert_eq!(fs::read_to_string(&leases).expect("it is still there"), "of another version");
    assert!(!state.join("leases.unreadable").exists());
    other.stop();
    drained(&first);
    first.stop();
}

#[test]
fn without_room_for_the_timeline_drains_are_kept_all_the_same() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = two(&a, &b);
    let disk = Disk::mount(setup.directory().join("disk"), 1 << 20);
    let mut balancer = machine.start(setup.process(&format!("state: {}", disk.file("state").display())));
    up(&balancer);
    let said = done(&balancer, &["drain", "web/web-02", "--for", "1h"]);
    assert!(!said.contains("would forget"), "{said}");
    let line = balancer.log_line("state: ").expect("it says so");
    assert!(line.contains("No space left") && line.contains("the timeline is kept in memory"), "{line}");
    assert!(!line.contains("drains") && !line.contains("writable"), "what is lost, and the remedy: {line}");
    balancer.die_and_start_again();
    drained(&balancer);
    balancer.stop();
}

#[test]
fn a_file_system_that_cannot_allocate_keeps_everything() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let setup = two(&a, &b);
    let disk = Disk::without_fallocate(setup.directory().join("state"));
    let mut balancer = machine.start(setup);
    up(&balancer);
    done(&balancer, &["drain", "web/web-02", "--for", "1h"]);
    wait_until("the file has it", PATIENCE, || on_disk(&balancer).contains("up -> drained"));
    assert_eq!(fs::metadata(disk.file("timeline")).expect("the file").len(), 4 << 20, "its room is taken");
    balancer.die_and_start_again();
    drained(&balancer);
    in_order(&story(&balancer), &[("start", ""), ("drain", "web-02"), ("start", "")]);
    assert_eq!(balancer.logged("kept in memory"), 0);
    balancer.stop();
}

#[test]
fn what_could_not_be_written_is_written_when_the_disk_takes_it_again() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let mut balancer = machine.start(two(&a, &b));
    up(&balancer);
    let state = balancer.file().with_file_name("state");
    // Where a directory stands, no file can be made.
    let stone = state.join("leases.new");
    fs::create_dir(&stone).expect("a directory");
    let said = done(&balancer, &["drain", "web/web-02", "--for", "1h"]);
    assert!(said.contains("a restart would forget it"), "{said}");
    fs::remove_dir(&stone).expect("removing");
    let leases = || fs::read_to_string(state.join("leases.json")).unwrap_or_default();
    wait_until("it is written", PATIENCE, || leases().contains("web-02"));
    assert_eq!(balancer.logged("a restart would forget drains and orphans"), 1);
    balancer.die_and_start_again();
    drained(&balancer);
    balancer.stop();
}

#[test]
fn a_disk_that_hangs_holds_up_neither_an_upgrade_nor_a_stop() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let mut balancer = machine.start(two(&a, &b));
    up(&balancer);
    let address = balancer.address();
    let client = connect(address);
    exchange(&client);
    let hangs = |balancer: &Balancer| ["leases", "timeline"].map(|thread| balancer.process().hold(thread));
    let held = hangs(&balancer);
    let before = balancer.upgrade();
    let sessions = balancer.number("/services/web/total");
    (0..40).for_each(|_| exchange(&connect(address)));
    assert_eq!(balancer.number("/services/web/total") - sessions, 40, "the process before takes clients still");
    exchange(&client);
    drop((client, held));
    wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    up(&balancer);
    balancer.await_no_session();
    let _held = hangs(&balancer);
    let process = balancer.process();
    process.signal(Signal::TERM);
    wait_until("it has ended", PATIENCE, || !process.is_alive());
}

#[test]
fn who_does_not_wait_for_a_disk_that_hangs_ends_a_stop_with_a_second_signal() {
    let machine = Machine::shared();
    for second in [Signal::TERM, Signal::INT] {
        assert_within(Duration::from_millis(150), || [end_a_stop_with(&machine, second)]);
    }
}

/// How long it took to end from the second signal on.
#[track_caller]
fn end_a_stop_with(machine: &Machine, signal: Signal) -> Took {
    let (a, b) = (Backend::echo(), Backend::echo());
    let mut balancer = machine.start(two(&a, &b));
    up(&balancer);
    let process = balancer.process();
    let held = ["leases", "timeline"].map(|thread| process.hold(thread));
    balancer.signal(Signal::TERM);
    wait_until("nothing but the disks is waited for", PATIENCE, || !balancer.socket().exists());
    balancer.await_logged("stopped");
    let mut watch = balancer.stopwatch();
    balancer.signal(signal);
    wait_until("it has ended", PATIENCE, || !process.is_alive());
    let took = watch.took();
    // Whoever holds a thread is told first.
    drop(held);
    assert_eq!(balancer.wait(PATIENCE).0, Some(1));
    took
}

#[test]
fn an_upgrade_keeps_drains_also_where_no_disk_does_and_where_the_directory_is_another_one() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let mut balancer = machine.start(two(&a, &b).process("state: /proc/nowhere"));
    up(&balancer);
    let said = done(&balancer, &["drain", "web/web-02", "--for", "1h", "--reason", "disk swap"]);
    assert!(said.contains("a restart would forget it"), "{said}");
    balancer.upgrade();
    drained(&balancer);
    for directory in ["first", "second"] {
        let now = balancer.configuration();
        let before = now.lines().find(|line| line.starts_with("state: ")).expect("a state directory");
        let path = balancer.socket().with_file_name(directory);
        balancer.edit(before, &format!("state: {}", path.display()));
        balancer.upgrade();
        drained(&balancer);
        let kept = || fs::read_to_string(path.join("leases.json")).is_ok_and(|text| text.contains("disk swap"));
        wait_until("it is in the new directory", PATIENCE, kept);
    }
    assert!(balancer.status().text("/services/web/backends/web-02/reason").ends_with("disk swap"));
    balancer.stop();
}

#[test]
fn a_lease_ends_once_also_where_the_process_before_has_sessions_still() {
    const AGAIN: &str = "drained -> starting: the maintenance by root is over";
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let mut balancer = machine.start(two(&a, &b));
    up(&balancer);
    let (mut stays, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (client, name) = admitted(balancer.address()).expect("served");
        if name == "a" { &mut stays } else { &mut closed }.push(client);
    }
    done(&balancer, &["drain", "web/web-02", "--for", "3s", "--close-after", "2s"]);
    let before = balancer.upgrade();
    // What is due before is done by the process that has the session.
    assert_eq!(closed.len(), 1);
    closed.iter().for_each(assert_ends_with_reset);
    up(&balancer);
    // The process before has the same clock.
    std::thread::sleep(Duration::from_millis(300));
    stays.iter().for_each(exchange);
    drop(stays);
    wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    assert_eq!(balancer.logged(AGAIN), 1);
    balancer.stop();
}

#[test]
fn servers_removed_after_a_restart_are_watched_also_where_there_are_many_of_before() {
    const MOST: usize = 64;
    let machine = Machine::shared();
    let a = Backend::echo();
    let gone: Vec<_> = (0..=MOST).map(|_| Port::refusing()).collect();
    let line = |number: usize| format!("      gone-{number}: \"{}\"\n", gone[number].address);
    let setup = Setup::new().listen(format!("127.0.0.1:{}", free_port())).process("reload: { guard: 0% }");
    let setup = setup.backend("web-01", a.address).setting(PROBED);
    let setup = (0..=MOST).fold(setup, |setup, n| setup.backend(&format!("gone-{n}"), gone[n].address));
    let mut balancer = machine.start(setup);
    balancer.await_state("/services/web/backends/web-01/state", "up");
    (0..MOST).for_each(|number| balancer.edit(&line(number), ""));
    balancer.reload();
    assert_eq!(orphans(&balancer).len(), MOST);
    let file = balancer.file().with_file_name("state").join("leases.json");
    wait_until("they are on disk", PATIENCE, || {
        fs::read_to_string(&file).is_ok_and(|text| (0..MOST).all(|n| text.contains(&format!("\"gone-{n}\""))))
    });
    balancer.die_and_start_again();
    assert_eq!(orphans(&balancer).len(), MOST);
    balancer.edit(&line(MOST), "");
    balancer.reload();
    let orphans = orphans(&balancer);
    assert_eq!((orphans.len(), orphans.last().map(String::as_str)), (MOST, Some("gone-64")), "{orphans:?}");
    balancer.stop();
}
