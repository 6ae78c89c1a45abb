//! `balancer status`: what runs, as a table for people or as JSON for programs.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use super::client::Target;
use super::{count, monitoring_check, print, say, scaled};
use crate::admin::status::{BackendStatus, Leaving, Orphan, ReloadStatus, ServiceStatus, Status};
use crate::duration;

/// Show services and backends: states, since when and why
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the JSON that the balancer answers
    #[arg(long)]
    json: bool,
    /// For monitoring: print one line and exit with 0 ok, 1 degraded, 2 down, 3 unknown or not reachable
    #[arg(long, value_name = "SERVICE", conflicts_with = "json")]
    check: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Asks the running balancer and prints what it says.
///
/// # Errors
/// Where it cannot be reached or understood: why, and what to do.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(service) = &arguments.check {
        return check(&arguments.target, service);
    }
    if arguments.json {
        print(&arguments.target.get("/v1/status")?)?;
    } else {
        print(page(&arguments.target.status()?, Timestamp::now(), wants_colours()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check(target: &Target, service: &str) -> anyhow::Result<ExitCode> {
    let (code, line) = match target.status() {
        Ok(status) => monitoring_check::check(&status, service),
        Err(error) => (monitoring_check::UNKNOWN, monitoring_check::line(service, "UNKNOWN", &format!("{error:#}"))),
    };
    say(&line);
    Ok(code.into())
}

/// Colours are for a terminal, and for those who do not mind them (<https://no-color.org>).
fn wants_colours() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A text about a state in that state's colour.
fn painted(text: String, state: &str, colours: bool) -> String {
    let code = match state {
        "ok" | "up" => 32,
        "down" => 31,
        "degraded" | "starting" | "drained" => 33,
        _ => return text,
    };
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
}

/// Columns of a terminal that the page keeps to.
const WIDTH: usize = 80;

/// The page. Writing into a `String` cannot fail, so its results are dropped.
fn page(status: &Status, now: Timestamp, colours: bool) -> String {
    let mut page = String::new();
    let Status { version, pid, workers, sessions, config, .. } = status;
    let up = since(&status.started, now);
    let _ = writeln!(page, "balancer {version}, process {pid}, up {up}, {}", count(*workers, "worker"));
    let _ = match status.max_connections {
        Some(most) => writeln!(page, "{sessions} of {} open", count(most.into(), "session")),
        None => writeln!(page, "{} open", count((*sessions).into(), "session")),
    };
    if let Some(path) = &config.path {
        let note = match config.on_disk.as_deref() {
            Some("changed") => ", changed on disk since",
            Some("missing") => ", no longer on disk",
            _ => "",
        };
        let _ = writeln!(page, "{path}, loaded {} ago{note}", since(&config.loaded, now));
    }
    if let Some(ReloadStatus { at, result, message: Some(why) }) = &config.last_reload {
        let why = why.lines().next().unwrap_or_default().replace(char::is_control, " ");
        let _ = writeln!(page, "  last reload {result} {} ago:\n    {}", since(at, now), shortened(&why, WIDTH - 4));
    }
    if status.stopping {
        let _ = writeln!(page, "{}", painted("stopping: no client is accepted any more".into(), "down", colours));
    }
    for (name, service) in &status.services {
        page.push('\n');
        describe(&mut page, name, service, now, colours);
    }
    if !(status.leaving.is_empty() && status.orphans.is_empty()) {
        page.push('\n');
    }
    for orphan in &status.orphans {
        let Orphan { service, backend, address, state, generation, .. } = orphan;
        let (state, removed) = (painted(state.clone(), state, colours), since(&orphan.removed, now));
        let _ = writeln!(page, "outside: {service}/{backend} ({address}), {state}");
        let _ =
            writeln!(page, "    removed {removed} ago by reload {generation}, watched on; `balancer forget` ends that");
    }
    for Leaving { service, backend, address, connections } in &status.leaving {
        let sessions = count((*connections).into(), "session");
        let _ = writeln!(page, "leaving: {service}/{backend} ({address}), {sessions} open");
    }
    page
}

fn describe(page: &mut String, name: &str, service: &ServiceStatus, now: Timestamp, colours: bool) {
    let ServiceStatus { state, connections, total, refused, .. } = service;
    let sessions = count((*connections).into(), "session");
    let state = painted(state.clone(), state, colours);
    let queued =
        if service.queued > 0 { format!(", {} of them waiting for a place", service.queued) } else { String::new() };
    let _ = writeln!(page, "{name}: {state}, {sessions} open{queued}, {total} in all, {refused} refused");
    let redundancy = &service.redundancy;
    if redundancy.missing > 0 {
        let seconds = Duration::from_secs(redundancy.missing_seconds as u64);
        let (missing, expected) = (redundancy.missing, redundancy.expected);
        let _ = writeln!(page, "  {missing} of {expected} backends missing, in sum for {}", duration::format(seconds));
    }
    let listen = if service.listen.is_empty() { "not listening yet".into() } else { service.listen.join(" ") };
    let _ = writeln!(page, "  {listen}");
    let head = ["BACKEND", "STATE", "SINCE", "SESSIONS", "TOTAL", "FAILED", "IN", "OUT"].map(String::from);
    let rows: Vec<_> = [head].into_iter().chain(service.backends.iter().map(|(name, b)| row(name, b, now))).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    // Names are the only cells without a bound of their own.
    let others: usize = widths[1..].iter().map(|width| width + 2).sum();
    widths[0] = widths[0].min((WIDTH - 2).saturating_sub(others));
    let reasons = [None].into_iter().chain(service.backends.values().map(reason));
    for (row, reason) in rows.iter().zip(reasons) {
        let _ = write!(page, "  {:<1$}", shortened_name(&row[0], widths[0]), widths[0]);
        for (column, (cell, width)) in row.iter().zip(widths).enumerate().skip(1) {
            // Words to the left, numbers to the right.
            let _ = if column == 1 {
                write!(page, "  {}", painted(format!("{cell:<width$}"), cell, colours))
            } else if column < 3 {
                write!(page, "  {cell:<width$}")
            } else {
                write!(page, "  {cell:>width$}")
            };
        }
        page.push('\n');
        if let Some(reason) = reason {
            // A backend may have had a hand in it: no line end and no escape sequence of its goes to the terminal.
            let reason = reason.trim_end().replace(char::is_control, " ");
            let _ = writeln!(page, "    {}", shortened(&reason, WIDTH - 4));
        }
    }
}

fn row(name: &str, backend: &BackendStatus, now: Timestamp) -> [String; 8] {
    [
        if backend.role == "backup" { format!("{name}{BACKUP}") } else { name.into() },
        backend.state.clone(),
        since(&backend.since, now),
        number(backend.connections.into()),
        number(backend.total),
        number(backend.failures),
        bytes(backend.bytes_in),
        bytes(backend.bytes_out),
    ]
}

/// Why a backend does not serve.
fn reason(backend: &BackendStatus) -> Option<&str> {
    (backend.state != "up").then_some(&*backend.reason)
}

/// What stands behind a backup's name.
const BACKUP: &str = " (backup)";

/// A name in at most `width` characters that still says whether it is a backup's.
fn shortened_name(name: &str, width: usize) -> String {
    match name.strip_suffix(BACKUP) {
        Some(name) => shortened(name, width.saturating_sub(BACKUP.len())) + BACKUP,
        None => shortened(name, width),
    }
}

/// A text in at most `width` characters.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How long ago, in the two largest units that fit.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| "?".into(), |time| span(now.duration_since(time).as_secs()))
}

/// A time in seconds, in the two largest units that fit.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A number in at most seven characters.
fn number(n: u64) -> String {
    if n < 1_000_000 { n.to_string() } else { scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]) }
}

