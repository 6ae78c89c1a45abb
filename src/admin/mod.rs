//! The administration interface: HTTP/1.1 on a Unix socket, and read-only on TCP where that is asked for. It is served by a
//! thread of its own, so that a slow client delays nobody.

mod connections;
mod disk;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixture;
mod host;
mod http;
mod long_answers;
mod metrics;
mod page;
mod peer_user;
mod ready;
mod routes;
mod socket;
pub mod status;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as UnixStdListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};

use self::connections::{Connections, Terms};
pub use self::disk::Disk;
pub use self::endpoints::{Endpoints, Location, Sockets};
use self::host::Hosts;
pub use self::http::bind as bind_http;
use self::long_answers::LongAnswers;
use self::routes::Access;
pub use self::routes::{
    BackendRequest, DrainRequest, ReloadAnswer, ReloadRequest, Said, TimelineAnswer, UpgradeAnswer,
};
pub use self::socket::{BindError, SYSTEM_SOCKET, check_owner, default_socket, user_socket};
pub use self::view::View;
use crate::messages::AdminRequests;
use crate::sys::unix::SocketFile;

/// Connections open at once, on the Unix socket and on the TCP listener each. One more takes the place of the oldest one: whoever
/// holds connections open and says nothing locks nobody out.
const CONNECTIONS: usize = 64;

/// The time for a request's head.
const HEAD: Duration = Duration::from_secs(2);

/// A connection carries one request, and this is the time for all of it: a client that is slow to send or to read is cut off.
/// While it waits for what it has ordered, the time is not the client's fault.
const EXCHANGE: Duration = Duration::from_secs(5);

/// At the end of the process: who has asked and takes no answer for so long gets none.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The sockets of the administration, bound but not served yet: clients that come now wait.
#[derive(Debug)]
pub struct Server {
    /// `None`: nothing can be ordered.
    socket: Option<socket::Bound>,
    http: Option<std::net::TcpListener>,
    hosts: Hosts,
    inherited: bool,
    connections: usize,
    exchange: Duration,
}

/// A Unix socket that listens.
type FileAndSocket = (SocketFile, OwnedFd);

/// The administration interface, ready to answer. Dropping it ends it, when those who have asked have their answers, and removes
/// its socket. Who is connected and has not asked yet is not waited for.
#[derive(Debug)]
pub struct Serving {
    begin: Option<oneshot::Sender<()>>,
    /// Another process has left the socket.
    inherited: bool,
    stop: Option<oneshot::Sender<()>>,
    /// Dropped: nobody is waited for who has not asked.
    end: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// `None`: there is none, or another process has it now.
    socket: Option<SocketFile>,
}

