//! Sockets: listeners, connections to backends, and what the kernel tells of a connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use rustix::net::{Shutdown, SocketFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::Errno;

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65535;

/// One listening TCP socket for each of `count` workers, all on one address.
///
/// # Errors
/// `EADDRINUSE` also where another process listens there with `SO_REUSEPORT`, which would otherwise share its clients silently.
pub fn listen_tcp(address: SocketAddr, count: usize) -> io::Result<Vec<OwnedFd>> {
    let bind = |address: SocketAddr, shared| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(shared)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        Ok::<_, io::Error>(socket)
    };
    // Alone first: a bind without SO_REUSEPORT fails where anybody listens. It is let go before the real ones are bound.
    let alone = bind(address, false)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    let sockets = (0..count).map(|_| bind(address, true)).collect::<io::Result<Vec<_>>>()?;
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

/// A listening Unix socket, one descriptor for each of `count` workers. A dead process's socket file is replaced.
///
/// # Errors
/// `EADDRINUSE` if somebody answers there, or something other than a socket is in the way.
pub fn listen_unix(path: &Path, count: usize) -> io::Result<Vec<OwnedFd>> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Only a socket may be replaced: a connect to a regular file is refused, too.
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is in the way"));
            }
            // Not blocking: a live listener whose queue is full would hold the start up.
            let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            client.set_nonblocking(true)?;
            let dead = client
                .connect(&socket2::SockAddr::unix(path)?)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !dead {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    // std listens with a backlog of its own; a second listen(2) only changes that.
    rustix::net::listen(&listener, BACKLOG)?;
    let listener = OwnedFd::from(listener);
    let mut listeners = (1..count).map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
    listeners.push(listener);
    Ok(listeners)
}

/// The address that a TCP listener is bound to.
pub fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

/// The address of a TCP connection's other end.
pub fn peer_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok()
}

/// A new non-blocking TCP socket for a connection to a backend.
pub fn for_backend(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, rustix::net::SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// Accepts one connection that already waits.
///
/// # Errors
/// `EAGAIN` if none does. The listener must not be in blocking use: it is made non-blocking.
pub fn accept_waiting(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::ioctl_fionbio(listener, true)?;
    rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
}

/// Says the end of what is sent; what was sent before is still delivered.
pub fn finish(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::shutdown(socket, Shutdown::Write)
}

/// Resets a connection at once: unsent bytes are thrown away, the peer gets a RST, operations on it complete with an error.
/// On a Unix socket, which knows no reset, it is shut down both ways.
pub fn reset(socket: BorrowedFd<'_>) {
    let unspecified = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: Default::default() };
    // SAFETY: the address is a whole `sockaddr` on the stack. Dissolving an association by AF_UNSPEC: connect(2); on TCP it sends the reset.
    let outcome = unsafe {
        libc::connect(socket.as_raw_fd(), &raw const unspecified, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    if outcome != 0 {
        let _ = rustix::net::shutdown(socket, Shutdown::Both);
    }
}

/// Bytes written to a TCP socket that its peer's kernel has not acknowledged (`SIOCOUTQ`, tcp(7)); 0 if that cannot be known.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if outcome == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// The pending error of a socket, taken off it.
pub fn take_error(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::sockopt::socket_error(socket)?
}

/// Nothing is left of a TCP connection: it was reset, or both ends have finished (`TCP_CLOSE`, tcp(7)).
///
/// After a reset this holds also when somebody else has taken the error off the socket.
pub fn is_closed(socket: BorrowedFd<'_>) -> bool {
    const CLOSE: u8 = 7;
    information(socket).is_some_and(|info| info.tcpi_state == CLOSE)
}

/// What the kernel knows of the other end's signs of life (`TCP_INFO`, tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignsOfLife {
    /// How long ago the peer's kernel last acknowledged anything, also a window probe.
    pub since_acknowledgement: Duration,
    /// Segments are sent and not acknowledged.
    pub unacknowledged: bool,
    /// Window probes are sent and not answered.
    pub unanswered_probes: bool,
    /// Bytes wait that the peer's window has no room for.
    pub unsent: bool,
    /// How long ago bytes last left for the peer; `None` while they only leave again and again because nothing is acknowledged.
    pub since_sent: Option<Duration>,
}

/// Asks the kernel. `None` on a socket that is not TCP.
pub fn signs_of_life(socket: BorrowedFd<'_>) -> Option<SignsOfLife> {
    information(socket).map(|info| SignsOfLife {
        since_acknowledgement: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        unacknowledged: info.tcpi_unacked > 0,
        unanswered_probes: info.tcpi_probes > 0,
        unsent: unacknowledged(socket) > 0,
        since_sent: (info.tcpi_retransmits == 0).then(|| Duration::from_millis(info.tcpi_last_data_sent.into())),
    })
}

fn information(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    // SAFETY: all-zero is a valid `tcp_info`: it holds integers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length)
    };
    (outcome == 0).then_some(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_reset_leaves_a_closed_connection_behind_even_when_its_error_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        reset(theirs.as_fd());
        while ours.write(b"x").is_ok() {}
        assert!(take_error(ours.as_fd()).is_ok(), "the write has taken the error");
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "what is left looks like an end");
        assert!(is_closed(ours.as_fd()));
    }

    #[test]
    fn an_end_leaves_a_connection_that_is_not_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        finish(theirs.as_fd()).unwrap();
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        assert!(!is_closed(ours.as_fd()));
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert_eq!(listen_unix(&path, 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_dead_listener_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("listener");
        let first = listen_unix(&path, 2).unwrap();
        assert_eq!(listen_unix(&path, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(listen_unix(&path, 1).is_ok());
    }
}
