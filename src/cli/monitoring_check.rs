//! `balancer status --check`: one line and an exit code, as monitoring systems of the Nagios kind read them.

use crate::admin::status::{ServiceStatus, Status};

/// Backends named in the line.
const NAMED: usize = 3;

/// The exit code where the service is not known, or nobody answers.
pub(super) const UNKNOWN: u8 = 3;

/// The exit code and the line for one service.
pub(super) fn check(status: &Status, name: &str) -> (u8, String) {
    let Some(service) = status.services.get(name) else {
        let names: Vec<&str> = status.services.keys().map(String::as_str).take(NAMED).collect();
        return (UNKNOWN, line(name, "UNKNOWN", &format!("no such service; there is {}", names.join(", "))));
    };
    if status.stopping {
        return (2, line(name, "DOWN", "the process is stopping: no client is accepted any more"));
    }
    let (code, word) = match service.state.as_str() {
        "ok" => (0, "OK"),
        "degraded" => (1, "DEGRADED"),
        "down" => (2, "DOWN"),
        _ => (UNKNOWN, "UNKNOWN"),
    };
    (code, line(name, word, &told(service)))
}

/// The line, kept one line, and without the bar that would begin performance data.
pub(super) fn line(service: &str, word: &str, told: &str) -> String {
    let line = format!("{service} {word} - {told}");
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).map(|c| if c == '|' { '/' } else { c }).collect()
}

fn told(service: &ServiceStatus) -> String {
    let of = |role: &str| {
        let all = service.backends.values().filter(|backend| backend.role == role);
        (all.clone().filter(|backend| backend.state == "up").count(), all.count())
    };
    let ((up, all), (backups_up, backups)) = (of("primary"), of("backup"));
    let mut told = format!("{up} of {all} backends up");
    if backups > 0 {
        told.push_str(&format!(", {backups_up} of {backups} backups up"));
    }
    if service.backends.values().any(|backend| backend.role == "backup" && backend.connections > 0) {
        told.push_str("; backups have sessions");
    }
    let out: Vec<_> = service.backends.iter().filter(|(_, backend)| backend.state != "up").collect();
    for (name, backend) in out.iter().take(NAMED) {
        told.push_str(&format!("; {name} {}: {}", backend.state, backend.reason));
    }
    if out.len() > NAMED {
        told.push_str(&format!("; and {} more", out.len() - NAMED));
    }
    told
}
