//! What is on the screen and what each key does to it: pure, it neither draws nor asks anybody.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::form::{DrainForm, Field};
use super::model::Model;
use super::rows::{Key, Row, Sort, rows};

/// Everything that a frame is drawn from.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) model: Model,
    /// What is chosen; `None`: the first row.
    selected: Option<Key>,
    /// Where that was, for when it is gone.
    place: usize,
    /// The first row on the screen.
    pub(super) first: usize,
    /// Rows that the list has room for: what a page is.
    pub(super) room: usize,
    pub(super) filter: String,
    pub(super) sort: Sort,
    pub(super) mode: Mode,
}

/// Who gets the keys.
#[derive(Debug)]
pub(super) enum Mode {
    /// The list.
    List,
    /// The filter, and what it was before.
    Filter(String),
    /// The questions before a drain.
    Drain(DrainForm),
    /// The question before a backend is forgotten, by its full name.
    Forget(String),
    /// The balancer has been asked; the answer is to come.
    Asked(String),
    /// What became of it: the question, whether it was done, and the answer.
    Answered(String, bool, String),
    /// The help.
    Help,
}

/// What a key asks of the program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing but another frame.
    Draw,
    /// The end.
    Quit,
    /// To the background, as the shell's job control has it.
    Suspend,
    /// A frame from scratch.
    Repaint,
    /// An order to the balancer.
    Ask(Request),
}

/// An order to the balancer; backends are named `SERVICE/BACKEND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Take a backend out.
    Drain {
        /// Which one.
        backend: String,
        /// For how long, such as `30m`.
        time: String,
        /// Why.
        reason: String,
        /// Also where too few would be left.
        force: bool,
    },
    /// Bring a backend back.
    Restore(String),
    /// Stop watching a backend that a reload removed.
    Forget(String),
}

impl Screen {
    /// The list from its top.
    pub(super) fn new(model: Model) -> Self {
        let (filter, sort) = (String::new(), Sort::default());
        Self { model, selected: None, place: 0, first: 0, room: 1, filter, sort, mode: Mode::List }
    }

    /// The rows, and which of them is chosen.
    pub(super) fn rows(&self) -> (Vec<Row<'_>>, usize) {
        let rows = rows(&self.model, &self.filter, self.sort);
        let place = self.selected.as_ref().and_then(|key| rows.iter().position(|row| row.key() == *key));
        let place = place.unwrap_or(self.place).min(rows.len().saturating_sub(1));
        (rows, place)
    }

