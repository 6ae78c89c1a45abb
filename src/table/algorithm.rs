//! The balancing algorithms by name, and what each makes of a pool once, when the table is built.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::backend::{Backend, Permit};
use super::first::First;
use super::least_connections::LeastConnections;
use super::random_two::RandomTwo;
use super::rotation::{Moved, Rotation, Superseded};
use super::round_robin::RoundRobin;
use super::service::Member;
use super::source_hash::SourceHash;

/// How a service chooses among its primaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn, each as often as its weight says.
    RoundRobin,
    /// The fewest open sessions for its weight.
    LeastConnections,
    /// The less loaded of two drawn by weight.
    RandomTwo,
    /// The same client to the same backend.
    SourceHash,
    /// The first in the file's order that has a free permit.
    First,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::RoundRobin, Self::LeastConnections, Self::RandomTwo, Self::SourceHash, Self::First];

    /// The name that the configuration and the status have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::RandomTwo => "random_two",
            Self::SourceHash => "source_hash",
            Self::First => "first",
        }
    }
}

/// An algorithm with all that it computes in advance.
#[derive(Debug)]
pub(super) enum Chooser {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    RandomTwo(RandomTwo),
    SourceHash(SourceHash),
    First(First),
}

impl Chooser {
    /// Those with a share above 0 serve.
    pub(super) fn new(algorithm: Algorithm, members: &[Member], before: Option<Before<'_>>) -> Self {
        let rotation = |weighted| {
            let before = before.as_ref().and_then(|before| Some((before.chooser.rotation()?, before.moved.clone())));
            Rotation::new(weighted, before)
        };
        match algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(RoundRobin::new(rotation(weighted(members)))),
            Algorithm::LeastConnections => Self::LeastConnections(LeastConnections::new(rotation(weighted(members)))),
            Algorithm::RandomTwo => Self::RandomTwo(RandomTwo::new(&weighted(members).serving)),
            Algorithm::SourceHash => {
                let entries = match before {
                    Some(Before { chooser: Self::SourceHash(before), same_weights: true, .. }) => {
                        Some(before.entries())
                    }
                    _ => None,
                };
                Self::SourceHash(SourceHash::new(members, entries))
            }
            Algorithm::First => Self::First(First::new(&weighted(members).serving)),
        }
    }

    /// A permit of one of those who serve; `None` where all are tried or full.
    ///
    /// # Errors
    /// A newer table is published.
    #[inline]
    pub(super) fn choose(
        &self,
        candidates: &Candidates<'_>,
        client: Option<IpAddr>,
    ) -> Result<Option<Permit<Backend>>, Superseded> {
        match self {
            Self::RoundRobin(chooser) => chooser.choose(candidates),
            Self::LeastConnections(chooser) => chooser.choose(candidates),
            Self::RandomTwo(chooser) => Ok(chooser.choose(candidates)),
            Self::SourceHash(chooser) => Ok(chooser.choose(candidates, client)),
            Self::First(chooser) => Ok(chooser.choose(candidates)),
        }
    }

    /// Its table is published: the order goes on where the one before is.
    pub(super) fn take_over(&self) {
        self.rotation().into_iter().for_each(|rotation| rotation.take_over());
    }

    fn rotation(&self) -> Option<&Arc<Rotation>> {
        match self {
            Self::RoundRobin(chooser) => Some(chooser.rotation()),
            Self::LeastConnections(chooser) => Some(chooser.rotation()),
            Self::RandomTwo(_) | Self::SourceHash(_) | Self::First(_) => None,
        }
    }
}

/// What a chooser goes on from.
pub(super) struct Before<'a> {
    pub(super) chooser: &'a Chooser,
    /// Its backends and their weights are the same, in the same order.
    pub(super) same_weights: bool,
    /// Where its backends stand now; `None` where they are the same, in the same order.
    pub(super) moved: Option<Moved>,
}

/// Whom a pick chooses from.
pub(super) struct Candidates<'a> {
    /// All primaries, whatever their state.
    pub(super) backends: &'a [Arc<Backend>],
    /// Those that have failed this client.
    pub(super) tried: &'a [Arc<Backend>],
    pub(super) cursor: &'a AtomicU64,
}

impl Candidates<'_> {
    #[inline]
    pub(super) fn is_tried(&self, index: u32) -> bool {
        let backend = &self.backends[index as usize];
        self.tried.iter().any(|tried| Arc::ptr_eq(tried, backend))
    }

    /// A place in this one, unless it is tried or full.
    #[inline]
    pub(super) fn take(&self, index: u32) -> Option<Permit<Backend>> {
        if self.is_tried(index) { None } else { Permit::take(&self.backends[index as usize]) }
    }

    /// The first free permit from `start` on and round, so that no neighbour of a busy one is favoured.
    pub(super) fn scan<I>(&self, indices: impl Fn() -> I, start: u64) -> Option<Permit<Backend>>
    where
        I: ExactSizeIterator<Item = u32>,
    {
        let start = (start % indices().len().max(1) as u64) as usize;
        indices().skip(start).chain(indices().take(start)).find_map(|index| self.take(index))
    }
}

/// A primary that may serve, by its place in the file, and the weight that it may carry now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Serving {
    pub(super) index: u32,
    /// Against the others', never 0.
    pub(super) weight: u32,
}

/// How long a round robin's order may become for the sake of slow start. Whole weights are always kept exactly: 1,000 backends
/// of weight 255 and one of 256 need 255,256 turns.
const FINE_TURNS: u32 = 65_536;

/// Those who may serve, in the order of the file, and in what parts their weights are counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Weighted {
    pub(super) serving: Box<[Serving]>,
    /// A weight of 1 counts as much: a power of two, at most 16.
    pub(super) resolution: u32,
}

/// Those who may serve. Where one is starting slowly, weights are counted in sixteenths, or coarser where that would make too many.
pub(super) fn weighted(members: &[Member]) -> Weighted {
    let ramping = members.iter().any(|member| (1..Member::WHOLE).contains(&member.share));
    let finest = if ramping { 16 } else { 1 };
    let at = |resolution: u32| -> Box<[Serving]> {
        let scaled = |member: &Member| {
            let share = u32::from(member.share.min(Member::WHOLE));
            (u32::from(member.weight) * share * resolution / u32::from(Member::WHOLE)).max(1)
        };
        let all = members.iter().zip(0..).filter(|(member, _)| member.share > 0);
        all.map(|(member, index)| Serving { index, weight: scaled(member) }).collect()
    };
    let mut resolution = finest;
    loop {
        let serving = at(resolution);
        let turns: u64 = serving.iter().map(|one| u64::from(one.weight)).sum();
        if resolution == 1 || turns <= u64::from(FINE_TURNS) {
            return Weighted { serving, resolution };
        }
        resolution /= 2;
    }
}
