//! One frame: title, list, details, events, keys, and what lies over them.

use std::time::Instant;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::{Position, Rect};
use ratatui_core::style::{Modifier, Style};

use super::canvas::{Canvas, Look};
use super::format::{byte_rate, passed, rate};
use super::rows::Row;
use super::screen::{Mode, Screen};
use super::table::Columns;
use super::{details, dialog, events};
use crate::admin::status::Status;
use crate::cli::count;
use crate::cli::status::since;

/// The smallest terminal that anything can be read on.
const SMALLEST: (u16, u16) = (40, 8);

/// Below this height there are no details.
const ROOM_FOR_DETAILS: u16 = 14;

/// Below this height there are no events.
const ROOM_FOR_EVENTS: u16 = 20;

/// Lines of events, the rule above included, where the list wants all the room.
const EVENTS: u16 = 4;

/// Draws a frame and says where the cursor belongs, if anywhere.
pub(super) fn draw(screen: &mut Screen, buffer: &mut Buffer, look: Look, now: Instant) -> Option<Position> {
    let area = *buffer.area();
    let mut canvas = Canvas { buffer, look };
    let cursor = if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        canvas.wrapped(area, &format!("this needs {width} columns and {height} lines; q quits"), Style::new());
        None
    } else {
        whole(screen, &mut canvas, area, now)
    };
    canvas.finish();
    cursor
}

/// Draws all rows and events on a sheet as high as it needs, without what only a terminal needs.
pub(super) fn sheet(screen: &Screen, buffer: &mut Buffer, look: Look) {
    let area = *buffer.area();
    let mut canvas = Canvas { buffer, look };
    let head = above(&mut canvas, area, screen, Instant::now());
    let (rows, _) = screen.rows();
    let columns = columns(area.width, &rows);
    columns.head(&mut canvas, Rect { y: head, height: 1, ..area });
    let mut end = head + 1;
    for row in &rows {
        columns.row(&mut canvas, Rect { y: end, height: 1, ..area }, row, &screen.model);
        end += 1;
    }
    let height = events::lines(&screen.model, area.width).min(area.height - end);
    events::draw(&mut canvas, Rect { y: end, height, ..area }, &screen.model);
    canvas.finish();
}

fn whole(screen: &mut Screen, canvas: &mut Canvas<'_>, area: Rect, now: Instant) -> Option<Position> {
    let top = above(canvas, area, screen, now);
    let rows = screen.rows().0.len();
    let details = if area.height >= ROOM_FOR_DETAILS && rows > 0 { details::LINES } else { 0 };
    let known = if area.height >= ROOM_FOR_EVENTS { events::lines(&screen.model, area.width) } else { 0 };
    // The heading above the list and the keys below everything take a line each.
    let room = area.height - top - 2 - details;
    // The list comes first, but leaves a few lines to events; what it does not need is theirs, too.
    let wanted = u16::try_from(rows).unwrap_or(u16::MAX).max(1);
    let events = known.min(room.saturating_sub(wanted).max(EVENTS));
    let list = Rect { y: area.y + top + 1, height: room - events, ..area };
    self::list(canvas, Rect { y: area.y + top, height: 1, ..area }, list, screen, now);
    let below = Rect { y: list.bottom(), height: details, ..area };
    if details > 0 {
        let (rows, place) = screen.rows();
        details::draw(canvas, below, &rows[place], &screen.model);
    }
    events::draw(canvas, Rect { y: below.bottom(), height: events, ..area }, &screen.model);
    let last = Rect { y: area.bottom() - 1, height: 1, ..area };
    if let Mode::Filter(_) = screen.mode {
        let end = canvas.left(last, &format!("/{}", screen.filter), Style::new());
        let help = "  Enter keeps it, Esc drops it";
        canvas.right(Rect { x: end, width: last.right() - end, ..last }, help, Style::new());
        return Some(Position { x: end.min(last.right() - 1), y: last.y });
    }
    keys(canvas, last, screen);
    dialog::draw(canvas, area, screen)
}

/// What stands above the list: the process, how all are, and what is amiss. Lines that it takes.
fn above(canvas: &mut Canvas<'_>, area: Rect, screen: &Screen, now: Instant) -> u16 {
    title(canvas, Rect { height: 1, ..area }, screen);
    second(canvas, Rect { y: area.y + 1, height: 1, ..area }, screen, now);
    let mut lines = 2;
    for note in notes(screen) {
        // A low terminal keeps its lines for the list.
        let height = if area.height < ROOM_FOR_EVENTS { 1 } else { 2 };
        let field = Rect { y: area.y + lines, height, ..area };
        lines += canvas.wrapped(field, &note, canvas.look.state("degraded"));
    }
    lines
}

/// The process and what it carries, as much of it as fits.
fn title(canvas: &mut Canvas<'_>, line: Rect, screen: &Screen) {
    let Status { version, started, sessions, max_connections, .. } = &screen.model.status;
    let most = max_connections.map_or_else(String::new, |most| format!("/{most}"));
    let whole = screen.model.whole();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let left = format!("balancer {version}, up {}", since(started, screen.model.now));
    let end = canvas.left(line, &left, bold);
    let bytes = |way: &str, rate: Option<f64>| match rate {
        Some(_) => format!("{way} {}B/s", byte_rate(rate)),
        None => format!("{way} -"),
    };
    let parts = [
        format!("{sessions}{most} sessions"),
        format!("{} new/s", rate(whole.sessions)),
        bytes("in", whole.bytes_in),
        bytes("out", whole.bytes_out),
    ];
    let right = as_many(&parts, usize::from(line.right().saturating_sub(end + 2)));
    canvas.right(Rect { x: end, width: line.right() - end, ..line }, &right, bold);
}

