//! The YAML file, read section by section: everything wrong is collected, so that one run shows all of it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::report::{Place, Problem, did_you_mean};
use super::sections::{self, Section, entries};
use super::tree::{Node, Value, quoted};
use super::{
    AccessLog, Admin, Backend, Balance, Config, Connect, Health, Listen, Queue, Service, Timeouts, Weight, address,
    duration,
};

/// No deadline is longer: a year.
const LONGEST: Duration = Duration::from_secs(8760 * 3600);
/// Deadlines shorter than this would be accidents.
const SHORTEST: Duration = Duration::from_millis(1);
/// More event loops than any machine has use for.
const MAX_WORKERS: u32 = 1024;
/// Names go into labels, logs and commands, and are read by people.
const MAX_NAME: usize = 64;
/// The algorithms that are named already but do nothing yet.
const LATER_ALGORITHMS: [&str; 4] = ["least_connections", "random_two", "source_hash", "first"];

/// The configuration that the tree describes, or everything that is wrong with it.
pub(super) fn read(root: &Node) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::default();
    let config = reader.file(root);
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

/// Where addresses were taken, and what is wrong so far. A value that is wrong reads as its default: with a problem in the
/// list the whole is never used.
#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    taken: HashMap<Listen, (String, Place)>,
}

impl Reader {
    fn file(&mut self, root: &Node) -> Config {
        let section = self.section(root, &sections::FILE);
        let admin = self.admin(section.get("admin"));
        let services = match section.get("services") {
            Some(node) => self.services(node),
            None if !matches!(root.value, Value::Map(_)) => Vec::new(),
            None => self.missing(root.place, "`services` is missing: at least one service is due"),
        };
        Config {
            workers: self.count(section.get("workers"), Some("auto"), 1..=MAX_WORKERS),
            drain: self.duration(section.get("drain"), Config::DRAIN, Duration::ZERO..=LONGEST),
            max_connections: self.count(section.get("max_connections"), Some("auto"), 1..=u32::MAX),
            admin,
            access_log: AccessLog::Off,
            services,
        }
    }

    fn admin(&mut self, node: Option<&Node>) -> Admin {
        let Some(node) = node else { return Admin::default() };
        let socket = self.section(node, &sections::ADMIN).get("socket").and_then(|node| {
            let path = self.parsed(node, "the path of a Unix socket is due here", address::unix_path)?;
            self.take(Listen::Unix(path.clone()), "the admin socket", node.used);
            Some(path)
        });
        Admin { socket, http: None }
    }

    fn services(&mut self, node: &Node) -> Vec<Service> {
        let found = entries(node, "`services`", "names to services", &mut self.problems);
        if found.is_empty() && matches!(node.value, Value::Map(_) | Value::Null) {
            self.problem(node.place, "`services` is empty: at least one service is due");
        }
        found
            .into_iter()
            .map(|(key, node)| {
                self.name(&key.name, key.place);
                self.service(&key.name, key.place, node)
            })
            .collect()
    }

    fn service(&mut self, name: &str, place: Place, node: &Node) -> Service {
        let section = self.section(node, &sections::SERVICE);
        let is_section = matches!(node.value, Value::Map(_) | Value::Null);
        let listen = match section.get("listen") {
            Some(node) => self.listen(name, node),
            None if is_section => self.missing(place, format!("service {} has no `listen`", quoted(name))),
            None => Vec::new(),
        };
        let backends = match section.get("backends") {
            Some(node) => self.backends(node),
            None if is_section => self.missing(place, format!("service {} has no `backends`", quoted(name))),
            None => Vec::new(),
        };
        Service {
            name: name.into(),
            listen,
            balance: section.get("balance").map_or(Balance::RoundRobin, |node| self.balance(node)),
            backends,
            backups: Vec::new(),
            health: Health::default(),
            connect: section.get("connect").map_or_else(Connect::default, |node| self.connect(node)),
            timeouts: section.get("timeouts").map_or_else(Timeouts::default, |node| self.timeouts(node)),
            max_connections: self.count(section.get("max_connections"), Some("none"), 1..=u32::MAX),
            queue: Queue::default(),
        }
    }

