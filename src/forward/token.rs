//! OperationKind a completion belongs to, packed into the 64 bits that the ring carries along. Nothing else knows the packing.

use super::flow::Direction;
use super::session::Side;
use crate::sys::ring::ACCEPT;

/// Whose completion it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// An operation of a session: its slot, the slot's generation, and what it was.
    Session { slot: u32, generation: u32, what: OperationKind },
    /// A listener's accept, by the listener's number.
    Accept(u32),
    /// The mailbox's wake-up.
    Wake,
    /// Nobody waits for it: a cancel, or a close that failed.
    Nobody,
}

/// Which operation of a session completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OperationKind {
    Connect,
    Receive(Direction),
    Send(Direction),
    SendParked(Direction),
    Poll(Direction),
    Watch(Side),
}

/// Slots fit 24 bits: more sessions than a process can have descriptors for.
pub(super) const SLOTS: usize = 1 << 24;

const WAKE: u64 = 17;
const NOBODY: u64 = 18;
const SESSION: [OperationKind; 11] = [
    OperationKind::Connect,
    OperationKind::Receive(Direction::In),
    OperationKind::Receive(Direction::Out),
    OperationKind::Send(Direction::In),
    OperationKind::Send(Direction::Out),
    OperationKind::SendParked(Direction::In),
    OperationKind::SendParked(Direction::Out),
    OperationKind::Poll(Direction::In),
    OperationKind::Poll(Direction::Out),
    OperationKind::Watch(Side::Client),
    OperationKind::Watch(Side::Backend),
];

impl OperationKind {
    fn index(self) -> u64 {
        match self {
            Self::Connect => 0,
            Self::Receive(direction) => 1 + direction as u64,
            Self::Send(direction) => 3 + direction as u64,
            Self::SendParked(direction) => 5 + direction as u64,
            Self::Poll(direction) => 7 + direction as u64,
            Self::Watch(side) => 9 + side as u64,
        }
    }
}

impl Token {
    /// Kind in the low 8 bits, slot or listener in the next 24, generation in the high 32.
    #[inline]
    pub(super) fn pack(self) -> u64 {
        match self {
            Self::Session { slot, generation, what } => {
                u64::from(generation) << 32 | u64::from(slot) << 8 | what.index()
            }
            Self::Accept(listener) => u64::from(listener) << 8 | ACCEPT,
            Self::Wake => WAKE,
            Self::Nobody => NOBODY,
        }
    }

    #[inline]
    pub(super) fn unpack(bits: u64) -> Self {
        let number = (bits >> 8) as u32 & (SLOTS as u32 - 1);
        match bits & 0xff {
            ACCEPT => Self::Accept(number),
            WAKE => Self::Wake,
            kind => match SESSION.get(kind as usize) {
                Some(&what) => Self::Session { slot: number, generation: (bits >> 32) as u32, what },
                None => Self::Nobody,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back_as_it_went() {
        let mut tokens = vec![Token::Accept(7), Token::Wake, Token::Nobody];
        for (slot, generation) in [(0, 0), (SLOTS as u32 - 1, u32::MAX)] {
            tokens.extend(SESSION.map(|what| Token::Session { slot, generation, what }));
        }
        for token in tokens {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
