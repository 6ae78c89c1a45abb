//! One worker's io_uring: operations in, completions out. Memory that the kernel uses belongs to the ring, never to the caller.

use std::io;
use std::mem::{ManuallyDrop, size_of};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use slab::Slab;
use socket2::SockAddr;

use super::Errno;
use super::buffers::{Buffer, Buffers};
use super::enter::Enter;
use super::features::Features;
use super::receive;

mod refused;

pub use self::refused::Refused;

/// Operations that can wait for one submission; more are submitted in between.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit without the kernel's overflow list.
const COMPLETIONS: u32 = 8192;
/// Kernel threads that the ring may start for operations that cannot be done at once, of each of the two kinds.
const KERNEL_THREADS: u32 = 2;

/// The bit of a token that tells accepts: the ring sets it in their tokens, and clears it in all others.
pub const ACCEPT: u64 = 1 << 7;

/// OperationKind became of one operation. There is one of each, because it may bring a descriptor.
#[derive(Debug)]
pub struct Completion {
    token: u64,
    result: i32,
    flags: u32,
}

impl Completion {
    fn new(entry: cqueue::Entry) -> Self {
        Self { token: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }

    /// The token that the operation was given.
    #[inline]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The operation's result: a count, a descriptor, an event mask.
    pub fn result(&self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw_os_error(-self.result))
    }

    /// A multishot operation goes on.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// After a receive: the socket still held bytes (Linux 5.19; false before).
    pub fn nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }

    /// The connection that an accept brought.
    ///
    /// # Errors
    /// OperationKind accept(2) says; `EINVAL` where the operation was no accept.
    pub fn accepted(self) -> Result<OwnedFd, Errno> {
        use std::os::fd::FromRawFd;
        if self.token & ACCEPT == 0 {
            return Err(Errno::INVAL);
        }
        let descriptor = self.result()?;
        // SAFETY: the kernel has just made this descriptor for an accept, as only those bear the bit; its one completion is used up here,
        // so nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
    }
}

/// Bytes parked by a slow receiver, outside the buffers that others need.
#[derive(Debug)]
struct Parked {
    bytes: Box<[u8]>,
    sent: usize,
}

/// OperationKind is parked, by the number that [`Ring::park`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parking(u32);

/// The ring of the calling thread: only the thread that made it may use it.
pub struct Ring {
    ring: IoUring,
    /// The receive buffers.
    pub buffers: Buffers,
    features: Features,
    /// Addresses of connects that wait for submission: one place an entry, so none is overwritten before the kernel has read it.
    addresses: Box<[SockAddr]>,
    next_address: usize,
    /// Never freed before the process ends: the kernel may still read from it while it takes the ring down.
    parked: ManuallyDrop<Slab<Parked>>,
    enter: Enter,
    /// Completions fetched early, to make room for submissions.
    spilled: Vec<Completion>,
    /// OperationKind made the ring unusable; the next wait tells.
    failure: Option<io::Error>,
}

/// Interrupted; or the overflow list must be worked off first (EBUSY); or memory is short for now (EAGAIN, ENOMEM).
fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM))
}

/// Allows nothing but the operations of this file on a ring that is disabled yet, and enables it: whoever gets hold of its
/// descriptor can neither open, nor read, nor write a file with it (`IORING_REGISTER_RESTRICTIONS`, 5.10). Caps the kernel
/// threads that it may start (5.15); none does in steady state.
fn confine(ring: &IoUring) -> io::Result<()> {
    let operations = [
        opcode::Accept::CODE,
        opcode::Connect::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
    ];
    let flags = Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
    let mut allowed: Vec<_> = operations.into_iter().map(Restriction::sqe_op).collect();
    allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
    let submitter = ring.submitter();
    submitter.register_iowq_max_workers(&mut [KERNEL_THREADS; 2])?;
    submitter.register_restrictions(&mut allowed)?;
    submitter.register_enable_rings()
}

