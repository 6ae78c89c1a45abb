//! `balancer whatif`: what the others would carry without one backend, by what the status tells; nothing is changed.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::client::Target;
use super::{count, print};
use crate::admin::status::{BackendStatus, ServiceStatus, Status};

/// Say what the others would carry if a backend were lost, now and at the peak
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose loss
    #[arg(value_name = "SERVICE/BACKEND", value_parser = super::backend)]
    backend: String,
    #[command(flatten)]
    target: Target,
}

/// Prints what would be.
///
/// # Errors
/// The balancer cannot be reached, or knows no such backend.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let status = arguments.target.status()?;
    let (service, backend) = find(&status, &arguments.backend)?;
    let text = told(service, &arguments.backend, backend);
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The service of a `SERVICE/BACKEND`, and the backend's name in it.
///
/// # Errors
/// There is none: what there is.
pub(super) fn find<'s, 'a>(status: &'s Status, name: &'a str) -> anyhow::Result<(&'s ServiceStatus, &'a str)> {
    let names = |names: Vec<&String>| names.into_iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    let (service, backend) = name.split_once('/').unwrap_or((name, ""));
    let Some(known) = status.services.get(service) else {
        bail!("there is no service {service}; there is {}", names(status.services.keys().collect()));
    };
    if !known.backends.contains_key(backend) {
        bail!("{service} has no backend {backend}; it has {}", names(known.backends.keys().collect()));
    }
    Ok((known, backend))
}

fn told(service: &ServiceStatus, name: &str, lost: &str) -> String {
    let mut text = String::new();
    let gone = &service.backends[lost];
    let now = Shares::of(service, lost, service.connections);
    let most = service.peak.max(service.connections);
    let peak = Shares::of(service, lost, most);
    // Writing into a `String` cannot fail, so its results are dropped.
    let _ = writeln!(
        text,
        "without {name} ({}, {} of the service's {} open now, {most} at the peak):",
        gone.state,
        gone.connections,
        count(service.connections.into(), "session")
    );
    let width = now.carried.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0).max(7);
    let _ = writeln!(text, "  {:<width$}  {:>8}  {:>8}  {:>8}  {:>8}", "BACKEND", "NOW", "THEN", "AT PEAK", "LIMIT");
    for ((name, backend, then), (_, _, at_peak)) in now.carried.iter().zip(&peak.carried) {
        let limit = backend.max_connections.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let _ = writeln!(text, "  {name:<width$}  {:>8}  {then:>8}  {at_peak:>8}  {limit:>8}", backend.connections);
    }
    if gone.state != "up" {
        let _ = writeln!(text, "It does not serve now: its loss would change nothing.");
    }
    if now.carried.is_empty() {
        let _ = writeln!(text, "Nobody else can serve: every client would be refused.");
        return text;
    }
    for (shares, when) in [(&now, "now"), (&peak, "at the peak")] {
        if shares.left > 0 {
            let more = count(shares.left.into(), "session");
            let _ = writeln!(text, "{more} would find no place {when}: they would wait in the queue, or be refused.");
        }
    }
    if peak.left == 0 {
        let _ = writeln!(text, "All would be carried, at the peak too.");
    }
    if now.carried.iter().any(|(_, backend, _)| backend.max_connections.is_none()) {
        let _ = writeln!(
            text,
            "Who has no limit takes whatever comes: give each backend a max_connections that it can carry."
        );
    }
    text
}

/// How a number of sessions would be shared out.
struct Shares<'s> {
    /// Name, backend, sessions: the primaries that can serve, then the backups.
    carried: Vec<(String, &'s BackendStatus, u32)>,
    /// Those who would find no place.
    left: u32,
}

impl<'s> Shares<'s> {
    /// By weight, each up to its limit; what the primaries cannot carry goes to the backups, in their order.
    fn of(service: &'s ServiceStatus, lost: &str, sessions: u32) -> Self {
        let able = |role: &'static str| {
            let all = service.backends.iter().filter(move |(name, backend)| *name != lost && backend.role == role);
            all.filter(|(_, backend)| backend.state == "up")
        };
        let primaries: Vec<_> = able("primary").collect();
        let limits: Vec<_> = primaries.iter().map(|(_, backend)| (backend.weight, backend.max_connections)).collect();
        let (taken, mut left) = share_out(&limits, sessions);
        let mut carried: Vec<_> =
            primaries.iter().zip(taken).map(|(&(name, backend), taken)| (name.clone(), backend, taken)).collect();
        for (name, backup) in able("backup") {
            let taken = left.min(backup.max_connections.unwrap_or(u32::MAX));
            left -= taken;
            carried.push((format!("{name} (backup)"), backup, taken));
        }
        Self { carried, left }
    }
}