/// The most important keys, as many as there is room for.
fn keys(canvas: &mut Canvas<'_>, line: Rect, screen: &Screen) {
    let sort = format!("s sort: {}", screen.sort.label());
    let parts = ["? help", "q quit", "jk move", "d drain", "r restore", "/ filter", &sort, "f forget"];
    canvas.left(line, &as_many(&parts, usize::from(line.width)), Style::new());
}

/// The first of these parts, with blanks between them, up to a width.
fn as_many<S: AsRef<str>>(parts: &[S], width: usize) -> String {
    let mut text = String::new();
    for part in parts.iter().map(AsRef::as_ref) {
        let blanks = if text.is_empty() { "" } else { "  " };
        if text.len() + blanks.len() + part.len() > width {
            break;
        }
        text.push_str(blanks);
        text.push_str(part);
    }
    text
}

/// That nobody answers, or what the filter shows, or how all are.
fn second(canvas: &mut Canvas<'_>, line: Rect, screen: &Screen, now: Instant) {
    if let Some((why, since)) = screen.model.trouble(now) {
        let text = format!("NO ANSWER for {}, trying again: {why}", passed(since));
        canvas.left(line, &text, canvas.look.alarm());
        return;
    }
    if !screen.filter.is_empty() {
        let text = format!("filter {:?}: {}; Esc drops it", screen.filter, count(screen.rows().0.len() as u64, "row"));
        canvas.left(line, &text, Style::new());
        return;
    }
    let width = usize::from(line.width);
    let texts = (0..3).map(|brevity| summary(&screen.model.status, brevity));
    let text = texts.reduce(|long, short| if long.chars().count() > width { short } else { long });
    canvas.left(line, &text.unwrap_or_default(), Style::new());
}

/// How all services and backends are; the briefer, the less of what is well.
fn summary(status: &Status, brevity: usize) -> String {
    let services = &status.services;
    let backends = || services.values().flat_map(|service| service.backends.values());
    let number = |number: usize, noun| if brevity == 0 { count(number as u64, noun) } else { format!("{noun}s") };
    let orphans = status.orphans.len() as u64;
    let orphans = if orphans > 0 { format!("; {}", count(orphans, "orphan")) } else { String::new() };
    format!(
        "{}: {}; {}: {}{orphans}",
        number(services.len(), "service"),
        told(&["down", "degraded", "ok"][..3 - brevity.min(1)], |state| {
            services.values().filter(|service| service.state == state).count()
        }),
        number(backends().count(), "backend"),
        told(&["down", "drained", "starting", "up"][..4 - brevity], |state| {
            backends().filter(|backend| backend.state == state).count()
        }),
    )
}

/// How many are in each state that any is in.
fn told(states: &[&str], number: impl Fn(&str) -> usize) -> String {
    let found = states.iter().map(|state| (number(state), state)).filter(|(number, _)| *number > 0);
    let told: Vec<_> = found.map(|(number, state)| format!("{number} {state}")).collect();
    if told.is_empty() { "all well".into() } else { told.join(", ") }
}

/// What is amiss with the configuration.
fn notes(screen: &Screen) -> Vec<String> {
    let config = &screen.model.status.config;
    let path = config.path.as_deref().unwrap_or("the configuration");
    let mut notes = Vec::new();
    if screen.model.status.stopping {
        notes.push("stopping: no client is accepted any more".to_owned());
    }
    match config.on_disk.as_deref() {
        Some("changed") => notes.push(format!("{path} has changed since it was loaded: not in force")),
        Some("missing") => notes.push(format!("{path} is no longer on disk")),
        _ => {}
    }
    if let Some(last) = config.last_reload.as_ref().filter(|last| last.message.is_some()) {
        let why = last.message.as_deref().and_then(|why| why.lines().next()).unwrap_or_default();
        notes.push(format!("last reload {} {} ago: {why}", last.result, since(&last.at, screen.model.now)));
    }
    notes
}

fn columns(width: u16, rows: &[Row<'_>]) -> Columns {
    Columns::new(width, rows.iter().map(Row::name_length).max().unwrap_or(0))
}

fn list(canvas: &mut Canvas<'_>, head: Rect, list: Rect, screen: &mut Screen, now: Instant) {
    screen.scroll(usize::from(list.height));
    let (rows, place) = screen.rows();
    let columns = columns(list.width, &rows);
    columns.head(canvas, head);
    if rows.is_empty() {
        canvas.left(Rect { height: 1, ..list }, " nothing matches the filter", Style::new());
    }
    let stale = screen.model.trouble(now).is_some();
    for ((index, row), line) in rows.iter().enumerate().skip(screen.first).zip(list.rows()) {
        columns.row(canvas, line, row, &screen.model);
        if stale {
            canvas.buffer.set_style(line, Style::new().add_modifier(Modifier::DIM));
        }
        if index == place {
            canvas.left(Rect { width: 1, ..line }, ">", Style::new());
            canvas.buffer.set_style(line, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if rows.len() > usize::from(list.height) {
        let text = format!("{}/{}", place + 1, rows.len());
        let name = Rect { x: head.x + 7, width: 11.min(head.width.saturating_sub(7)), ..head };
        canvas.right(name, &text, Style::new());
    }
}
