//! Where the administration socket is, and how it comes to be and goes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::sys::shortage;
use crate::sys::unix::{self, SocketFile, UnixListenError};

/// Who may connect: owner and group.
const MODE: u32 = 0o660;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The socket of a balancer that root runs.
pub const SYSTEM_SOCKET: &str = "/run/balancer/admin.sock";

/// Where the socket is when nobody says: in the runtime directory that the service manager has made (systemd.exec(5)); else of the
/// system for root, of the user for everybody else.
pub fn default_socket() -> PathBuf {
    match std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => directory.join("admin.sock"),
        _ if geteuid().is_root() => SYSTEM_SOCKET.into(),
        _ => user_socket(),
    }
}

/// The socket of an ordinary user, and of `demo`: in `$XDG_RUNTIME_DIR`, or where that is not set in a directory below `/tmp`
/// that belongs to the user alone.
pub fn user_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_absolute() => Path::new(&runtime).join("balancer/admin.sock"),
        _ => private_directory().join("admin.sock"),
    }
}

fn private_directory() -> PathBuf {
    format!("/tmp/balancer-{}", geteuid().as_raw()).into()
}

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The TCP listener cannot be had.
    #[error("admin.http: cannot listen on {address}: {error}; {remedy}", remedy = shortage::remedy_of_listening_at(.error, *.address, false))]
    Http {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Another process answers there.
    #[error("{} is already served by process {pid}: stop it, or give this one another admin.socket", .path.display())]
    Live {
        /// The socket.
        path: PathBuf,
        /// Who listens on it.
        pid: i32,
    },
    /// Another process has it, but is too busy to be asked for its id.
    #[error("{} is already served by a process that does not answer: stop it, or give this one another admin.socket", .0.display())]
    Busy(PathBuf),
    /// There is no thread for it.
    #[error("cannot start the administration interface: {0}; {remedy}", remedy = shortage::remedy_at_start(.0))]
    Start(io::Error),
    /// No descriptor is left.
    #[error("cannot keep the administration's sockets for a successor: {0}; {remedy}", remedy = shortage::remedy_at_start(.0))]
    Duplicate(io::Error),
    /// Something that is no socket stands there.
    #[error("{} exists and is not a socket: remove it, or name another admin.socket", .0.display())]
    NotASocket(PathBuf),
    /// The user's private directory was made by someone else, or others may write to it.
    #[error("{} must be a directory of this user with mode 0700: remove it, or set XDG_RUNTIME_DIR", .0.display())]
    NotPrivate(PathBuf),
    /// The system refused.
    #[error("cannot {doing} {}: {error}; let this user write there, or name another admin.socket, or none (`admin: {{ socket: none }}`)", .path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Refuses a socket that lies in a directory below `/tmp` which is not this user's own: anybody can make one there first.
///
/// # Errors
/// [`BindError::NotPrivate`].
pub fn check_owner(socket: &Path) -> Result<(), BindError> {
    let directory = private_directory();
    if socket.parent() == Some(&directory) { check_private(&directory) } else { Ok(()) }
}

fn check_private(directory: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0 => Ok(()),
        _ => Err(BindError::NotPrivate(directory.into())),
    }
}

/// A listening socket and its file.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

impl Bound {
    pub(super) fn new(path: &Path) -> Result<Self, BindError> {
        make_directory(path)?;
        let (socket, file) = unix::listen(path, MODE, BACKLOG).map_err(|obstacle| match obstacle {
            UnixListenError::Live(Some(pid)) => BindError::Live { path: path.into(), pid },
            UnixListenError::Live(None) => BindError::Busy(path.into()),
            UnixListenError::NotASocket => BindError::NotASocket(path.into()),
            UnixListenError::System(doing, error) => BindError::System { doing, path: path.into(), error },
        })?;
        let failed = |error| BindError::System { doing: "listen on", path: path.into(), error };
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, file })
    }
}

fn make_directory(socket: &Path) -> Result<(), BindError> {
    // A path without a directory has an empty one: the current.
    let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    let mode = if *directory == private_directory() { 0o700 } else { 0o755 };
    let made = DirBuilder::new().recursive(true).mode(mode).create(directory);
    made.map_err(|error| BindError::System { doing: "create the directory", path: directory.into(), error })?;
    check_owner(socket)
}
