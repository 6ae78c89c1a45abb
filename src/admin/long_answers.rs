//! Answers that take their time to put together: on a thread of their own, so that a short one, such as readiness, never waits for them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::{Mutex, oneshot};

/// One for each of the two sockets that the interface answers on.
const AT_ONCE: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// See the module. Each clone by [`LongAnswers::queue`] is a queue of its own: one answer of each queue is put together at a time, so that
/// many who ask on one socket hardly delay the other.
#[derive(Debug, Clone)]
pub(super) struct LongAnswers {
    jobs: SyncSender<Job>,
    turn: Arc<Mutex<()>>,
}

impl LongAnswers {
    /// Starts the thread, which ends with the last of these.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, received) = sync_channel::<Job>(AT_ONCE);
        let body = move || received.into_iter().for_each(|job| job());
        thread::Builder::new().name("admin-answers".to_owned()).spawn(body)?;
        Ok(Self { jobs, turn: Arc::default() })
    }

    /// A queue of its own.
    pub(super) fn queue(&self) -> Self {
        Self { jobs: self.jobs.clone(), turn: Arc::default() }
    }

    /// Puts an answer together when its turn comes; `None`: it could not be done.
    pub(super) async fn put_together<T: Send + 'static>(
        &self,
        answer: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (done, ready) = oneshot::channel();
        let job = move || {
            // The thread outlives a fault in one answer.
            let answer = catch_unwind(AssertUnwindSafe(answer));
            // Also where nobody waits for the answer any more, the next one begins only now.
            drop(turn);
            let _ = answer.map(|answer| done.send(answer));
        };
        self.jobs.try_send(Box::new(job)).ok()?;
        ready.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_takes_long_holds_up_those_of_its_queue_alone_and_a_fault_nobody() {
        let slow = LongAnswers::start().unwrap();
        let quick = slow.queue();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let slow = slow.clone();
            async move { slow.put_together(move || held.recv()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Whoever does not wait any more leaves its place in the queue.
        for _ in 0..10 * AT_ONCE {
            assert!(tokio::time::timeout(Duration::from_millis(1), slow.put_together(|| ())).await.is_err());
        }
        let second = quick.put_together(|| 2);
        drop(release);
        assert_eq!(second.await, Some(2));
        assert!(first.await.unwrap().is_some());
        assert_eq!(quick.put_together(|| panic!("a fault")).await, None::<()>);
        assert_eq!(slow.put_together(|| 3).await, Some(3));
    }
}
