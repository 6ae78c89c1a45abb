//! `balancer drill`: takes a backend out for real to see what its loss would mean, and says what the others carried.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::client::Target;
use super::drain::ask;
use super::whatif::find;
use super::{count, interrupted, say};
use crate::admin::status::ServiceStatus;
use crate::admin::{BackendRequest, DrainRequest};
use crate::duration;

/// How often the others are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A line in so long says how it goes.
const LINE: Duration = Duration::from_secs(10);
/// How long the backend may take to come back when the drill is over.
const RETURN: Duration = Duration::from_secs(60);

/// Take a backend out for real, see what the others carry, and bring it back for sure
///
/// It comes back when the time is over, when too many clients were refused, on Ctrl-C, when the terminal goes away, and when the
/// balancer is killed. Where this command is killed (SIGKILL), it comes back when the time is over.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose loss
    #[arg(value_name = "SERVICE/BACKEND", value_parser = super::backend)]
    backend: String,
    /// For how long, such as 10m
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    length: Duration,
    /// End it when so many clients were refused
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    abort_if_refused: u64,
    /// Also where it is the last one that can serve, or reload.guard wants more kept
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// What one of the others carried.
struct Other {
    name: String,
    before: u32,
    most: u32,
    total: u64,
    failures: u64,
}

/// Exits 0 where nobody was refused and the backend is back, else 1.
///
/// # Errors
/// The balancer cannot be reached or refuses, or the drill has shown that the loss would cost something.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { backend: name, length, abort_if_refused, force, target } = arguments;
    let status = target.status()?;
    let (before, lost) = find(&status, name)?;
    let mut others: Vec<_> = others(before, lost).collect();
    let (refused, sessions) = (before.refused, before.connections);
    let interrupted = interrupted().context("cannot listen for Ctrl-C")?;
    let request = DrainRequest {
        backend: name.clone(),
        length: duration::format(*length),
        reason: "drill".to_owned(),
        force: *force,
        abort_if_refused: Some(*abort_if_refused),
        ..DrainRequest::default()
    };
    say(&ask(target, "/v1/drain", &request)?);
    let (start, mut line) = (Instant::now(), Instant::now() + LINE);
    let mut most = sessions;
    let last = loop {
        std::thread::sleep(LOOK);
        let status =
            target.status().context("the drill goes on without this command: the backend comes back by itself")?;
        let (service, _) = find(&status, name)?;
        most = most.max(service.connections);
        for other in &mut others {
            if let Some(now) = service.backends.get(&other.name) {
                other.most = other.most.max(now.connections);
            }
        }
        if service.backends[lost].drain.is_none() {
            break service.clone();
        }
        if interrupted() {
            say(&ask(target, "/v1/restore", &BackendRequest { backend: name.clone() })?);
            break service.clone();
        }
        if Instant::now() >= line {
            line += LINE;
            let left = duration::format(Duration::from_secs(length.saturating_sub(start.elapsed()).as_secs()));
            let lost = service.refused.saturating_sub(refused);
            say(&format!(
                "{left} left: {} open, {} refused",
                count(service.connections.into(), "session"),
                count(lost, "client")
            ));
        }
    };
    let back = await_return(target, name)?;
    report(name, start.elapsed(), &last, &others, most);
    say(&back);
    let lost = last.refused.saturating_sub(refused);
    if lost > 0 {
        bail!("{} refused while {name} was out: the others do not carry its loss", count(lost, "client"));
    }
    say("nobody was refused");
    Ok(ExitCode::SUCCESS)
}

fn others(service: &ServiceStatus, lost: &str) -> impl Iterator<Item = Other> {
    let others = service.backends.iter().filter(move |(name, _)| *name != lost);
    others.map(|(name, backend)| Other {
        name: name.clone(),
        before: backend.connections,
        most: backend.connections,
        total: backend.total,
        failures: backend.failures,
    })
}

/// Waits until the backend is what its probes say.
fn await_return(target: &Target, name: &str) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        let status = target.status()?;
        let (service, lost) = find(&status, name)?;
        let backend = &service.backends[lost];
        match backend.state.as_str() {
            "up" => return Ok(format!("{name} is back")),
            "down" => bail!("{name} did not come back: it is down, {}", backend.reason),
            _ if start.elapsed() > RETURN => {
                bail!("{name} is not back yet: it is {}, {}", backend.state, backend.reason)
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn report(name: &str, took: Duration, last: &ServiceStatus, others: &[Other], most: u32) {
    let took = duration::format(Duration::from_secs(took.as_secs().max(1)));
    say(&format!("{name} was out for {took}; at most {} open; the others:", count(most.into(), "session")));
    let width = others.iter().map(|other| other.name.chars().count()).max().unwrap_or(0).max(7);
    say(&format!(
        "  {:<width$}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
        "BACKEND", "BEFORE", "AT MOST", "LIMIT", "NEW", "FAILED"
    ));
    for Other { name, before, most, total, failures } in others {
        let Some(now) = last.backends.get(name) else { continue };
        let limit = now.max_connections.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let (new, failed) = (now.total.saturating_sub(*total), now.failures.saturating_sub(*failures));
        say(&format!("  {name:<width$}  {before:>8}  {most:>8}  {limit:>8}  {new:>8}  {failed:>8}"));
    }
}
