//! What a newcomer sees of `balancer demo`: no file, no privilege, one command.
//!
//! covers: src/cli/demo, src/cli/log, src/cli/run

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Kills, Machine, Namespaces, PATIENCE, Side, Tool, full_pipe, run, wait_until};

const FRONT: &str = "127.0.0.1:8080";

/// A demo of an ordinary user, in a namespace whose ports nobody else has.
struct Demo {
    child: Kills,
    directory: TempDir,
}

impl Demo {
    fn start(side: &Side, out: impl FnOnce(&Path) -> Stdio) -> Self {
        Self::start_with(side, out, |at| File::create(at.join("err")).expect("a file").into())
    }

    fn start_with(side: &Side, out: impl FnOnce(&Path) -> Stdio, err: impl FnOnce(&Path) -> Stdio) -> Self {
        let directory = tempfile::Builder::new().prefix("balancer-").tempdir().expect("a directory");
        let runtime = directory.path().join("run");
        std::fs::create_dir(&runtime).expect("a directory");
        run("chmod", &["0777".as_ref(), directory.path(), &runtime]);
        let program = directory.path().join("balancer");
        run("cp", &[Path::new(env!("CARGO_BIN_EXE_balancer")), &program]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=61003", "--regid=61003", "--clear-groups"]).arg(program).arg("demo");
        command.env("XDG_RUNTIME_DIR", runtime).stdin(Stdio::null());
        command.stdout(out(directory.path()));
        command.stderr(err(directory.path()));
        let child = side.run(|| command.spawn().expect("starting the demo"));
        Self { child: Kills(child), directory }
    }

    fn said(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(file)).expect("what it has said")
    }

    #[track_caller]
    fn await_said(&self, text: &str) {
        wait_until(&format!("it says {text:?}"), PATIENCE, || self.said("err").contains(text));
    }
}

fn curl(side: &Side, url: &str) -> String {
    side.run(|| Tool::new("curl").arguments(&format!("-sS {url}")).output(PATIENCE))
}

#[test]
fn the_demo_is_served_by_turns_tells_what_to_try_and_ends_on_ctrl_c() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let side = namespaces.near();
    let mut demo = Demo::start(side, |at| File::create(at.join("out")).expect("a file").into());
    demo.await_said("left to serve: 2 of 2 backends, 1 of 1 backups");
    let answers: Vec<String> = (0..6).map(|_| curl(side, FRONT)).collect();
    assert!(answers.windows(2).all(|pair| pair[0] != pair[1]), "not by turns: {answers:?}");
    assert!(answers.iter().all(|name| name == "web-01\n" || name == "web-02\n"), "{answers:?}");
    wait_until("each session is a line", PATIENCE, || {
        demo.said("err").matches("web: session from 127.0.0.1:").count() == 6
    });

    // What it says to try works as it stands there.
    let said = demo.said("out");
    let tries = |word: &str| {
        let line = said.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word}: {said}"));
        line.split('#').next().unwrap_or_default().trim().to_owned()
    };
    for url in [tries("curl 127.0.0.1:8080"), tries("http://127.0.0.1:9900/")] {
        curl(side, url.trim_start_matches("curl "));
    }
    let status = tries("status --socket");
    let (program, arguments) = status.split_once(' ').expect("a command and its arguments");
    assert!(run(program, &arguments.split(' ').collect::<Vec<_>>()).contains("web: ok"));
    for stop in ["web-01", "web-02"] {
        let address = said.lines().find_map(|line| line.trim().strip_prefix(stop)).expect("its address").trim();
        curl(side, &format!("{address}/stop"));
    }
    demo.await_said("left to serve: 0 of 2 backends, 1 of 1 backups");
    assert_eq!(curl(side, FRONT), "web-03\n");

    demo.child.process().signal(Signal::INT);
    let (status, _) = demo.child.wait(Duration::from_secs(3));
    assert_eq!(status.code(), Some(0), "{}", demo.said("err"));
    assert!(!demo.said("err").contains("ERROR] worker"), "{}", demo.said("err"));
    drop(machine);
}

#[test]
fn the_demo_goes_on_where_nobody_reads_what_it_prints() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let full = |_: &Path| File::options().write(true).open("/dev/full").expect("/dev/full").into();
    let mut demo = Demo::start(namespaces.near(), full);
    demo.await_said("ready: ");
    assert!(curl(namespaces.near(), FRONT).starts_with("web-0"));
    demo.child.process().signal(Signal::INT);
    assert_eq!(demo.child.wait(Duration::from_secs(3)).0.code(), Some(0));
    drop(machine);
}

#[test]
fn the_demo_goes_on_where_its_output_is_read_by_nobody_who_keeps_it_open() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let (_out, stdout) = full_pipe();
    let (_err, stderr) = full_pipe();
    let mut demo = Demo::start_with(namespaces.near(), |_| stdout.into(), |_| stderr.into());
    let front: SocketAddr = FRONT.parse().expect("an address");
    let answers = || namespaces.near().run(|| TcpStream::connect(front).is_ok());
    wait_until("the demo serves", PATIENCE, answers);
    assert!(curl(namespaces.near(), FRONT).starts_with("web-0"));
    demo.child.process().signal(Signal::INT);
    assert_eq!(demo.child.wait(PATIENCE).0.code(), Some(0));
    drop(machine);
}

#[test]
fn a_demo_whose_port_is_taken_says_who_to_ask() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let front: SocketAddr = FRONT.parse().expect("an address");
    let _taken = namespaces.near().run(|| TcpListener::bind(front).expect("the demo's port"));
    let mut demo = Demo::start(namespaces.near(), |at| File::create(at.join("out")).expect("a file").into());
    assert_eq!(demo.child.wait(PATIENCE).0.code(), Some(1));
    let said = demo.said("err");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(FRONT) && last.contains("ss -tanp"), "{said}");
    assert_eq!(demo.said("out"), "", "nothing is to be tried");
    drop(machine);
}
