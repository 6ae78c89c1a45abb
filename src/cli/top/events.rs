//! The last entries of the timeline, below everything else.

use ratatui_core::layout::Rect;
use ratatui_core::style::Style;

use super::canvas::{Canvas, wrapped};
use super::format::clock;
use super::model::Model;
use super::poll::Event;

/// Lines that all of them need, the rule above included; none where nothing is known.
pub(super) fn lines(model: &Model, width: u16) -> u16 {
    let events = model.events.as_deref().unwrap_or_default();
    let lines: usize = events.iter().map(|event| wrapped(&line(event, model), usize::from(width)).len()).sum();
    if lines == 0 { 0 } else { u16::try_from(lines + 1).unwrap_or(u16::MAX) }
}

/// Draws the newest ones, the last at the bottom and whole, each before it as far as there is room.
pub(super) fn draw(canvas: &mut Canvas<'_>, field: Rect, model: &Model) {
    if field.height == 0 {
        return;
    }
    canvas.rule(Rect { height: 1, ..field }, "events");
    let mut room = Rect { y: field.y + 1, height: field.height - 1, ..field };
    for event in model.events.iter().flatten().rev() {
        let text = line(event, model);
        let lines = u16::try_from(wrapped(&text, usize::from(room.width)).len()).unwrap_or(u16::MAX).min(room.height);
        room.height -= lines;
        canvas.wrapped(Rect { y: room.bottom(), height: lines, ..room }, &text, Style::new());
        if room.height == 0 {
            break;
        }
    }
}

fn line(event: &Event, model: &Model) -> String {
    let service = event.service.iter().map(|service| format!("{service}: ")).collect::<String>();
    format!("{} {service}{}", clock(&event.time, model.now), event.text)
}
