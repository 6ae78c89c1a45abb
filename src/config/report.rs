//! Everything that is wrong with a file, or may be, each with its place, the line and a caret.

use std::fmt;
use std::path::{Path, PathBuf};

use super::tree::quoted;

/// More errors than anyone corrects in one go are counted, not shown.
const SHOWN: usize = 500;
/// Warnings that a log or an answer gets; the rest is counted.
const LINES: usize = 100;

/// A line and a column of the file, both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// The first character of the file.
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// Whether a file with this problem can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// It cannot.
    Error,
    /// It can, but it may mean something else than its author thinks.
    Warning,
}

/// One thing that is wrong, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// `None`: the file as a whole.
    place: Option<Place>,
    severity: Severity,
    what: String,
}

impl Problem {
    /// An error.
    pub(super) fn new(place: Place, what: impl Into<String>) -> Self {
        Self { place: Some(place), severity: Severity::Error, what: what.into() }
    }

    /// A warning: the file is used all the same.
    pub(super) fn warning(place: Place, what: impl Into<String>) -> Self {
        Self { place: Some(place), severity: Severity::Warning, what: what.into() }
    }

    pub(super) fn of_file(what: impl Into<String>) -> Self {
        Self { place: None, severity: Severity::Error, what: what.into() }
    }

    /// Whether a file that has it cannot be used.
    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `FILE:LINE:COLUMN: what`; a warning says so.
    fn line(&self, path: &Path) -> String {
        let place = self.place.map_or_else(String::new, |place| format!(":{}:{}", place.line, place.column));
        let severity = if self.is_error() { "" } else { "warning: " };
        format!("{}{place}: {severity}{}", path.display(), self.what)
    }
}

/// All that is wrong with a configuration file, or may be: of a file that can be used, its warnings, if it has any. Displays as one
/// block of lines a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    path: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

impl Report {
    /// Puts the problems in the order of the file.
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        // What stands behind an anchor is read once for each alias.
        problems.dedup();
        // Warnings must not hide the errors.
        if problems.len() > SHOWN && problems.iter().any(Problem::is_error) {
            problems.retain(Problem::is_error);
        }
        let text = if problems.is_empty() { String::new() } else { text.to_owned() };
        Self { path: path.to_owned(), text, problems }
    }

    /// How many problems there are.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// A line for each problem, without the line of the file: for a log. Of very many the rest is counted.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.problems.iter().take(LINES).map(|problem| problem.line(&self.path)).collect();
        if self.len() > LINES {
            lines.push(format!(
                "{}: {} warnings more: `balancer check` has them",
                self.path.display(),
                self.len() - LINES
            ));
        }
        lines
    }

    fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    /// One line for the end of a command's output, where the command may name another file: why it failed and what to do.
    pub fn conclusion_at_start(&self) -> String {
        match self.problems.as_slice() {
            [Problem { place: None, .. }] => {
                "no configuration was read: name its file with --config FILE or in $BALANCER_CONFIG".to_owned()
            }
            _ => self.conclusion(),
        }
    }

    /// The same for a process that runs, and that keeps to its file.
    pub fn conclusion(&self) -> String {
        let path = self.path.display();
        match self.problems.as_slice() {
            [Problem { place: None, .. }] => format!(
                "no configuration was read: put a readable one at {path} and try again, or start anew with --config FILE"
            ),
            _ if self.errors() == 1 => format!("an error in {path}: correct it and try again"),
            _ => format!("{} errors in {path}: correct them and try again", self.errors()),
        }
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.text.lines().collect();
        for (nth, problem) in self.problems.iter().enumerate() {
            if nth == SHOWN {
                let kind = if self.errors() == 0 { "warnings" } else { "errors" };
                return write!(f, "\nand {} {kind} more", self.problems.len() - SHOWN);
            }
            if nth > 0 {
                writeln!(f)?;
            }
            f.write_str(&problem.line(&self.path))?;
            if let Some(place) = problem.place
                && let Some(line) = lines.get(place.line - 1)
            {
                let (shown, caret) = excerpt(line, place.column - 1);
                write!(f, "\n    {shown}\n    {caret}")?;
            }
        }
        Ok(())
    }
}

/// The part of a line around a column (from 0) that fits a screen, and the line with the caret below it.
fn excerpt(line: &str, column: usize) -> (String, String) {
    const WIDTH: usize = 120;
    const BEFORE: usize = 80;
    let skipped = if column < WIDTH { 0 } else { column - BEFORE };
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String =
        line.chars().skip(skipped).take(WIDTH).map(|c| if c == '\t' { c } else { safe(c) }).collect();
    shown.truncate(shown.trim_end().len());
    let caret = shown
        .chars()
        .map(|c| if c == '\t' { c } else { ' ' })
        .chain(std::iter::repeat(' '))
        .take(column - skipped)
        .chain(['^'])
        .collect();
    (shown, caret)
}

/// The candidate that a misspelt word most likely meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // A longer word is no slip of the finger, and comparing costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?` for the nearest candidate, or nothing.
pub(super) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |candidate| format!("; did you mean {}?", quoted(candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_its_place() {
        assert_eq!(excerpt("\ta: b", 4), ("\ta: b".to_owned(), "\t   ^".to_owned()));
        assert_eq!(excerpt("ä: é", 3), ("ä: é".to_owned(), "   ^".to_owned()));
        assert_eq!(excerpt("a:", 2), ("a:".to_owned(), "  ^".to_owned()));
        let (shown, caret) = excerpt(&format!("{}X{}", "a".repeat(1_000), "b".repeat(1_000)), 1_000);
        assert_eq!(shown.chars().nth(caret.len() - 1), Some('X'));
        assert!(shown.len() <= 120);
    }

    #[test]
    fn a_flood_of_errors_is_cut_short_and_counted() {
        let problems = (1..=SHOWN + 7).map(|line| Problem::new(Place { line, column: 1 }, "wrong")).collect();
        let report = Report::new(Path::new("f"), "", problems);
        let text = report.to_string();
        assert_eq!(text.lines().count(), SHOWN + 1);
        assert!(text.ends_with("\nand 7 errors more"));
        assert_eq!(report.conclusion(), "507 errors in f: correct them and try again");
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("Listne", ["listen", "backends"]), Some("listen"));
        assert_eq!(nearest("tls", ["listen", "backends"]), None);
        assert_eq!(nearest(&"listen".repeat(100), ["listen"]), None);
    }
}
