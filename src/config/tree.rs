//! The YAML text as a tree that knows where everything stands, so that one reading can find every error of a file.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Location, MessageFormatter, NonFiniteFloatPolicy, Options, Spanned, UserMessageFormatter,
};

use super::report::{Place, Problem};

/// A value of the file and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Where it is written.
    pub(super) place: Place,
    /// Where it is used: the alias's place, if it came through one.
    pub(super) used: Place,
}

/// A key of the file and where it stands.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Place,
}

/// What YAML knows of values.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may stand here twice.
    Map(Vec<(Key, Node)>),
}

/// Reads the only document of `text`; of several the first one, with what is wrong with that.
pub(super) fn parse(text: &str) -> Result<(Node, Option<Problem>), Problem> {
    let read = |text| serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options()).map(Node::from);
    let error = match read(text) {
        Ok(root) => return Ok((root, None)),
        Err(error) => error,
    };
    let problem = problem(&error, text);
    let several = matches!(error.without_snippet(), serde_saphyr::Error::MultipleDocuments { .. });
    match error.location().filter(|_| several).map(|at| read(before_document(text, Place::from(at).line))) {
        Some(Ok(root)) => Ok((root, Some(problem))),
        _ => Err(problem),
    }
}

/// What stands before the document that begins at a line, or just above it.
fn before_document(text: &str, line: usize) -> &str {
    let lines: Vec<&str> = text.split_inclusive('\n').take(line).collect();
    let marker = lines.iter().rposition(|line| line.starts_with("---")).unwrap_or(0);
    let length = lines.iter().take(marker).map(|line| line.len()).sum();
    text.get(..length).unwrap_or_default()
}

/// Bounds that no honest file meets, and the strictness of YAML 1.2: `off` and `no` are words.
fn options() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 32, max_documents: 2, max_aliases: 1_000, max_merge_keys: 1_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000, max_replay_stack_depth: 16 },
    }
}

/// The parser's complaint in the words of this program.
fn problem(error: &serde_saphyr::Error, text: &str) -> Problem {
    use serde_saphyr::Error;
    let place = error.location().map_or(Place::START, Place::from);
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let what = match error {
        Error::MultipleDocuments { .. } => "a second document begins here: a configuration is one document".to_owned(),
        Error::Budget { .. } => {
            "too much for a configuration: nested too deep, or too many values or aliases".to_owned()
        }
        Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            "too much for a configuration: the aliases expand to too many values".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an alias stands within its own anchor".to_owned(),
        Error::Unexpected { expected: "string scalar", .. } => {
            "a key must be a name, not a list or a mapping".to_owned()
        }
        other => {
            let message = UserMessageFormatter.format_message(other);
            format!("not valid YAML: {message}{}", hint(text, place.line, &message))
        }
    };
    Problem::new(place, what)
}

/// What most likely happened: addresses, colons, spaces and indentation are where YAML bites.
fn hint(text: &str, number: usize, message: &str) -> String {
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start().trim_start_matches("- ");
    let suspect = if message.contains("simple key expected") {
        Some((line, number))
    } else {
        // The line before has not ended as it should.
        let before = text.lines().zip(1..).take(number - 1);
        before.filter(|(line, _)| !line.trim_start().starts_with('#') && !line.trim().is_empty()).last()
    };
    let of_structure = ["simple key expected", "mapping values are not allowed", "did not find expected key"];
    if value.starts_with('[') && value.contains("]:") {
        "; an IPv6 address must stand in quotes: \"[::1]:8080\"".to_owned()
    } else if value.starts_with("*:") {
        "; for every IPv4 address write 0.0.0.0:PORT".to_owned()
    } else if line.starts_with('\t') {
        "; indent with spaces".to_owned()
    } else if of_structure.iter().any(|words| message.contains(words)) {
        let lack = suspect.and_then(|(line, number)| lack(line, number));
        lack.unwrap_or_else(|| "; is this line indented as its neighbours are?".to_owned())
    } else {
        String::new()
    }
}

/// What a line lacks to be a name with a value, or one whose value follows.
fn lack(line: &str, number: usize) -> Option<String> {
    let line = line.split(" #").next().unwrap_or_default().trim();
    let is_name = line.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '\''));
    if !is_name || line.contains(": ") || line.ends_with(':') {
        return None;
    }
    let (name, rest) = line.split_at(line.find([':', ' ']).unwrap_or(line.len()));
    Some(if rest.starts_with(':') {
        format!("; a space is missing after the colon in line {number}")
    } else {
        format!("; a colon is missing after {} in line {number}", quoted(name))
    })
}

impl Value {
    /// What a message calls it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(value) => format!("`{value}`"),
            Self::Float(value) if value.abs() < 1e15 => format!("`{value}`"),
            Self::Float(_) => "a number that large".to_owned(),
            Self::Text(text) => quoted(text),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// A text of the file as a message shows it: short, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() { format!("`{shown}…`") } else { format!("`{shown}`") }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { value: spanned.value, place: spanned.defined.into(), used: spanned.referenced.into() }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element::<Spanned<Value>>()? {
            nodes.push(node.into());
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Spanned<Value>>()? {
            entries.push((Key { name: key.value, place: key.defined.into() }, node.into()));
        }
        Ok(Value::Map(entries))
    }
}
