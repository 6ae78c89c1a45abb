//! The administration interface of a process over its life: where it answers may change at a reload and goes on to a successor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::{BindError, Server, Serving, View, bind_http};
use crate::messages::AdminRequests;
use crate::sys::unix::SocketFile;

/// Where the interface answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The Unix socket's path; `None`: there is none.
    pub socket: Option<PathBuf>,
    /// The TCP listener; port 0 asks the kernel for a free one.
    pub http: Option<SocketAddr>,
    /// The names under which that may be asked, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// Sockets that listen already: another process has left them, or they are to be left to one.
#[derive(Debug, Default)]
pub struct Sockets {
    /// The Unix socket and its file.
    pub admin: Option<(SocketFile, OwnedFd)>,
    /// The TCP listener, and where the configuration wants it.
    pub http: Option<(SocketAddr, OwnedFd)>,
}

/// See the module.
#[derive(Debug)]
pub struct Endpoints {
    view: Arc<View>,
    requests: AdminRequests,
    open: Open,
    /// What is prepared to follow.
    next: Option<Open>,
}

#[derive(Debug)]
struct Open {
    serving: Serving,
    /// Kept for whoever comes next.
    sockets: Sockets,
}

impl Endpoints {
    /// Binds the interface, or takes sockets over that are at its location; it does not answer before [`Endpoints::begin`].
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn new(
        location: Location,
        inherited: Sockets,
        view: Arc<View>,
        requests: AdminRequests,
    ) -> Result<Self, BindError> {
        let open = Open::new(location, inherited, &view, &requests)?;
        Ok(Self { view, requests, open, next: None })
    }

    /// Whether the socket was another process's, which leaves it.
    pub fn is_inherited(&self) -> bool {
        self.open.serving.is_inherited()
    }

    /// Begins to answer; until then clients wait.
    pub fn begin(&mut self) {
        self.open.serving.begin();
    }

    /// Binds what a new location needs. Nothing changes until [`Endpoints::commit`].
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn prepare(&mut self, location: Location) -> Result<(), BindError> {
        self.next = None;
        let own = self.open.duplicate().map_err(BindError::Duplicate)?;
        self.next = Some(Open::new(location, own, &self.view, &self.requests)?);
        Ok(())
    }

    /// Answers where it was prepared to. Those who are being answered still are.
    pub fn commit(&mut self) {
        let Some(mut next) = self.next.take() else { return };
        next.serving.begin();
        let mut before = std::mem::replace(&mut self.open, next);
        before.serving.retire(self.open.serving.is_inherited());
        let end = move || {
            let Open { serving, sockets: _until_then, .. } = before;
            serving.finish();
        };
        // It lasts until the last one is answered, who may be waiting for this to return.
        let _ = std::thread::Builder::new().name("admin-end".to_owned()).spawn(end);
    }

    /// Whether somebody has removed the socket's file, so that nobody can come any more.
    pub fn is_lost(&self) -> bool {
        self.open.sockets.admin.as_ref().is_some_and(|(file, _)| !file.stands())
    }

    /// The sockets once more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<Sockets> {
        self.open.duplicate()
    }

    /// Answers only those who are connected already; `inherited`: another process answers at the socket, which stays.
    pub fn retire(&mut self, inherited: bool) {
        self.open.serving.retire(inherited);
    }

    /// Removes the socket and accepts nobody any more; waits for nobody.
    pub fn close(&mut self) {
        self.open.serving.close();
    }
}

impl Open {
    fn new(
        location: Location,
        sockets: Sockets,
        view: &Arc<View>,
        requests: &AdminRequests,
    ) -> Result<Self, BindError> {
        // First, as it tells whose the address is where another one runs already.
        let server = match (&location.socket, sockets.admin) {
            (None, _) => Server::without_socket(),
            // However its path is written. Where somebody has removed its file, nobody can come to the one that listens.
            (Some(path), Some((file, socket))) if file.is_at(path) => Server::inherit(file.by(path), socket)?,
            (Some(path), _) => Server::bind(path)?,
        };
        let http = match (location.http, sockets.http) {
            (Some(address), Some((same, socket))) if address == same => Some(socket.into()),
            (address, _) => address.map(bind_http).transpose()?,
        };
        if let Some(address) = http.as_ref().and_then(|http| http.local_addr().ok()) {
            log::info!("status and metrics on http://{address}, read-only");
        }
        let server = server.with_http(http, location.hosts);
        let (admin, http) = server.duplicate().map_err(BindError::Duplicate)?;
        let sockets = Sockets { admin, http: location.http.zip(http) };
        let serving = server.serve(Arc::clone(view), requests.clone()).map_err(BindError::Start)?;
        Ok(Self { serving, sockets })
    }

    fn duplicate(&self) -> io::Result<Sockets> {
        let Sockets { admin, http } = &self.sockets;
        let admin = admin.as_ref().map(|(file, socket)| Ok::<_, io::Error>((file.clone(), socket.try_clone()?)));
        let http = http.as_ref().map(|(address, socket)| Ok::<_, io::Error>((*address, socket.try_clone()?)));
        Ok(Sockets { admin: admin.transpose()?, http: http.transpose()? })
    }
}
