//! The administration interface: HTTP/1.1 on a Unix socket, served by a thread of its own so that a slow client delays nobody.

#[cfg(test)]
pub(crate) mod fixture;
mod metrics;
mod routes;
mod socket;
pub mod status;
#[cfg(test)]
mod tests;
mod view;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

pub use self::socket::{BindError, SYSTEM_SOCKET, check_owner, default_socket, user_socket};
pub use self::view::{ConfigFile, Listening, View};

/// Connections served at once; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// A connection carries one request, and this is the time for all of it: a client that is slow to send or to read is cut off.
const EXCHANGE: Duration = Duration::from_secs(5);

/// The longest request line with all its headers, in bytes.
const LONGEST_HEAD: usize = 16 << 10;

/// After a failed accept (no descriptor left): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The administration socket, bound but not served yet: clients that come now wait.
#[derive(Debug)]
pub struct Server {
    socket: socket::Bound,
    connections: usize,
    exchange: Duration,
}

/// The running administration interface. Dropping it ends it and removes its socket.
#[derive(Debug)]
pub struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: socket::Place,
}

impl Server {
    /// Binds the socket at `path`, mode 0660. Its directory is created if missing; a dead process's socket is replaced.
    ///
    /// # Errors
    /// Where another process answers there, something else is in the way, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self { socket: socket::Bound::new(path)?, connections: CONNECTIONS, exchange: EXCHANGE })
    }

    /// Answers from `view` on a thread of its own until the result is dropped.
    ///
    /// # Errors
    /// What the system says when it gives no thread or no event queue.
    pub fn serve(self, view: Arc<View>) -> io::Result<Serving> {
        let Self { socket: socket::Bound { listener, place }, connections, exchange } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, view, connections, exchange) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Serving { stop: Some(stop), thread: Some(thread), socket: place })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // First the name, so that a client that comes too late is told so rather than cut off.
        self.socket.remove();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the administration thread ended by a panic");
        }
    }
}

async fn accept(listener: UnixListener, view: Arc<View>, connections: usize, exchange: Duration) {
    let places = Arc::new(Semaphore::new(connections));
    let mut warned: Option<Instant> = None;
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let view = Arc::clone(&view);
                tokio::spawn(async move {
                    // Too late, cut short, malformed: the client sees its connection end, nobody else has to know.
                    let _ = tokio::time::timeout(exchange, converse(stream, view)).await;
                    drop(place);
                });
            }
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                    log::warn!("the administration socket cannot accept a connection: {error}");
                    warned = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: UnixStream, view: Arc<View>) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let answer = routes::answer(&view, &request);
        async { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
