//! A model TCP connection: the balancer's kernel at one end, the peer's at the other.

use std::time::Duration;

use balancer::forward::session::Millis;
use balancer::sys::socket::TcpLiveness;

use crate::queue::{Bytes, Queue, length};

/// OperationKind a receive meets.
#[derive(Debug)]
pub(crate) enum Got {
    Bytes(Bytes),
    Nothing,
    End,
    Error,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// Arrived from the peer and not read yet.
    pub(crate) received: Queue,
    /// The peer's FIN has arrived.
    pub(crate) ended: bool,
    /// When a RST arrived, or the kernel gave up.
    pub(crate) broken: Option<Millis>,
    /// The error of that, which whoever asks first takes away.
    error: bool,
    /// Written and not acknowledged.
    pub(crate) sending: Queue,
    /// Our FIN is behind it.
    pub(crate) finished: bool,
    /// We have reset it, or closed it.
    pub(crate) gone: bool,
    /// At the peer's kernel, not read by the peer.
    pub(crate) inbox: Queue,
    /// The peer's kernel has our FIN.
    pub(crate) saw_end: bool,
    /// The peer's kernel has a RST of ours.
    pub(crate) saw_reset: bool,
    /// Nothing comes from the peer any more, not even an acknowledgement.
    pub(crate) vanished: bool,
    /// When the peer's kernel last acknowledged anything.
    pub(crate) heard: Millis,
    /// Since when something is unacknowledged.
    pub(crate) outstanding: Millis,
    /// When a byte last entered or left `sending`.
    pub(crate) progress: Millis,
    /// Window probes that went unanswered, and when the first of them went out.
    pub(crate) probes: u32,
    pub(crate) probed: Millis,
    /// When the second of them did.
    pub(crate) probed_again: Millis,
    /// The kernel tells no signs of life.
    pub(crate) mute: bool,
}

impl Connection {
    pub(crate) fn new(now: Millis, receive: u64, send: u64, window: u64) -> Self {
        Self {
            received: Queue::new(0, receive),
            ended: false,
            broken: None,
            error: false,
            sending: Queue::new(0, send),
            finished: false,
            gone: false,
            inbox: Queue::new(0, window),
            saw_end: false,
            saw_reset: false,
            vanished: false,
            heard: now,
            outstanding: now,
            progress: now,
            probes: 0,
            probed: 0,
            probed_again: 0,
            mute: false,
        }
    }

    // OperationKind the balancer does.

    /// recv(2) and splice(2): what arrived before a reset is still read; then the error, once; then 0. After a FIN always 0 (`SOCK_DONE`).
    pub(crate) fn receive(&mut self, most: u64) -> Got {
        if self.gone {
            Got::Error
        } else if !self.received.is_empty() {
            Got::Bytes(self.received.take(most))
        } else if self.ended {
            Got::End
        } else if self.take_error() {
            Got::Error
        } else if self.broken.is_some() {
            Got::End
        } else {
            Got::Nothing
        }
    }

    /// `SO_ERROR`.
    pub(crate) fn take_error(&mut self) -> bool {
        std::mem::take(&mut self.error)
    }

    /// send(2): how many bytes the queue took; on a broken connection the error, once, then `EPIPE`.
    pub(crate) fn send(&mut self, bytes: Bytes, now: Millis) -> Option<u64> {
        assert!(!self.finished, "sent after the end");
        if self.gone || self.broken.is_some() {
            self.error = false;
            return None;
        }
        let taken = length(&bytes).min(self.sending.room());
        if taken > 0 {
            if self.sending.is_empty() {
                self.outstanding = now;
            }
            self.sending.push(bytes.start..bytes.start + taken);
            self.progress = now;
        }
        Some(taken)
    }

    pub(crate) fn finish(&mut self, now: Millis) {
        if self.sending.is_empty() {
            self.outstanding = now;
        }
        self.finished = true;
    }

    /// OperationKind is not acknowledged is thrown away; so is what was not read.
    pub(crate) fn reset(&mut self) {
        self.gone = true;
        self.saw_reset |= !self.vanished && self.broken.is_none();
        self.received.clear();
    }

