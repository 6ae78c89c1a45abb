//! Every listening socket of the process: what a configuration adds is bound before anything else changes, what it keeps
//! stays open, and what it drops is released once those who wait there have been served.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::{Config, Listen};
use crate::messages::{Command, Commander, Listener, Waiting, WorkerGone};
use crate::observe::running::Listening;
use crate::sys::unix::{self, SocketFile};
use crate::sys::{shortage, socket};

/// A handshake that has begun is over by then.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("service {service}: cannot listen on {address}: {error}; {remedy}", remedy = shortage::remedy_of_listening(.error))]
pub struct ListenError {
    /// Whose listener.
    service: Arc<str>,
    /// Where.
    address: String,
    /// What the system said.
    error: io::Error,
}

/// Sockets that listen already: another process has left them, or the service manager.
#[derive(Debug)]
pub struct Inherited {
    /// Where, as a configuration has it.
    pub listen: Listen,
    /// Whose they were; `None`: whoever listens there.
    pub service: Option<Arc<str>>,
    /// The sockets.
    pub sockets: Vec<Arc<Listener>>,
    /// The service manager has made them: the file of a Unix socket is its own to remove.
    pub passed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Listeners {
    workers: usize,
    open: Vec<Open>,
    leaving: Vec<Leaving>,
}

/// One address that is listened on.
#[derive(Debug)]
struct Open {
    service: Arc<str>,
    listen: Listen,
    /// As it really is: with the kernel's choice in place of port 0.
    address: String,
    /// Shared with the workers that accept on them; of a Unix socket there is one for all.
    sockets: Vec<Arc<Listener>>,
    file: Option<SocketFile>,
    /// Not listed any more, but its address is one of those of another that is: to close it would reset who is arriving.
    covered: bool,
    /// The workers accept on it.
    adopted: bool,
}

/// One that is being let go.
#[derive(Debug)]
struct Leaving {
    open: Open,
    /// When accepting ends; `None`: it has.
    until: Option<Instant>,
}

/// What a configuration needs, bound and listening, before any of it serves. Dropping it lets go of what is new.
#[derive(Debug)]
pub struct Prepared(Vec<(Arc<str>, Source)>);

#[derive(Debug)]
enum Source {
    /// The index of one that is open, and how the configuration writes its address now.
    Kept(usize, Listen),
    New(Open),
}

impl Inherited {
    /// These sockets, which are for nobody yet.
    pub fn new(listen: Listen, service: Option<Arc<str>>, sockets: Vec<OwnedFd>, passed: bool) -> Self {
        Self { listen, service, sockets: listeners(sockets), passed }
    }
}

impl Listeners {
    /// For so many workers. Of what is inherited, `commit` takes what the configuration lists, whatever the number of
    /// workers was before.
    ///
    /// # Errors
    /// A socket cannot be made what a listener must be.
    pub fn new(workers: usize, inherited: Vec<Inherited>) -> io::Result<Self> {
        let open = inherited.into_iter().map(Open::inherited).collect::<io::Result<_>>()?;
        Ok(Self { workers, open, leaving: Vec::new() })
    }

    /// What another process needs to go on listening: the same sockets, lent. Not one descriptor more, because there may be none left.
    pub(super) fn lend(&self) -> Vec<Inherited> {
        let lend = |open: &Open| Inherited {
            listen: open.listen.clone(),
            service: Some(Arc::clone(&open.service)),
            sockets: open.sockets.clone(),
            passed: open.file.is_none(),
        };
        self.open.iter().map(lend).collect()
    }

    /// Has the workers let go of all of them at once: another process accepts on the same sockets.
    ///
    /// # Errors
    /// A worker takes no commands.
    pub(super) fn hand_over(&mut self, commanders: &[Commander]) -> Result<(), WorkerGone> {
        self.leaving.clear();
        let sockets: Vec<_> = self.open.drain(..).flat_map(|open| open.sockets).collect();
        commanders.iter().try_for_each(|worker| worker.tell(Command::Release(sockets.clone(), Waiting::LeaveToOthers)))
    }

    /// Binds what is new in a configuration, then listens on all of it. Nothing that is open changes.
    ///
    /// # Errors
    /// The first address that cannot be had; then nothing is left of the others.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, ListenError> {
        let mut kept = vec![false; self.open.len()];
        let mut prepared = Prepared(Vec::new());
        for service in &config.services {
            for listen in &service.listen {
                let place =
                    self.open.iter().zip(&kept).position(|(open, kept)| !kept && open.is_at(listen, &service.name));
                let source = match place {
                    Some(place) => {
                        kept[place] = true;
                        Source::Kept(place, listen.clone())
                    }
                    None => Source::New(self.bind(&service.name, listen)?),
                };
                prepared.0.push((Arc::clone(&service.name), source));
            }
        }
        for (service, source) in &prepared.0 {
            let Source::New(open) = source else { continue };
            for listener in &open.sockets {
                socket::listen(listener.socket.as_fd())
                    .map_err(|error| ListenError::new(service, &open.listen, error))?;
            }
        }
        Ok(prepared)
    }

