//! Unix sockets in the file system: how they come to be, and how they go.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::Errno;

/// Why there is no socket at a path.
#[derive(Debug, Error)]
pub enum UnixListenError {
    /// A process answers there: its id, unless it is too busy to be asked.
    #[error("a process listens there already")]
    Live(Option<i32>),
    /// Something that is no socket stands there.
    #[error("a file that is not a socket is in the way")]
    NotASocket,
    /// The system refused: what was tried, and what it said.
    #[error("{1}")]
    System(&'static str, #[source] io::Error),
}

impl From<UnixListenError> for io::Error {
    fn from(obstacle: UnixListenError) -> Self {
        match obstacle {
            UnixListenError::Live(_) => Errno::ADDRINUSE.into(),
            UnixListenError::NotASocket => Self::new(io::ErrorKind::AlreadyExists, obstacle.to_string()),
            UnixListenError::System(_, error) => error,
        }
    }
}

/// A socket that listens at a path, with this mode whatever the umask. A dead process's socket is replaced; as one that is bound
/// and does not listen yet looks the same, it listens at once.
///
/// # Errors
/// Somebody answers there, something else is in the way, or the system refuses.
pub fn listen(path: &Path, mode: u32, backlog: i32) -> Result<(OwnedFd, SocketFile), UnixListenError> {
    make_way(path)?;
    let listen = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The file takes its mode from the socket, less the umask: so there is no moment in which it admits too many.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::of(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(backlog)?;
        Ok((socket.into(), file))
    };
    listen().map_err(|error| UnixListenError::System("listen on", error))
}

/// Removes the socket of a dead process; anything else that stands at `path` is an error.
fn make_way(path: &Path) -> Result<(), UnixListenError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(UnixListenError::System("look at", error)),
        // A connect to a regular file is refused, too.
        Ok(found) if !found.file_type().is_socket() => return Err(UnixListenError::NotASocket),
        Ok(_) => {}
    }
    let asking = |error| UnixListenError::System("ask who serves", error);
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(asking)?;
    // A listener whose queue is full would hold a blocking connect up.
    client.set_nonblocking(true).map_err(asking)?;
    match SockAddr::unix(path).and_then(|address| client.connect(&address)) {
        Ok(()) => {
            let peer = rustix::net::sockopt::socket_peercred(&client);
            Err(UnixListenError::Live(peer.ok().map(|peer| peer.pid.as_raw_nonzero().get())))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(UnixListenError::Live(None)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| UnixListenError::System("remove a dead process's socket", error))
        }
        Err(error) => Err(asking(error)),
    }
}

/// Device, inode and the time of its making: a number of a removed inode may be given again.
type Identity = (u64, u64, i64, i64);

fn identity(found: &fs::Metadata) -> Identity {
    (found.dev(), found.ino(), found.mtime(), found.mtime_nsec())
}

/// A socket in the file system, told apart from one that another process puts there later.
#[derive(Debug, Clone)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    /// The socket that stands at this path now.
    ///
    /// # Errors
    /// Nothing does, or it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(&fs::symlink_metadata(path)?) })
    }

    /// The socket at this path that another process has left; it may be gone.
    pub fn left(path: &Path) -> Self {
        Self::of(path).unwrap_or_else(|_| Self { path: path.into(), identity: Identity::default() })
    }

    /// Whether it stands there still: nobody has removed or replaced it.
    pub fn stands(&self) -> bool {
        self.is_at(&self.path)
    }

    /// Whether it is what stands at this path.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| identity(&found) == self.identity)
    }

    /// The same, from now on by this path, at which it stands.
    #[must_use]
    pub fn by(self, path: &Path) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Removes it, if it is still the same.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(&self) -> io::Result<()> {
        if self.stands() { fs::remove_file(&self.path) } else { Ok(()) }
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_a_socket_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = io::Error::from(listen(&path, 0o666, 1).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_dead_listener_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("listener");
        let (first, first_file) = listen(&path, 0o666, 1).unwrap();
        let live = listen(&path, 0o666, 1).unwrap_err();
        assert!(matches!(live, UnixListenError::Live(Some(pid)) if pid == std::process::id() as i32), "{live:?}");
        assert_eq!(io::Error::from(live).kind(), io::ErrorKind::AddrInUse);
        drop(first);
        // Its inode stays in use, so that the next file cannot have the same.
        fs::hard_link(&path, directory.path().join("held")).unwrap();
        let (_second, second_file) = listen(&path, 0o660, 1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        first_file.remove().unwrap();
        assert!(path.exists(), "what another has put there is left alone");
        second_file.remove().unwrap();
        assert!(!path.exists());
    }
}
