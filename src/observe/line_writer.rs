//! Writes whole lines to a file, a pipe or a terminal, says how many are lost where that fails, and begins the next one on a line of
//! its own.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// See the module.
#[derive(Debug)]
pub(super) struct LineWriter<W> {
    inner: W,
    /// How long a reader who takes nothing is waited for where the descriptor does not wait by itself (`O_NONBLOCK`); `None`: without
    /// end.
    patience: Option<Duration>,
    /// A fault has left half a line at the end.
    cut: bool,
}

/// Lines that are not there, or not whole.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) error: io::Error,
}

impl<W: Write + AsFd> LineWriter<W> {
    pub(super) fn new(inner: W, patience: Option<Duration>) -> Self {
        Self { inner, patience, cut: false }
    }

    /// Writes lines, each with its end.
    ///
    /// # Errors
    /// Not all of them could be written.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        if self.cut {
            let (_, outcome) = self.write_all(b"\n");
            outcome.map_err(|error| Lost { lines: count(lines), error })?;
            self.cut = false;
        }
        let (written, outcome) = self.write_all(lines);
        self.cut = lines[..written].last().is_some_and(|last| *last != b'\n');
        outcome.map_err(|error| Lost { lines: count(&lines[written..]), error })
    }

    /// Writes as much as can be written, and says how much that was.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.inner.write(&bytes[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_ready() => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Waits until it can be written to, or an error can be had; false: that takes too long.
    fn is_ready(&self) -> bool {
        let patience = self.patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut descriptors = [PollFd::new(&self.inner, PollFlags::OUT)];
        // A signal has woken it: asking again does no harm.
        !matches!(poll(&mut descriptors, patience.as_ref()), Ok(0))
    }
}

/// Lines that end in these bytes.
pub(super) fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}