    /// One address or a list of them.
    fn listen(&mut self, service: &str, node: &Node) -> Vec<Listen> {
        let nodes = match &node.value {
            Value::List(nodes) if nodes.is_empty() => {
                return self.missing(node.place, "`listen` is empty: at least one address is due");
            }
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let owner = format!("service {}", quoted(service));
        nodes
            .iter()
            .filter_map(|node| {
                let due = "an address and a port are due here, such as 0.0.0.0:8080";
                let listen = self.parsed(node, due, address::listen)?;
                self.take(listen.clone(), &owner, node.used);
                Some(listen)
            })
            .collect()
    }

    fn balance(&mut self, node: &Node) -> Balance {
        let word = match &node.value {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        if word != "round_robin" {
            self.problem(
                node.place,
                if LATER_ALGORITHMS.contains(&word) {
                    format!("`{word}` is not supported yet: write round_robin")
                } else {
                    let hint = did_you_mean(word, ["round_robin"]);
                    let due = if hint.is_empty() { ": write round_robin" } else { "" };
                    format!("{} is not a way to balance{due}{hint}", node.value.describe())
                },
            );
        }
        Balance::RoundRobin
    }

    fn backends(&mut self, node: &Node) -> Vec<Backend> {
        let found =
            entries(node, "`backends`", "names to addresses, such as `web-01: 10.0.0.11:8080`", &mut self.problems);
        if found.is_empty() && matches!(node.value, Value::Map(_) | Value::Null) {
            self.problem(node.place, "`backends` is empty: at least one backend is due");
        }
        found
            .into_iter()
            .filter_map(|(key, node)| {
                self.name(&key.name, key.place);
                self.backend(key.name.as_str().into(), key.place, node)
            })
            .collect()
    }

    /// The short form, `name: address`, or the long one with keys.
    fn backend(&mut self, name: Arc<str>, place: Place, node: &Node) -> Option<Backend> {
        let due = "an IP address and a port are due here, such as 10.0.0.11:8080";
        if !matches!(node.value, Value::Map(_)) {
            let address = self.parsed(node, due, address::backend)?;
            return Some(Backend { name, address, weight: Weight::ONE, max_connections: None, probe_address: None });
        }
        let section = self.section(node, &sections::BACKEND);
        let address = match section.get("address") {
            Some(node) => self.parsed(node, due, address::backend),
            None => {
                self.problem(place, format!("backend {} has no `address`", quoted(&name)));
                None
            }
        };
        let weight = self.count(section.get("weight"), None, 1..=256);
        let weight = weight.and_then(|weight| Weight::new(weight.get().into())).unwrap_or(Weight::ONE);
        let max_connections = self.count(section.get("max_connections"), Some("none"), 1..=u32::MAX);
        Some(Backend { name, address: address?, weight, max_connections, probe_address: None })
    }

    fn connect(&mut self, node: &Node) -> Connect {
        let section = self.section(node, &sections::CONNECT);
        let Connect { timeout, attempts } = Connect::default();
        Connect {
            timeout: self.duration(section.get("timeout"), timeout, SHORTEST..=LONGEST),
            attempts: self
                .count(section.get("attempts"), None, 1..=8)
                .and_then(|count| u8::try_from(count.get()).ok())
                .unwrap_or(attempts),
        }
    }

    fn timeouts(&mut self, node: &Node) -> Timeouts {
        let section = self.section(node, &sections::TIMEOUTS);
        let default = Timeouts::default();
        let mut read = |key, default| self.duration(section.get(key), default, SHORTEST..=LONGEST);
        Timeouts {
            idle: read("idle", default.idle),
            half_closed: read("half_closed", default.half_closed),
            unresponsive: read("unresponsive", default.unresponsive),
        }
    }

    fn problem(&mut self, place: Place, what: impl Into<String>) {
        self.problems.push(Problem::new(place, what));
    }

    /// The problem of a required list that is not there.
    fn missing<T>(&mut self, place: Place, what: impl Into<String>) -> Vec<T> {
        self.problem(place, what);
        Vec::new()
    }

    fn section<'t>(&mut self, node: &'t Node, kind: &sections::Kind) -> Section<'t> {
        Section::of(node, kind, &mut self.problems)
    }

    /// Notes an address as taken; of port 0, which the kernel chooses, there may be many.
    fn take(&mut self, listen: Listen, owner: &str, place: Place) {
        if matches!(&listen, Listen::Tcp(address) if address.port() == 0) {
            return;
        }
        if let Some((first, at)) = self.taken.get(&listen) {
            let what = format!("this address is taken already, by {first} at line {}", at.line);
            self.problem(place, what);
        } else {
            self.taken.insert(listen, (owner.to_owned(), place));
        }
    }

    fn name(&mut self, name: &str, place: Place) {
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
    fn parsed<T>(&mut self, node: &Node, due: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
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

    /// A number in a range; `None` for a missing key and for `word`, where there is one.
    fn count(&mut self, node: Option<&Node>, word: Option<&str>, range: RangeInclusive<u32>) -> Option<NonZeroU32> {
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

    fn duration(&mut self, node: Option<&Node>, default: Duration, range: RangeInclusive<Duration>) -> Duration {
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
