//! The connections of one of the two sockets that the interface answers on: how many, for how long, and who makes room for others.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::View;
use super::long_answers::LongAnswers;
use super::routes::{self, Access};

/// The longest request line with all its headers, in bytes.
const LONGEST_HEAD: usize = 16 << 10;

/// After a failed accept (no descriptor left): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may last, and when the last one is to end.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// What is read.
    pub(super) view: Arc<View>,
    /// Connections that may be open at once.
    pub(super) most: usize,
    /// The time for a request's head.
    pub(super) head: Duration,
    /// The time for all of a request and its answer, but for what it orders.
    pub(super) exchange: Duration,
    /// When the other end is dropped, nobody is waited for who has not asked.
    pub(super) ended: watch::Receiver<()>,
    pub(super) long_answers: LongAnswers,
}

/// How far a connection is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The request has been read.
    pub(super) asked: AtomicBool,
    /// What it asks for is being done.
    pub(super) at_work: AtomicBool,
}

/// See the module. Dropping it cuts them all off.
#[derive(Debug)]
pub(super) struct Connections {
    terms: Terms,
    tasks: JoinSet<()>,
    /// Oldest first; those that have ended are still among them until the next one comes.
    open: VecDeque<(AbortHandle, Arc<Progress>)>,
}

impl Connections {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, tasks: JoinSet::new(), open: VecDeque::new() }
    }

    /// Serves whoever comes, without end.
    pub(super) async fn accept<S>(&mut self, next: impl AsyncFn() -> io::Result<(S, Access)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut warned: Option<Instant> = None;
        loop {
            match next().await {
                Ok((stream, access)) if self.make_room() => {
                    let progress = Arc::default();
                    let task = self.tasks.spawn(serve_one(self.terms.clone(), stream, access, Arc::clone(&progress)));
                    self.open.push_back((task, progress));
                    // In a flood, too, whoever has sent a request by now is answered before others take the place.
                    tokio::task::yield_now().await;
                }
                Ok(_) => {}
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

    /// Makes room for one more. Where there is none, the oldest one goes that has not asked yet, else the oldest one that takes its
    /// answer; false: what each of them has ordered is being done.
    fn make_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() < self.terms.most {
            return true;
        }
        let is = |flag: fn(&Progress) -> &AtomicBool| {
            self.open.iter().position(|(_, progress)| !flag(progress).load(Ordering::Relaxed))
        };
        let oldest = is(|progress| &progress.asked).or_else(|| is(|progress| &progress.at_work));
        let gone = oldest.and_then(|index| self.open.remove(index));
        gone.inspect(|(task, _)| task.abort()).is_some()
    }

    /// Waits until the last one has ended.
    pub(super) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves one connection, for as long as it may last.
async fn serve_one<S>(terms: Terms, stream: S, access: Access, progress: Arc<Progress>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(exchange(stream, &terms, access, &progress));
    // Too late, cut short, malformed: the client sees its connection end, nobody else has to know.
    let in_time = async {
        while tokio::time::timeout(terms.exchange, &mut connection).await.is_err() {
            if !progress.at_work.load(Ordering::Relaxed) {
                break;
            }
        }
    };
    let mut ended = terms.ended.clone();
    let unasked = async {
        let _ = ended.changed().await;
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

/// One request and its answer.
async fn exchange<S>(stream: S, terms: &Terms, access: Access, progress: &Progress) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(routes::answer(terms, &access, request, progress).await) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.head)
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
