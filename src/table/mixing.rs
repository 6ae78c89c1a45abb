//! Small mixing functions: the finish of splitmix64, and hashes made of it. Not for secrets.

use std::net::IpAddr;

/// The golden ratio's bits: odd, and far from any pattern.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The `step`-th number of the splitmix64 sequence (Steele, Lea, Flood 2014): every bit depends on every bit.
#[inline]
pub fn splitmix64(step: u64) -> u64 {
    let mut z = step.wrapping_add(1).wrapping_mul(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `bound`, as evenly as 64 bits allow, without a division (Lemire 2019).
#[inline]
pub(super) fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// A client's hash: the same in every process, on every machine and for both notations of an IPv4 address.
#[inline]
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(four) => splitmix64(u64::from(four.to_bits())),
        IpAddr::V6(six) => {
            let bits = six.to_bits();
            splitmix64(splitmix64((bits >> 64) as u64) ^ bits as u64)
        }
    }
}

/// A text's hash under a seed.
pub(super) fn of_text(text: &str, seed: u64) -> u64 {
    text.as_bytes().chunks(8).fold(splitmix64(seed ^ text.len() as u64), |hash, chunk| {
        let word = chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        splitmix64(hash ^ word)
    })
}
