//! The optional TCP listener of the administration interface.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::BindError;

/// Connections that the kernel holds ready to be accepted.
const BACKLOG: i32 = 1024;

/// Binds the TCP listener; clients that come before it is served wait.
///
/// # Errors
/// Where the system refuses: the address, why, and what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| BindError::Http { address, error })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A start soon after an end; without SO_REUSEPORT, so that a second process is refused.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