/// One session after the other to whom it makes the least full for his weight, the first of equals: how many each of these, a
/// weight and a limit, would carry, and how many would find no place.
fn share_out(backends: &[(u16, Option<u32>)], sessions: u32) -> (Vec<u32>, u32) {
    // With n sessions a backend's fullness is n * 256 / weight, rounded down. Turned round: the most that keep it below a level.
    let most = |&(weight, limit): &(u16, Option<u32>), level: u64| {
        let most = (level * u64::from(weight.max(1))).saturating_sub(1) / 256;
        u32::try_from(most).unwrap_or(u32::MAX).min(limit.unwrap_or(u32::MAX))
    };
    let are_enough = |level| {
        let all = backends.iter().map(|backend| u64::from(most(backend, level))).sum::<u64>();
        all <= u64::from(sessions)
    };
    // The highest level that there are enough sessions for, by halves; all sessions with one backend keep it below the last.
    let (mut level, mut beyond) = (0, (u64::from(sessions) + 1) * 256 + 1);
    while beyond - level > 1 {
        let middle = level.midpoint(beyond);
        if are_enough(middle) { level = middle } else { beyond = middle }
    }
    let mut taken: Vec<_> = backends.iter().map(|backend| most(backend, level)).collect();
    let mut left = sessions - taken.iter().sum::<u32>();
    // The rest is not enough for the next level: the first ones have it.
    for (taken, backend) in taken.iter_mut().zip(backends) {
        let more = (most(backend, level + 1) - *taken).min(left);
        *taken += more;
        left -= more;
    }
    (taken, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same in the words of its description.
    fn one_by_one(backends: &[(u16, Option<u32>)], sessions: u32) -> (Vec<u32>, u32) {
        let mut taken = vec![0; backends.len()];
        for left in (1..=sessions).rev() {
            let free = (0..backends.len()).filter(|&at| backends[at].1.is_none_or(|limit| taken[at] < limit));
            let load = |&at: &usize| u64::from(taken[at] + 1) * 256 / u64::from(backends[at].0.max(1));
            let Some(at) = free.min_by_key(load) else { return (taken, left) };
            taken[at] += 1;
        }
        (taken, 0)
    }

    #[test]
    fn sharing_out_is_what_one_session_after_the_other_comes_to() {
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let heaviest = random.u16(1..=300);
            let backends: Vec<_> = (0..random.usize(0..8))
                .map(|_| (random.u16(0..=heaviest), random.bool().then(|| random.u32(0..60))))
                .collect();
            let sessions = random.u32(0..400);
            assert_eq!(share_out(&backends, sessions), one_by_one(&backends, sessions), "{backends:?}, {sessions}");
        }
    }

    #[test]
    fn a_million_sessions_over_a_thousand_backends_take_no_time() {
        let backends: Vec<_> = (0..1000_u16).map(|at| (at % 256 + 1, (at % 3 > 0).then_some(2000))).collect();
        let start = std::time::Instant::now();
        for sessions in [0, 1, 1_000_000, u32::MAX] {
            let (taken, left) = share_out(&backends, sessions);
            assert_eq!(taken.iter().map(|taken| u64::from(*taken)).sum::<u64>() + u64::from(left), u64::from(sessions));
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    }

    fn service(backends: &[(&str, &str, &str, u16, Option<u32>)], now: u32, peak: u32) -> ServiceStatus {
        let backend = |(name, role, state, weight, limit): &(&str, &str, &str, u16, Option<u32>)| {
            let backend = serde_json::json!({ "address": "10.0.0.1:80", "role": role, "state": state, "since": "", "reason": "",
                "weight": weight, "connections": 3, "max_connections": limit, "total": 0, "failures": 0, "bytes_in": 0,
                "bytes_out": 0, "probe_ms": null, "drain": null });
            ((*name).to_owned(), backend)
        };
        let backends: serde_json::Map<_, _> = backends.iter().map(backend).collect();
        serde_json::from_value(serde_json::json!({ "listen": [], "balance": "round_robin", "state": "ok", "connections": now,
            "max_connections": null, "peak": peak, "accepted": 0, "total": 0, "refused": 0, "refused_by": {}, "closed": {},
            "backends": backends }))
        .unwrap()
    }

    #[test]
    fn sessions_go_by_weight_up_to_the_limits_and_the_surplus_to_the_backups() {
        let web = service(
            &[
                ("a", "primary", "up", 1, Some(10)),
                ("b", "primary", "up", 2, None),
                ("gone", "primary", "up", 1, None),
                ("c", "primary", "down", 1, None),
                ("d", "backup", "up", 1, Some(5)),
            ],
            9,
            60,
        );
        let shares =
            |sessions| Shares::of(&web, "gone", sessions).carried.into_iter().map(|c| (c.0, c.2)).collect::<Vec<_>>();
        let of = |a, b, d| vec![("a".to_owned(), a), ("b".to_owned(), b), ("d (backup)".to_owned(), d)];
        assert_eq!(shares(9), of(3, 6, 0));
        assert_eq!(shares(60), of(10, 50, 0));
        let text = told(&web, "web/gone", "gone");
        assert!(
            text.contains("All would be carried, at the peak too.")
                && text.contains("give each backend a max_connections"),
            "{text}"
        );
    }

    #[test]
    fn who_would_find_no_place_is_told() {
        let web = service(
            &[
                ("a", "primary", "up", 1, Some(10)),
                ("b", "primary", "up", 1, Some(10)),
                ("d", "backup", "up", 1, Some(5)),
            ],
            8,
            20,
        );
        let text = told(&web, "web/b", "b");
        assert!(text.contains("5 sessions would find no place at the peak"), "{text}");
        assert!(!text.contains("no place now"), "{text}");
        let lone = service(&[("a", "primary", "up", 1, None)], 8, 20);
        assert!(told(&lone, "web/a", "a").contains("every client would be refused"));
    }
}
