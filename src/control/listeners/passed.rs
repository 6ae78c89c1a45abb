//! Sockets that the service manager has made and passed (systemd's socket activation, `sd_listen_fds(3)`).
//!
//! They are kept for as long as the process lives, whatever a configuration lists: the manager's own copy goes on listening, so
//! clients would wait for ever on one that nobody accepts on, and `shutdown(2)` is forbidden (systemd.socket(5)): the manager would
//! take its socket for broken. So workers accept on all of them, and reset the clients that are for no service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::{HANDSHAKE, overlap};
use crate::config::Listen;
use crate::messages::{Listener, Route};
use crate::sys::socket::{self, ListensAt};
use crate::sys::unix::SocketFile;

/// One of them.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) listener: Arc<Listener>,
    at: ListensAt,
    /// The manager's, of a Unix socket.
    file: Option<SocketFile>,
    /// Where clients of it go.
    routes: Vec<Assigned>,
    /// The workers accept on it.
    pub(super) adopted: bool,
}

/// A listed address whose clients come by the socket.
#[derive(Debug)]
struct Assigned {
    listen: Listen,
    number: usize,
    /// A configuration has dropped it: who waited then is served first, until then at the latest.
    until: Option<Instant>,
}

impl Passed {
    /// `None`: it is no listening stream socket.
    ///
    /// # Errors
    /// It cannot be made what a listener must be.
    pub(super) fn new(listener: Arc<Listener>) -> std::io::Result<Option<Self>> {
        let Some(at) = socket::listening_at(listener.socket.as_fd()) else { return Ok(None) };
        socket::make_listener(listener.socket.as_fd())?;
        let file = if let ListensAt::Unix(path) = &at { Some(SocketFile::left(path)) } else { None };
        Ok(Some(Self { listener, at, file, routes: Vec::new(), adopted: false }))
    }

    /// The addresses that it accepts clients at; two where it is dual-stack.
    fn accepts(&self) -> impl Iterator<Item = SocketAddr> {
        let (own, four) = match self.at {
            ListensAt::Tcp { address, dual_stack } => {
                let four = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
                (Some(address), dual_stack.then_some(four))
            }
            ListensAt::Unix(_) | ListensAt::Other(_) => (None, None),
        };
        four.into_iter().chain(own)
    }

    /// Whether every client of a listed address comes to it, however a path is written.
    pub(super) fn has_all_of(&self, listen: &Listen) -> bool {
        match listen {
            Listen::Tcp(listed) => self.accepts().any(|own| contains(own, *listed)),
            Listen::Unix(path) => self.file.as_ref().is_some_and(|file| file.is_at(path)),
        }
    }

    /// Whether some clients of a listed address come to it.
    pub(super) fn has_part_of(&self, listen: &Listen) -> bool {
        match listen {
            Listen::Tcp(listed) => self.accepts().any(|own| overlap(own, *listed)),
            Listen::Unix(_) => self.has_all_of(listen),
        }
    }

    /// Where it listens.
    pub(super) fn at(&self) -> &ListensAt {
        &self.at
    }

    /// Has its clients go where a configuration lists what they come to, and says what is not listed.
    pub(super) fn assign<'l>(
        &mut self,
        listed: impl Iterator<Item = (&'l Arc<str>, &'l Listen)>,
        number: impl Fn(&str) -> usize,
    ) {
        let mut routes = Vec::new();
        for (service, listen) in listed.filter(|(_, listen)| self.has_part_of(listen)) {
            if !self.routes.iter().any(|route| route.until.is_none() && route.listen == *listen) {
                log::info!("{service}: the service manager's socket {} serves {listen}", self.at);
            }
            routes.push(Assigned { listen: listen.clone(), number: number(service), until: None });
        }
        let unlisted = self.unlisted(&routes);
        if !unlisted.is_empty() && (!self.adopted || unlisted != self.unlisted(&self.routes)) {
            self.say_unlisted(&unlisted, routes.is_empty());
        }
        let now = Instant::now();
        for route in std::mem::replace(&mut self.routes, routes) {
            if !self.routes.iter().any(|new| new.listen == route.listen) {
                self.routes.push(Assigned { until: Some(now + HANDSHAKE), ..route });
            }
        }
        self.forget_dropped(now);
    }

    /// Resets those who come to what a configuration has dropped, once nobody waits any more. Answers whether somebody may.
    pub(super) fn forget_dropped(&mut self, now: Instant) -> bool {
        let waiting = self.routes.iter().any(|route| route.until.is_some())
            && self.adopted
            && socket::has_waiting(self.listener.socket.as_fd());
        self.routes.retain(|route| route.until.is_none_or(|until| waiting && now < until));
        self.direct();
        waiting
    }

    /// Whether clients of the service of this number, which is listed no more, may still come.
    pub(super) fn may_bring(&self, number: usize) -> bool {
        self.routes.iter().any(|route| route.until.is_some() && route.number == number)
    }

    /// Tells the workers whom to serve.
    fn direct(&self) {
        let Some(Assigned { number, .. }) = self.routes.first() else { return self.listener.serve_nobody() };
        if self.routes.iter().all(|route| route.number == *number) && self.unlisted(&self.routes).is_empty() {
            return self.listener.serve(*number);
        }
        let by_address = |route: &Assigned| match route.listen {
            Listen::Tcp(address) => Some((address, route.number)),
            Listen::Unix(_) => None,
        };
        self.listener.serve_by_address(self.routes.iter().filter_map(by_address).collect::<Vec<Route>>());
    }

    /// What it accepts and these routes do not lead on, as a configuration would write it.
    fn unlisted(&self, routes: &[Assigned]) -> Vec<String> {
        match &self.at {
            ListensAt::Tcp { .. } => {
                let listed = |own: &SocketAddr| {
                    routes.iter().any(|route| matches!(route.listen, Listen::Tcp(listed) if contains(listed, *own)))
                };
                self.accepts().filter(|own| !listed(own)).map(|own| own.to_string()).collect()
            }
            at if routes.is_empty() => vec![at.to_string()],
            _ => Vec::new(),
        }
    }

    fn say_unlisted(&self, unlisted: &[String], is_unused: bool) {
        let (what, remedy) = if is_unused {
            (self.at.to_string(), "list it, or take it out of the .socket unit")
        } else {
            let remedy = "list it, too, or have the .socket unit listen on no more than is listed (BindIPv6Only=ipv6-only leaves IPv4 out)";
            (format!("{} of {}", unlisted.join(" and "), self.at), remedy)
        };
        log::warn!(
            "no service lists {what}, a socket of the service manager: clients who come there are reset; {remedy}"
        );
    }
}

/// Whether every client of `part` is one of `whole`.
fn contains(whole: SocketAddr, part: SocketAddr) -> bool {
    overlap(whole, part) && (whole.ip().is_unspecified() || whole.ip() == part.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_contains_its_family_alone() {
        let is = |whole: &str, part: &str| contains(whole.parse().unwrap(), part.parse().unwrap());
        assert!(is("0.0.0.0:80", "10.0.0.1:80") && is("0.0.0.0:80", "0.0.0.0:80") && is("[::]:80", "[::1]:80"));
        assert!(!is("10.0.0.1:80", "0.0.0.0:80") && !is("0.0.0.0:80", "10.0.0.1:81"));
        assert!(!is("[::]:80", "10.0.0.1:80") && !is("0.0.0.0:80", "[::1]:80"));
    }
}
