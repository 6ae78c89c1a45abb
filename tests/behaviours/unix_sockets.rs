//! A Unix socket is what its directory and its name say it is, however the path is written.
//!
//! covers: src/config/path_identity, src/control/listeners, src/sys/unix

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::harness::{Backend, Machine, PATIENCE, Setup, wait_until};

/// A directory, and a symbolic link to it.
fn twice(setup: &Setup) -> (PathBuf, PathBuf) {
    let (real, link) = (setup.directory().join("real"), setup.directory().join("link"));
    fs::create_dir(&real).expect("a directory");
    symlink(&real, &link).expect("a symbolic link");
    (real, link)
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// A byte to an echoing backend and back.
#[track_caller]
fn is_served(path: &Path) {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"x").expect("sending");
    stream.read_exact(&mut [0]).expect("an echo");
}

/// The line and the column of the problem, and the line of the other place.
fn assert_both_places(said: &str, owner: &str, first: usize, second: usize) {
    let wanted = format!("this address is taken already, by {owner} at line {first}");
    let line = said.lines().find(|line| line.contains(&wanted)).unwrap_or_else(|| panic!("no {wanted:?} in {said}"));
    assert!(line.contains(&format!("balancer.yaml:{second}:")), "{line}");
}

#[test]
fn a_second_service_on_one_socket_is_refused_by_check_by_run_and_by_a_reload() {
    let machine = Machine::shared();
    let (a, b) = (Backend::echo(), Backend::echo());
    let two = |at: fn(&Path, &Path) -> [PathBuf; 2]| {
        let setup = Setup::new();
        let (real, link) = twice(&setup);
        let [one, other] = at(&real, &link);
        setup.listen(unix(&one)).backend("a", a.address).service("second").listen(unix(&other)).backend("b", b.address)
    };
    let ways: [fn(&Path, &Path) -> [PathBuf; 2]; 4] = [
        |real, link| [real.join("x.sock"), link.join("x.sock")],
        |real, link| [link.join("x.sock"), real.join("../link/./x.sock")],
        |real, _| [real.join("x.sock"), PathBuf::from(format!("{}//x.sock", real.display()))],
        // A directory that is not there yet is that of the nearest one that is.
        |real, link| [real.join("later/x.sock"), link.join("later/x.sock")],
    ];
    for way in ways {
        let setup = two(way);
        let (code, said) = machine.check(&setup);
        assert_eq!(code, Some(1), "{said}");
        assert_both_places(&said, "service `web`", 6, 11);
        assert_both_places(&machine.start_fails(&setup), "service `web`", 6, 11);
    }
    // The same name in another directory is another socket.
    let setup = two(|real, link| [real.join("x.sock"), link.parent().expect("one").join("x.sock")]);
    let (one, other) = (setup.directory().join("real/x.sock"), setup.directory().join("x.sock"));
    let again = unix(&setup.directory().join("link/x.sock"));
    let balancer = machine.start(setup);
    balancer.edit(&unix(&other), &again);
    assert_both_places(&balancer.reload_refused(), "service `web`", 6, 11);
    is_served(&one);
    is_served(&other);
    balancer.await_no_session();
    assert_eq!((a.total(), b.total()), (1, 1));
    balancer.stop();
}

#[test]
fn a_service_on_the_admin_socket_is_refused_however_it_is_written() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new();
    let link = setup.directory().join("link");
    symlink(setup.directory(), &link).expect("a symbolic link");
    let setup = setup.listen(unix(&link.join("admin.sock"))).backend("a", a.address);
    let (code, said) = machine.check(&setup);
    assert_eq!(code, Some(1), "{said}");
    assert_both_places(&said, "the admin socket", 2, 6);
    assert_both_places(&machine.start_fails(&setup), "the admin socket", 2, 6);
}

#[test]
fn who_listens_at_a_path_is_named() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new();
    let (taken, other) = (setup.directory().join("taken.sock"), setup.directory().join("other.sock"));
    let _listener = UnixListener::bind(&taken).expect("a path");
    let directory = setup.directory().to_owned();
    let setup = setup.variable("RUNTIME_DIRECTORY", directory.display());
    let balancer = machine.start(setup.listen(unix(&other)).backend("a", a.address));
    balancer.edit(&unix(&other), &unix(&taken));
    let said = balancer.reload_refused();
    assert!(said.contains(&format!("process {} listens there", std::process::id())), "{said}");
    // The admin socket's path where the file names none.
    let text = balancer.configuration();
    let line = text.lines().find(|line| line.starts_with("admin:")).expect("a line for the admin socket").to_owned();
    balancer.configure(&text.replace(&line, "").replace(&unix(&taken), &unix(&balancer.socket())));
    let said = balancer.reload_refused();
    assert!(said.contains("this process listens there itself") && said.contains("the admin socket"), "{said}");
    balancer.stop();
}

#[test]
fn a_reload_that_writes_the_same_path_otherwise_keeps_the_socket() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new();
    let (real, link) = twice(&setup);
    let (path, other) = (real.join("front.sock"), link.join("front.sock"));
    let mut balancer = machine.start(setup.listen(unix(&other)).backend("a", a.address));
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::symlink_metadata(&path).expect("it stands"));
    let before = inode();
    balancer.edit(&unix(&other), &unix(&path));
    balancer.reload();
    is_served(&path);
    assert_eq!((inode(), balancer.status().listen("web")), (before, vec![unix(&path)]));
    // The way that it was written before is of no meaning any more.
    fs::remove_file(&link).expect("removing the link");
    balancer.reload();
    balancer.upgrade();
    is_served(&path);
    assert_eq!((inode(), balancer.logged("somebody has removed the socket")), (before, 0));
    balancer.await_no_session();
    balancer.stop();
    assert!(!path.exists());
}

#[test]
fn an_admin_socket_that_a_reload_writes_otherwise_is_kept_too() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new();
    let (link, directory) = (setup.directory().join("link"), setup.directory().to_owned());
    symlink(&directory, &link).expect("a symbolic link");
    let mut balancer = machine.start(setup.backend("a", a.address));
    let (before, after) = (balancer.socket().display().to_string(), link.join("admin.sock").display().to_string());
    for (from, to) in [(&before, &after), (&after, &before)] {
        balancer.edit(&format!("socket: {from}"), &format!("socket: {to}"));
        balancer.reload();
        balancer.reload();
        assert_eq!(balancer.number("/config/generation") % 2, 1);
    }
    balancer.edit(&format!("socket: {before}"), &format!("socket: {after}"));
    balancer.upgrade();
    balancer.reload();
    balancer.stop();
    assert!(!directory.join("admin.sock").exists());
}

#[test]
fn an_admin_socket_whose_directory_was_removed_is_back_after_a_reload_by_signal() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new();
    let runtime = setup.directory().join("run/balancer");
    let socket = runtime.join("admin.sock");
    let setup = setup.backend("a", a.address);
    let balancer = machine.start(setup);
    balancer.edit(&balancer.socket().display().to_string(), &socket.display().to_string());
    balancer.reload();
    fs::remove_dir_all(&runtime).expect("removing it");
    // Where it cannot be back, the reload holds all the same.
    fs::write(&runtime, "in the way").expect("a file");
    balancer.signal(rustix::process::Signal::HUP);
    balancer.await_logged("cannot be made anew");
    balancer.await_logged("reloaded: generation 3");
    fs::remove_file(&runtime).expect("removing it");
    balancer.signal(rustix::process::Signal::HUP);
    wait_until("it answers at its socket", PATIENCE, || balancer.command_at(&socket, &["status"]).0 == Some(0));
    balancer.stop();
    assert!(!socket.exists());
}
