//! The log, and whoever does not read it: nothing waits for a log, what is missing is counted and said, and nothing else is lost.
//!
//! covers: src/cli/log, src/observe/stderr, src/observe/line_writer, src/visible

use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::harness::{Backend, Balancer, Machine, PATIENCE, Port, Setup, exchange, full_pipe, post, wait_until};

/// Reads a pipe from now on, in a thread: what it has read.
fn read(mut pipe: PipeReader) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let read = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            read.lock().expect("no panic").push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    });
    text
}

/// Reloads files with hundreds of errors until the log has no room for more of them.
fn flood(balancer: &Balancer, good: &str) -> u64 {
    balancer.configure(&format!("{good}{}", format!("nonsense: 1 # {}\n", "-".repeat(90)).repeat(500)));
    let dropped = || balancer.metric("balancer_log_lines_dropped_total") as u64;
    wait_until("lines are dropped", PATIENCE * 3, || {
        let refused = post(&balancer.socket(), "/v1/reload", "").expect_err("the file is wrong");
        assert!(refused.to_string().contains("invalid"), "{:.1000}", refused.to_string());
        dropped() > 0
    });
    balancer.configure(good);
    dropped()
}

#[test]
fn while_nobody_reads_the_log_everything_goes_on_and_what_is_missing_is_said_in_its_place() {
    let machine = Machine::shared();
    let (pipe, stderr) = full_pipe();
    let (a, port) = (Backend::echo(), Port::refusing());
    let setup = Setup::new().backend("a", a.address).backend("b", port.address).stderr(stderr);
    let setup =
        setup.setting("health: { interval: 100ms, timeout: 100ms, rise: 1, fall: 1 }").process("access_log: stderr");
    let balancer = machine.start(setup);
    // Clients, probes, drains, reloads.
    balancer.await_state("/services/web/backends/b/state", "down");
    let _listener = port.listen();
    balancer.await_state("/services/web/backends/b/state", "up");
    let (code, _, err) = balancer.command(&["drain", "web/b", "--for", "10m", "--reason", "x"]);
    assert_eq!(code, Some(0), "{err}");
    (0..50).for_each(|_| exchange(&balancer.connect()));
    balancer.await_closed("client", 50);
    let good = balancer.configuration();
    balancer.edit("web:", "shop:");
    let (code, _, err) = balancer.command(&["reload", "--force"]);
    assert_eq!(code, Some(0), "{err}");
    balancer.configure(&good);
    balancer.command(&["reload", "--force"]);
    assert_eq!(balancer.metric("balancer_log_lines_dropped_total"), 0.0, "there is room for much more");
    flood(&balancer, &good);
    let memory = balancer.process().resident();
    assert!(memory < 200 << 20, "{memory} bytes");

    // What is left is read in the order in which it was written; what is missing stands behind that.
    let text = read(pipe);
    let said = |words: &str| text.lock().expect("no panic").contains(words);
    wait_until("what is missing is said", PATIENCE, || said("lines of the log are missing here"));
    let dropped = balancer.metric("balancer_log_lines_dropped_total") as u64;
    balancer.reload();
    wait_until("lines come again", PATIENCE, || {
        let text = text.lock().expect("no panic");
        text.split_once("missing here").is_some_and(|(_, after)| after.contains("reloaded: generation "))
    });
    assert_eq!(balancer.metric("balancer_log_lines_dropped_total") as u64, dropped, "nothing more is lost");
    let text = text.lock().expect("no panic").clone();
    assert!(text.contains(&format!("WARN ] {dropped} lines of the log are missing here")), "{dropped}");
    let places: Vec<_> =
        ["kernel features", "ready: ", "backend b (", "-> drained", "shop", "reload invalid", "missing here"]
            .map(|words| text.find(words).unwrap_or_else(|| panic!("no {words:?}")))
            .into();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(text.matches("Z service=web client=127.0.0.1:").count(), 50, "the lines of the access log");
    balancer.stop();
}

#[test]
fn a_stop_is_heard_while_nobody_reads_the_log_or_the_access_log() {
    let machine = Machine::shared();
    for fifo in [false, true] {
        let (_pipe, stderr) = full_pipe();
        let backend = Backend::echo();
        let setup = Setup::new().backend("a", backend.address).stderr(stderr);
        let path = setup.directory().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a FIFO");
        // Open for reading, too, and never read.
        let held = File::options().read(true).write(true).open(&path).expect("the FIFO");
        rustix::pipe::fcntl_setpipe_size(&held, 4096).expect("a small pipe");
        let log = if fifo { path.display().to_string() } else { "stderr".to_owned() };
        let mut balancer = machine.start(setup.process(&format!("access_log: {log}")));
        (0..100).for_each(|_| exchange(&balancer.connect()));
        balancer.await_closed("client", 100);
        balancer.signal(Signal::TERM);
        assert_eq!(balancer.wait(PATIENCE).0, Some(0), "SIGTERM must end it with 0");
    }
}

#[test]
fn a_start_that_fails_ends_although_nobody_reads_why() {
    let machine = Machine::shared();
    for (variable, line, code) in [("info", "nonsense: 1", 1), ("info", "max_connections: 4000000000", 1)] {
        let (pipe, stderr) = full_pipe();
        let setup = Setup::new().backend("a", Port::refusing().address).stderr(stderr);
        let setup = setup.process(line).variable("BALANCER_LOG", variable);
        let (status, _) = machine.end_of_run(&setup);
        assert_eq!(status, Some(code), "{line}");
        drop(pipe);
    }
}

#[test]
fn every_line_is_in_the_file_that_standard_error_is_to_the_last_one() {
    let machine = Machine::shared();
    const SERVICES: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let file = File::create(&path).expect("the log");
    let dead = Port::refusing();
    let health = "health: { interval: 1h, timeout: 1s }";
    let mut setup = Setup::new()
        .backend("a", dead.address)
        .setting(health)
        .stderr(file.as_fd().try_clone_to_owned().expect("a descriptor"));
    for number in 1..SERVICES {
        setup = setup.service(&format!("s{number}")).backend("a", dead.address).setting(health);
    }
    let balancer = machine.start(setup);
    let log = || fs::read_to_string(&path).expect("the log");
    wait_until("each backend is down", PATIENCE, || log().matches("starting -> down").count() == SERVICES);
    balancer.stop();
    let log = log();
    assert_eq!(log.matches(": serving on 127.0.0.1:").count(), SERVICES);
    assert!(log.ends_with("] stopped\n"), "{}", log.lines().last().unwrap_or_default());
    assert!(log.lines().all(|line| line.starts_with('[')), "a line is cut:\n{log}");
}