    /// Keeps the chosen row on the screen, with room for this many.
    pub(super) fn scroll(&mut self, room: usize) {
        let (count, place) = {
            let (rows, place) = self.rows();
            (rows.len(), place)
        };
        self.place = place;
        self.room = room.max(1);
        let last = (self.first + self.room).saturating_sub(1);
        if place < self.first {
            self.first = place;
        } else if place > last {
            self.first = place + 1 - self.room;
        }
        // The service above its first backend is worth a line.
        self.first = if self.first == 1 && self.room > place { 0 } else { self.first };
        self.first = self.first.min(count.saturating_sub(self.room));
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Action::Quit,
                KeyCode::Char('l') => return Action::Repaint,
                KeyCode::Char('z') => return Action::Suspend,
                _ => {}
            }
        }
        match &mut self.mode {
            Mode::List => return self.list_key(key),
            Mode::Filter(before) => match key.code {
                KeyCode::Enter => self.mode = Mode::List,
                KeyCode::Esc => {
                    self.filter = std::mem::take(before);
                    self.mode = Mode::List;
                }
                _ => edit(&mut self.filter, key),
            },
            Mode::Drain(_) => return self.form_key(key),
            Mode::Forget(backend) => match key.code {
                KeyCode::Char('y') => return Action::Ask(Request::Forget(backend.clone())),
                KeyCode::Char('n' | 'q') | KeyCode::Esc => self.mode = Mode::List,
                _ => {}
            },
            // What was asked for goes on all the same.
            Mode::Asked(_) if key.code == KeyCode::Esc => self.mode = Mode::List,
            Mode::Asked(_) => {}
            Mode::Answered(..) | Mode::Help => self.mode = Mode::List,
        }
        Action::Draw
    }

    fn list_key(&mut self, key: KeyEvent) -> Action {
        let page = self.room.saturating_sub(1).max(1);
        let half = (self.room / 2).max(1);
        match key.code {
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.step(|at, _| at.saturating_sub(half))
            }
            KeyCode::Char('d') if key.modifiers.contains(KeyModifiers::CONTROL) => self.step(|at, _| at + half),
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.step(|at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.step(|at, _| at + 1),
            KeyCode::PageUp => self.step(|at, _| at.saturating_sub(page)),
            KeyCode::PageDown => self.step(|at, _| at + page),
            KeyCode::Home | KeyCode::Char('g') => self.step(|_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.step(|_, rows| rows.len()),
            KeyCode::Tab => self.step(|at, rows| service_after(rows, at).unwrap_or(at)),
            KeyCode::BackTab => self.step(|at, rows| service_before(rows, at).unwrap_or(0)),
            KeyCode::Char('/') => self.mode = Mode::Filter(self.filter.clone()),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('d') => match self.chosen() {
                Some(Key::Backend(service, backend)) => {
                    self.mode = Mode::Drain(DrainForm::new(format!("{service}/{backend}")));
                }
                _ => self.explain("drain", "choose a backend first: one that is in the pool"),
            },
            KeyCode::Char('r') => match self.chosen() {
                Some(Key::Backend(service, backend)) => {
                    return Action::Ask(Request::Restore(format!("{service}/{backend}")));
                }
                _ => self.explain("restore", "choose a backend first: one that is in the pool"),
            },
            KeyCode::Char('f') => match self.chosen() {
                Some(Key::Removed(service, backend, _)) => self.mode = Mode::Forget(format!("{service}/{backend}")),
                _ => self.explain("forget", "choose an orphan first: a backend that a reload removed"),
            },
            _ => {}
        }
        Action::Draw
    }

    fn form_key(&mut self, key: KeyEvent) -> Action {
        let Mode::Drain(form) = &mut self.mode else { return Action::Draw };
        let field = form.field;
        match (key.code, field) {
            (KeyCode::Esc, _) => self.mode = Mode::List,
            (KeyCode::Tab | KeyCode::Down, _) => form.field = field.next(),
            (KeyCode::BackTab | KeyCode::Up, _) => form.field = field.before(),
            (KeyCode::Enter, Field::Time) if form.reason.is_empty() => form.field = Field::Reason,
            (KeyCode::Enter, _) => return form.request().map_or(Action::Draw, Action::Ask),
            (_, Field::Time) => edit(&mut form.time, key),
            (_, Field::Reason) => edit(&mut form.reason, key),
            (KeyCode::Char(' ' | 'y' | 'n'), Field::Force) => form.force = !form.force,
            _ => {}
        }
        Action::Draw
    }

    /// Notes that an order is on its way.
    pub(super) fn asked(&mut self, request: &Request) {
        match &mut self.mode {
            // The answer will stand below the questions, so that they can be answered otherwise.
            Mode::Drain(form) => form.said = "asking the balancer …".into(),
            mode => *mode = Mode::Asked(request.title()),
        }
    }

    /// Shows the answer to an order.
    pub(super) fn answer(&mut self, request: &Request, answer: Result<String, String>) {
        let done = answer.is_ok();
        let text = answer.unwrap_or_else(|error| error);
        match &mut self.mode {
            Mode::Drain(form) if !done && form.asked(request) => form.said = text,
            // Somebody has gone on to something else: what went well is seen in the list.
            Mode::Filter(_) | Mode::Help | Mode::Forget(_) if done => {}
            mode => *mode = Mode::Answered(request.title(), done, text),
        }
    }

    fn explain(&mut self, title: &str, text: &str) {
        self.mode = Mode::Answered(title.into(), false, text.into());
    }

    fn chosen(&self) -> Option<Key> {
        let (rows, place) = self.rows();
        rows.get(place).map(Row::key)
    }

    fn step(&mut self, to: impl FnOnce(usize, &[Row<'_>]) -> usize) {
        let (rows, place) = self.rows();
        let place = to(place, &rows).min(rows.len().saturating_sub(1));
        let selected = rows.get(place).map(Row::key);
        (self.place, self.selected) = (place, selected);
    }
}

impl Request {
    /// What it asks, in few words.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Drain { backend, .. } => format!("drain {backend}"),
            Self::Restore(backend) => format!("restore {backend}"),
            Self::Forget(backend) => format!("forget {backend}"),
        }
    }
}

fn service_after(rows: &[Row<'_>], at: usize) -> Option<usize> {
    (at + 1..rows.len()).find(|&at| matches!(rows[at], Row::Service(..)))
}

fn service_before(rows: &[Row<'_>], at: usize) -> Option<usize> {
    (0..at).rev().find(|&at| matches!(rows[at], Row::Service(..)))
}

/// The longest text that can be typed.
const LONGEST: usize = 200;

/// What a key does to a line of text.
fn edit(text: &mut String, key: KeyEvent) {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('u') if control => text.clear(),
        KeyCode::Char('w') if control => {
            let kept = text.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
            text.truncate(kept);
        }
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Char(c) if !control && text.chars().count() < LONGEST => text.push(c),
        _ => {}
    }
}
