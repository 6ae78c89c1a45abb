//! `balancer status`: what runs, as a table for people or as JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;

use super::client::Target;
use crate::admin::status::{BackendStatus, ServiceStatus, Status};

/// The arguments of `balancer status`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Prints the balancer's answer as it is, in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Asks the running balancer and prints what it says.
///
/// # Errors
/// Where it cannot be reached or understood: why, and what to do.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let answer = arguments.target.get("/v1/status")?;
    if arguments.json {
        print(&answer)?;
    } else {
        let status = serde_json::from_slice(&answer)
            .context("this status is of another version of balancer: use the program that is running, or --json")?;
        print(page(&status, Timestamp::now()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output; a reader that has seen enough (`| head`) is no error.
fn print(text: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Columns of a terminal that the page keeps to.
const WIDTH: usize = 80;

/// The page. Writing into a `String` cannot fail, so its results are dropped.
fn page(status: &Status, now: Timestamp) -> String {
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
    for (name, service) in &status.services {
        page.push('\n');
        describe(&mut page, name, service, now);
    }
    page
}

fn describe(page: &mut String, name: &str, service: &ServiceStatus, now: Timestamp) {
    let ServiceStatus { state, connections, total, refused, .. } = service;
    let sessions = count((*connections).into(), "session");
    let _ = writeln!(page, "{name}: {state}, {sessions} open, {total} in all, {refused} refused");
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
        let _ = write!(page, "  {:<1$}", shortened(&row[0], widths[0]), widths[0]);
        for (column, (cell, width)) in row.iter().zip(widths).enumerate().skip(1) {
            // Words to the left, numbers to the right.
            let _ = if column < 3 { write!(page, "  {cell:<width$}") } else { write!(page, "  {cell:>width$}") };
        }
        page.push('\n');
        if let Some(reason) = reason {
            let _ = writeln!(page, "    {}", shortened(reason, WIDTH - 4));
        }
    }
}

fn row(name: &str, backend: &BackendStatus, now: Timestamp) -> [String; 8] {
    [
        name.into(),
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

fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A text in at most `width` characters.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How long ago, in the two largest units that fit.
fn since(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return "?".into() };
    let seconds = now.duration_since(time).as_secs().max(0);
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
    if n < 1_000_000 { n.to_string() } else { scaled(n, 1000.0, &["", "k", "M", "G", "T", "P", "E"]) }
}

/// A number of bytes in at most eight characters.
fn bytes(n: u64) -> String {
    if n < 1024 { format!("{n} B") } else { scaled(n, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"]) }
}

fn scaled(n: u64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (n as f64, 0);
    // 999.95 would round to a fifth digit.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(value < 99.95);
    format!("{value:.digits$}{}", units[unit])
}
