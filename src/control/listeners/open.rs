//! One address that this process itself listens on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::overlap;
use crate::config::{Listen, Service};
use crate::messages::Listener;
use crate::sys::socket;
use crate::sys::unix::{self, SocketFile, UnixListenError};

/// Sockets that another process has bound and left.
#[derive(Debug)]
pub struct Inherited {
    /// Where, as a configuration has it.
    pub listen: Listen,
    /// Whose they were.
    pub service: Arc<str>,
    /// The sockets.
    pub sockets: Vec<Arc<Listener>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) service: Arc<str>,
    pub(super) listen: Listen,
    /// As it really is: with the kernel's choice in place of port 0.
    pub(super) address: String,
    /// Shared with the workers that accept on them; of a Unix socket there is one for all.
    pub(super) sockets: Vec<Arc<Listener>>,
    pub(super) file: Option<SocketFile>,
    /// Not listed any more, but its address is one of those of another that is: to close it would reset who is arriving.
    pub(super) covered: bool,
    /// The workers accept on it.
    pub(super) adopted: bool,
}

impl Open {
    /// `count` sockets for a TCP address, of a Unix socket one, which listens already. `alone`: nobody else may have the address.
    pub(super) fn bind(service: &Service, listen: &Listen, count: usize, alone: bool) -> Result<Self, UnixListenError> {
        let (sockets, file) = match listen {
            Listen::Tcp(address) => {
                let bound = socket::bind_tcp(*address, count, alone, service.freebind);
                (bound.map_err(|error| UnixListenError::System("bind", error))?, None)
            }
            Listen::Unix(path) => {
                // Whoever can reach its directory may connect, as everybody may who can reach an address.
                let (socket, file) = unix::listen(path, 0o666, socket::BACKLOG)?;
                (vec![socket], Some(file))
            }
        };
        Ok(Self::new(Arc::clone(&service.name), listen.clone(), listeners(sockets), file))
    }

    pub(super) fn inherited(inherited: Inherited) -> io::Result<Self> {
        let Inherited { listen, service, sockets } = inherited;
        if sockets.is_empty() {
            return Err(io::Error::other(format!("no socket came with {listen}")));
        }
        for listener in &sockets {
            socket::make_listener(listener.socket.as_fd())?;
        }
        let file = match &listen {
            Listen::Tcp(_) => None,
            Listen::Unix(path) => Some(SocketFile::left(path)),
        };
        Ok(Self::new(service, listen, sockets, file))
    }

    fn new(service: Arc<str>, listen: Listen, sockets: Vec<Arc<Listener>>, file: Option<SocketFile>) -> Self {
        let actual = sockets.first().and_then(|listener| socket::local_address(listener.socket.as_fd()));
        let address = actual.map_or_else(|| listen.to_string(), |address| address.to_string());
        Self { service, listen, address, sockets, file, covered: false, adopted: false }
    }

    /// Where it listens, if that is not a path.
    pub(super) fn tcp(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    /// Whether it is where a service is to listen.
    pub(super) fn is_at(&self, listen: &Listen, service: &Arc<str>) -> bool {
        match (&self.file, listen) {
            // However the path is written. Where somebody has removed its file, nobody can come any more.
            (Some(file), Listen::Unix(path)) => file.is_at(path),
            // The kernel's choice for port 0 is the service's own.
            (_, Listen::Tcp(address)) if address.port() == 0 => self.listen == *listen && self.service == *service,
            _ => self.listen == *listen,
        }
    }

    /// The same, as the configuration writes its address now.
    pub(super) fn by(mut self, listen: Listen) -> Self {
        if let (Listen::Unix(path), Some(file)) = (&listen, self.file.take()) {
            self.file = Some(file.by(path));
            self.address = listen.to_string();
        }
        self.listen = listen;
        self
    }

    /// Nobody can come any more: the socket's file is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|file| !file.stands())
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.tcp().zip(other.tcp()).is_some_and(|(own, other)| overlap(own, other))
    }

    pub(super) fn has_all_addresses(&self) -> bool {
        self.tcp().is_some_and(|address| address.ip().is_unspecified())
    }

    pub(super) fn remove_file(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.remove()
        {
            log::warn!("cannot remove the socket {}: {error}", file.path().display());
        }
    }
}

/// Sockets that serve nobody yet.
pub(in crate::control) fn listeners(sockets: Vec<OwnedFd>) -> Vec<Arc<Listener>> {
    sockets.into_iter().map(|socket| Arc::new(Listener::new(socket))).collect()
}
