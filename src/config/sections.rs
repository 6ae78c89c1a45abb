//! The sections of the file: which keys each has, and finding one key's value.

use std::collections::HashMap;

use super::foreign_names;
use super::report::{Place, Problem, did_you_mean};
use super::tree::{Key, Node, Value, quoted};
use super::values::alternatives;

/// One kind of mapping in the file.
pub(super) struct Kind {
    /// What a message calls it.
    name: &'static str,
    /// The keys that work.
    keys: &'static [&'static str],
}

impl Kind {
    /// Whether it has a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }
}

pub(super) const FILE: Kind = Kind {
    name: "the top level",
    keys: &["workers", "drain", "max_connections", "admin", "state", "access_log", "reload", "services"],
};
pub(super) const ADMIN: Kind = Kind { name: "`admin`", keys: &["socket", "http", "hosts"] };
pub(super) const RELOAD: Kind = Kind { name: "`reload`", keys: &["guard"] };
pub(super) const SERVICE: Kind = Kind {
    name: "a service",
    keys: &[
        "listen",
        "freebind",
        "balance",
        "backends",
        "backups",
        "health",
        "connect",
        "timeouts",
        "max_connections",
        "queue",
    ],
};
pub(super) const BACKEND: Kind =
    Kind { name: "a backend", keys: &["address", "weight", "max_connections", "probe_address"] };
pub(super) const CONNECT: Kind = Kind { name: "`connect`", keys: &["timeout", "attempts"] };
pub(super) const TIMEOUTS: Kind = Kind { name: "`timeouts`", keys: &["idle", "half_closed", "unresponsive"] };
pub(super) const HEALTH: Kind = Kind {
    name: "`health`",
    keys: &["probe", "port", "interval", "timeout", "rise", "fall", "passive", "slow_start", "when_all_down"],
};
pub(super) const PROBE: Kind = Kind { name: "`probe`", keys: &["http", "expect"] };
pub(super) const HTTP_PROBE: Kind = Kind { name: "`http`", keys: &["path", "host", "status"] };
pub(super) const EXPECT_PROBE: Kind = Kind { name: "`expect`", keys: &["send", "receive"] };
pub(super) const PROBE_BYTES: Kind = Kind { name: "`send` or `receive`", keys: &["hex"] };
pub(super) const QUEUE: Kind = Kind { name: "`queue`", keys: &["size", "timeout"] };
const KINDS: [&Kind; 13] = [
    &FILE,
    &ADMIN,
    &RELOAD,
    &SERVICE,
    &BACKEND,
    &HEALTH,
    &PROBE,
    &HTTP_PROBE,
    &EXPECT_PROBE,
    &PROBE_BYTES,
    &CONNECT,
    &TIMEOUTS,
    &QUEUE,
];

/// A mapping of the file with its keys sorted out.
pub(super) struct Section<'t>(HashMap<&'static str, &'t Node>);

impl<'t> Section<'t> {
    /// Sorts the entries of `node` out; whatever is wrong with its keys goes to `problems`. A section that holds nothing but
    /// comments is one without keys.
    pub(super) fn of(node: &'t Node, kind: &Kind, problems: &mut Vec<Problem>) -> Self {
        let mut found = HashMap::new();
        for (key, value) in entries(node, kind.name, "keys to values", problems) {
            match kind.keys.iter().find(|name| **name == key.name) {
                Some(name) => {
                    found.insert(*name, value);
                }
                None => problems.push(Problem::new(key.place, unknown(&key.name, kind))),
            }
        }
        Self(found)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'t Node> {
        self.0.get(key).copied()
    }
}

/// The entries of a mapping, each key once; a list or a text in its place, and repeated keys, go to `problems`.
pub(super) fn entries<'t>(
    node: &'t Node,
    name: &str,
    of: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(&'t Key, &'t Node)> {
    let map = match &node.value {
        Value::Map(map) => map.as_slice(),
        Value::Null => &[],
        other => {
            let what = format!("{name} is a mapping of {of}, found {}", other.describe());
            problems.push(Problem::new(node.place, what));
            &[]
        }
    };
    let mut first: HashMap<&str, Place> = HashMap::new();
    let mut kept = Vec::with_capacity(map.len());
    for (key, value) in map {
        if let Some(place) = first.get(key.name.as_str()) {
            let what = format!("{} stands here twice, first at line {}", quoted(&key.name), place.line);
            problems.push(Problem::new(key.place, what));
        } else {
            first.insert(&key.name, key.place);
            kept.push((key, value));
        }
    }
    kept
}

/// Names the key that was meant, or where it belongs, or else all that may stand there.
fn unknown(key: &str, kind: &Kind) -> String {
    let keys = || kind.keys.iter().copied();
    let homes: Vec<&str> = KINDS.iter().filter(|other| other.has(key)).map(|other| other.name).collect();
    let meant = foreign_names::key(key, kind);
    let near = did_you_mean(meant.map(|(ours, _)| ours).filter(|ours| kind.has(ours)).unwrap_or(key), keys());
    let next = match meant {
        _ if !homes.is_empty() => format!(": it belongs to {}{near}", homes.join(" or ")),
        _ if !near.is_empty() => near,
        Some((ours, home)) => format!(": that is {} of {}", quoted(ours), home.name),
        None => format!(": write {}", alternatives(keys())),
    };
    format!("{} has no key {}{next}", kind.name, quoted(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_row_in_the_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
        let document = std::fs::read_to_string(path).expect("the document");
        for kind in KINDS {
            let heading = format!("\n## {}\n", kind.name);
            let (_, part) = document.split_once(&heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
            let part = part.split("\n## ").next().unwrap_or_default();
            for key in kind.keys {
                assert!(part.contains(&format!("\n| `{key}` |")), "{} has no row for `{key}`", kind.name);
            }
        }
    }
}
