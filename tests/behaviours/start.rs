//! What the process takes for itself when it starts, and that it serves with all of it or not at all.
//!
//! covers: src/app, src/lib, src/main, src/sys/features, src/sys/mod, src/sys/process, src/sys/ring/refused

use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use balancer::sys::features::Features;
use socket2::SockRef;

use crate::harness::{Backend, Machine, Setup, exchange, wait_until};

#[test]
fn what_the_kernel_has_is_one_line_and_what_is_switched_off_is_not_used() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    for disabled in [&["multishot_accept", "big_pipes"][..], &["all"]] {
        let setup = Setup::new().variable("BALANCER_DISABLE", disabled.join(", ")).backend("a", backend.address);
        let balancer = machine.start(setup);
        assert_eq!(balancer.logged("kernel features"), 1);
        let line = balancer.log_line("kernel features used: ").expect("the features are logged");
        let (used, unused) = line.split_once("; not used: ").expect("those not used stand behind");
        let off = if disabled == ["all"] { Features::NAMES } else { disabled };
        for name in off {
            let named = |list: &str| list.split_whitespace().any(|word| word == *name);
            assert!(named(unused) && !named(used), "{name} is switched off: {line}");
        }
        exchange(&balancer.connect());
        balancer.await_no_session();
        balancer.stop();
    }
}

#[test]
fn as_many_sessions_as_the_hard_limit_of_descriptors_carries_are_served_and_all_else_still_works() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new().descriptors(64, 1000).backend("a", backend.address);
    let balancer = machine.start(setup.setting("health: { interval: 100ms, timeout: 100ms, fall: 1, passive: 1 }"));
    balancer.await_state("/services/web/backends/a/state", "up");
    let most = balancer.number("/max_connections");
    assert!((200..500).contains(&most), "1000 descriptors carry {most} sessions");
    let held: Vec<TcpStream> = (0..most).map(|_| balancer.connect()).collect();
    held.iter().for_each(exchange);
    let passed = balancer.probes("a", "passed");
    wait_until("probes go on", Duration::from_secs(2), || balancer.probes("a", "passed") > passed + 3);
    assert_eq!(balancer.number("/sessions"), most);
    // Who is one too many is told so, not that the machine is short of something.
    // It may hear of it already as it connects.
    drop(TcpStream::connect(balancer.address()));
    balancer.await_refused("process_limit", 1);
    assert_eq!(balancer.refused("descriptors"), 0);
    assert!(!balancer.has_logged("this machine's own fault"));
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn each_worker_keeps_to_a_core_of_its_own_where_there_is_one_for_each() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let cores = std::thread::available_parallelism().expect("cores").get();
    let workers = u32::try_from(cores).expect("not so many");
    let balancer = machine.start(Setup::new().workers(workers).backend("a", backend.address));
    let threads = balancer.process().cores();
    let mut kept: Vec<_> = threads.iter().filter(|(name, _)| name.starts_with("worker-")).map(|(_, at)| at).collect();
    kept.sort_unstable();
    kept.dedup();
    assert_eq!(kept.len(), cores, "{threads:?}");
    assert!(kept.iter().all(|core| core.parse::<usize>().is_ok()), "one core each: {threads:?}");
    balancer.stop();
}

#[test]
fn a_worker_that_cannot_go_on_takes_the_process_down_which_says_why() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let mut balancer = machine.start(Setup::new().backend("a", backend.address));
    let client = balancer.connect();
    exchange(&client);
    // A listener of one worker works no more, as if the kernel had taken it away. The other worker is well.
    let listener = balancer.process().listener_at(balancer.address());
    SockRef::from(&listener).shutdown(Shutdown::Both).expect("shutdown(2) of a listener");
    let (code, _) = balancer.wait(Duration::from_secs(2));
    assert_eq!(code, Some(1));
    balancer.await_logged("accepting clients: Invalid argument");
    let line = balancer.log_line("accepting clients").unwrap_or_default();
    assert!(line.starts_with("error: worker "), "{line}");
}

#[test]
fn a_start_that_fails_says_why_and_what_to_do() {
    let _machine = Machine::shared();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("balancer.yaml");
    let at = directory.path().display();
    let nowhere = format!("unix:{at}/none/web.sock");
    let not_a_directory = format!("{}/admin.sock", file.display());
    let good = format!("{at}/admin.sock");
    for (listen, socket, remedy) in [
        (nowhere.as_str(), &good, "its directory must exist: create it, or choose another path"),
        ("127.0.0.1:0", &not_a_directory, "let this user write there, or name another admin.socket"),
        ("192.0.2.1:0", &good, "see 'ip address'"),
    ] {
        let yaml = format!(
            "admin: {{ socket: {socket} }}\nstate: {at}/state\n\
             services: {{ web: {{ listen: \"{listen}\", backends: {{ a: 127.0.0.1:1 }} }} }}\n"
        );
        std::fs::write(&file, yaml).expect("writing the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        let output = command.args(["run", "--config"]).arg(&file).output().expect("running it");
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(last.starts_with("error: ") && last.contains(remedy), "{said}");
    }
}
