//! The list: its columns, chosen by the width there is, and what each kind of row writes into them.

use jiff::Timestamp;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Modifier, Style};

use super::canvas::Canvas;
use super::format::{byte_rate, millis, number, rate, spark, until};
use super::model::{History, Model, Rates, Samples};
use super::rows::Row;
use crate::admin::status::{BackendStatus, Leaving, Orphan, RedundancyStatus, ServiceStatus};
use crate::cli::status::since;

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    State,
    Since,
    Open,
    New,
    In,
    Out,
    Connect,
    Probe,
}

/// Columns in their order: heading, width, and whether to write to the right.
const COLUMNS: [(Field, &str, u16, bool); 9] = [
    (Field::Name, "  NAME", 18, false),
    (Field::State, "STATE", 8, false),
    (Field::Since, "SINCE", 6, false),
    (Field::Open, "OPEN", 5, true),
    (Field::New, "NEW/s", 5, true),
    (Field::In, "IN/s", 5, true),
    (Field::Out, "OUT/s", 5, true),
    (Field::Connect, "CONNECT ms", 10, false),
    (Field::Probe, "PROBE ms", 10, false),
];

/// What a narrow terminal goes without, the first one first.
const DISPENSABLE: [Field; 6] = [Field::Probe, Field::Connect, Field::Since, Field::In, Field::Out, Field::New];

/// The longest diagram in a row.
const LONGEST_SPARK: u16 = 40;

/// What stands before a diagram: the number.
const NUMBER: u16 = 5;

