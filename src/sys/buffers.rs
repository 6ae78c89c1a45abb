//! The worker's receive buffers: one mapping, handed to the kernel through a provided buffer ring where it has them.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Bytes in one buffer.
pub const BUFFER_SIZE: usize = 16 * 1024;
/// Buffers of one worker; a power of two, as the buffer ring demands.
const BUFFERS: u16 = 128;
/// The buffer group's number: each ring has just one.
pub(super) const GROUP: u16 = 0;
/// Where the buffers begin: behind the ring's own entries, on a page of their own.
const BUFFERS_OFFSET: usize = 4096;
const MAPPED: usize = BUFFERS_OFFSET + BUFFERS as usize * BUFFER_SIZE;

const _: () = assert!(BUFFERS.is_power_of_two() && BUFFERS as usize * size_of::<BufRingEntry>() <= BUFFERS_OFFSET);

/// One buffer that the program owns at this moment: neither free nor with the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Buffer(u16);

/// All buffers of one worker. The mapping is never unmapped: the kernel tears a ring down after its descriptor is closed and
/// might still look at it. A worker makes one in its life, and the process ends with it.
#[derive(Debug)]
pub struct Buffers {
    mapping: NonNull<u8>,
    /// The next free place in the buffer ring (wraps around).
    tail: u16,
    /// Buffers that the program owns now.
    out: u16,
    /// Free buffers where there is no buffer ring; `None` where the kernel takes them from the ring.
    free: Option<Vec<u16>>,
}

impl Buffers {
    /// Maps the buffers and, if `provided`, registers them as a buffer ring of `ring` (Linux 5.19).
    pub(super) fn new(ring: &IoUring, provided: bool) -> io::Result<Self> {
        // SAFETY: a fresh anonymous private mapping; no address is asked for, nothing is overlaid.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPED,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers = Self { mapping, tail: 0, out: 0, free: None };
        if provided {
            // SAFETY: the entries lie at the start of the mapping, page-aligned, and the mapping is never unmapped.
            unsafe {
                ring.submitter().register_buf_ring_with_flags(address as u64, BUFFERS, GROUP, 0)?;
            }
            buffers.out = BUFFERS;
            (0..BUFFERS).for_each(|buffer| buffers.release(Buffer(buffer)));
        } else {
            buffers.free = Some((0..BUFFERS).rev().collect());
        }
        Ok(buffers)
    }

    /// The buffer that a completion names by its number in the group, filled by the kernel and now the program's.
    pub(super) fn completed(&mut self, number: u16) -> Option<Buffer> {
        if number >= BUFFERS || self.free.is_some() {
            return None;
        }
        self.out += 1;
        Some(Buffer(number))
    }

    /// How many buffers are free now.
    pub fn free(&self) -> usize {
        usize::from(BUFFERS - self.out)
    }

    /// A free buffer, where there is no buffer ring. `None` if all are in use.
    pub fn take(&mut self) -> Option<Buffer> {
        let buffer = self.free.as_mut()?.pop()?;
        self.out += 1;
        Some(Buffer(buffer))
    }

    /// Gives a buffer back.
    #[expect(clippy::needless_pass_by_value, reason = "the buffer is given away")]
    pub fn release(&mut self, buffer: Buffer) {
        self.out -= 1;
        if let Some(free) = &mut self.free {
            free.push(buffer.0);
            return;
        }
        let address = self.start(&buffer) as u64;
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `place` is within the entries.
        let entry = unsafe { self.mapping.cast::<BufRingEntry>().add(place) };
        // SAFETY: the entry is within the mapping and aligned, and the kernel reads it only once the tail has passed it.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer.0);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the mapping starts with the first entry, whose reserved field is the ring's tail.
        let tail = unsafe { BufRingEntry::tail(self.mapping.as_ptr().cast()) };
        // SAFETY: the kernel only reads the tail; it is two-byte aligned and lives as long as the mapping.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The bytes of a buffer.
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        // SAFETY: whoever has a `Buffer` owns it: the kernel writes only into those it was given, the length is within the mapping.
        unsafe { std::slice::from_raw_parts(self.start(buffer), BUFFER_SIZE) }
    }

    /// The bytes of a buffer, to be written to.
    pub fn bytes_mut(&mut self, buffer: &mut Buffer) -> &mut [u8] {
        // SAFETY: as in `bytes`, and both borrows are exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(buffer), BUFFER_SIZE) }
    }

    fn start(&self, buffer: &Buffer) -> *mut u8 {
        // SAFETY: a buffer's number is below BUFFERS, so this stays within the mapping.
        unsafe { self.mapping.as_ptr().add(BUFFERS_OFFSET + usize::from(buffer.0) * BUFFER_SIZE) }
    }
}
