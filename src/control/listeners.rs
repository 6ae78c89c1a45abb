//! Every listening socket of the process: what a configuration adds is bound before anything else changes, what it keeps
//! stays open, and what it drops is released once those who wait there have been served.

mod open;
mod passed;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use self::open::Inherited;
use self::open::Open;
pub(super) use self::open::listeners;
use self::passed::Passed;
use crate::config::{Config, Listen, Service};
use crate::messages::{Command, Commander, Listener, Waiting, WorkerGone};
use crate::observe::running::Listening;
use crate::sys::unix::UnixListenError;
use crate::sys::{Errno, shortage, socket};

/// A handshake that has begun is over by then.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("service {service}: cannot listen on {address}: {error}; {remedy}")]
pub struct ListenError {
    /// Whose listener.
    service: Arc<str>,
    /// Where.
    address: String,
    /// What the system said.
    error: io::Error,
    /// What to do.
    remedy: String,
    /// Somebody listens there who may be about to end.
    may_pass: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Listeners {
    workers: usize,
    open: Vec<Open>,
    leaving: Vec<Leaving>,
    /// The service manager's, also those that no service lists.
    passed: Vec<Passed>,
    /// What is listed: the service and the address that is really listened on, in the order of the file.
    listed: Vec<(Arc<str>, String)>,
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
pub struct Prepared(Vec<Listed>);

/// An address of a configuration.
#[derive(Debug)]
struct Listed {
    service: Arc<str>,
    listen: Listen,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The index of one that is open.
    Kept(usize),
    New(Open),
    /// Its clients come by the service manager's sockets.
    Passed,
}

impl Listeners {
    /// For so many workers. Of what is inherited, `commit` takes what the configuration lists, whatever the number of
    /// workers was before. `passed`: sockets that the service manager has made.
    ///
    /// # Errors
    /// A socket cannot be made what a listener must be.
    pub fn new(workers: usize, inherited: Vec<Inherited>, passed: Vec<Arc<Listener>>) -> io::Result<Self> {
        let open = inherited.into_iter().map(Open::inherited).collect::<io::Result<_>>()?;
        let mut listeners = Self { workers, open, leaving: Vec::new(), passed: Vec::new(), listed: Vec::new() };
        for listener in passed {
            match Passed::new(listener)? {
                Some(passed) => listeners.passed.push(passed),
                None => log::warn!(
                    "the service manager has passed something that is no listening stream socket: it is closed"
                ),
            }
        }
        Ok(listeners)
    }

    /// What another process needs to go on listening: the same sockets, lent, its own and the service manager's. Not one descriptor
    /// more, because there may be none left.
    pub(super) fn lend(&self) -> (Vec<Inherited>, Vec<Arc<Listener>>) {
        let lend = |open: &Open| Inherited {
            listen: open.listen.clone(),
            service: Arc::clone(&open.service),
            sockets: open.sockets.clone(),
        };
        let passed = self.passed.iter().map(|passed| Arc::clone(&passed.listener)).collect();
        (self.open.iter().map(lend).collect(), passed)
    }

    /// Has the workers let go of all of them at once: another process accepts on the same sockets.
    ///
    /// # Errors
    /// A worker takes no commands.
    pub(super) fn hand_over(&mut self, commanders: &[Commander]) -> Result<(), WorkerGone> {
        self.leaving.clear();
        let passed = self.passed.drain(..).map(|passed| passed.listener);
        let sockets: Vec<_> = self.open.drain(..).flat_map(|open| open.sockets).chain(passed).collect();
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
                        Source::Kept(place)
                    }
                    None if self.passed.iter().any(|passed| passed.has_all_of(listen)) => Source::Passed,
                    None => Source::New(self.bind(service, listen)?),
                };
                prepared.0.push(Listed { service: Arc::clone(&service.name), listen: listen.clone(), source });
            }
        }
        for Listed { service, listen, source } in &prepared.0 {
            let Source::New(open) = source else { continue };
            for listener in &open.sockets {
                socket::listen(listener.socket.as_fd()).map_err(|error| self.failed(service, listen, error))?;
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
        let prepared = prepared.into_parts();
        for passed in &mut self.passed {
            passed.assign(prepared.iter().map(|listed| (&listed.service, &listed.listen)), &number);
        }
        self.listed.clear();
        for Listed { service, listen, source } in prepared {
            let open = match source {
                Source::Kept(place) => old.get_mut(place).and_then(Option::take).map(|open| open.by(listen)),
                Source::New(open) => Some(open),
                Source::Passed => {
                    self.listed.push((service, listen.to_string()));
                    continue;
                }
            };
            let Some(mut open) = open else { continue };
            open.sockets.iter().for_each(|listener| listener.serve(number(&service)));
            self.listed.push((Arc::clone(&service), open.address.clone()));
            open.service = service;
            open.covered = false;
            self.open.push(open);
        }
        old.into_iter().flatten().for_each(|open| self.drop_listener(open, &number));
        self.adopt(commanders)?;
        self.release_removed(commanders).map(drop)
    }

    /// Lets one go that is not listed any more.
    fn drop_listener(&mut self, mut open: Open, number: impl Fn(&str) -> usize) {
        if open.is_lost() {
            log::warn!("somebody has removed the socket of {}: it is made anew where it is listed", open.address);
        }
        open.remove_file();
        if !open.adopted && open.file.is_none() {
            log::info!("nobody listens on {} any more", open.address);
        }
        let now = Instant::now();
        let Some(heir) = self.open.iter().find(|other| !other.covered && other.overlaps(&open)) else {
            self.leaving.push(Leaving { open, until: Some(now) });
            return;
        };
        open.sockets.iter().for_each(|own| own.serve(number(&heir.service)));
        open.service = Arc::clone(&heir.service);
        if heir.has_all_addresses() {
            open.covered = true;
            self.open.push(open);
        } else {
            // Who comes now goes to the heir. Those whose handshakes were under way are let in here.
            self.leaving.push(Leaving { open, until: Some(now + HANDSHAKE) });
        }
    }

    /// Has the workers accept on what they do not yet.
    fn adopt(&mut self, commanders: &[Commander]) -> Result<(), WorkerGone> {
        let mut shares = vec![Vec::new(); commanders.len()];
        for open in self.open.iter_mut().filter(|open| !open.adopted) {
            open.adopted = true;
            share_out(&open.sockets, &mut shares);
        }
        for passed in self.passed.iter_mut().filter(|passed| !passed.adopted) {
            passed.adopted = true;
            share_out(std::slice::from_ref(&passed.listener), &mut shares);
        }
        for (commander, share) in commanders.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
            commander.tell(Command::Adopt(share))?;
        }
        Ok(())
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
        let waiting = self.passed.iter_mut().fold(false, |waiting, passed| passed.forget_dropped(now) | waiting);
        Ok(waiting || !self.leaving.is_empty())
    }

    /// Whether clients of the service of this number may still come from a listener that is being let go.
    pub(super) fn may_bring(&self, number: usize) -> bool {
        self.leaving.iter().flat_map(|leaving| &leaving.open.sockets).any(|listener| listener.may_serve(number))
            || self.passed.iter().any(|passed| passed.may_bring(number))
    }

    /// The addresses really listened on.
    pub fn addresses(&self) -> Listening {
        let mut listening = Listening::default();
        for (service, address) in &self.listed {
            listening.entry(Arc::clone(service)).or_default().push(address.clone());
        }
        listening
    }

    /// Lets go of all of them, and removes the files of Unix sockets; the workers let go when they stop.
    pub(super) fn close(&mut self) {
        self.open.drain(..).for_each(|open| open.remove_file());
        self.leaving.clear();
        self.passed.clear();
    }

    fn bind(&self, service: &Service, listen: &Listen) -> Result<Open, ListenError> {
        // Where one of its own listens, nobody of another process can.
        let alone = matches!(listen, Listen::Tcp(address) if !self.has_at(*address));
        Open::bind(service, listen, self.workers, alone).map_err(|obstacle| match obstacle {
            UnixListenError::Live(pid) => ListenError::live(&service.name, listen, pid),
            other => self.failed(&service.name, listen, other.into()),
        })
    }

    fn failed(&self, service: &Arc<str>, listen: &Listen, error: io::Error) -> ListenError {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        let in_the_way = self.passed.iter().find(|passed| in_use && passed.has_part_of(listen)).map(Passed::at);
        let remedy = match (in_the_way, listen) {
            (Some(part), _) => format!(
                "the service manager has passed {part}, a part of it: list that, have the .socket unit listen on {listen} (ListenStream=), or take it out there"
            ),
            (None, Listen::Tcp(address)) => shortage::remedy_of_listening_at(&error, *address, true),
            (None, Listen::Unix(_)) => shortage::remedy_of_listening(&error).to_owned(),
        };
        let may_pass = in_use && in_the_way.is_none();
        ListenError { service: Arc::clone(service), address: listen.to_string(), error, remedy, may_pass }
    }

    /// Whether one of its own listeners, one that is leaving included, has this port on this or on all addresses.
    fn has_at(&self, address: SocketAddr) -> bool {
        let own = self.open.iter().chain(self.leaving.iter().map(|leaving| &leaving.open));
        own.filter_map(Open::tcp).any(|own| overlap(own, address))
    }
}

impl Prepared {
    fn into_parts(mut self) -> Vec<Listed> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for Listed { source, .. } in &self.0 {
            if let Source::New(open) = source {
                open.remove_file();
            }
        }
    }
}

impl ListenError {
    /// A process listens at a path: this one, where it is another service's or the admin socket.
    fn live(service: &Arc<str>, listen: &Listen, pid: Option<i32>) -> Self {
        let own = pid.is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
        let remedy = match pid {
            _ if own => {
                "this process listens there itself, for another service or as the admin socket: choose another path"
                    .into()
            }
            Some(pid) => format!("process {pid} listens there: stop it, or choose another path"),
            None => "a process listens there that does not answer: stop it, or choose another path".into(),
        };
        let error = Errno::ADDRINUSE.into();
        Self { service: Arc::clone(service), address: listen.to_string(), error, remedy, may_pass: !own }
    }

    /// Somebody listens there, who may be about to end.
    pub(super) fn may_pass(&self) -> bool {
        self.may_pass
    }
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
