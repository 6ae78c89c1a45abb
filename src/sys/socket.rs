//! Sockets: listeners, connections to backends, and what the kernel tells of a connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{Shutdown, SocketFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::Errno;

/// Clients of a service that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 65535;

/// TCP sockets for one address, `count` of them, bound but not listening yet.
///
/// `freebind`: also where this machine does not have the address (`IP_FREEBIND`, ip(7)).
///
/// # Errors
/// `EADDRINUSE`. `alone`: also where somebody listens there with `SO_REUSEPORT`, who would otherwise share his clients silently.
pub fn bind_tcp(address: SocketAddr, count: usize, alone: bool, freebind: bool) -> io::Result<Vec<OwnedFd>> {
    let bind = |address: SocketAddr, shared| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(freebind)?;
        } else {
            socket.set_freebind_v4(freebind)?;
        }
        socket.set_reuse_port(shared)?;
        // Accepted sockets inherit both.
        socket.set_tcp_nodelay(true)?;
        socket.set_out_of_band_inline(true)?;
        socket.bind(&address.into())?;
        Ok::<_, io::Error>(socket)
    };
    let mut address = address;
    if alone {
        // A bind without SO_REUSEPORT fails where anybody listens. It is let go before the real ones are bound.
        address = bind(address, false)?.local_addr()?.as_socket().unwrap_or(address);
    }
    (0..count).map(|_| Ok(bind(address, true)?.into())).collect()
}

/// Makes a socket that listens already one that a worker can accept on, whoever has made it.
///
/// # Errors
/// It is no socket.
pub fn make_listener(socket: BorrowedFd<'_>) -> io::Result<()> {
    // The ring waits by itself; on a non-blocking listener its accepts would fail instead.
    rustix::io::ioctl_fionbio(socket, false)?;
    if local_address(socket).is_some() {
        // Accepted sockets inherit both.
        rustix::net::sockopt::set_tcp_nodelay(socket, true)?;
        rustix::net::sockopt::set_socket_oobinline(socket, true)?;
    }
    Ok(())
}

/// Among the listeners that share this one's address, it gets the connections that arrive on `core` (SO_INCOMING_CPU, socket(7));
/// `None`: the kernel's hash decides among them.
pub fn prefer_core(listener: BorrowedFd<'_>, core: Option<u32>) {
    // -1 stands for none. A refusal leaves what was, which serves as well.
    let _ = rustix::net::sockopt::set_socket_incoming_cpu(listener, core.unwrap_or(u32::MAX));
}

/// Where a stream socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListensAt {
    /// At a TCP address.
    Tcp {
        /// Also a wildcard.
        address: SocketAddr,
        /// At every IPv4 address, too: the address is `[::]` (`IPV6_V6ONLY` is off, ipv6(7)).
        dual_stack: bool,
    },
    /// At a path.
    Unix(PathBuf),
    /// Somewhere else: a name for it.
    Other(String),
}

impl std::fmt::Display for ListensAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address, dual_stack: true } => write!(f, "{address} (dual-stack)"),
            Self::Tcp { address, .. } => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Where a stream socket listens, whoever has made it; `None` if it does not.
pub fn listening_at(socket: BorrowedFd<'_>) -> Option<ListensAt> {
    use rustix::net::sockopt::{ipv6_v6only, socket_acceptconn, socket_type};
    let listens = socket_type(socket) == Ok(rustix::net::SocketType::STREAM) && socket_acceptconn(socket) == Ok(true);
    let address = rustix::net::getsockname(socket).ok().filter(|_| listens)?;
    if let Ok(bound) = SocketAddr::try_from(address.clone()) {
        let dual_stack = bound.is_ipv6() && bound.ip().is_unspecified() && ipv6_v6only(socket) == Ok(false);
        return Some(ListensAt::Tcp { address: canonical(bound), dual_stack });
    }
    let name = |family| ListensAt::Other(format!("a socket of address family {family}"));
    let Ok(unix) = rustix::net::SocketAddrUnix::try_from(address.clone()) else {
        return Some(name(address.address_family().as_raw()));
    };
    Some(match (unix.path(), unix.abstract_name()) {
        (Some(path), _) => ListensAt::Unix(std::ffi::OsStr::from_bytes(path.to_bytes()).into()),
        // A name that is in no directory: unix(7).
        (None, Some(name)) => ListensAt::Other(format!("unix:@{}", name.escape_ascii())),
        (None, None) => name(address.address_family().as_raw()),
    })
}