    /// Makes what was prepared all that is listened on. The table with these services must be published.
    ///
    /// # Errors
    /// A worker takes no commands.
    pub(super) fn commit(
        &mut self,
        prepared: Prepared,
        number: impl Fn(&str) -> usize,
        commanders: &[Commander],
    ) -> Result<(), WorkerGone> {
        let mut old: Vec<_> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for (service, source) in prepared.into_parts() {
            let kept = match source {
                Source::Kept(place, listen) => old.get_mut(place).and_then(Option::take).map(|open| open.by(listen)),
                Source::New(open) => Some(open),
            };
            let Some(mut open) = kept else { continue };
            open.sockets.iter().for_each(|listener| listener.serve(number(&service)));
            open.service = service;
            open.covered = false;
            self.open.push(open);
        }
        let now = Instant::now();
        for mut open in old.into_iter().flatten() {
            if open.is_lost() {
                log::warn!("somebody has removed the socket of {}: it is made anew where it is listed", open.address);
            }
            open.remove_file();
            if !open.adopted && open.file.is_none() {
                log::info!("nobody listens on {} any more", open.address);
            }
            let Some(heir) = self.open.iter().find(|other| !other.covered && other.overlaps(&open)) else {
                self.leaving.push(Leaving { open, until: Some(now) });
                continue;
            };
            if let Some(listener) = heir.sockets.first() {
                open.sockets.iter().for_each(|own| own.serve(listener.service()));
            }
            open.service = Arc::clone(&heir.service);
            if heir.has_all_addresses() {
                open.covered = true;
                self.open.push(open);
            } else {
                // Who comes now goes to the heir. Those whose handshakes were under way are let in here.
                self.leaving.push(Leaving { open, until: Some(now + HANDSHAKE) });
            }
        }
        let mut shares = vec![Vec::new(); commanders.len()];
        for open in self.open.iter_mut().filter(|open| !open.adopted) {
            open.adopted = true;
            share_out(&open.sockets, &mut shares);
        }
        for (commander, share) in commanders.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
            commander.tell(Command::Adopt(share))?;
        }
        self.release_removed(commanders).map(drop)
    }

    /// Releases listeners whose time has come, and forgets those that every worker has let go of. Answers whether some are
    /// still held.
    ///
    /// # Errors
    /// A worker takes no commands.
    pub(super) fn release_removed(&mut self, commanders: &[Commander]) -> Result<bool, WorkerGone> {
        let now = Instant::now();
        let mut sockets = Vec::new();
        for leaving in &mut self.leaving {
            if leaving.until.is_some_and(|until| until <= now) {
                leaving.until = None;
                sockets.extend(leaving.open.sockets.iter().cloned());
            }
        }
        if !sockets.is_empty() {
            commanders
                .iter()
                .try_for_each(|commander| commander.tell(Command::Release(sockets.clone(), Waiting::Serve)))?;
        }
        let held = |listener: &Arc<Listener>| Arc::strong_count(listener) > 1;
        drop(sockets);
        self.leaving.retain(|leaving| leaving.until.is_some() || leaving.open.sockets.iter().any(held));
        Ok(!self.leaving.is_empty())
    }

    /// Whether clients of the service of this number may still come from a listener that is being let go.
    pub(super) fn may_bring(&self, number: usize) -> bool {
        self.leaving.iter().flat_map(|leaving| &leaving.open.sockets).any(|listener| listener.service() == number)
    }

    /// The addresses really listened on.
    pub fn addresses(&self) -> Listening {
        let mut listening = Listening::default();
        for open in self.open.iter().filter(|open| !open.covered) {
            listening.entry(Arc::clone(&open.service)).or_default().push(open.address.clone());
        }
        listening
    }

    /// Lets go of all of them, and removes the files of Unix sockets; the workers let go when they stop.
    pub(super) fn close(&mut self) {
        self.open.drain(..).for_each(|open| open.remove_file());
        self.leaving.clear();
    }

    fn bind(&self, service: &Arc<str>, listen: &Listen) -> Result<Open, ListenError> {
        let failed = |error| ListenError::new(service, listen, error);
        let (sockets, file) = match listen {
            // Where one of its own listens, nobody of another process can.
            Listen::Tcp(address) => {
                (socket::bind_tcp(*address, self.workers, !self.has_at(*address)).map_err(failed)?, None)
            }
            Listen::Unix(path) => {
                // Whoever can reach its directory may connect, as everybody may who can reach an address.
                let (socket, file) =
                    unix::listen(path, 0o666, socket::BACKLOG).map_err(|obstacle| failed(obstacle.into()))?;
                (vec![socket], Some(file))
            }
        };
        let sockets = listeners(sockets);
        let address = match listen {
            Listen::Tcp(address) => actual(&sockets).unwrap_or(*address).to_string(),
            Listen::Unix(_) => listen.to_string(),
        };
        Ok(Open {
            service: Arc::clone(service),
            listen: listen.clone(),
            address,
            sockets,
            file,
            covered: false,
            adopted: false,
        })
    }

    /// Whether one of its own listeners, one that is leaving included, has this port on this or on all addresses.
    fn has_at(&self, address: SocketAddr) -> bool {
        let own = self.open.iter().chain(self.leaving.iter().map(|leaving| &leaving.open));
        own.filter_map(Open::tcp).any(|own| overlap(own, address))
    }
}

