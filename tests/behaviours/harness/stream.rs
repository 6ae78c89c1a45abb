//! Long streams of bytes that need not be stored: each is known by its seed, and compared while it arrives.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::OnceLock;

use super::End;
use super::socket::is_reset;

/// Longer than the largest write, and a prime, so that no buffer's size divides it.
const LAP: usize = 1_048_583;

/// Each lap begins with its own number, so that a lap too many or too few is seen.
const STAMP: usize = 8;

/// A new seed, printed so that a failure can be run again with `BALANCER_TEST_SEED`.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("BALANCER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("BALANCER_TEST_SEED={seed}");
    seed
}

/// An endless stream of random bytes that depends on its seed alone.
pub(crate) struct Bytes {
    seed: u64,
    position: u64,
    stamp: [u8; STAMP],
}

impl Bytes {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, position: 0, stamp: [0; STAMP] }
    }

    /// How many bytes have been taken.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on by `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) {
        self.position += count;
    }

    /// The next bytes: at least one, at most `limit`.
    pub(crate) fn peek(&mut self, limit: usize) -> &[u8] {
        static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
        let block = BLOCK.get_or_init(|| {
            let mut block = vec![0; LAP];
            fastrand::Rng::with_seed(1).fill(&mut block);
            block
        });
        // Streams of different seeds begin at different places of the block.
        let place = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % LAP as u64 + self.position;
        let (lap, offset) = (place / LAP as u64, (place % LAP as u64) as usize);
        let source: &[u8] = if offset < STAMP {
            self.stamp = (lap ^ self.seed).wrapping_mul(0xD6E8_FEB8_6659_FD93).to_le_bytes();
            &self.stamp[offset..]
        } else {
            &block[offset..]
        };
        &source[..source.len().min(limit)]
    }

    /// Fails unless `got` is how the stream goes on.
    #[track_caller]
    pub(crate) fn check(&mut self, mut got: &[u8]) {
        while !got.is_empty() {
            let (seed, at) = (self.seed, self.position);
            let expected = self.peek(got.len());
            let (part, rest) = got.split_at(expected.len());
            if part != expected {
                let first = part.iter().zip(expected).take_while(|(a, b)| a == b).count() as u64;
                panic!("the stream of seed {seed} differs at byte {}", at + first);
            }
            self.skip(part.len() as u64);
            got = rest;
        }
    }
}

/// Sends the first `count` bytes of a seed's stream in writes of random sizes, 1 byte to 1 MiB; a failure says how many went.
pub(crate) fn send(stream: impl Write, seed: u64, count: u64) -> Result<(), (u64, io::Error)> {
    send_in(stream, &mut Bytes::new(seed), count, 1 << 20)
}

/// The same from where `bytes` stands, in writes of at most `largest` bytes.
pub(crate) fn send_in(
    mut stream: impl Write,
    bytes: &mut Bytes,
    count: u64,
    largest: usize,
) -> Result<(), (u64, io::Error)> {
    let mut random = fastrand::Rng::with_seed(bytes.seed ^ bytes.position);
    let (end, scale) = (bytes.position + count, largest.ilog2());
    while bytes.position < end {
        // Small and large writes alike: the order of magnitude is what is random.
        let magnitude = random.u32(0..=scale);
        let size = random.usize(1..=1 << magnitude).min((end - bytes.position) as usize);
        let from = bytes.position;
        let slice = bytes.peek(size);
        let count = slice.len() as u64;
        stream.write_all(slice).map_err(|error| (from, error))?;
        bytes.skip(count);
    }
    Ok(())
}

/// Receives exactly `count` bytes and compares them with how `bytes` goes on.
#[track_caller]
pub(crate) fn receive(mut stream: impl Read, bytes: &mut Bytes, count: u64) {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = count;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match stream.read(&mut buffer[..room]) {
            Ok(0) => panic!("a clean end, {left} of {count} bytes too early"),
            Ok(got) => {
                bytes.check(&buffer[..got]);
                left -= got as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}, {left} of {count} bytes too early"),
        }
    }
}

/// Receives until the end and compares with a seed's stream: how many bytes came, and how it ended.
#[track_caller]
pub(crate) fn receive_to_end(mut stream: impl Read, seed: u64) -> (u64, End) {
    let mut bytes = Bytes::new(seed);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes.position(), End::Clean),
            Ok(got) => bytes.check(&buffer[..got]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_reset(&error) => return (bytes.position(), End::Reset),
            Err(error) => panic!("{error} after {} bytes", bytes.position()),
        }
    }
}
