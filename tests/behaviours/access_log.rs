//! The access log where its disk gives out: sessions go on, what is lost is counted, and SIGUSR1 begins anew.
//!
//! covers: src/observe/access_log, src/observe/writer_thread

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Backend, Balancer, Disk, Machine, PATIENCE, Setup, exchange, wait_until};

/// Sessions of one byte each, all of which must be served; each has ended for the balancer, too.
fn sessions(balancer: &Balancer, ended: &mut usize, count: usize) {
    for _ in 0..count {
        exchange(&balancer.connect());
    }
    *ended += count;
    balancer.await_closed("client", *ended as u64);
}

/// Lines of a file that are whole.
fn whole(log: &Path) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    let is_whole =
        |line: &&str| line.contains("Z service=web client=127.0.0.1:") && line.ends_with(" in=1 out=1 end=client");
    text.lines().filter(is_whole).count()
}

/// Waits until each of so many sessions has a line in one of these files, or was counted as lost.
#[track_caller]
fn await_all(balancer: &Balancer, logs: &[&Path], sessions: usize) {
    let known = || logs.iter().map(|log| whole(log)).sum::<usize>() + lost(balancer);
    wait_until(&format!("{sessions} lines are written or lost"), PATIENCE, || known() >= sessions);
    assert_eq!(known(), sessions, "lines that are written, or are counted as lost");
}

fn lost(balancer: &Balancer) -> usize {
    balancer.metric("balancer_access_log_dropped_total") as usize
}

#[test]
fn on_a_full_disk_sessions_go_on_what_is_lost_is_counted_and_lines_come_again_where_there_is_room() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new().backend("a", backend.address);
    let disk = Disk::mount(setup.directory().join("disk"), 64 << 10);
    let (log, old) = (disk.file("access.log"), disk.file("access.log.1"));
    let balancer = machine.start(setup.process(&format!("access_log: {}", log.display())));
    let mut ended = 0;
    sessions(&balancer, &mut ended, 3);
    await_all(&balancer, &[&log], ended);
    assert_eq!(lost(&balancer), 0);

    // What is left is the rest of the log's only page.
    let filler = disk.fill();
    sessions(&balancer, &mut ended, 100);
    await_all(&balancer, &[&log], ended);
    let kept = whole(&log);
    assert!((4..100).contains(&kept), "{kept} lines in a page");
    balancer.await_logged(&format!("the access log cannot be written to {}: No space left on device", log.display()));
    balancer.await_logged("lines are lost");

    // There is room for the name of a new file, and for nothing in it.
    fs::rename(&log, &old).expect("renaming");
    balancer.signal(Signal::USR1);
    wait_until("the log is begun anew", PATIENCE, || log.exists());
    sessions(&balancer, &mut ended, 20);
    await_all(&balancer, &[&old, &log], ended);
    assert_eq!((whole(&old), whole(&log)), (kept, 0));

    let before = lost(&balancer);
    fs::remove_file(filler).expect("making room");
    sessions(&balancer, &mut ended, 50);
    await_all(&balancer, &[&old, &log], ended);
    assert_eq!((lost(&balancer), whole(&log)), (before, 50), "nothing is lost where there is room");
    let text = fs::read_to_string(&log).expect("the new log");
    assert_eq!(text.lines().count(), 50, "something else is in the new file: {text}");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn after_a_line_that_was_cut_by_a_full_disk_the_next_one_begins_on_its_own() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new().backend("a", backend.address);
    let disk = Disk::mount(setup.directory().join("disk"), 64 << 10);
    let log = disk.file("access.log");
    let balancer = machine.start(setup.process(&format!("access_log: {}", log.display())));
    let mut ended = 0;
    sessions(&balancer, &mut ended, 1);
    await_all(&balancer, &[&log], ended);
    let filler = disk.fill();
    wait_until("a line is cut at the end of the page", PATIENCE, || {
        sessions(&balancer, &mut ended, 5);
        std::thread::sleep(Duration::from_millis(20));
        fs::metadata(&log).is_ok_and(|found| found.len() == 4096)
    });
    await_all(&balancer, &[&log], ended);
    let kept = whole(&log);
    fs::remove_file(filler).expect("making room");
    sessions(&balancer, &mut ended, 10);
    await_all(&balancer, &[&log], ended);
    assert_eq!(whole(&log), kept + 10, "{}", fs::read_to_string(&log).expect("the log"));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn where_the_logs_directory_is_gone_sessions_go_on_and_the_log_is_begun_anew_once_it_is_back() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new().backend("a", backend.address);
    let directory = setup.directory().join("logs");
    fs::create_dir(&directory).expect("the log's directory");
    let log = directory.join("access.log");
    let balancer = machine.start(setup.process(&format!("access_log: {}", log.display())));
    let mut ended = 0;
    sessions(&balancer, &mut ended, 5);
    await_all(&balancer, &[&log], ended);
    fs::remove_dir_all(&directory).expect("removing the directory");
    sessions(&balancer, &mut ended, 5);
    balancer.signal(Signal::USR1);
    balancer.await_logged(&format!("access_log: cannot open {}", log.display()));
    balancer.await_logged("lines go on to the file that is open");
    sessions(&balancer, &mut ended, 5);
    assert_eq!(lost(&balancer), 0, "they are in the file that was removed");

    fs::create_dir(&directory).expect("the log's directory once more");
    balancer.signal(Signal::USR1);
    wait_until("the log is begun anew", PATIENCE, || log.exists());
    // The lines of before may have gone either way; these are in the new file.
    let before = ended;
    sessions(&balancer, &mut ended, 7);
    wait_until("the new lines are there", PATIENCE, || whole(&log) >= 7);
    assert!(whole(&log) <= 7 + 5, "{before} sessions had ended before");
    assert_eq!(lost(&balancer), 0);
    balancer.await_no_session();
    balancer.stop();
}
