//! Bytes on their way: a bounded queue that knows every byte by its position.

use std::ops::Range;

/// Bytes that follow one another, as positions in their stream: a byte is its position.
pub(crate) type Bytes = Range<u64>;

pub(crate) fn length(bytes: &Bytes) -> u64 {
    bytes.end - bytes.start
}

/// A bounded queue of bytes. OperationKind enters must follow what entered before, so that a byte lost, doubled or out of order shows at once.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes: Bytes,
    capacity: u64,
}

impl Queue {
    pub(crate) fn new(start: u64, capacity: u64) -> Self {
        Self { bytes: start..start, capacity }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn length(&self) -> u64 {
        length(&self.bytes)
    }

    pub(crate) fn room(&self) -> u64 {
        self.capacity - self.length()
    }

    /// How many bytes have ever entered.
    pub(crate) fn entered(&self) -> u64 {
        self.bytes.end
    }

    /// How many bytes have ever left.
    pub(crate) fn left(&self) -> u64 {
        self.bytes.start
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        assert_eq!(bytes.start, self.bytes.end, "bytes lost, doubled or out of order");
        self.bytes.end = bytes.end;
        assert!(self.length() <= self.capacity, "a queue overflows");
    }

    pub(crate) fn take(&mut self, most: u64) -> Bytes {
        let taken = self.bytes.start..self.bytes.start + most.min(self.length());
        self.bytes.start = taken.end;
        taken
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.start = self.bytes.end;
    }
}
