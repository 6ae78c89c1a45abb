//! A thread that writes to a disk or a terminal, and whose end is not waited for however long it takes.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How long its end is waited for: a disk that hangs, or a reader who reads no more, must not hold the process.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct WriterThread(Receiver<()>);

impl WriterThread {
    /// Starts it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (end, ended) = sync_channel(1);
        let body = move || {
            // Dropped however the thread ends, and with that the owner wakes.
            let _end = end;
            body();
        };
        thread::Builder::new().name(name.into()).spawn(body)?;
        Ok(Self(ended))
    }

    /// Waits for its end, after it was told to. `what` it still has to write is said where it takes too long; it goes on by itself
    /// then, as long as the process lives.
    pub(crate) fn end(&self, what: &str, patience: Duration) {
        if self.0.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            log::warn!("{what} could not be written in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    #[test]
    fn the_end_is_waited_for_and_a_disk_that_hangs_is_not() {
        let (go, wait) = channel::<()>();
        let hangs = WriterThread::start("hangs", move || _ = wait.recv()).unwrap();
        let start = Instant::now();
        hangs.end("a line", PATIENCE);
        assert!((PATIENCE..PATIENCE * 3).contains(&start.elapsed()), "{:?}", start.elapsed());
        drop(go);
        let start = Instant::now();
        hangs.end("a line", PATIENCE);
        WriterThread::start("panics", || panic!("a bug")).unwrap().end("a line", PATIENCE);
        assert!(start.elapsed() < PATIENCE);
    }
}
