//! The administration interface: HTTP/1.1 on a Unix socket, and read-only on TCP where that is asked for. It is served by a
//! thread of its own, so that a slow client delays nobody.

mod disk;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixture;
mod http;
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

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as UnixStdListener;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use self::disk::Disk;
pub use self::endpoints::{Endpoints, Location, Sockets};
pub use self::http::bind as bind_http;
use self::routes::Access;
pub use self::routes::{
    BackendRequest, DrainRequest, ReloadAnswer, ReloadRequest, Said, TimelineAnswer, UpgradeAnswer,
};
pub use self::socket::{BindError, SYSTEM_SOCKET, check_owner, default_socket, user_socket};
pub use self::view::View;
use crate::messages::AdminRequests;
use crate::sys::unix::SocketFile;

/// Connections served at once, by the Unix socket and by the TCP listener each; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// A connection carries one request, and this is the time for all of it: a client that is slow to send or to read is cut off.
/// While it waits for what it has ordered, the time is not the client's fault.
const EXCHANGE: Duration = Duration::from_secs(5);

/// The longest request line with all its headers, in bytes.
const LONGEST_HEAD: usize = 16 << 10;

/// At the end of the process: who has asked and takes no answer for so long gets none.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// After a failed accept (no descriptor left): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The administration socket, bound but not served yet: clients that come now wait.
#[derive(Debug)]
pub struct Server {
    socket: socket::Bound,
    http: Option<std::net::TcpListener>,
    inherited: bool,
    connections: usize,
    exchange: Duration,
}

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
    /// `None`: another process has it now.
    socket: Option<SocketFile>,
}

impl Server {
    /// Binds the socket at `path`, mode 0660. Its directory is created if missing; a dead process's socket is replaced.
    ///
    /// # Errors
    /// Where another process answers there, something else is in the way, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self {
            socket: socket::Bound::new(path)?,
            http: None,
            inherited: false,
            connections: CONNECTIONS,
            exchange: EXCHANGE,
        })
    }

    /// A socket that listens already, because another process has left it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn inherit(file: SocketFile, socket: OwnedFd) -> Result<Self, BindError> {
        let listener = UnixStdListener::from(socket);
        let failed = |error| BindError::System { doing: "take over", path: file.path().into(), error };
        listener.set_nonblocking(true).map_err(failed)?;
        let socket = socket::Bound { listener, file };
        Ok(Self { socket, http: None, inherited: true, connections: CONNECTIONS, exchange: EXCHANGE })
    }

    /// The sockets once more, for another process: the Unix socket with its file, and the TCP listener.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<((SocketFile, OwnedFd), Option<OwnedFd>)> {
        let http = self.http.as_ref().map(|http| http.try_clone().map(OwnedFd::from)).transpose()?;
        Ok(((self.socket.file.clone(), self.socket.listener.try_clone()?.into()), http))
    }

    /// Lets the GETs be asked on a TCP listener too (see [`bind_http`]); nothing there can change anything.
    #[must_use]
    pub fn with_http(self, http: Option<std::net::TcpListener>) -> Self {
        Self { http, ..self }
    }

    /// Answers from `view`, and passes `requests` on, on a thread of its own: from [`Serving::begin`] on, until the result is
    /// dropped.
    ///
    /// # Errors
    /// What the system says when it gives no thread or no event queue.
    pub fn serve(self, view: Arc<View>, requests: AdminRequests) -> io::Result<Serving> {
        let Self { socket: socket::Bound { listener, file }, http, inherited, connections, exchange } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (socket, http) = {
            let _inside = runtime.enter();
            (UnixListener::from_std(listener)?, http.map(TcpListener::from_std).transpose()?)
        };
        let ((begin, begun), (stop, stopped)) = (oneshot::channel(), oneshot::channel());
        let (end, mut ended) = watch::channel(());
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                if begun.await.is_err() {
                    return;
                }
                // Permits of their own, so that a flood on TCP cannot lock the socket out.
                let permits = || Arc::new(Semaphore::new(connections));
                let endpoint =
                    || Endpoint { view: Arc::clone(&view), permits: permits(), exchange, ended: ended.clone() };
                let (local, remote) = (endpoint(), endpoint());
                let on_socket = local.accept(async || {
                    let (stream, _) = socket.accept().await?;
                    let by = peer_user::of(&stream);
                    Ok((stream, Access::Full(requests.clone(), by)))
                });
                let on_tcp = async {
                    match &http {
                        Some(http) => remote.accept(async || Ok((http.accept().await?.0, Access::ReadOnly))).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = on_socket => {}
                    () = on_tcp => {}
                    _ = stopped => {}
                }
                // Those who are being answered: among them may be who has asked for the end.
                let answered = local.permits.acquire_many(u32::try_from(connections).unwrap_or(u32::MAX));
                let last = async {
                    let _ = ended.changed().await;
                    tokio::time::sleep(LAST_ANSWERS).await;
                };
                tokio::select! {
                    _ = tokio::time::timeout(exchange, answered) => {}
                    () = last => {}
                }
            });
        })?;
        let (begin, stop, end, thread) = (Some(begin), Some(stop), Some(end), Some(thread));
        Ok(Serving { begin, inherited, stop, end, thread, socket: Some(file) })
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
        drop(self.stop.take());
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

/// One of the two sockets that the interface answers on.
#[derive(Clone)]
struct Endpoint {
    view: Arc<View>,
    /// Connections that may be open at once.
    permits: Arc<Semaphore>,
    exchange: Duration,
    /// When the other end is dropped, nobody is waited for who has not asked.
    ended: watch::Receiver<()>,
}

/// How far a connection is.
#[derive(Debug, Default)]
struct Progress {
    /// The request has been read.
    asked: AtomicBool,
    /// What it asks for is being done.
    at_work: AtomicBool,
}

impl Endpoint {
    async fn accept<S>(&self, next: impl AsyncFn() -> io::Result<(S, Access)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut warned: Option<Instant> = None;
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            match next().await {
                Ok((stream, access)) => {
                    tokio::spawn(self.clone().serve_one(stream, access, permit));
                }
                Err(error) => {
                    if warned.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                        log::warn!("the administration interface cannot accept a connection: {error}");
                        warned = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection, for as long as it may last. It keeps its permit until its connection is closed.
    async fn serve_one<S>(mut self, stream: S, access: Access, _permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let progress = Progress::default();
        let mut connection = pin!(serve_connection(stream, self.view, access, &progress));
        // Too late, cut short, malformed: the client sees its connection end, nobody else has to know.
        let in_time = async {
            while tokio::time::timeout(self.exchange, &mut connection).await.is_err() {
                if !progress.at_work.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        let unasked = async {
            let _ = self.ended.changed().await;
            if progress.asked.load(Ordering::Relaxed) {
                std::future::pending().await
            }
        };
        tokio::select! {
            // What has arrived by now is read first.
            biased;
            () = in_time => {}
            () = unasked => {}
        }
    }
}

/// One request and its answer.
async fn serve_connection<S>(
    stream: S,
    view: Arc<View>,
    access: Access,
    progress: &Progress,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(routes::answer(&view, &access, request, progress).await) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
