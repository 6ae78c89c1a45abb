//! What a pick promises, through the services that the control plane builds.

mod hashing;
mod order;
mod shares;
mod threads;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::{Algorithm, Backend, BackupMember, Member, Permit, Pool, Service, ServiceState, Settings, Unpicked};
use crate::observe::condition::{Condition, State};

/// A backend named after its number, without a limit where that is 0.
fn backend(number: u16, limit: u32) -> Arc<Backend> {
    let address = ([10, 0, 0, 1], 1000 + number).into();
    let condition = Condition::new(State::Up, "not probed");
    Arc::new(Backend::new(format!("b-{number}").into(), address, NonZeroU32::new(limit), condition, 1))
}

/// Primaries 0, 1, … with these weights, whole and without limits.
fn members(weights: &[u16]) -> Vec<Member> {
    let member =
        |(&weight, number)| Member { backend: backend(number, 0), weight, share: Member::WHOLE, drained: false };
    weights.iter().zip(0..).map(member).collect()
}

/// So many primaries with a limit each.
fn limited(limits: &[u32]) -> Vec<Member> {
    let members = members(&vec![1; limits.len()]);
    members.iter().zip(limits).for_each(|(member, &limit)| member.backend.permits.set_limit(NonZeroU32::new(limit)));
    members
}

/// Backups 100, 101, … that may serve, with a limit each.
fn backups(limits: &[u32]) -> Vec<BackupMember> {
    let standby = |(&limit, number)| BackupMember { backend: backend(number, limit), may_serve: true };
    limits.iter().zip(100..).map(standby).collect()
}

fn pool(algorithm: Algorithm, members: Vec<Member>) -> Pool {
    Pool {
        algorithm,
        members,
        backups: Vec::new(),
        leaving: Vec::new(),
        past_sessions: 0,
        starting: false,
        try_all: false,
    }
}

fn service(pool: Pool) -> Service {
    let state = ServiceState::new("web".into(), 0, None, 0, 1);
    let settings = Settings::default();
    Service::new(Arc::new(state), pool, settings)
}

/// The number of the backend that a permit is in.
fn number(permit: &Permit<Backend>) -> usize {
    usize::from(permit.address.port() - 1000)
}

/// A pick from the table that holds.
fn pick(service: &Service, tried: &[Arc<Backend>], client: Option<IpAddr>) -> Result<Permit<Backend>, Unpicked> {
    service.pick(tried, client).expect("it is the newest table")
}

/// Where a client goes that leaves at once.
fn visit(service: &Service, client: u32) -> usize {
    number(&pick(service, &[], Some(address(client))).unwrap())
}

/// One of the addresses from 10.0.0.0 on.
fn address(client: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + client).into()
}

/// How many of the first so many clients, each leaving at once, go to each primary.
fn visits(service: &Service, clients: u32) -> Vec<u32> {
    let mut counts = vec![0; service.backends.len()];
    (0..clients).for_each(|client| counts[visit(service, client)] += 1);
    counts
}

/// Pearson's statistic of these counts against these weights; its distribution has one degree of freedom less than counts.
fn chi_square(counts: &[u32], weights: &[u32]) -> f64 {
    let (all, sum) = (f64::from(counts.iter().sum::<u32>()), f64::from(weights.iter().sum::<u32>()));
    let term = |(&count, &weight): (&u32, &u32)| {
        let expected = all * f64::from(weight) / sum;
        (f64::from(count) - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(term).sum()
}
