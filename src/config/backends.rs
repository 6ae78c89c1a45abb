//! The backends of a service, in their short and their long form.

use std::sync::Arc;

use super::file::Reader;
use super::report::Place;
use super::sections::{self, entries};
use super::tree::{Node, Value, quoted};
use super::{Backend, Weight, address};

impl Reader {
    pub(super) fn backends(&mut self, node: &Node) -> Vec<Backend> {
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
}