/// A number of bytes in at most eight characters.
fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Server, fixture};

    const BACKEND: &str = r#"{ "address": "10.0.0.11:8080", "role": "primary", "state": "up", "since": "2026-03-01T10:00:00Z",
        "reason": "not probed", "weight": 1, "connections": 7, "max_connections": null, "total": 522, "failures": 0,
        "bytes_in": 9001, "bytes_out": 88211000, "probe_ms": null, "drain": null }"#;

    fn backend(change: impl FnOnce(&mut BackendStatus)) -> BackendStatus {
        let mut backend = serde_json::from_str(BACKEND).unwrap();
        change(&mut backend);
        backend
    }

    fn status(backends: Vec<(&str, BackendStatus)>) -> Status {
        let document = r#"{ "version": "0.1.0", "pid": 4242, "started": "2026-03-01T10:00:00.000Z", "workers": 2,
            "sessions": 12, "max_connections": 9000, "pipes": 0, "pipes_max": 64, "pipes_refused": 0, "buffers_refused": 0,
            "wakes": 1, "descriptors": 30, "descriptors_max": 20000,
            "config": { "path": "/etc/balancer/balancer.yaml", "sha256": "", "generation": 1,
                "loaded": "2026-03-01T10:00:00.000Z", "on_disk": "changed" },
            "services": { "web": { "listen": ["0.0.0.0:8080"], "balance": "round_robin", "state": "ok", "connections": 12,
                "max_connections": null, "accepted": 1044, "total": 1044, "refused": 0, "refused_by": {}, "closed": {},
                "backends": {} } } }"#;
        let mut status: Status = serde_json::from_str(document).unwrap();
        status.services["web"].backends = backends.into_iter().map(|(name, backend)| (name.into(), backend)).collect();
        status
    }

    fn page_of(backends: Vec<(&str, BackendStatus)>) -> String {
        page(&status(backends), "2026-03-01T13:12:30Z".parse().unwrap(), false)
    }

    #[test]
    fn the_page_names_each_backend_and_says_why_one_does_not_serve() {
        let down = backend(|backend| {
            backend.state = "down".into();
            backend.since = "2026-03-01T13:12:00Z".into();
            backend.reason = "connection refused".into();
            backend.connections = 0;
        });
        let expected = "\
balancer 0.1.0, process 4242, up 3h12m, 2 workers
12 of 9000 sessions open
/etc/balancer/balancer.yaml, loaded 3h12m ago, changed on disk since

web: ok, 12 sessions open, 1044 in all, 0 refused
  0.0.0.0:8080
  BACKEND  STATE  SINCE  SESSIONS  TOTAL  FAILED       IN       OUT
  web-01   up     3h12m         7    522       0  8.8 KiB  84.1 MiB
  web-02   down   30s           0    522       0  8.8 KiB  84.1 MiB
    connection refused
";
        assert_eq!(page_of(vec![("web-01", backend(|_| {})), ("web-02", down)]), expected);
    }

    #[test]
    fn the_page_fits_a_terminal_whatever_the_numbers_and_names() {
        let extreme = backend(|backend| {
            backend.state = "starting".into();
            backend.since = "2001-01-01T00:00:00Z".into();
            backend.reason = "because of a reason that is told at length ".repeat(5);
            backend.connections = u32::MAX;
            (backend.total, backend.failures) = (u64::MAX, 999_999);
            (backend.bytes_in, backend.bytes_out) = (1023 << 20, u64::MAX);
        });
        let name = "ein-außerordentlich-langer-name-für-einen-einzigen-server";
        let page = page_of(vec![(name, extreme), ("web-02", backend(|_| {}))]);
        let widest = page.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(WIDTH), "{page}");
        assert!(page.contains("ein-außerord") && page.contains('…'), "{page}");
    }

    #[test]
    fn a_check_tells_the_state_in_one_line_and_its_exit_code() {
        let down = || {
            backend(|backend| {
                backend.state = "down".into();
                backend.reason = "connect refused |\n".into();
            })
        };
        let backup = backend(|backend| backend.role = "backup".into());
        let mut status = status(vec![("web-01", backend(|_| {})), ("web-02", backend(|_| {}))]);
        assert_eq!(monitoring_check::check(&status, "web"), (0, "web OK - 2 of 2 backends up".into()));
        status.services["web"].state = "degraded".into();
        status.services["web"].backends = [("web-01".into(), down()), ("web-03".into(), backup)].into_iter().collect();
        let expected = "web DEGRADED - 0 of 1 backends up, 1 of 1 backups up; backups have sessions; web-01 down: connect refused / ";
        assert_eq!(monitoring_check::check(&status, "web"), (1, expected.into()));
        let page = page(&status, Timestamp::now(), true);
        assert!(page.contains("web-03 (backup)") && page.contains("\x1b[31mdown "), "{page}");
        assert!(page.contains("    connect refused |\n  web-03"), "{page}");
        status.services["web"].state = "down".into();
        assert_eq!(monitoring_check::check(&status, "web").0, 2);
        assert_eq!(monitoring_check::check(&status, "wev").0, 3);
    }

    #[test]
    fn numbers_stay_short() {
        assert_eq!([999_999, 1_000_000, 9_999_999_999, u64::MAX].map(number), ["999999", "1.0M", "10.0G", "18.4E"]);
        assert_eq!([0, 1023, 1024, 1 << 40].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 TiB"]);
        let at = |seconds: &str| since("2026-03-01T00:00:00Z", seconds.parse().unwrap());
        assert_eq!(at("2026-03-01T00:00:07Z"), "7s");
        assert_eq!(at("2026-03-01T00:05:07Z"), "5m07s");
        assert_eq!(at("2026-04-09T07:00:00Z"), "39d07h");
        assert_eq!(at("2026-02-28T23:59:59Z"), "0s", "the clock was set back");
    }

    #[test]
    fn a_running_balancer_is_asked_and_an_absent_one_explained() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let target = Target::at(&socket);
        let absent = target.get("/v1/status").unwrap_err().to_string();
        assert!(absent.contains("balancer run") && absent.contains("--socket"), "{absent}");

        let server = Server::bind(&socket).unwrap();
        let mut serving =
            server.serve(fixture::view(&["web"], &["web-01"]), crate::messages::admin_requests().0).unwrap();
        serving.begin();
        assert!(page(&target.status().unwrap(), Timestamp::now(), false).contains("web-01"));
        let wrong = target.get("/v1/nothing").unwrap_err().to_string();
        assert!(wrong.contains("404"), "{wrong}");
        drop(serving);

        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let dead = target.get("/v1/status").unwrap_err().to_string();
        assert!(dead.contains("any more"), "{dead}");
    }
}
