//! What lies over the list: questions, answers and the help.

use ratatui_core::layout::{Position, Rect};
use ratatui_core::style::{Modifier, Style};

use super::canvas::{Canvas, wrapped};
use super::form::{DrainForm, Field};
use super::screen::{Mode, Screen};

/// The widest box: all of an ordinary terminal, so that nothing looks out at its sides.
const WIDEST: u16 = 80;

/// What the keys do, a line each.
const HELP: [&str; 15] = [
    "up down j k        one row        PgUp PgDn ^U ^D   a page, half of one",
    "Home End g G       the ends       Tab Shift-Tab     the next service",
    "d                  drain: out of the pool for a time, then it is back",
    "r                  restore: back into the pool now",
    "f                  forget an orphan: a backend that a reload removed",
    "/                  filter by name, address, or state; Esc drops it",
    "s                  sort: file, state, open, new/s, bytes/s",
    "^L ^Z              draw anew; to the background",
    "q ^C               quit",
    "",
    "SINCE: in this state. OPEN: sessions now. NEW, IN, OUT: in a second, from",
    "two polls; in is from clients to backends. CONNECT, PROBE: the last times",
    "and how they went, each diagram in its own scale. UP: of all backends.",
    "",
    "any key goes back",
];

/// Draws it, and says where the cursor belongs, if anywhere.
pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, screen: &Screen) -> Option<Position> {
    match &screen.mode {
        Mode::List | Mode::Filter(_) => None,
        Mode::Drain(form) => questions(canvas, area, form),
        Mode::Forget(backend) => {
            let text = format!("Stop watching {backend}? Nobody will be reminded of it any more.");
            say(canvas, area, &format!("forget {backend}"), &text, "y yes   n no")
        }
        Mode::Asked(title) => say(canvas, area, title, "asking the balancer …", ""),
        Mode::Answered(title, done, text) => {
            let title = if *done { title.clone() } else { format!("{title}: not done") };
            say(canvas, area, &title, text, "any key goes back")
        }
        Mode::Help => {
            let lines: Vec<String> = HELP.iter().map(|line| (*line).into()).collect();
            show(canvas, area, "keys", &lines);
            None
        }
    }
}

fn say(canvas: &mut Canvas<'_>, area: Rect, title: &str, text: &str, keys: &str) -> Option<Position> {
    let mut lines = wrapped(text, usize::from(width(area)) - 4);
    if !keys.is_empty() {
        lines.extend([String::new(), keys.into()]);
    }
    show(canvas, area, title, &lines);
    None
}

fn width(area: Rect) -> u16 {
    area.width.min(WIDEST)
}

/// A box with these lines in the middle; where they begin.
fn show(canvas: &mut Canvas<'_>, area: Rect, title: &str, lines: &[String]) -> Rect {
    let height = u16::try_from(lines.len() + 2).unwrap_or(area.height).min(area.height);
    let width = width(area);
    let (x, y) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    let inner = canvas.frame(Rect { x, y, width, height }, title);
    for (line, row) in lines.iter().zip(inner.rows()) {
        canvas.left(row, line, Style::new());
    }
    inner
}

fn questions(canvas: &mut Canvas<'_>, area: Rect, form: &DrainForm) -> Option<Position> {
    let labels = ["for     ", "reason  ", "force   "];
    let force = if form.force { "yes" } else { "no" };
    let answers = [(Field::Time, &*form.time), (Field::Reason, &*form.reason), (Field::Force, force)];
    let room = usize::from(width(area)).saturating_sub(4 + labels[0].len() + 1);
    let mut lines: Vec<_> =
        labels.iter().zip(&answers).map(|(label, (_, text))| format!("{label}{}", end(text, room))).collect();
    lines[2].push_str("   (also where too few would be left; space changes it)");
    lines.push(String::new());
    if !form.said.is_empty() {
        lines.extend(wrapped(&form.said, usize::from(width(area)) - 4));
        lines.push(String::new());
    }
    lines.push("Enter drains   Tab next line   Esc goes back".into());
    let inner = show(canvas, area, &format!("drain {}", form.backend), &lines);
    let (at, text) =
        answers.iter().enumerate().find(|(_, (field, _))| *field == form.field).map(|(at, (_, text))| (at, *text))?;
    let row = inner.rows().nth(at)?;
    let label = labels[at].len() as u16;
    canvas.buffer.set_style(Rect { width: label.min(row.width), ..row }, Style::new().add_modifier(Modifier::BOLD));
    canvas.left(Rect { x: row.x + label - 2, width: 1, ..row }, ">", Style::new().add_modifier(Modifier::BOLD));
    let shown = u16::try_from(end(text, room).chars().count()).unwrap_or(0);
    Some(Position { x: (row.x + label + shown).min(row.right() - 1), y: row.y })
}

/// The end of a text that is too long to be shown whole: where it is typed.
fn end(text: &str, room: usize) -> String {
    let long = text.chars().count();
    if long <= room { text.into() } else { ['…'].into_iter().chain(text.chars().skip(long + 1 - room)).collect() }
}
