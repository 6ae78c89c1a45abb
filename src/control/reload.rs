//! Reading the configuration again when somebody asks for it: one request after the other, off the control plane's thread,
//! because a disk can be slow.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, Loaded};
use crate::link::Reply;

/// A file that takes longer to read is on a disk that hangs, or is no file.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that may wait for the one before them.
const WAITING: usize = 64;

/// One request.
#[derive(Debug)]
pub(super) struct Ask {
    /// Also where `reload.guard` would refuse it.
    pub(super) force: bool,
    /// Who wants to know what became of it; nobody does after a signal.
    pub(super) answer: Option<oneshot::Sender<Reply>>,
}

/// The file that a request has brought, or why it cannot be used.
pub(super) type Read = Result<Loaded, String>;

/// See the module.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    waiting: VecDeque<Ask>,
    reading: Option<Reading>,
    /// Held by a thread while it reads.
    busy: Arc<()>,
}

#[derive(Debug)]
struct Reading {
    ask: Ask,
    read: oneshot::Receiver<Read>,
    until: Instant,
}

impl Reader {
    /// Reads the file at this path.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, waiting: VecDeque::new(), reading: None, busy: Arc::default() }
    }

    /// Has the file read for a request. A signal that finds another one waiting adds nothing to it.
    ///
    /// # Errors
    /// Too many wait: the request comes back.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), Ask> {
        if ask.answer.is_none() && self.waiting.iter().any(|other| other.answer.is_none()) {
            return Ok(());
        }
        if self.waiting.len() >= WAITING {
            return Err(ask);
        }
        self.waiting.push_back(ask);
        self.begin();
        Ok(())
    }

    /// The next request whose file has been read. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> (Ask, Read) {
        let Some(Reading { read, until, .. }) = &mut self.reading else { return std::future::pending().await };
        let read = match timeout_at(*until, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err("reading the configuration broke off: see the log".to_owned()),
            Err(_) => Err(format!(
                "{} could not be read within {PATIENCE:?}: is it a file, and does its disk answer?",
                self.path.display()
            )),
        };
        match self.reading.take() {
            Some(Reading { ask, .. }) => {
                self.begin();
                (ask, read)
            }
            None => std::future::pending().await,
        }
    }

    fn begin(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let Some(ask) = self.waiting.pop_front() else { return };
        let (done, read) = oneshot::channel();
        self.reading = Some(Reading { ask, read, until: Instant::now() + PATIENCE });
        if Arc::strong_count(&self.busy) > 1 {
            let _ = done.send(Err(format!("an earlier attempt to read {} still hangs", self.path.display())));
            return;
        }
        let (path, busy) = (self.path.clone(), Arc::clone(&self.busy));
        let body = move || {
            let read = config::load(&path).map_err(|report| format!("{report}\n{}", report.conclusion()));
            drop(busy);
            let _ = done.send(read);
        };
        // Where there is no thread to be had, the channel's end says so.
        if let Err(error) = thread::Builder::new().name("config".to_owned()).spawn(body) {
            log::error!("cannot start the thread that reads the configuration: {error}");
        }
    }
}
