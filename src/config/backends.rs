//! The backends of a service, in their short and their long form.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::Reader;
use super::report::Place;
use super::sections::{self, entries};
use super::tree::{Node, Value, quoted};
use super::{Backend, Weight, address};

impl Reader<'_> {
    pub(super) fn backends(&mut self, node: &Node) -> Vec<Backend> {
        if matches!(&node.value, Value::Null) || matches!(&node.value, Value::Map(map) if map.is_empty()) {
            self.problem(node.place, "`backends` is empty: at least one backend is due");
        }
        self.members(node, "`backends`")
    }

    /// The backups of the service whose backends stand at `backends`: theirs are other names.
    pub(super) fn backups(&mut self, node: &Node, backends: Option<&Node>) -> Vec<Backend> {
        if let (Value::Map(backups), Some(Value::Map(backends))) = (&node.value, backends.map(|node| &node.value)) {
            let first: HashMap<&str, Place> =
                backends.iter().rev().map(|(key, _)| (key.name.as_str(), key.place)).collect();
            for (key, _) in backups {
                if let Some(place) = first.get(key.name.as_str()) {
                    let what = format!("{} is a backend already, at line {}", quoted(&key.name), place.line);
                    self.problem(key.place, what);
                }
            }
        }
        self.members(node, "`backups`")
    }

    fn members(&mut self, node: &Node, name: &str) -> Vec<Backend> {
        let of = "names to addresses, such as `web-01: 10.0.0.11:8080`";
        entries(node, name, of, &mut self.problems)
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
        let probe_address = section.get("probe_address").and_then(|node| self.parsed(node, due, address::backend));
        Some(Backend { name, address: address?, weight, max_connections, probe_address })
    }
}
