//! Clients' and backends' sockets: connecting, ending and recognising how the other side ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::{PATIENCE, wait_until};

/// How the other side ended its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By finishing it.
    Clean,
    /// By a reset.
    Reset,
}

/// A connection that fails rather than hangs: no read or write waits longer than [`PATIENCE`]. No Nagle.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// A new connection to `address`.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("connecting to {address}: {e}")))
}

/// Ends a connection by a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Whether an error says that the other side has reset the connection.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// All that is still to come, and how it ends.
#[track_caller]
pub(crate) fn read_to_end(mut stream: impl Read) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Clean),
        Err(error) if is_reset(&error) => (bytes, End::Reset),
        Err(error) => panic!("no end after {} bytes: {error}", bytes.len()),
    }
}

/// Fails unless the next thing to read is a reset.
#[track_caller]
pub(crate) fn assert_ends_with_reset(stream: &TcpStream) {
    let (bytes, end) = read_to_end(stream);
    assert_eq!((bytes.len(), end), (0, End::Reset), "(bytes, end) of {stream:?}");
}

/// Waits for a reset where reading cannot tell it, since the other side had finished before; says how long it took.
#[track_caller]
pub(crate) fn await_reset(stream: &TcpStream, within: Duration) -> Duration {
    let start = Instant::now();
    while start.elapsed() < within {
        let mut entry = [PollFd::new(stream, PollFlags::empty())];
        let turn = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        poll(&mut entry, Some(&turn)).expect("poll");
        if entry[0].revents().contains(PollFlags::ERR) {
            let error = stream.take_error().expect("SO_ERROR").expect("an error where poll says so");
            assert!(is_reset(&error), "{error} instead of a reset");
            return start.elapsed();
        }
    }
    panic!("no reset within {within:?} on {stream:?}");
}

/// Waits until the other side's kernel has acknowledged every byte written here.
#[track_caller]
pub(crate) fn all_acknowledged(stream: &TcpStream) {
    let (SocketAddr::V4(local), SocketAddr::V4(peer)) =
        (stream.local_addr().expect("an address"), stream.peer_addr().expect("an address"))
    else {
        panic!("only for IPv4");
    };
    // As /proc/net/tcp writes them: the address in the machine's byte order, the port as a number.
    let hex = |address: &std::net::SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let (local, peer) = (hex(&local), hex(&peer));
    wait_until("every byte is acknowledged", PATIENCE, || {
        let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc/net/tcp");
        let line = table.lines().find(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next() == Some(&local) && fields.next() == Some(&peer)
        });
        line.is_some_and(|line| line.split_whitespace().nth(4).is_some_and(|queues| queues.starts_with("00000000:")))
    });
}

/// Sends `request` to an echoing backend and reads it back.
#[track_caller]
pub(crate) fn exchange_bytes(mut stream: &TcpStream, request: &[u8]) {
    stream.write_all(request).expect("sending");
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert!(answer == request, "the echo of {} bytes differs", request.len());
}

/// One byte to an echoing backend and back.
#[track_caller]
pub(crate) fn exchange(stream: &TcpStream) {
    exchange_bytes(stream, b"x");
}

/// A new client of [`super::Backend::named`] backends and the name of the one that serves it; `None` if it was refused,
/// which is always done by a reset.
#[track_caller]
pub(crate) fn admitted(address: SocketAddr) -> Option<(TcpStream, String)> {
    // A reset right behind the handshake can overtake the connect's own return.
    let stream = match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(stream) => patient(stream),
        Err(error) if is_reset(&error) => return None,
        Err(error) => panic!("connecting to {address}: {error}"),
    };
    let mut name = String::new();
    let mut byte = [0];
    loop {
        match (&stream).read(&mut byte) {
            Ok(1) if byte == *b"\n" => return Some((stream, name)),
            Ok(1) => name.push(char::from(byte[0])),
            Ok(_) => panic!("a clean end where a name or a reset is due"),
            Err(error) if is_reset(&error) => return None,
            Err(error) => panic!("neither served nor refused: {error}"),
        }
    }
}

/// The name of the backend that serves a new client.
#[track_caller]
pub(crate) fn served_by(address: SocketAddr) -> String {
    admitted(address).expect("a client must be served").1
}
