//! Programs of this machine that a test runs: found, started, waited for, killed at the end.

use std::ffi::OsStr;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Kills, Port, wait_until};

/// A program of the search path or of a system directory; a missing one is a failure.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from));
    places
        .extend(std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|v| v.path().join("bin")));
    let found = places.iter().map(|place| place.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("these tests need the program {name}: install it (scripts/test.sh does)"))
}

/// Runs a program to its end, which must be a success; its output.
#[track_caller]
pub(crate) fn run<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> String {
    let mut tool = Tool::new(name);
    tool.0.args(arguments);
    tool.output(Duration::from_secs(60))
}

/// A program about to run to its end.
pub(crate) struct Tool(pub(crate) Command);

impl Tool {
    /// A program by its name.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        Self(Command::new(program(name)))
    }

    /// Arguments, separated by blanks.
    pub(crate) fn arguments(mut self, arguments: &str) -> Self {
        self.0.args(arguments.split_whitespace());
        self
    }

    /// Runs it: all that it wrote. Fails if it does, or takes too long.
    #[track_caller]
    pub(crate) fn output(mut self, within: Duration) -> String {
        self.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Kills(self.0.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.0)));
        let (out, err) = (child.0.stdout.take(), child.0.stderr.take());
        let reader = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut text));
                String::from_utf8_lossy(&text).into_owned()
            })
        };
        let out = reader(out.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
        let err = reader(err.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
        let (status, _) = child.wait(within);
        let text = format!("{}{}", out.join().unwrap_or_default(), err.join().unwrap_or_default());
        assert!(status.success(), "{:?} ended with {status}:\n{text}", self.0);
        text
    }
}

/// A real server with a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) child: Kills,
}

impl Server {
    /// Starts it and waits until it accepts.
    #[track_caller]
    pub(crate) fn start(mut tool: Tool, port: u16, log: &Path) -> Self {
        let file = std::fs::File::create(log).expect("a log file");
        let same = file.try_clone().expect("a second descriptor");
        tool.0.stdin(Stdio::null()).stdout(file).stderr(same);
        let mut child = Kills(tool.0.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", tool.0)));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait_until("the server accepts", Duration::from_secs(20), || {
            if let Some(status) = child.0.try_wait().expect("looking at the child") {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                panic!("{:?} ended with {status}: {said}", tool.0);
            }
            TcpStream::connect(address).is_ok()
        });
        Self { address, child }
    }
}

/// A port of 127.0.0.1 that refuses until a server of the test listens there. Nobody else gets it while this process lives.
pub(crate) fn free_port() -> u16 {
    static HELD: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::refusing();
    let number = port.address.port();
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(port);
    number
}
