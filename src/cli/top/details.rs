//! What is known of the chosen row, below the list.

use jiff::Timestamp;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;

use super::canvas::Canvas;
use super::format::{bytes, clock, millis, number, spark, until};
use super::model::{Model, Samples};
use super::rows::Row;
use super::table::serving;
use crate::admin::status::{BackendStatus, Leaving, Orphan, RedundancyStatus, ServiceStatus};
use crate::cli::count;
use crate::cli::status::{since, span};

/// Lines that it needs, the rule above included.
pub(super) const LINES: u16 = 5;

/// Draws it: who, in the rule, and three facts, the first of which may take two lines.
pub(super) fn draw(canvas: &mut Canvas<'_>, field: Rect, row: &Row<'_>, model: &Model) {
    let (title, facts) = match *row {
        Row::Service(name, service) => (format!("{name}: {}", balance(service)), of_service(service)),
        Row::Backend(service, name, backend) => {
            let backup = if backend.role == "backup" { " (backup)" } else { "" };
            let weight = if backend.weight == 1 { String::new() } else { format!(", weight {}", backend.weight) };
            let title = format!("{service}/{name}{backup}, {}{weight}", backend.address);
            (title, of_backend(backend, model, service, name, usize::from(field.width)))
        }
        Row::Orphan(orphan) => {
            let title = format!("{}/{}, {}", orphan.service, orphan.backend, orphan.address);
            (title, of_orphan(orphan, model.now))
        }
        Row::Leaving(Leaving { service, backend, address, connections }) => {
            let open = count((*connections).into(), "session");
            let text = format!("removed by a reload: {open} still open; it is gone with the last of them");
            (format!("{service}/{backend}, {address}"), [text, String::new(), String::new()])
        }
    };
    canvas.rule(Rect { height: 1, ..field }, &title);
    let [first, others @ ..] = facts;
    let below = Rect { y: field.y + 1, height: field.height.saturating_sub(1), ..field };
    let used = canvas.wrapped(Rect { height: below.height.min(2), ..below }, &first, Style::new());
    for (fact, y) in others.iter().zip(below.y + used..below.bottom()) {
        canvas.left(Rect { y, height: 1, ..below }, fact, Style::new());
    }
}

fn balance(service: &ServiceStatus) -> String {
    let listen = if service.listen.is_empty() { "not listening yet".into() } else { service.listen.join(" ") };
    format!("{}, {listen}", service.balance)
}

fn of_service(service: &ServiceStatus) -> [String; 3] {
    let (serving, expected) = serving(service);
    let mut state = format!("{}: {serving} of {} can serve", service.state, count(expected as u64, "backend"));
    let RedundancyStatus { missing_seconds, survivable_failures, .. } = service.redundancy;
    if missing_seconds >= 1.0 {
        state.push_str(&format!(", missing {} in sum", span(missing_seconds as i64)));
    }
    match survivable_failures {
        Some(0) => state.push_str(", survives no failure"),
        Some(failures) => state.push_str(&format!(", survives {}", count(failures as u64, "failure"))),
        None => {}
    }
    let most = service.max_connections.map_or_else(String::new, |most| format!(" of {most}"));
    let queued = if service.queued > 0 { format!(", {} queued", service.queued) } else { String::new() };
    let sessions = format!("{}{most} open{queued}, {} in all", sessions(service.connections), service.total);
    let mut reasons: Vec<_> = service.refused_by.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> = reasons.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let refused =
        if reasons.is_empty() { "no client refused".into() } else { format!("refused: {}", reasons.join(", ")) };
    [state, sessions, refused]
}

fn sessions(open: u32) -> String {
    format!("sessions: {open}")
}

fn of_backend(backend: &BackendStatus, model: &Model, service: &str, name: &str, width: usize) -> [String; 3] {
    let now = model.now;
    let state = match &backend.drain {
        Some(drain) => {
            let verb = if drain.kind == "drill" { "drilled" } else { "drained" };
            let by = if drain.by.is_empty() { String::new() } else { format!(" by {}", drain.by) };
            let ago = if drain.since.is_empty() { String::new() } else { format!(" {} ago", since(&drain.since, now)) };
            let (left, at) = (until(&drain.until, now), clock(&drain.until, now));
            format!("{verb}{by}{ago}, back in {left} (at {at} UTC): {}", drain.reason)
        }
        None => format!("{} for {}: {}", backend.state, since(&backend.since, now), backend.reason.trim_end()),
    };
    let most = backend.max_connections.map_or_else(String::new, |most| format!(" of {most}"));
    let (total, failed) = (number(backend.total), number(backend.failures));
    let flow = format!("{}B in, {}B out", bytes(backend.bytes_in), bytes(backend.bytes_out));
    let numbers = format!("{}{most} open, {total} in all, {failed} failed; {flow}", sessions(backend.connections));
    let times = model.history(service, name).map_or_else(String::new, |history| {
        let width = width / 2;
        let [connect, probe] =
            [("connect", &history.connect), ("probe", &history.probe)].map(|(what, of)| timed(what, of, width));
        format!("{connect:<width$}{probe}")
    });
    [state, numbers, times]
}

/// The last time, the range of all that are kept, and a diagram, in less than `width` characters.
fn timed(what: &str, samples: &Samples, width: usize) -> String {
    let (Some(last), Some((low, high))) = (samples.last(), samples.range()) else { return format!("{what} -") };
    let text = format!("{what} {} ms ({} to {})", millis(last), millis(low), millis(high));
    let room = width.saturating_sub(text.chars().count() + 2);
    format!("{text} {}", spark(samples.all(), room))
}

fn of_orphan(orphan: &Orphan, now: Timestamp) -> [String; 3] {
    let Orphan { state, removed, generation, since: at, reason, until: end, .. } = orphan;
    let health = if state == "up" { "healthy" } else { state };
    [
        format!(
            "{health}, out of the pool since {} UTC ({} ago): removed by the reload to generation {generation}",
            clock(removed, now),
            since(removed, now)
        ),
        format!("{state} for {}: {}", since(at, now), reason.trim_end()),
        format!("watched for another {}; f forgets it", until(end, now)),
    ]
}
