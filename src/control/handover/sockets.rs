//! The sockets that one process leaves to another, and how they are said to be whose.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Message, send_message};
use crate::config::Listen;
use crate::control::listeners::{Inherited, listeners};
use crate::messages::Listener;
use crate::sys::channel::Channel;
use crate::sys::socket::{self, ListensAt};

/// Whose sockets they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sockets {
    /// A service's. `listen`: as the configuration has it.
    Service {
        service: String,
        listen: String,
        /// The service manager has made them: for no service in particular. 0.1.0 says it of every TCP socket, too.
        #[serde(default)]
        passed: bool,
        /// The same, and true.
        #[serde(default)]
        by_manager: bool,
    },
    /// The administration's, at this path.
    Admin { path: PathBuf },
    /// The administration's TCP listener; `listen`: as the configuration has it.
    Http { listen: String },
}

/// What a process leaves to its successor.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// The services' listeners.
    pub listeners: Vec<Inherited>,
    /// Those that the service manager has made.
    pub passed: Vec<Arc<Listener>>,
    /// The admin socket and its path.
    pub admin: Option<(PathBuf, OwnedFd)>,
    /// The administration's TCP listener, and where the configuration wants it.
    pub http: Option<(std::net::SocketAddr, OwnedFd)>,
}

impl HandedOver {
    pub(super) fn send(&self, channel: &Channel) -> io::Result<()> {
        for listener in &self.passed {
            let socket = listener.socket.as_fd();
            // Only versions before this one look at it.
            let listen = match socket::listening_at(socket) {
                Some(ListensAt::Tcp { address, .. }) => address.to_string(),
                other => other.map(|at| at.to_string()).unwrap_or_default(),
            };
            let whose = Sockets::Service { service: String::new(), listen, passed: true, by_manager: true };
            send_message(channel, &Message::Sockets(whose), &[socket])?;
        }
        for Inherited { listen, service, sockets } in &self.listeners {
            let (service, listen) = (service.to_string(), listen.to_string());
            let message = Message::Sockets(Sockets::Service { service, listen, passed: false, by_manager: false });
            let sockets: Vec<_> = sockets.iter().map(|listener| listener.socket.as_fd()).collect();
            sockets.chunks(Channel::MOST).try_for_each(|some| send_message(channel, &message, some))?;
        }
        if let Some((path, socket)) = &self.admin {
            send_message(channel, &Message::Sockets(Sockets::Admin { path: path.clone() }), &[socket.as_fd()])?;
        }
        if let Some((listen, socket)) = &self.http {
            let listen = listen.to_string();
            send_message(channel, &Message::Sockets(Sockets::Http { listen }), &[socket.as_fd()])?;
        }
        send_message(channel, &Message::End, &[])
    }

    pub(super) fn add(&mut self, sockets: Sockets, mut descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match sockets {
            Sockets::Service { passed, by_manager, .. } if by_manager || passed && !are_own(&descriptors) => {
                self.passed.extend(listeners(descriptors));
            }
            Sockets::Service { service, listen, .. } => {
                let (listen, service, sockets) = (parse(&listen)?, Arc::from(service), listeners(descriptors));
                let is_it = |other: &&mut Inherited| (&other.listen, &other.service) == (&listen, &service);
                match self.listeners.iter_mut().find(is_it) {
                    Some(inherited) => inherited.sockets.extend(sockets),
                    None => self.listeners.push(Inherited { listen, service, sockets }),
                }
            }
            Sockets::Admin { path } => self.admin = descriptors.pop().map(|socket| (path, socket)),
            Sockets::Http { listen } => {
                let listen = listen.parse().map_err(io::Error::other)?;
                self.http = descriptors.pop().map(|socket| (listen, socket));
            }
        }
        Ok(())
    }
}

/// Whether a process of this program has bound them, whose TCP sockets share their address.
fn are_own(sockets: &[OwnedFd]) -> bool {
    sockets.iter().all(|socket| socket::shares_its_address(socket.as_fd()))
}

fn parse(listen: &str) -> io::Result<Listen> {
    Ok(match listen.strip_prefix("unix:") {
        Some(path) => Listen::Unix(path.into()),
        None => Listen::Tcp(listen.parse().map_err(io::Error::other)?),
    })
}
