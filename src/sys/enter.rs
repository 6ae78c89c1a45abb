//! The way into a ring, `io_uring_enter(2)`: submit, wait, with flags that the library does not pass on.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::IoUring;
use io_uring::types::Timespec;

use super::features::Features;

// linux/io_uring.h
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// `struct io_uring_getevents_arg`, linux/io_uring.h.
#[repr(C)]
struct Arguments {
    signals: u64,
    signals_size: u32,
    least_wait: u32,
    timeout: *const Timespec,
}

/// `struct io_uring_rsrc_update`, linux/io_uring.h.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How the thread that made it enters a ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enter {
    /// The ring's descriptor, or the place where the thread has registered it.
    ring: RawFd,
    flags: u32,
}

impl Enter {
    /// Registers the ring with the calling thread, where that is used. Before the ring is confined.
    pub(super) fn new(ring: &IoUring, features: Features) -> io::Result<Self> {
        let mut enter = Self { ring: ring.as_raw_fd(), flags: ENTER_GETEVENTS | ENTER_EXT_ARG };
        if features.registered_ring {
            enter.ring = register(ring)? as RawFd;
            enter.flags |= ENTER_REGISTERED_RING;
        }
        if features.no_iowait {
            enter.flags |= ENTER_NO_IOWAIT;
        }
        Ok(enter)
    }

    /// Whether the kernel registers rings: tried, and undone.
    pub(super) fn registers(ring: &IoUring) -> bool {
        register(ring).and_then(|offset| update(ring, UNREGISTER_RING_FDS, offset, 0)).is_ok()
    }

    /// Whether the kernel knows a wait that counts as idle: tried without waiting.
    pub(super) fn waits_idle(ring: &IoUring) -> bool {
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG | ENTER_NO_IOWAIT;
        enter(ring.as_raw_fd(), 0, 0, flags, None).is_ok()
    }

    /// Submits `pushed` entries and waits until something completes or `timeout` is over.
    pub(super) fn enter(self, pushed: u32, timeout: Option<Duration>) -> io::Result<()> {
        enter(self.ring, pushed, 1, self.flags, timeout)
    }
}

fn enter(ring: RawFd, pushed: u32, least: u32, flags: u32, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos()));
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let arguments = Arguments { signals: 0, signals_size: 8, least_wait: 0, timeout };
    let (address, size) = (&raw const arguments, size_of::<Arguments>());
    // SAFETY: the kernel reads the arguments and the timeout during the call, and both live until after it. OperationKind the entries submitted point
    // to is the matter of `Ring::push`.
    let outcome = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, pushed, least, flags, address, size) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Registers a ring with the calling thread. Answers the place that stands for its descriptor.
fn register(ring: &IoUring) -> io::Result<u32> {
    update(ring, REGISTER_RING_FDS, u32::MAX, ring.as_raw_fd() as u64)
}

fn update(ring: &IoUring, operation: u32, offset: u32, data: u64) -> io::Result<u32> {
    let mut update = Update { offset, reserved: 0, data };
    // SAFETY: the kernel reads and writes one update during the call.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), operation, &raw mut update, 1) };
    match done {
        1 => Ok(update.offset),
        0.. => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
