//! A listening socket, and whom those are for who come to it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::sys::socket;

/// In place of a service's number: nobody is served.
const NOBODY: usize = usize::MAX;
/// In place of a service's number: it depends on the address that a client has come to.
const BY_ADDRESS: usize = usize::MAX - 1;

/// A listening socket and whom it serves; shared by the control plane and the workers that accept on it.
#[derive(Debug)]
pub struct Listener {
    /// The socket, in blocking mode.
    pub socket: OwnedFd,
    /// The number of its service, or one of the two above.
    service: AtomicUsize,
    routes: ArcSwap<Vec<Route>>,
}

/// An address that clients come to, a wildcard for all of its family, and the number of its service.
pub type Route = (SocketAddr, usize);

impl Listener {
    /// A socket that serves nobody yet.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, service: AtomicUsize::new(NOBODY), routes: ArcSwap::default() }
    }

    /// The number of the service that a client who has come here is for.
    pub fn service_of(&self, client: BorrowedFd<'_>) -> Option<usize> {
        match self.service.load(Ordering::Acquire) {
            NOBODY => None,
            BY_ADDRESS => route(&self.routes.load(), socket::local_address(client)?),
            number => Some(number),
        }
    }

    /// Whether a client who comes here may be for the service of this number.
    pub fn may_serve(&self, number: usize) -> bool {
        match self.service.load(Ordering::Acquire) {
            BY_ADDRESS => self.routes.load().iter().any(|(_, own)| *own == number),
            own => own == number,
        }
    }

    /// From now on whoever comes is for the service of this number, which stands in the table already.
    pub fn serve(&self, service: usize) {
        self.service.store(service, Ordering::Release);
    }

    /// From now on the address that a client has come to decides; the services stand in the table already.
    pub fn serve_by_address(&self, routes: Vec<Route>) {
        self.routes.store(Arc::new(routes));
        self.service.store(BY_ADDRESS, Ordering::Release);
    }

    /// From now on nobody is served.
    pub fn serve_nobody(&self) {
        self.service.store(NOBODY, Ordering::Release);
    }
}

/// The route for the very address, else that for all addresses of its family.
fn route(routes: &[Route], local: SocketAddr) -> Option<usize> {
    let exact = |(at, _): &&Route| same_host(*at, local);
    let any = |(at, _): &&Route| at.ip().is_unspecified() && at.is_ipv4() == local.is_ipv4();
    routes.iter().find(exact).or_else(|| routes.iter().find(any)).map(|(_, number)| *number)
}

/// A link-local address is nothing without its interface.
fn same_host(one: SocketAddr, other: SocketAddr) -> bool {
    let scope = |address| if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
    let ip: fn(SocketAddr) -> IpAddr = |address| address.ip();
    ip(one) == ip(other) && scope(one) == scope(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_precise_address_decides() {
        let routes: Vec<Route> = [("0.0.0.0:80", 1), ("10.0.0.1:80", 2), ("[fe80::1%2]:80", 3), ("[fe80::1%3]:80", 4)]
            .map(|(at, number)| (at.parse().unwrap(), number))
            .into();
        for (local, number) in [
            ("10.0.0.1:80", Some(2)),
            ("10.0.0.2:80", Some(1)),
            ("[fe80::1%2]:80", Some(3)),
            ("[fe80::1%3]:80", Some(4)),
            ("[fe80::1%4]:80", None),
            ("[::1]:80", None),
        ] {
            assert_eq!(route(&routes, local.parse().unwrap()), number, "{local}");
        }
    }
}