impl Prepared {
    fn into_parts(mut self) -> Vec<(Arc<str>, Source)> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for (_, source) in &self.0 {
            if let Source::New(open) = source {
                open.remove_file();
            }
        }
    }
}

impl Open {
    fn inherited(inherited: Inherited) -> io::Result<Self> {
        let Inherited { listen, service, sockets, passed } = inherited;
        if sockets.is_empty() {
            return Err(io::Error::other(format!("no socket came with {listen}")));
        }
        for listener in &sockets {
            socket::make_listener(listener.socket.as_fd())?;
        }
        let (address, file) = match &listen {
            Listen::Tcp(address) => (actual(&sockets).unwrap_or(*address).to_string(), None),
            Listen::Unix(path) => (listen.to_string(), (!passed).then(|| SocketFile::left(path))),
        };
        let service = service.unwrap_or_default();
        Ok(Self { service, listen, address, sockets, file, covered: false, adopted: false })
    }

    /// Where it listens, if that is not a path.
    fn tcp(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    /// Whether it is where a service is to listen.
    fn is_at(&self, listen: &Listen, service: &Arc<str>) -> bool {
        match (&self.file, listen) {
            // However the path is written. Where somebody has removed its file, nobody can come any more.
            (Some(file), Listen::Unix(path)) => file.is_at(path),
            // The kernel's choice for port 0 is the service's own.
            (_, Listen::Tcp(address)) if address.port() == 0 => self.listen == *listen && self.service == *service,
            _ => self.listen == *listen,
        }
    }

    /// The same, as the configuration writes its address now.
    fn by(mut self, listen: Listen) -> Self {
        if let (Listen::Unix(path), Some(file)) = (&listen, self.file.take()) {
            self.file = Some(file.by(path));
            self.address = listen.to_string();
        }
        self.listen = listen;
        self
    }

    /// Nobody can come any more: the socket's file is gone.
    fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|file| !file.stands())
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.tcp().zip(other.tcp()).is_some_and(|(own, other)| overlap(own, other))
    }

    fn has_all_addresses(&self) -> bool {
        self.tcp().is_some_and(|address| address.ip().is_unspecified())
    }

    fn remove_file(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.remove()
        {
            log::warn!("cannot remove the socket {}: {error}", file.path().display());
        }
    }
}

impl ListenError {
    /// Somebody listens there.
    pub(super) fn is_in_use(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }

    fn new(service: &Arc<str>, listen: &Listen, error: io::Error) -> Self {
        Self { service: Arc::clone(service), address: listen.to_string(), error }
    }
}

/// Sockets that serve nobody yet.
pub(super) fn listeners(sockets: Vec<OwnedFd>) -> Vec<Arc<Listener>> {
    sockets.into_iter().map(|socket| Arc::new(Listener::new(socket, usize::MAX))).collect()
}

/// Gives every worker a part in these sockets, and every socket a worker.
fn share_out(sockets: &[Arc<Listener>], shares: &mut [Vec<Arc<Listener>>]) {
    let (all, workers) = (sockets.len(), shares.len());
    for turn in 0..all.max(workers) {
        shares[turn % workers].push(Arc::clone(&sockets[turn % all]));
    }
}

/// Whether a client can mean either of them.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn actual(sockets: &[Arc<Listener>]) -> Option<SocketAddr> {
    socket::local_address(sockets.first()?.socket.as_fd())
}
