//! Where a frame is drawn: texts into fields of a fixed width, so that nothing runs into its neighbour.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::Span;

use super::format;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Colours, for those who want them.
    pub(super) colours: bool,
    /// More than ASCII.
    pub(super) unicode: bool,
}

impl Look {
    /// How a state's word is written.
    pub(super) fn state(self, state: &str) -> Style {
        let colour = match state {
            "ok" | "up" => Color::Green,
            "down" => Color::Red,
            _ => Color::Yellow,
        };
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// What must be seen.
    pub(super) fn alarm(self) -> Style {
        self.state("down").add_modifier(Modifier::BOLD)
    }
}

/// The frame under the pen.
pub(super) struct Canvas<'a> {
    pub(super) buffer: &'a mut Buffer,
    pub(super) look: Look,
}

impl Canvas<'_> {
    /// Writes a text to the left of a field; one that is too long ends with an ellipsis. Where it has ended.
    pub(super) fn left(&mut self, field: Rect, text: &str, style: Style) -> u16 {
        let field = field.intersection(*self.buffer.area());
        if field.is_empty() {
            return field.x;
        }
        let width = usize::from(field.width);
        if Span::raw(text).width() <= width {
            return self.buffer.set_stringn(field.x, field.y, text, width, style).0;
        }
        let (x, y) = self.buffer.set_stringn(field.x, field.y, text, width - 1, style);
        self.buffer.set_stringn(x, y, "…", 1, style).0
    }

    /// Writes a text to the right of a field.
    pub(super) fn right(&mut self, field: Rect, text: &str, style: Style) {
        let width = u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX).min(field.width);
        self.left(Rect { x: field.right() - width, width, ..field }, text, style);
    }

    /// Draws a line across, with a title in it.
    pub(super) fn rule(&mut self, field: Rect, title: &str) {
        self.left(field, &"─".repeat(usize::from(field.width)), Style::new());
        let inner = Rect { x: field.x + 2, width: field.width.saturating_sub(4), ..field };
        let end = self.left(inner, &format!(" {title}"), Style::new().add_modifier(Modifier::BOLD));
        self.left(Rect { x: end, width: 1, ..field }, " ", Style::new());
    }

    /// Writes a text in as many of a field's lines as it needs; the last one ends with an ellipsis if they are too few.
    pub(super) fn wrapped(&mut self, field: Rect, text: &str, style: Style) -> u16 {
        let lines = wrapped(text, usize::from(field.width));
        let shown = lines.len().min(usize::from(field.height));
        for (line, y) in lines.iter().take(shown).zip(field.y..) {
            let last = y + 1 == field.y + field.height && lines.len() > shown;
            let line = if last { format!("{line} …") } else { line.clone() };
            self.left(Rect { y, height: 1, ..field }, &line, style);
        }
        u16::try_from(shown).unwrap_or(field.height)
    }

    /// Draws an empty box, and gives the room inside.
    pub(super) fn frame(&mut self, field: Rect, title: &str) -> Rect {
        let blank = " ".repeat(usize::from(field.width));
        for row in field.rows() {
            self.buffer.set_style(row, Style::reset());
            self.left(row, &blank, Style::new());
            self.left(Rect { width: 1, ..row }, "│", Style::new());
            self.left(Rect { x: row.right() - 1, width: 1, ..row }, "│", Style::new());
        }
        for (y, corners) in [(field.y, ["┌", "┐"]), (field.bottom() - 1, ["└", "┘"])] {
            self.rule(Rect { y, height: 1, ..field }, if y == field.y { title } else { "" });
            self.left(Rect { y, width: 1, height: 1, ..field }, corners[0], Style::new());
            self.left(Rect { x: field.right() - 1, y, width: 1, height: 1 }, corners[1], Style::new());
        }
        // The lower edge has no title, and no gap for one.
        let edge =
            Rect { x: field.x + 2, y: field.bottom() - 1, width: 2.min(field.width.saturating_sub(4)), height: 1 };
        self.left(edge, &"─".repeat(usize::from(edge.width)), Style::new());
        Rect { x: field.x + 2, y: field.y + 1, width: field.width - 4, height: field.height - 2 }
    }

    /// Replaces what the terminal cannot show.
    pub(super) fn finish(&mut self) {
        if self.look.unicode {
            return;
        }
        for cell in &mut self.buffer.content {
            if !cell.symbol().is_ascii() {
                cell.set_symbol(format::ascii(cell.symbol()));
            }
        }
    }
}

/// A text in lines of at most this width, broken at blanks where there are any; a character that is wider has a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let columns = |text: &str| Span::raw(text).width();
    let (mut lines, width) = (vec![String::new()], width.max(1));
    for mut word in text.split_whitespace() {
        loop {
            let line = lines.last_mut().expect("there is one from the beginning");
            if line.is_empty() {
                let past = |&(at, c): &(usize, char)| columns(&word[..at + c.len_utf8()]) > width;
                let end = word.char_indices().skip(1).find(past).map_or(word.len(), |(at, _)| at);
                line.push_str(&word[..end]);
                word = &word[end..];
                if word.is_empty() {
                    break;
                }
            } else if columns(line) + 1 + columns(word) <= width {
                line.push(' ');
                line.push_str(word);
                break;
            }
            lines.push(String::new());
        }
    }
    lines
}
