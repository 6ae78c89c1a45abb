//! The incident timeline: whose it is, and what it claims to know.
//!
//! covers: src/observe/timeline, src/observe/regular_file, src/cli/timeline

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Backend, Kills, Machine, PATIENCE, Setup, run, wait_until};

/// What `balancer timeline` says on standard output and standard error, and how it ends: soon.
fn timeline(arguments: &[&str], variables: &[(&str, &Path)]) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let [out, err] = ["out", "err"].map(|name| directory.path().join(name));
    let file = |path| std::fs::File::create(path).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.arg("timeline").args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let (status, _) = Kills(command.spawn().expect("running it")).wait(PATIENCE);
    let [out, err] = [out, err].map(|path| std::fs::read_to_string(path).expect("text"));
    (status.code(), out, err)
}

#[test]
fn for_a_balancer_that_is_named_no_other_ones_timeline_is_shown() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let [mine, other] = [0, 1].map(|_| machine.start(Setup::new().backend("a", backend.address)));
    let [socket, config] = [other.socket(), mine.file()];
    let config = config.to_str().expect("a path");
    let nobody = mine.file().with_file_name("nobody.sock");
    for (arguments, variables) in [
        (&["--socket", nobody.to_str().expect("a path")][..], &[][..]),
        (&["--socket", nobody.to_str().expect("a path"), "--config", config], &[]),
        (&[], &[("BALANCER_SOCKET", &*nobody), ("BALANCER_CONFIG", Path::new(config))]),
    ] {
        let (code, out, err) = timeline(arguments, variables);
        assert_eq!((code, &*out), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.contains("no balancer at ") && err.contains("no file is read in its place"), "{err}");
    }
    // A file names its balancer: that one is asked while it runs, and has left its timeline when it is gone.
    let start = |pid: u64| format!("serves as process {pid}, ");
    let (_, out, err) = timeline(&["--config", config], &[]);
    assert!(out.contains(&start(mine.number("/pid"))) && err.is_empty(), "{out}{err}");
    let (_, out, _) = timeline(&["--config", config, "--socket", socket.to_str().expect("a path")], &[]);
    assert!(out.contains(&start(other.number("/pid"))), "{out}");
    let pid = mine.number("/pid");
    mine.signal(Signal::KILL);
    wait_until("it is dead", PATIENCE, || !mine.process().is_alive());
    let (code, out, err) = timeline(&[], &[("BALANCER_CONFIG", Path::new(config))]);
    assert!(code == Some(0) && out.contains(&start(pid)) && err.contains("this is what is on disk in "), "{out}{err}");
    std::fs::write(config, "sevices: {}").expect("writing the configuration");
    let (code, out, err) = timeline(&["--config", config], &[]);
    assert_eq!((code, &*out), (Some(1), ""), "{err}");
    assert!(err.contains("sevices") && err.contains("--state"), "{err}");
    other.stop();
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("timeline");
    let state = state.path().to_str().expect("a path");
    for place in 0..3 {
        match place {
            0 => drop(run("mkfifo", &[&file])),
            1 => std::os::unix::fs::symlink("/dev/zero", &file).expect("a link"),
            _ => std::fs::create_dir(&file).expect("a directory"),
        }
        let (code, out, err) = timeline(&["--state", state], &[]);
        assert_eq!((code, &*out), (Some(1), ""), "{err}");
        assert!(err.contains("it is no regular file"), "{err}");
        let _ = std::fs::remove_file(&file);
    }
    let (code, _, err) = timeline(&["--socket", ""], &[]);
    assert_eq!(code, Some(2), "an empty name is no default: {err}");
}