impl Server {
    /// Binds the socket at `path`, mode 0660. Its directory is created if missing; a dead process's socket is replaced.
    ///
    /// # Errors
    /// Where another process answers there, something else is in the way, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self { socket: Some(socket::Bound::new(path)?), ..Self::without_socket() })
    }

    /// No Unix socket.
    pub fn without_socket() -> Self {
        Self {
            socket: None,
            http: None,
            hosts: Hosts::default(),
            inherited: false,
            connections: CONNECTIONS,
            exchange: EXCHANGE,
        }
    }

    /// A socket that listens already, because another process has left it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn inherit(file: SocketFile, socket: OwnedFd) -> Result<Self, BindError> {
        let listener = UnixStdListener::from(socket);
        let failed = |error| BindError::System { doing: "take over", path: file.path().into(), error };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { socket: Some(socket::Bound { listener, file }), inherited: true, ..Self::without_socket() })
    }

    /// The sockets once more, for another process: the Unix socket with its file, and the TCP listener.
    ///
    /// # Errors
    /// No descriptor is left.
    fn duplicate(&self) -> io::Result<(Option<FileAndSocket>, Option<OwnedFd>)> {
        let http = self.http.as_ref().map(|http| http.try_clone().map(OwnedFd::from)).transpose()?;
        let socket =
            self.socket.as_ref().map(|bound| bound.listener.try_clone().map(|own| (bound.file.clone(), own.into())));
        Ok((socket.transpose()?, http))
    }

    /// Lets the GETs be asked on a TCP listener too (see [`bind_http`]), by an address, as `localhost` or under one of these names;
    /// nothing there can change anything.
    #[must_use]
    pub fn with_http(self, http: Option<std::net::TcpListener>, hosts: Vec<String>) -> Self {
        Self { http, hosts: hosts.into(), ..self }
    }

    /// Answers from `view`, and passes `requests` on, on a thread of its own: from [`Serving::begin`] on, until the result is
    /// dropped.
    ///
    /// # Errors
    /// What the system says when it gives no thread or no event queue.
    pub fn serve(self, view: Arc<View>, requests: AdminRequests) -> io::Result<Serving> {
        let Self { socket, http, hosts, inherited, connections, exchange } = self;
        let (listener, file) = socket.map(|bound| (bound.listener, bound.file)).unzip();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (socket, http) = {
            let _inside = runtime.enter();
            (listener.map(UnixListener::from_std).transpose()?, http.map(TcpListener::from_std).transpose()?)
        };
        let ((begin, begun), (stop, stopped)) = (oneshot::channel(), oneshot::channel());
        let (end, mut ended) = watch::channel(());
        let long_answers = LongAnswers::start()?;
        let terms = Terms { view, most: connections, head: HEAD, exchange, ended: ended.clone(), long_answers };
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                if begun.await.is_err() {
                    return;
                }
                // Of their own, so that a flood on TCP takes no place of the socket's.
                let connections =
                    || Connections::new(Terms { long_answers: terms.long_answers.queue(), ..terms.clone() });
                let (mut local, mut remote) = (connections(), connections());
                let on_socket = local.accept(async || {
                    let (stream, _) = accepted(&socket, UnixListener::accept).await?;
                    let by = peer_user::of(&stream);
                    Ok((stream, Access::Full(requests.clone(), by)))
                });
                let on_tcp = remote.accept(async || {
                    let (stream, _) = accepted(&http, TcpListener::accept).await?;
                    Ok((stream, Access::ReadOnly(Arc::clone(&hosts))))
                });
                tokio::select! {
                    () = on_socket => {}
                    () = on_tcp => {}
                    _ = stopped => {}
                }
                // Those who are being answered: among them may be who has asked for the end.
                let last = async {
                    let _ = ended.changed().await;
                    tokio::time::sleep(LAST_ANSWERS).await;
                };
                tokio::select! {
                    _ = tokio::time::timeout(terms.exchange, local.finish()) => {}
                    () = last => {}
                }
            });
        })?;
        let (begin, stop, end, thread) = (Some(begin), Some(stop), Some(end), Some(thread));
        Ok(Serving { begin, inherited, stop, end, thread, socket: file })
    }
}

/// The next client of a socket; nobody comes where there is none.
async fn accepted<L, C>(listener: &Option<L>, accept: impl AsyncFn(&L) -> io::Result<C>) -> io::Result<C> {
    match listener {
        Some(listener) => accept(listener).await,
        None => std::future::pending().await,
    }
}

impl Serving {
    /// Begins to answer; until then clients wait.
    pub fn begin(&mut self) {
        if let Some(begin) = self.begin.take() {
            // The thread waits for it.
            let _ = begin.send(());
        }
    }

    fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Answers only those who are connected already. `inherited`: another process answers at its socket, which stays.
    pub fn retire(&mut self, inherited: bool) {
        if inherited {
            self.socket = None;
        }
        self.close();
    }

    /// Ends it when all who are connected now have asked and have their answers, or have had their time.
    fn finish(mut self) {
        self.close();
        self.join();
    }

    /// Removes its socket and accepts nobody any more; waits for nobody.
    fn close(&mut self) {
        // First the name, so that a client that comes too late is told so rather than cut off.
        // Until it begins, the one who left the socket answers there.
        if let Some(socket) = self.socket.take().filter(|_| !(self.inherited && self.begin.is_some()))
            && let Err(error) = socket.remove()
        {
            log::warn!("cannot remove the administration socket {}: {error}", socket.path().display());
        }
        drop(self.begin.take());
        drop(self.stop.take());
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the administration thread ended by a panic");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close();
        drop(self.end.take());
        self.join();
    }
}
