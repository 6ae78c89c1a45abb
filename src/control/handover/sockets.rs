//! The sockets that one process leaves to another, and how they are said to be whose.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Message, send_message};
use crate::config::Listen;
use crate::control::listeners::{Inherited, listeners};
use crate::sys::channel::Channel;

/// Whose sockets they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sockets {
    /// A service's. `listen`: as the configuration has it.
    Service {
        service: String,
        listen: String,
        /// The service manager has made them. Versions that do not know it say nothing.
        #[serde(default)]
        passed: bool,
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
    /// The admin socket and its path.
    pub admin: Option<(PathBuf, OwnedFd)>,
    /// The administration's TCP listener, and where the configuration wants it.
    pub http: Option<(std::net::SocketAddr, OwnedFd)>,
}

impl HandedOver {
    pub(super) fn send(&self, channel: &Channel) -> io::Result<()> {
        for Inherited { listen, service, sockets, passed } in &self.listeners {
            let whose = Sockets::Service {
                service: service.as_deref().unwrap_or_default().to_owned(),
                listen: listen.to_string(),
                passed: *passed,
            };
            let message = Message::Sockets(whose);
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
            Sockets::Service { service, listen, passed } => {
                let listen = parse(&listen)?;
                let service = Some(service.as_str().into()).filter(|service: &std::sync::Arc<str>| !service.is_empty());
                let is_it = |other: &&mut Inherited| (&other.listen, &other.service) == (&listen, &service);
                match self.listeners.iter_mut().find(is_it) {
                    Some(inherited) => inherited.sockets.extend(listeners(descriptors)),
                    None => self.listeners.push(Inherited::new(listen, service, descriptors, passed)),
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

fn parse(listen: &str) -> io::Result<Listen> {
    Ok(match listen.strip_prefix("unix:") {
        Some(path) => Listen::Unix(path.into()),
        None => Listen::Tcp(listen.parse().map_err(io::Error::other)?),
    })
}
