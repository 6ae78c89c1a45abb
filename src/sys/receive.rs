//! The receive operation into provided buffers: once, or armed for what comes (multishot).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use super::buffers::{BUFFER_SIZE, GROUP};

/// A multishot receive ends after so many bytes, so that a slow receiver is not handed without end what a fast sender sends.
const LIMIT: u32 = 2 * BUFFER_SIZE as u32;
/// `IORING_RECV_MULTISHOT`, linux/io_uring.h (6.0).
const MULTISHOT: u16 = 2;
/// Where an entry has `optlen`: the limit of a multishot receive (linux/io_uring.h, 6.17), in words of four bytes.
const LIMIT_WORD: usize = 11;
/// `IORING_RECVSEND_POLL_FIRST`, linux/io_uring.h (5.19).
const POLL_FIRST: u16 = 1;

/// A receive into a buffer that the kernel picks. `poll_first`: the socket is known to hold nothing. `multishot`: it stays armed, up to
/// [`LIMIT`].
pub(super) fn entry(socket: BorrowedFd<'_>, poll_first: bool, multishot: bool) -> Entry {
    let length = if multishot { 0 } else { BUFFER_SIZE as u32 };
    let flags = if poll_first { POLL_FIRST } else { 0 } | if multishot { MULTISHOT } else { 0 };
    let mut entry = opcode::Recv::new(Fd(socket.as_raw_fd()), std::ptr::null_mut(), length)
        .buf_group(GROUP)
        .ioprio(flags)
        .build()
        .flags(Flags::BUFFER_SELECT);
    if multishot {
        // SAFETY: an entry is 64 bytes of integers (below), any value is one, and nobody else looks at it now.
        let words: &mut [u32; 16] = unsafe { &mut *(&raw mut entry).cast() };
        words[LIMIT_WORD] = LIMIT;
    }
    entry
}

/// Whether the kernel knows the multishot receive with a limit, as tried on a socket whose other end is closed. `ring` has a group of
/// buffers.
pub(super) fn knows_multishot(ring: &mut IoUring) -> bool {
    let Ok((socket, _)) = UnixStream::pair() else { return false };
    // SAFETY: the entry points to no memory, and the socket outlives the operation, which is waited for.
    let pushed = unsafe { ring.submission().push(&entry(socket.as_fd(), false, true)) };
    let done = pushed.is_ok() && ring.submit_and_wait(1).is_ok();
    done && ring.completion().next().is_some_and(|completion| completion.result() == 0)
}

const _: () = assert!(size_of::<Entry>() == 64 && align_of::<Entry>() >= align_of::<u32>());
