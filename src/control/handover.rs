//! One process takes over from another without a gap: what is said between the two, and each side of it.
//!
//! ```text
//! running process                                    its successor (the same program path, the same arguments)
//!   starts it, with a channel as its standard input ─►  starts itself once more and ends: what remains is nobody's
//!                                                      child but the system's, and the service manager hears of its end
//!                                                  ◄── hello
//!   every listening socket ─────────────────────────►  reads the configuration, starts workers, binds what is new
//!                                                  ◄── ready (or why not: then the running process keeps serving)
//!   go ─────────────────────────────────────────────►  accepts clients
//!                                                  ◄── serving
//!   accepts no more, keeps its sessions until they end
//! ```
//!
//! Both hold the same sockets, so at no moment is there nobody who listens, and nobody who waits is lost. A running process
//! that dies in between lets its successor go on; where the successor dies, it keeps serving.

mod sockets;

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use self::sockets::HandedOver;
use self::sockets::Sockets;
use super::store::Saved;
use super::systemd;
use crate::config;
use crate::sys::channel::Channel;
use crate::sys::process;

/// Set where the standard input is a channel to the process that runs until now.
const VARIABLE: &str = "BALANCER_HANDOVER";
/// Its value for the process that only starts the successor,
const DETACH: &str = "detach";
/// and for the successor.
const TAKE_OVER: &str = "take over";
/// Set where the successor does not find the running process's drains in its state directory: those, as JSON.
const LEASES: &str = "BALANCER_LEASES";
/// A successor must be ready by then, and it must serve so long after it was told to begin.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A process that should end is killed then.
const GRACE: Duration = Duration::from_secs(1);

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// The successor lives.
    Hello { pid: u32 },
    /// Sockets that listen, which come with the packet.
    Sockets(Sockets),
    /// There are no more of them.
    End,
    /// The successor can begin; whether it has taken the admin socket over.
    Ready { admin: bool },
    /// The successor cannot.
    Failed { why: String },
    /// The successor is to begin.
    Go,
    /// It is not wanted any more.
    Leave,
    /// It has begun.
    Serving,
}

fn send_message(channel: &Channel, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, descriptors)
}

fn receive_message(channel: &Channel, patience: Duration) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let Some((bytes, descriptors)) = channel.receive(patience)? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
}

/// The process that ran until now, as its successor knows it.
#[derive(Debug)]
pub struct Predecessor(Channel);

impl Predecessor {
    /// The process that has started this one to take over from it, and what it leaves; `None`: nobody has.
    ///
    /// # Errors
    /// The variable that says so is set, but nothing comes.
    pub fn find() -> io::Result<Option<(Self, HandedOver)>> {
        match std::env::var_os(VARIABLE) {
            None => return Ok(None),
            Some(role) if role == DETACH => detach()?,
            Some(_) => {}
        }
        let channel = Channel::from_stdin()?;
        send_message(&channel, &Message::Hello { pid: std::process::id() }, &[])?;
        let mut handed_over = HandedOver::default();
        loop {
            match receive_message(&channel, PATIENCE)? {
                Some((Message::Sockets(sockets), descriptors)) => handed_over.add(sockets, descriptors)?,
                Some((Message::End, _)) => return Ok(Some((Self(channel), handed_over))),
                Some(_) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Says that this process can serve, and waits until it is to begin: also where the other one is gone by then.
    ///
    /// # Errors
    /// The other process wants to serve on.
    pub fn ready(&self, admin: bool) -> io::Result<()> {
        match send_message(&self.0, &Message::Ready { admin }, &[]).and_then(|()| receive_message(&self.0, PATIENCE)) {
            Ok(Some((Message::Go, _)) | None) => Ok(()),
            Ok(Some(_)) => Err(io::Error::other("it keeps serving")),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says that this process serves.
    pub fn serving(&self) {
        // Where nobody hears it, this process is the only one.
        let _ = send_message(&self.0, &Message::Serving, &[]);
    }

    /// Says that this process cannot serve.
    pub fn fail(&self, why: &str) {
        // Its end says the same.
        let _ = send_message(&self.0, &Message::Failed { why: why.chars().take(2000).collect() }, &[]);
    }
}

/// How this process was started, and so how its successor is.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// This process's. To be asked at the start: later the file may be another one, which is what a successor is to run.
    ///
    /// # Errors
    /// The system does not say where the program is.
    pub fn current() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        // With a directory in it, it is where a new version is installed, also through a symbolic link.
        let named = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let program = match named {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { program, arguments: arguments.collect() })
    }
}

/// What a process does not forget, and where that is on disk.
#[derive(Debug)]
pub(super) struct MaintenanceState {
    pub(super) saved: Saved,
    /// Its state directory, where that can be written to.
    pub(super) kept_in: Option<PathBuf>,
}

/// What the predecessor has given along, where it is in no file.
pub(super) fn leases() -> Option<Saved> {
    let saved = std::env::var(LEASES).ok()?;
    serde_json::from_str(&saved).map_err(|error| log::warn!("{LEASES}: {error}: no drain of before is known")).ok()
}

/// A successor that serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Successor {
    /// Its process.
    pub(super) pid: u32,
    /// It has taken the admin socket over.
    pub(super) admin: bool,
}

/// Told when a successor is to begin.
pub(super) type Begins = oneshot::Receiver<()>;
/// Told how it went.
pub(super) type Went = oneshot::Receiver<Result<Successor, String>>;

impl Successor {
    /// Starts one, on a thread of its own because that takes its time: a channel that is told when it is to begin, and one that is
    /// told how it went. Where nobody listens to the first one any more by then, it does not begin.
    pub(super) fn start(
        invocation: &Invocation,
        handed_over: HandedOver,
        leases: MaintenanceState,
        config: PathBuf,
    ) -> io::Result<(Begins, Went)> {
        let ((begin, begins), (done, went)) = (oneshot::channel(), oneshot::channel());
        let invocation = invocation.clone();
        thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            let begun = Self::prepare(&invocation, &handed_over, &leases, &config)
                .and_then(|(channel, pid, admin)| Self::begin(&channel, pid, admin, begin.send(()).is_ok()));
            let _ = done.send(begun);
        })?;
        Ok((begins, went))
    }

