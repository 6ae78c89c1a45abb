//! The values of the file: names, numbers, durations and addresses, each in its range or a problem.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::Listen;
use super::file::Reader;
use super::foreign_names;
use super::path_identity::PathIdentity;
use super::report::{Place, Problem, did_you_mean};
use super::sections::{self, Section};
use super::tree::{Node, Value, quoted};
use crate::duration;

/// Names go into labels, logs and commands, and are read by people.
const MAX_NAME: usize = 64;

/// What only one part of a configuration can have.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Taken {
    Tcp(SocketAddr),
    /// A socket or a file.
    Path(PathIdentity),
}

impl Reader<'_> {
    pub(super) fn problem(&mut self, place: Place, what: impl Into<String>) {
        self.problems.push(Problem::new(place, what));
    }

    /// Notes what may mean something else than the author thinks: `check` prints it, `run` and a reload log it, and the file is used.
    pub(super) fn warn(&mut self, place: Place, what: impl Into<String>) {
        self.problems.push(Problem::warning(place, what));
    }

    /// The problem of a required list that is not there.
    pub(super) fn missing<T>(&mut self, place: Place, what: impl Into<String>) -> Vec<T> {
        self.problem(place, what);
        Vec::new()
    }

    pub(super) fn section<'t>(&mut self, node: &'t Node, kind: &sections::Kind) -> Section<'t> {
        Section::of(node, kind, &mut self.problems)
    }

    /// Notes an address as taken; of port 0, which the kernel chooses, there may be many.
    pub(super) fn take(&mut self, listen: &Listen, owner: &str, place: Place) {
        let taken = match listen {
            Listen::Tcp(address) if address.port() == 0 => return,
            Listen::Tcp(address) => Taken::Tcp(*address),
            Listen::Unix(path) => Taken::Path(PathIdentity::of(path)),
        };
        self.note(taken, "address", owner, place);
    }

    /// Notes a path as taken by a file that is no socket.
    pub(super) fn take_path(&mut self, path: &Path, owner: &str, place: Place) {
        self.note(Taken::Path(PathIdentity::of(path)), "path", owner, place);
    }

    fn note(&mut self, taken: Taken, kind: &str, owner: &str, place: Place) {
        if let Some((first, at)) = self.taken.get(&taken) {
            let what = format!("this {kind} is taken already, by {first} at line {}", at.line);
            self.problem(place, what);
        } else {
            self.taken.insert(taken, (owner.to_owned(), place));
        }
    }

    pub(super) fn name(&mut self, name: &str, place: Place) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !begins_well || name.len() > MAX_NAME || !name.chars().all(allowed) {
            let what = format!(
                "{} is not a name: 1 to {MAX_NAME} of the letters a-z and A-Z, digits, `-`, `_` and `.`, not beginning with `-` or `.`",
                quoted(name)
            );
            self.problem(place, what);
        }
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(&mut self, node: &Node, due: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let what = match &node.value {
            Value::Text(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(what) => what,
            },
            other => format!("{due}, found {}", other.describe()),
        };
        self.problem(node.place, what);
        None
    }

    /// One of several words, each with what it means.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = match &node.value {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names = || words.iter().map(|(word, _)| *word);
            let hint = did_you_mean(foreign_names::algorithm(text), names());
            let due = if hint.is_empty() { format!(": write {}", alternatives(names())) } else { String::new() };
            self.problem(node.place, format!("{} is not {what}{due}{hint}", node.value.describe()));
        }
        found
    }

    /// Whether something is so.
    pub(super) fn flag(&mut self, node: Option<&Node>, default: bool) -> bool {
        let Some(node) = node else { return default };
        if let Value::Bool(flag) = node.value {
            return flag;
        }
        self.problem(node.place, format!("true or false is due here, found {}", node.value.describe()));
        default
    }

    /// A number in a range; `None` for a missing key and for `word`, where there is one.
    pub(super) fn count(
        &mut self,
        node: Option<&Node>,
        word: Option<&str>,
        range: RangeInclusive<u32>,
    ) -> Option<NonZeroU32> {
        let node = node?;
        if let Value::Integer(number) = node.value
            && let Some(number) = u32::try_from(number).ok().filter(|number| range.contains(number))
        {
            return NonZeroU32::new(number);
        }
        let mut hint = String::new();
        if let (Value::Text(text), Some(word)) = (&node.value, word) {
            if text == word {
                return None;
            }
            hint = did_you_mean(text, [word]);
        }
        if matches!(&node.value, Value::Text(text) if text.parse::<u32>().is_ok_and(|number| number.to_string() == *text))
        {
            hint = " in quotes: take them away".to_owned();
        }
        let or = word.map_or_else(String::new, |word| format!(", or `{word}`"));
        let (from, to) = range.into_inner();
        let what = format!("a whole number from {from} to {to}{or} is due here, found {}{hint}", node.value.describe());
        self.problem(node.place, what);
        None
    }

    pub(super) fn duration(
        &mut self,
        node: Option<&Node>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(node) = node else { return default };
        let what = match &node.value {
            Value::Text(text) => match duration::parse(text) {
                Ok(duration) if range.contains(&duration) => return duration,
                Ok(_) => {
                    let (from, to) = (duration::format(*range.start()), duration::format(*range.end()));
                    format!("{} is out of range: {from} to {to}", quoted(text))
                }
                Err(why) => format!("{} is not a duration: {why}", quoted(text)),
            },
            Value::Integer(number @ 0..) => {
                format!("a duration needs its unit, such as `{number}s` or `{number}ms`")
            }
            other => format!("a duration such as 500ms, 2s, 1m30s or 1h is due here, found {}", other.describe()),
        };
        self.problem(node.place, what);
        default
    }
}

/// `a, b or c`.
pub(super) fn alternatives<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