    /// close(2): unread bytes make it a reset, else what is written is still delivered, and the FIN.
    pub(crate) fn close(&mut self, now: Millis) {
        if self.gone {
            return;
        }
        if !self.received.is_empty() {
            return self.reset();
        }
        self.finished = true;
        while !self.inbox.is_empty() || self.deliverable() {
            self.inbox.clear();
            self.acknowledge(u64::MAX, now);
        }
        self.gone = true;
    }

    pub(crate) fn readable(&self) -> bool {
        !self.received.is_empty() || self.ended || self.dead()
    }

    /// The kernel calls it writable when a third of the queue is free.
    pub(crate) fn writable(&self) -> bool {
        self.sending.room() * 2 >= self.sending.length() || self.dead()
    }

    pub(crate) fn dead(&self) -> bool {
        self.gone || self.broken.is_some()
    }

    /// Both directions are shut, which a poll reports as a hang-up for ever.
    pub(crate) fn shut(&self) -> bool {
        self.dead() || self.ended && self.finished
    }

    /// A poll would report an error.
    pub(crate) fn faulty(&self) -> bool {
        self.error
    }

    /// `SIOCOUTQ`: a FIN counts, and a reset by the peer does not take it back.
    pub(crate) fn backlog(&self) -> usize {
        (self.sending.length() + u64::from(self.finished && !self.saw_end)) as usize
    }

    pub(crate) fn signs(&self, now: Millis) -> Option<TcpLiveness> {
        (!self.mute).then(|| TcpLiveness {
            since_acknowledgement: Duration::from_millis(now - self.heard),
            unacknowledged: self.in_flight() && !self.dead(),
            unanswered_probes: self.probes.try_into().unwrap_or(u8::MAX),
            unsent: self.backlog() > 0,
            since_sent: Some(Duration::from_millis(now - self.progress)),
        })
    }

    /// Segments are under way: written, and the peer's window has room for them.
    pub(crate) fn in_flight(&self) -> bool {
        !self.sending.is_empty() && self.inbox.room() > 0 || self.finished && !self.saw_end && self.sending.is_empty()
    }

    // OperationKind the network and the peer's kernel do.

    /// Something can arrive at the peer.
    pub(crate) fn deliverable(&self) -> bool {
        self.in_flight() && !self.vanished && !self.dead()
    }

    /// The peer's window is closed, and bytes wait.
    pub(crate) fn blocked(&self) -> bool {
        !self.sending.is_empty() && self.inbox.room() == 0 && !self.dead()
    }

    /// Up to `most` bytes arrive and are acknowledged, and the FIN behind the last.
    pub(crate) fn acknowledge(&mut self, most: u64, now: Millis) {
        let bytes = self.sending.take(most.min(self.inbox.room()));
        self.inbox.push(bytes);
        self.saw_end |= self.finished && self.sending.is_empty();
        self.progress = now;
        self.answer(now);
    }

    /// The peer's kernel answers a probe.
    pub(crate) fn answer(&mut self, now: Millis) {
        self.heard = now;
        self.probes = 0;
    }

    /// A window probe goes out.
    pub(crate) fn probe(&mut self, now: Millis) {
        match self.probes {
            0 => self.probed = now,
            1 => self.probed_again = now,
            _ => {}
        }
        self.probes += 1;
    }

    // OperationKind the peer does.

    /// The peer reads; room in a window that was closed is announced at once, by an acknowledgement.
    pub(crate) fn peer_reads(&mut self, most: u64, now: Millis) {
        let closed = self.inbox.room() == 0;
        if !self.inbox.take(most).is_empty() && closed {
            self.answer(now);
        }
    }

    /// The peer sends: answers how many bytes fitted.
    pub(crate) fn peer_sends(&mut self, most: u64) -> u64 {
        let (start, bytes) = (self.received.entered(), most.min(self.received.room()));
        self.received.push(start..start + bytes);
        bytes
    }

    pub(crate) fn peer_finishes(&mut self) {
        self.ended = true;
    }

    pub(crate) fn peer_resets(&mut self, now: Millis) {
        if self.broken.is_none() {
            self.broken = Some(now);
            self.error = true;
        }
    }
}