/// The columns of one frame.
pub(super) struct Columns(Vec<(Field, &'static str, Rect, bool)>);

impl Columns {
    /// Those that fit into a width. What is left over goes to the names, as far as they need it, and to the diagrams.
    pub(super) fn new(width: u16, longest_name: usize) -> Self {
        let mut columns = COLUMNS.to_vec();
        let needed = |columns: &[(Field, &str, u16, bool)]| columns.iter().map(|column| column.2 + 1).sum::<u16>() - 1;
        let mut dispensable = DISPENSABLE.iter();
        while needed(&columns) > width {
            let Some(next) = dispensable.next() else { break };
            columns.retain(|column| column.0 != *next);
        }
        // With few columns left even the names may be too wide, or have room.
        let others = needed(&columns) - columns[0].2;
        let diagrams = columns.iter().filter(|c| matches!(c.0, Field::Connect | Field::Probe)).count() as u16;
        let names = u16::try_from(longest_name).unwrap_or(u16::MAX).saturating_add(3).max(COLUMNS[0].2);
        columns[0].2 = names.min(width.saturating_sub(others));
        let spare = width.saturating_sub(needed(&columns)).checked_div(diagrams).unwrap_or(0);
        let mut x = 0;
        let place = |(field, head, width, right): (Field, &'static str, u16, bool)| {
            let more = if matches!(field, Field::Connect | Field::Probe) { spare } else { 0 };
            let width = (width + more).min(if more > 0 { LONGEST_SPARK + NUMBER } else { width });
            let at = Rect { x, y: 0, width, height: 1 };
            x += width + 1;
            (field, head, at, right)
        };
        Self(columns.into_iter().map(place).collect())
    }

    /// Writes the headings.
    pub(super) fn head(&self, canvas: &mut Canvas<'_>, line: Rect) {
        let style = Style::new().add_modifier(Modifier::BOLD);
        for &(_, head, at, right) in &self.0 {
            put(canvas, line, at, right, head, style);
        }
    }

    /// Writes one row.
    pub(super) fn row(&self, canvas: &mut Canvas<'_>, line: Rect, row: &Row<'_>, model: &Model) {
        match *row {
            Row::Service(name, service) => self.service(canvas, line, name, service, model),
            Row::Backend(service, name, backend) => {
                self.backend(canvas, line, name, backend, model.history(service, name), model.now);
            }
            Row::Orphan(Orphan { backend, state, since: at, removed, generation, .. }) => {
                self.start(canvas, line, &format!("  {backend}"), state, &since(at, model.now), Style::new());
                let text = format!("orphan: removed {} ago by reload {generation}", since(removed, model.now));
                self.rest(canvas, line, Field::Open, &text, Style::new());
            }
            Row::Leaving(Leaving { backend, connections, .. }) => {
                self.start(canvas, line, &format!("  {backend}"), "leaving", "", Style::new());
                self.cell(canvas, line, Field::Open, &number((*connections).into()), Style::new());
                self.rest(canvas, line, Field::New, "removed, its sessions finish", Style::new());
            }
        }
    }

    fn service(&self, canvas: &mut Canvas<'_>, line: Rect, name: &str, service: &ServiceStatus, model: &Model) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.start(canvas, line, name, &service.state, "", bold);
        self.cell(canvas, line, Field::Open, &number(service.connections.into()), bold);
        self.rates(canvas, line, model.rates(name), bold);
        let style = if service.state == "ok" { bold } else { canvas.look.state(&service.state).patch(bold) };
        self.rest(canvas, line, Field::Connect, &carried(service, model.refused(name)), style);
    }

    fn backend(
        &self,
        canvas: &mut Canvas<'_>,
        line: Rect,
        name: &str,
        backend: &BackendStatus,
        history: Option<&History>,
        now: Timestamp,
    ) {
        let backup = if backend.role == "backup" { " (backup)" } else { "" };
        let name = self.named(name, backup);
        self.start(canvas, line, &name, &backend.state, &since(&backend.since, now), Style::new());
        self.cell(canvas, line, Field::Open, &number(backend.connections.into()), Style::new());
        let Some(history) = history else { return };
        self.rates(canvas, line, history.rates, Style::new());
        if let Some(drain) = &backend.drain {
            let by = if drain.by.is_empty() { String::new() } else { format!(", {}", drain.by) };
            let text = format!("back in {}{by}", until(&drain.until, now));
            self.rest(canvas, line, Field::Connect, &text, canvas.look.state("drained"));
            return;
        }
        self.diagram(canvas, line, Field::Connect, &history.connect);
        self.diagram(canvas, line, Field::Probe, &history.probe);
    }

    /// A backend's name that still says whether it is a backup's where it is too long.
    fn named(&self, name: &str, backup: &str) -> String {
        let room = usize::from(self.0[0].2.width).saturating_sub(backup.len() + 4);
        let short = name.chars().count() > room + 1 && !backup.is_empty();
        let name: String = if short { name.chars().take(room).chain(['…']).collect() } else { name.into() };
        format!("  {name}{backup}")
    }

    fn start(&self, canvas: &mut Canvas<'_>, line: Rect, name: &str, state: &str, age: &str, style: Style) {
        self.cell(canvas, line, Field::Name, &format!(" {name}"), style);
        self.cell(canvas, line, Field::State, state, canvas.look.state(state).patch(style));
        self.cell(canvas, line, Field::Since, age, style);
    }

    fn rates(&self, canvas: &mut Canvas<'_>, line: Rect, rates: Rates, style: Style) {
        self.cell(canvas, line, Field::New, &rate(rates.sessions), style);
        self.cell(canvas, line, Field::In, &byte_rate(rates.bytes_in), style);
        self.cell(canvas, line, Field::Out, &byte_rate(rates.bytes_out), style);
    }

    fn diagram(&self, canvas: &mut Canvas<'_>, line: Rect, field: Field, samples: &Samples) {
        let Some(&(_, _, at, _)) = self.0.iter().find(|column| column.0 == field) else { return };
        let value = samples.last().map_or_else(|| "-".into(), millis);
        let diagram = spark(samples.all(), usize::from(at.width.saturating_sub(NUMBER)));
        self.cell(canvas, line, field, &format!("{value:>4} {diagram}"), Style::new());
    }

    fn cell(&self, canvas: &mut Canvas<'_>, line: Rect, field: Field, text: &str, style: Style) {
        if let Some(&(_, _, at, right)) = self.0.iter().find(|column| column.0 == field) {
            put(canvas, line, at, right, text, style);
        }
    }

    /// Writes over all columns from one on.
    fn rest(&self, canvas: &mut Canvas<'_>, line: Rect, from: Field, text: &str, style: Style) {
        if let Some(&(_, _, at, _)) = self.0.iter().find(|column| column.0 == from) {
            put(canvas, line, Rect { width: line.width.saturating_sub(at.x), ..at }, false, text, style);
        }
    }
}

fn put(canvas: &mut Canvas<'_>, line: Rect, at: Rect, right: bool, text: &str, style: Style) {
    let field = Rect { x: line.x + at.x, y: line.y, ..at }.intersection(line);
    if right {
        canvas.right(field, text, style);
    } else {
        canvas.left(field, text, style);
    }
}

/// What matters most of a service, beside its numbers.
fn carried(service: &ServiceStatus, refused: Option<f64>) -> String {
    let (serving, expected) = serving(service);
    let mut text = format!("{serving}/{expected} up");
    if let Some(refused) = refused.filter(|refused| *refused > 0.0) {
        text.push_str(&format!(", {} refused/s", rate(Some(refused))));
    } else if service.queued > 0 {
        text.push_str(&format!(", {} queued", number(service.queued.into())));
    } else if let Some(failures) = service.redundancy.survivable_failures {
        text.push_str(&format!(", survives {failures}"));
    }
    text
}

/// How many of a service's primaries can serve, and how many there are.
pub(super) fn serving(service: &ServiceStatus) -> (usize, usize) {
    let RedundancyStatus { expected, serving, .. } = service.redundancy;
    (serving, expected)
}
