//! The YAML file, read section by section: everything wrong is collected, so that one run shows all of it.

use std::collections::HashMap;
use std::time::Duration;

use super::report::{Place, Problem, did_you_mean};
use super::sections::{self, entries};
use super::tree::{Node, Value, quoted};
use super::values::Taken;
use super::{AccessLog, Balance, Config, Connect, Health, Listen, Queue, Reload, Service, Timeouts, address};

/// No deadline is longer: a year.
const LONGEST: Duration = Duration::from_secs(8760 * 3600);
/// Deadlines shorter than this would be accidents.
const SHORTEST: Duration = Duration::from_millis(1);
/// More event loops than any machine has use for.
const MAX_WORKERS: u32 = 1024;
/// The ways to balance, as they are written.
pub(super) const ALGORITHMS: [(&str, Balance); 5] = [
    ("round_robin", Balance::RoundRobin),
    ("least_connections", Balance::LeastConnections),
    ("random_two", Balance::RandomTwo),
    ("source_hash", Balance::SourceHash),
    ("first", Balance::First),
];
/// More clients than this would wait for nothing.
const MAX_QUEUE: u32 = 1_000_000;
/// No client waits longer for a place: an hour.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The configuration that the tree of a text describes, and everything that is wrong with it, or may be.
pub(super) fn read(root: &Node, text: &str) -> (Config, Vec<Problem>) {
    let mut reader = Reader { text, ..Reader::default() };
    let config = reader.file(root);
    (config, reader.problems)
}

/// Where addresses were taken, and what is wrong so far. A value that is wrong reads as its default: with a problem in the
/// list the whole is never used.
#[derive(Default)]
pub(super) struct Reader<'t> {
    /// The text of the file, for what the tree does not tell.
    pub(super) text: &'t str,
    pub(super) problems: Vec<Problem>,
    pub(super) taken: HashMap<Taken, (String, Place)>,
}

impl Reader<'_> {
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
            state: Some(section.get("state").and_then(|node| self.state(node)).unwrap_or_else(|| Config::STATE.into())),
            access_log: section.get("access_log").map_or(AccessLog::Off, |node| self.access_log(node)),
            reload: section.get("reload").map_or_else(Reload::default, |node| self.reload(node)),
            services,
        }
    }

    fn reload(&mut self, node: &Node) -> Reload {
        let section = self.section(node, &sections::RELOAD);
        let due = "a share such as 50% is due here";
        let share = |text: &str| {
            let number = text.strip_suffix('%').filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
            let share = number.and_then(|number| number.parse().ok()).filter(|share| *share <= 100);
            share.ok_or_else(|| format!("a share from 0% to 100% is due here, found {}", quoted(text)))
        };
        let guard = section.get("guard").and_then(|node| self.parsed(node, due, share));
        guard.map_or_else(Reload::default, |guard| Reload { guard })
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
            freebind: self.flag(section.get("freebind"), false),
            balance: section
                .get("balance")
                .and_then(|node| self.choice(node, "a way to balance", &ALGORITHMS))
                .unwrap_or(Balance::RoundRobin),
            backends,
            backups: section.get("backups").map_or_else(Vec::new, |node| self.backups(node, section.get("backends"))),
            health: section.get("health").map_or_else(Health::default, |node| self.health(node)),
            connect: section.get("connect").map_or_else(Connect::default, |node| self.connect(node)),
            timeouts: section.get("timeouts").map_or_else(Timeouts::default, |node| self.timeouts(node)),
            max_connections: self.count(section.get("max_connections"), Some("none"), 1..=u32::MAX),
            queue: section.get("queue").map_or_else(Queue::default, |node| self.queue(node)),
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
                self.take(&listen, &owner, node.used);
                Some(listen)
            })
            .collect()
    }

    fn access_log(&mut self, node: &Node) -> AccessLog {
        let due = "off, stderr or a path is due here";
        let log = |text: &str| match text {
            "off" => Ok(AccessLog::Off),
            "stderr" => Ok(AccessLog::Stderr),
            path if path.starts_with('/') => address::log_path(path).map(AccessLog::File),
            other => {
                let hint = did_you_mean(other, ["off", "stderr"]);
                Err(format!(
                    "{} is not a place for the access log: write off, stderr or a path from /{hint}",
                    quoted(other)
                ))
            }
        };
        let log = self.parsed(node, due, log).unwrap_or_default();
        if let AccessLog::File(path) = &log {
            self.take_path(path, "the access log", node.used);
        }
        log
    }

    fn state(&mut self, node: &Node) -> Option<std::path::PathBuf> {
        let due = "the path of a directory is due here";
        let path = |text: &str| {
            if text.starts_with('/') && !text.contains('\0') {
                Ok(text.into())
            } else {
                Err(format!("{} is not a directory for the state: write a path from /", quoted(text)))
            }
        };
        let path: Option<std::path::PathBuf> = self.parsed(node, due, path);
        path.iter().for_each(|path| self.take_path(path, "the state directory", node.used));
        path
    }

    fn queue(&mut self, node: &Node) -> Queue {
        let section = self.section(node, &sections::QUEUE);
        Queue {
            size: self.count(section.get("size"), None, 0..=MAX_QUEUE).map_or(0, std::num::NonZero::get),
            timeout: self.duration(section.get("timeout"), Queue::default().timeout, SHORTEST..=LONGEST_WAIT),
        }
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
}