impl Ring {
    /// A ring with the features that were found.
    ///
    /// # Errors
    /// [`Refused`] with cause and remedy.
    pub fn new(features: Features) -> Result<Self, Refused> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp().setup_r_disabled();
        if features.submit_all {
            builder.setup_submit_all();
        }
        if features.defer_taskrun {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else if features.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        let ring = builder.build(SUBMISSIONS).map_err(Refused::new)?;
        let buffers = Buffers::new(&ring, features.buffer_ring).map_err(Refused::new)?;
        let enter = Enter::new(&ring, features).map_err(Refused::new)?;
        confine(&ring).map_err(Refused::new)?;
        let nowhere = SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(Self {
            ring,
            buffers,
            features,
            addresses: vec![nowhere; SUBMISSIONS as usize].into(),
            next_address: 0,
            parked: ManuallyDrop::new(Slab::new()),
            enter,
            spilled: Vec::new(),
            failure: None,
        })
    }

    /// Submits what was pushed, waits until something completes or `timeout` is over, and moves what completed to `into`.
    ///
    /// # Errors
    /// Only what leaves the ring unusable.
    pub fn wait(&mut self, timeout: Option<Duration>, into: &mut Vec<Completion>) -> io::Result<()> {
        let timeout = if self.spilled.is_empty() { timeout } else { Some(Duration::ZERO) };
        let pushed = self.ring.submission().len() as u32;
        let outcome = self.enter.enter(pushed, timeout);
        match self.failure.take().map_or(outcome, Err) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) && !passes(&error) => return Err(error),
            _ => {}
        }
        into.append(&mut self.spilled);
        into.extend(self.ring.completion().map(Completion::new));
        Ok(())
    }

    /// Accepts connections: one, or, if `many` and where multishot accept is used, one after the other ([`Completion::more`]). Its token
    /// is `token` with the bit [`ACCEPT`].
    pub fn accept(&mut self, token: u64, listener: BorrowedFd<'_>, many: bool) {
        let fd = Fd(listener.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = if many && self.features.multishot_accept {
            opcode::AcceptMulti::new(fd).flags(flags).build()
        } else {
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        self.push_marked(entry.user_data(token | ACCEPT));
    }

    /// Connects a socket.
    pub fn connect(&mut self, token: u64, socket: BorrowedFd<'_>, address: SocketAddr) {
        self.make_room();
        let place = self.next_address;
        self.next_address = (place + 1) % self.addresses.len();
        self.addresses[place] = SockAddr::from(address);
        let address = &self.addresses[place];
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len()).build();
        self.push(token, entry);
    }

    /// Receives into a buffer that the kernel picks when there are bytes ([`Ring::received`]). `empty`: the socket is known to hold nothing.
    ///
    /// Without the buffer ring this only waits until there is something to receive.
    pub fn receive(&mut self, token: u64, socket: BorrowedFd<'_>, empty: bool) {
        if !self.features.buffer_ring {
            return self.poll(token, socket, Readiness::Readable);
        }
        let poll_first = empty && self.features.poll_first;
        self.push(token, receive::entry(socket, poll_first, self.features.multishot_receive));
    }

    /// OperationKind a completed [`Ring::receive`] brought: bytes in a buffer; none at the end of the stream.
    ///
    /// # Errors
    /// `ENOBUFS` if no buffer was free, `EAGAIN` if there was nothing after all, else what broke the connection.
    pub fn received(
        &mut self,
        completion: &Completion,
        socket: BorrowedFd<'_>,
    ) -> Result<Option<(Buffer, usize)>, Errno> {
        if self.features.buffer_ring {
            let buffer = cqueue::buffer_select(completion.flags).and_then(|number| self.buffers.completed(number));
            return match (completion.result(), buffer) {
                (Ok(0), None) => Ok(None),
                (Ok(length), Some(buffer)) if length > 0 => Ok(Some((buffer, length as usize))),
                (outcome, buffer) => {
                    buffer.into_iter().for_each(|buffer| self.buffers.release(buffer));
                    outcome.and(Ok(None))
                }
            };
        }
        completion.result()?;
        let mut buffer = self.buffers.take().ok_or(Errno::NOBUFS)?;
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let outcome = rustix::net::recv(socket, self.buffers.bytes_mut(&mut buffer), flags);
        match outcome {
            Ok((_, length)) if length > 0 => Ok(Some((buffer, length))),
            outcome => {
                self.buffers.release(buffer);
                outcome.map(|_| None)
            }
        }
    }

    /// Sends a part of a buffer, now or not at all (`EAGAIN`). The buffer must be kept until it completes.
    /// `more`: something follows at once, so that a packet that is not full can wait for it.
    pub fn send(&mut self, token: u64, socket: BorrowedFd<'_>, buffer: &Buffer, part: Range<usize>, more: bool) {
        let bytes = &self.buffers.bytes(buffer)[part];
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | if more { libc::MSG_MORE } else { 0 })
            .build();
        self.push(token, entry);
    }

    /// Copies what a receiver did not take out of the buffer, which is released.
    pub fn park(&mut self, buffer: Buffer, from: usize, length: usize) -> Parking {
        let bytes = self.buffers.bytes(&buffer)[from..from + length].into();
        self.buffers.release(buffer);
        Parking(self.parked.insert(Parked { bytes, sent: 0 }) as u32)
    }

    /// Sends parked bytes when the receiver takes some; [`Ring::unpark`] tells how many are left.
    pub fn send_parked(&mut self, token: u64, socket: BorrowedFd<'_>, parking: Parking) {
        let Some(parked) = self.parked.get(parking.0 as usize) else { return };
        let bytes = &parked.bytes[parked.sent..];
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.push(token, entry);
    }

    /// After a [`Ring::send_parked`] has completed: takes off what was sent, and frees the place if `all` is to go or nothing is left.
    /// Answers what is left.
    pub fn unpark(&mut self, parking: Parking, sent: usize, all: bool) -> usize {
        let key = parking.0 as usize;
        let Some(parked) = self.parked.get_mut(key) else { return 0 };
        parked.sent = (parked.sent + sent).min(parked.bytes.len());
        let left = parked.bytes.len() - parked.sent;
        if left == 0 || all {
            self.parked.remove(key);
            return 0;
        }
        left
    }

    /// Waits once until a descriptor is ready. Level-triggered at its start.
    pub fn poll(&mut self, token: u64, descriptor: BorrowedFd<'_>, readiness: Readiness) {
        let events = match readiness {
            Readiness::Readable => libc::POLLIN,
            Readiness::Writable => libc::POLLOUT,
            Readiness::Broken => 0,
        };
        let entry = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), events as u32).build();
        self.push(token, entry);
    }

    /// Cancels the operation that has `target` as its token; it completes with `ECANCELED`, unless it was faster.
    pub fn cancel(&mut self, token: u64, target: u64) {
        self.push(token, opcode::AsyncCancel::new(target).build());
    }

    /// Closes a descriptor that no operation uses any more. `token`: where a failure of the close is reported.
    pub fn close(&mut self, token: u64, descriptor: OwnedFd) {
        if self.features.ring_close {
            let entry = opcode::Close::new(Fd(descriptor.into_raw_fd())).build().flags(Flags::SKIP_SUCCESS);
            self.push(token, entry);
        }
    }

    fn push(&mut self, token: u64, entry: Entry) {
        self.push_marked(entry.user_data(token & !ACCEPT));
    }

    fn push_marked(&mut self, entry: Entry) {
        self.make_room();
        if self.failure.is_some() {
            return;
        }
        // SAFETY: each operation above uses only memory of this ring (buffers, parked bytes, addresses) that outlives it, and descriptors
        // that their owner closes through this ring, behind it in the queue.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "room was made");
    }

    /// Submits early if the queue is full, so that a push always finds room.
    fn make_room(&mut self) {
        while self.failure.is_none() && self.ring.submission().is_full() {
            match self.ring.submit() {
                Err(error) if !passes(&error) => self.failure = Some(error),
                // The kernel takes no more until completions are fetched.
                Err(_) => self.spilled.extend(self.ring.completion().map(Completion::new)),
                Ok(_) => {}
            }
        }
    }
}

/// OperationKind [`Ring::poll`] waits for. Errors and hang-ups are reported with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Bytes or the end of the stream.
    Readable,
    /// Room for bytes.
    Writable,
    /// Nothing but an error or a hang-up.
    Broken,
}

const _: () = assert!(size_of::<Completion>() == 16);

#[cfg(test)]
mod tests;