    fn prepare(
        invocation: &Invocation,
        handed_over: &HandedOver,
        leases: &MaintenanceState,
        config: &Path,
    ) -> Result<(Channel, u32, bool), String> {
        let until = Instant::now() + PATIENCE;
        // The new process would find the same, but could only say it in the log.
        let loaded = config::load(config).map_err(|report| format!("{report}\n{}", report.conclusion()))?;
        if until <= Instant::now() {
            return Err(format!("reading {} took more than {PATIENCE:?}", config.display()));
        }
        let program = invocation.program.display();
        let (channel, other) = Channel::pair().map_err(|error| format!("cannot make a channel: {error}"))?;
        let mut command = Command::new(&invocation.program);
        command.args(&invocation.arguments).env(VARIABLE, DETACH).env_remove("WATCHDOG_PID").stdin(Stdio::from(other));
        let found = leases.kept_in.is_some() && leases.kept_in == loaded.config.state;
        match serde_json::to_string(&leases.saved) {
            Ok(saved) if !found && !leases.saved.is_empty() => command.env(LEASES, saved),
            _ => command.env_remove(LEASES),
        };
        let mut child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        // Its end of the channel must be in nobody else's hands, or its death would not be heard of.
        drop(command);
        let hello = receive_message(&channel, left(until));
        let detached = end(&mut child);
        let pid = match hello {
            Ok(Some((Message::Hello { pid }, _))) => pid,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(format!("{program} was not ready within {PATIENCE:?}: is it a balancer?"));
            }
            _ => {
                let status = detached.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(format!("{program} ended before it was ready ({status}): what it said is in the log"));
            }
        };
        match Self::wait(&channel, handed_over, until) {
            Ok(admin) => Ok((channel, pid, admin)),
            Err(why) => {
                dismiss(&channel, pid);
                Err(format!("{program} cannot take over: {why}"))
            }
        }
    }

    /// Until it is ready: whether it has taken the admin socket; else why it cannot.
    fn wait(channel: &Channel, handed_over: &HandedOver, until: Instant) -> Result<bool, String> {
        handed_over.send(channel).map_err(|error| format!("the sockets cannot be handed over: {error}"))?;
        match receive_message(channel, left(until)) {
            Ok(Some((Message::Ready { admin }, _))) => Ok(admin),
            Ok(Some((Message::Failed { why }, _))) => Err(why),
            Ok(Some(_)) => Err("it says what nobody expects: is it another program?".to_owned()),
            Ok(None) => Err("it ended before it was ready: what it said is in the log".to_owned()),
            Err(_) => Err(format!("it was not ready within {PATIENCE:?}")),
        }
    }

    /// Lets one that is ready begin, if it is still wanted.
    fn begin(channel: &Channel, pid: u32, admin: bool, wanted: bool) -> Result<Self, String> {
        let why = if wanted {
            // Before it begins: until then the service manager does not listen to it.
            systemd::handed_over(pid);
            match send_message(channel, &Message::Go, &[]).and_then(|()| receive_message(channel, PATIENCE)) {
                Ok(Some((Message::Serving, _))) => return Ok(Self { pid, admin }),
                Ok(Some((Message::Failed { why }, _))) => why,
                Ok(_) => "it ended before it served".to_owned(),
                Err(error) => error.to_string(),
            }
        } else {
            "this process was told to stop".to_owned()
        };
        systemd::handed_over(std::process::id());
        dismiss(channel, pid);
        Err(why)
    }
}

/// The time that is left; never none, which would be endless for a socket.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Ends a successor that is not to serve: by a word, because its death must not be taken for this process's; then by force.
fn dismiss(channel: &Channel, pid: u32) {
    let _ = send_message(channel, &Message::Leave, &[]);
    // It has the other end for as long as it lives: while that is open, the number cannot be another process's.
    if matches!(receive_message(channel, GRACE), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
        process::kill(pid);
    }
}

/// Starts this program once more and ends, so that the new process is the system's child.
fn detach() -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    // The name by which this one was called tells the next where to look for its successor.
    let mut arguments = std::env::args_os();
    command.arg0(arguments.next().unwrap_or_default()).args(arguments).env(VARIABLE, TAKE_OVER).spawn()?;
    std::process::exit(0);
}

/// Waits for the end of a process that has nothing more to do, and kills it where it takes its time.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < GRACE {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()
}