/// An IPv4 address, also where an IPv6 socket says it.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ std::net::IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        std::net::IpAddr::V6(_) => address,
    }
}

/// Whether others may listen at its address, too (`SO_REUSEPORT`).
pub fn shares_its_address(socket: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_reuseport(socket) == Ok(true)
}

/// Listens on a bound socket.
///
/// # Errors
/// OperationKind listen(2) says.
pub fn listen(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

/// The address that a TCP listener is bound to, or to which a connection has come.
pub fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok().map(canonical)
}

/// The address of a TCP connection's other end.
pub fn peer_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok().map(canonical)
}

/// A new non-blocking TCP socket for a connection to a backend. `delayed`: bytes for it are expected, so that the last step of its
/// handshake, the acknowledgement, need not go out alone (`TCP_QUICKACK` off, tcp(7)); [`acknowledge`] ends that.
pub fn for_backend(address: SocketAddr, delayed: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, rustix::net::SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    // An urgent byte stays in its place among the others: RFC 6093.
    rustix::net::sockopt::set_socket_oobinline(&socket, true)?;
    if delayed {
        rustix::net::sockopt::set_tcp_quickack(&socket, false)?;
    }
    Ok(socket)
}

/// Has a TCP socket send what it holds back for a full packet (`MSG_MORE`): setting `TCP_NODELAY` does that (tcp(7)).
pub fn push(socket: BorrowedFd<'_>) {
    // A connection that is gone sends nothing, a Unix socket holds nothing back.
    let _ = rustix::net::sockopt::set_tcp_nodelay(socket, true);
}

/// Has a socket send the acknowledgement that it owes, and others without delay, as it would without [`for_backend`]'s `delayed`.
pub fn acknowledge(socket: BorrowedFd<'_>) {
    // A connection that is gone owes nothing.
    let _ = rustix::net::sockopt::set_tcp_quickack(socket, true);
}

/// Whether a connection waits on a listener.
pub fn has_waiting(listener: BorrowedFd<'_>) -> bool {
    let mut entry = [rustix::event::PollFd::from_borrowed_fd(listener, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut entry, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0)
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

/// OperationKind the kernel knows of the other end's signs of life (`TCP_INFO`, tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpLiveness {
    /// How long ago the peer's kernel last acknowledged anything, also a window probe.
    pub since_acknowledgement: Duration,
    /// Segments are sent and not acknowledged.
    pub unacknowledged: bool,
    /// Window probes are sent and not answered.
    pub unanswered_probes: u8,
    /// Bytes wait that the peer's window has no room for.
    pub unsent: bool,
    /// How long ago bytes last left for the peer; `None` while they only leave again and again because nothing is acknowledged.
    pub since_sent: Option<Duration>,
}

/// Asks the kernel. `None` on a socket that is not TCP.
pub fn tcp_liveness(socket: BorrowedFd<'_>) -> Option<TcpLiveness> {
    information(socket).map(|info| TcpLiveness {
        since_acknowledgement: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        unacknowledged: info.tcpi_unacked > 0,
        unanswered_probes: info.tcpi_probes,
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
    fn who_listens_with_reuseport_is_found_only_where_one_must_be_alone() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = bind_tcp(any, 2, true, false).unwrap();
        let address = local_address(first[0].as_fd()).unwrap();
        assert_eq!(local_address(first[1].as_fd()), Some(address));
        first.iter().for_each(|socket| listen(socket.as_fd()).unwrap());
        assert_eq!(bind_tcp(address, 1, true, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(bind_tcp(address, 1, false, false).is_ok());
    }
}
