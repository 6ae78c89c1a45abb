//! `balancer whatif`: what the others would carry without one backend, by what the status tells; nothing is changed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::client::Target;
use super::count;
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
    let status: Status = serde_json::from_slice(&arguments.target.get("/v1/status")?)
        .context("this status is of another version of balancer: use the program that is running")?;
    let (service, backend) = find(&status, &arguments.backend)?;
    let text = told(service, &arguments.backend, backend);
    // A reader that has seen enough (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
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
        let mut carried: Vec<_> = able("primary").map(|(name, backend)| (name.clone(), backend, 0_u32)).collect();
        let mut left = sessions;
        // One session after the other to whom it makes the least full for his weight: exact, and there are never many.
        while left > 0 {
            let load = |(_, backend, taken): &(String, &BackendStatus, u32)| {
                u64::from(taken + 1) * 256 / u64::from(backend.weight.max(1))
            };
            let free = carried.iter_mut().filter(|(_, b, taken)| b.max_connections.is_none_or(|limit| *taken < limit));
            let Some((.., taken)) = free.min_by_key(|entry| load(entry)) else { break };
            *taken += 1;
            left -= 1;
        }
        for (name, backup) in able("backup") {
            let taken = left.min(backup.max_connections.unwrap_or(u32::MAX));
            left -= taken;
            carried.push((format!("{name} (backup)"), backup, taken));
        }
        Self { carried, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
