//! The thread that writes: gathers lines, writes them whole, opens the file anew, and goes on after a fault.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::{Message, Shared, Target};
use crate::observe::line_writer::{LineWriter, Lost};
use crate::observe::stderr;

/// Bytes gathered before they are written even though more lines wait.
const FULL: usize = 64 << 10;

/// The longest that a line is held back while others come.
const LATEST: Duration = Duration::from_secs(1);

/// Warnings about writing are at least this far apart.
const WARN_PAUSE: Duration = Duration::from_secs(1);

/// Writes until the queue's owner says stop and the queue is empty, or nobody is left who could record.
pub(super) fn run(target: Target, file: File, records: &Receiver<Message>, shared: &Shared) {
    let mut output = Output::new(target, file);
    loop {
        if shared.reopen.swap(false, Ordering::AcqRel) {
            output.reopen(shared);
        }
        // Asked before the queue is found empty: what comes while lines are written out below is still taken.
        let stopping = shared.stop.load(Ordering::Acquire);
        let message = match records.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                output.flush(shared);
                if stopping {
                    break;
                }
                match records.recv_timeout(LATEST) {
                    Ok(message) => message,
                    // A wake-up that found no room in the queue is made up for here.
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        };
        if let Message::Record(record) = message {
            record.write(&mut output.lines);
            let since = *output.since.get_or_insert_with(Instant::now);
            if output.lines.len() >= FULL || since.elapsed() >= LATEST {
                output.flush(shared);
            }
        }
    }
    output.flush(shared);
}

struct Output {
    target: Target,
    file: LineWriter<File>,
    /// Lines not written yet, each with its end.
    lines: String,
    /// When the first of them came.
    since: Option<Instant>,
    warned: Option<Instant>,
}

impl Output {
    fn new(target: Target, file: File) -> Self {
        Self { target, file: LineWriter::new(file, Some(LATEST)), lines: String::new(), since: None, warned: None }
    }

    fn flush(&mut self, shared: &Shared) {
        self.since = None;
        if self.lines.is_empty() {
            return;
        }
        let turn = (self.target == Target::Stderr).then(stderr::turn);
        let outcome = self.file.write(self.lines.as_bytes());
        drop(turn);
        if let Err(Lost { lines: lost, error }) = outcome {
            shared.dropped.fetch_add(lost, Ordering::Relaxed);
            if self.warned.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
                self.warned = Some(Instant::now());
                log::warn!("the access log cannot be written to {}: {error}; {lost} lines are lost", self.target);
            }
        }
        self.lines.clear();
    }

    fn reopen(&mut self, shared: &Shared) {
        // What came before goes where it would have gone.
        self.flush(shared);
        if self.target == Target::Stderr {
            return;
        }
        match self.target.open() {
            Ok(file) => self.file = LineWriter::new(file, Some(LATEST)),
            Err(error) => log::warn!("{error}; lines go on to the file that is open"),
        }
    }
}
