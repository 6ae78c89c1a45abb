//! The access log with real files.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::observe::counters::{Closed, Refused};

fn record(number: u64) -> Record {
    Record {
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_036_754_123),
        service: "web".into(),
        client: Some(([10, 0, 0, 7], 51234).into()),
        backend: Some("web-01".into()),
        connect_micros: Some(412),
        duration_micros: 1_043_310,
        bytes_in: number,
        bytes_out: 88211,
        end: End::Closed(Closed::Client),
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_record_is_one_line_with_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    fs::write(&path, "there before\n").unwrap();
    let (handle, writer) = open(Target::File(path.clone())).unwrap();
    handle.try_record(record(512));
    handle.try_record(Record {
        service: "a b=\n%".into(),
        client: None,
        backend: None,
        connect_micros: None,
        duration_micros: 51,
        end: End::Refused(Refused::BackendLimit),
        ..record(0)
    });
    drop(writer);
    let expected = "there before\n\
        2025-11-25T02:12:34.123Z service=web client=10.0.0.7:51234 backend=web-01 connect_ms=0.412 duration_ms=1043.310 in=512 out=88211 end=client\n\
        2025-11-25T02:12:34.123Z service=a%20b%3D%0A%25 client=- backend=- connect_ms=- duration_ms=0.051 in=0 out=88211 refused=backend_limit\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(handle.dropped(), 0);
}

#[test]
fn a_line_is_there_soon_without_more_to_push_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (handle, _writer) = open(Target::File(path.clone())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7137, 0, "0640 at most");
    handle.try_record(record(1));
    wait_until("the line is written", || fs::read_to_string(&path).unwrap().ends_with("end=client\n"));
}

#[test]
fn rotation_loses_and_cuts_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (handle, writer) = open(Target::File(path.clone())).unwrap();
    let recorder = {
        let handle = handle.clone();
        thread::spawn(move || {
            for number in 0..20_000 {
                handle.try_record(record(number));
                if number % 100 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        })
    };
    for round in 0..5 {
        thread::sleep(Duration::from_millis(20));
        fs::rename(&path, directory.path().join(format!("access.log.{round}"))).unwrap();
        handle.reopen();
        wait_until("the file is made anew", || path.exists());
    }
    recorder.join().unwrap();
    drop(writer);
    let files = (0..5).map(|round| format!("access.log.{round}")).chain(["access.log".to_owned()]);
    let text: String = files.map(|name| fs::read_to_string(directory.path().join(name)).unwrap()).collect();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| {
            assert!(line.ends_with(" out=88211 end=client"), "{line}");
            line.split(' ').find_map(|field| field.strip_prefix("in=")).unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(numbers.len() as u64 + handle.dropped(), 20_000);
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, none twice");
}

#[test]
fn a_reopen_that_fails_keeps_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("access.log"), directory.path().join("moved"));
    let (handle, writer) = open(Target::File(path.clone())).unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    handle.reopen();
    wait_until("it has tried", || !handle.shared.reopen.load(Ordering::Acquire));
    handle.try_record(record(7));
    drop(writer);
    assert!(fs::read_to_string(&moved).unwrap().contains(" in=7 "));
    assert_eq!(handle.dropped(), 0);
}

#[test]
fn a_stalled_writer_costs_lines_and_never_the_worker() {
    let (mut reader, stalled) = io::pipe().unwrap();
    let (handle, writer) = open_with(Target::Stderr, std::os::fd::OwnedFd::from(stalled).into(), 16).unwrap();
    let begun = Instant::now();
    let total = 20_000;
    for number in 0..total {
        handle.try_record(record(number));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for a pipe that nobody reads");
    let dropped = handle.dropped();
    assert!(dropped > 0);
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().count() as u64
    });
    drop(writer);
    assert_eq!(read.join().unwrap() + handle.dropped(), total, "each line is read or counted");
}

#[test]
fn a_full_disk_is_counted_and_survived() {
    let (handle, writer) = open(Target::File("/dev/full".into())).unwrap();
    (0..10).for_each(|number| handle.try_record(record(number)));
    wait_until("all are counted", || handle.dropped() == 10);
    handle.try_record(record(10));
    drop(writer);
    assert_eq!(handle.dropped(), 11);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_with_path_and_remedy() {
    let error = open(Target::File("/does/not/exist/access.log".into())).unwrap_err().to_string();
    assert!(error.contains("/does/not/exist/access.log") && error.contains("directory must exist"), "{error}");
    let error = open(Target::File("/".into())).unwrap_err().to_string();
    assert!(error.contains("name a file in it"), "{error}");
}
