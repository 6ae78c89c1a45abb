//! The kernel's pipe, and `splice(2)` through it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

use super::Errno;

/// OperationKind a big pipe is asked to hold: 256 slots, the most that an unprivileged user gets (`fs.pipe-max-size`).
pub const BIG: usize = 1 << 20;
/// A pipe with less (two pages, when the user's budget is spent: pipe(7), `pipe-user-pages-soft`) is not worth its descriptors.
const WORTHWHILE: usize = 64 * 1024;
/// Most bytes moved by one call: beyond it nothing is gained.
const AT_MOST: usize = 1 << 20;

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

impl Pipe {
    /// A new pipe, as big as the user's budget allows if `big`.
    ///
    /// # Errors
    /// OperationKind the kernel says; `EPERM` where the budget leaves only a pipe too small to be of use.
    pub fn new(big: bool) -> Result<Self, Errno> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if big {
            // Refused beyond the budget; what counts is the size that the pipe really has.
            let _ = rustix::pipe::fcntl_setpipe_size(&write, BIG);
        }
        if rustix::pipe::fcntl_getpipe_size(&write)? < WORTHWHILE {
            return Err(Errno::PERM);
        }
        Ok(Self { read, write, filled: 0 })
    }

    /// Bytes in the pipe. It may be more than its size: a slot can hold a whole coalesced segment (GRO).
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Moves bytes from a non-blocking socket into the pipe; 0 is the end of the stream.
    ///
    /// # Errors
    /// `EAGAIN`: the socket is empty, or, if the pipe is not, it may have no slot left.
    pub fn fill(&mut self, from: impl AsFd) -> Result<usize, Errno> {
        let moved = retry(|| rustix::pipe::splice(&from, None, &self.write, None, AT_MOST, FLAGS))?;
        self.filled += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe into a non-blocking socket.
    ///
    /// # Errors
    /// `EAGAIN`: the socket takes no more now.
    pub fn empty(&mut self, into: impl AsFd) -> Result<usize, Errno> {
        let moved = retry(|| rustix::pipe::splice(&self.read, None, &into, None, self.filled, FLAGS))?;
        self.filled -= moved.min(self.filled);
        Ok(moved)
    }
}

/// Never `SPLICE_F_MORE`: on a last chunk it costs 200 ms. Never blocks: NONBLOCK covers the pipe, the sockets are `O_NONBLOCK`.
const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}
