//! The same client to the same backend, by its address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::algorithm::Candidates;
use super::backend::{Backend, Permit};
use super::maglev;
use super::mixing::{below, of_address, splitmix64};
use super::service::Member;

/// How many entries a client is sent to before everyone is looked at.
const ATTEMPTS: u64 = 16;

/// A Maglev table over all primaries, whatever their state: one that is away keeps its entries, and each of its clients finds
/// another by hashing again. So nobody else moves, and they return when it does.
#[derive(Debug)]
pub(super) struct SourceHash {
    entries: Arc<[u16]>,
    /// How much of its weight each may carry, by its place in the file.
    shares: Box<[u16]>,
    /// Those who may serve.
    serving: Box<[u32]>,
}

impl SourceHash {
    /// With the entries of another one over the same backends and weights, or with its own.
    pub(super) fn new(members: &[Member], entries: Option<Arc<[u16]>>) -> Self {
        let identity = |member: &Member| format!("{} {}", member.backend.name, member.backend.address);
        let own = || maglev::table(members.iter().map(|member| (identity(member), member.weight))).into();
        Self {
            entries: entries.unwrap_or_else(own),
            shares: members.iter().map(|member| member.share).collect(),
            serving: members.iter().zip(0..).filter(|(member, _)| member.share > 0).map(|(_, index)| index).collect(),
        }
    }

    /// What does not depend on the backends' states, for another one over the same.
    pub(super) fn entries(&self) -> Arc<[u16]> {
        Arc::clone(&self.entries)
    }

    pub(super) fn choose(&self, candidates: &Candidates<'_>, client: Option<IpAddr>) -> Option<Permit<Backend>> {
        if self.serving.is_empty() {
            return None;
        }
        // A client on a Unix socket has no address: it takes a turn instead.
        let hash = client.map_or_else(|| splitmix64(candidates.cursor.fetch_add(1, Ordering::Relaxed)), of_address);
        for attempt in 0..ATTEMPTS {
            let random = splitmix64(hash.wrapping_add(attempt));
            let index = self.entries[below(random, maglev::SIZE as u64) as usize];
            // The low bits have no part in the choice of the entry: a client that a growing share has admitted stays admitted.
            let admitted = (random & 0xff) < u64::from(self.shares[usize::from(index)]);
            if admitted && let Some(permit) = candidates.take(u32::from(index)) {
                return Some(permit);
            }
        }
        candidates.scan(|| self.serving.iter().copied(), hash)
    }
}
