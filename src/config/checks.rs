//! The health checks of a service: what is asked of its backends, and what the answers mean.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::file::Reader;
use super::report::did_you_mean;
use super::sections;
use super::tree::{Node, Value, quoted};
use super::{Health, HttpProbe, Probe, WhenAllDown};
use crate::duration;

/// More probes in a row than anyone waits for.
const MOST_IN_A_ROW: u32 = 100;

impl Reader<'_> {
    pub(super) fn health(&mut self, node: &Node) -> Health {
        let section = self.section(node, &sections::HEALTH);
        let default = Health::default();
        let (interval, timeout) = self.pace(section.get("interval"), section.get("timeout"));
        let mut in_a_row = |key, default| {
            self.count(section.get(key), None, 1..=MOST_IN_A_ROW).map_or(default, std::num::NonZero::get)
        };
        let (rise, fall) = (in_a_row("rise", default.rise), in_a_row("fall", default.fall));
        Health {
            probe: section.get("probe").map_or(default.probe, |node| self.probe(node)),
            port: section.get("port").and_then(|node| self.port(node)),
            interval,
            timeout,
            rise,
            fall,
            passive: match section.get("passive") {
                None => default.passive,
                node => self.count(node, Some("off"), 1..=MOST_IN_A_ROW).map(std::num::NonZero::get),
            },
            slow_start: self.duration(
                section.get("slow_start"),
                default.slow_start,
                Duration::ZERO..=*Health::INTERVALS.end(),
            ),
            when_all_down: section.get("when_all_down").map_or(default.when_all_down, |node| {
                let words = [("refuse", WhenAllDown::Refuse), ("try_all", WhenAllDown::TryAll)];
                self.choice(node, "something to do when all are down", &words).unwrap_or_default()
            }),
        }
    }

    /// The interval and the timeout; one that is wrong by itself is not compared with the other.
    fn pace(&mut self, interval: Option<&Node>, timeout: Option<&Node>) -> (Duration, Duration) {
        let (default, before) = (Health::default(), self.problems.len());
        let every = self.duration(interval, default.interval, Health::INTERVALS);
        let within = self.duration(timeout, default.timeout, Health::TIMEOUTS);
        if every < within
            && self.problems.len() == before
            && let Some(node) = interval.or(timeout)
        {
            let whose = |node: Option<&Node>| if node.is_some() { "" } else { " by default" };
            let what = format!(
                "the interval ({}{}) is shorter than the timeout ({}{})",
                duration::format(every),
                whose(interval),
                duration::format(within),
                whose(timeout)
            );
            self.problem(node.place, what);
        }
        (every, within)
    }

    fn port(&mut self, node: &Node) -> Option<NonZeroU16> {
        if matches!(node.value, Value::Null) {
            return None;
        }
        self.count(Some(node), None, 1..=u32::from(u16::MAX)).and_then(|port| NonZeroU16::try_from(port).ok())
    }

    /// A word, or one of the kinds that have settings.
    fn probe(&mut self, node: &Node) -> Probe {
        let forms = "write tcp, none, { http: { path: / } } or { expect: { receive: \"…\" } }";
        let what = match &node.value {
            Value::Text(word) if word == "tcp" => return Probe::Tcp,
            Value::Text(word) if word == "none" => return Probe::None,
            Value::Text(word) if word == "http" => "`http` is written as a mapping: { http: { path: / } }".to_owned(),
            Value::Text(word) if word == "expect" => {
                "`expect` is written as a mapping: { expect: { receive: \"…\" } }".to_owned()
            }
            Value::Map(map) => {
                let section = self.section(node, &sections::PROBE);
                match (section.get("http"), section.get("expect")) {
                    (Some(node), None) => return self.http_probe(node),
                    (None, Some(node)) => return Probe::Expect(self.expect_probe(node)),
                    (Some(_), Some(_)) => "a probe is of one kind, `http` or `expect`".to_owned(),
                    // An unknown key has been said.
                    (None, None) if !map.is_empty() => return Probe::Tcp,
                    (None, None) => format!("a probe is due here: {forms}"),
                }
            }
            Value::Text(word) => {
                let hint = did_you_mean(word, ["tcp", "none", "http", "expect"]);
                format!("{} is not a probe: {forms}{hint}", quoted(word))
            }
            other => format!("{} is not a probe: {forms}", other.describe()),
        };
        self.problem(node.place, what);
        Probe::Tcp
    }

    fn http_probe(&mut self, node: &Node) -> Probe {
        let section = self.section(node, &sections::HTTP_PROBE);
        let default = HttpProbe::default();
        let path = |text: &str| {
            if text.starts_with('/') { in_a_request(text) } else { Err("a path begins with /".to_owned()) }
        };
        Probe::Http(HttpProbe {
            path: section
                .get("path")
                .and_then(|node| self.parsed(node, "a path such as /health is due here", path))
                .unwrap_or(default.path),
            host: section.get("host").and_then(|node| self.parsed(node, "a host name is due here", in_a_request)),
            status: section.get("status").and_then(|node| self.status(node)).unwrap_or(default.status),
        })
    }

    /// One number or a range: YAML reads `200` as a number and `200-399` as a text.
    fn status(&mut self, node: &Node) -> Option<RangeInclusive<u16>> {
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let range = match &node.value {
            Value::Integer(status) => u16::try_from(*status).ok().map(|status| status..=status),
            Value::Text(text) => {
                let (from, to) = text.split_once('-').unwrap_or((text, text));
                number(from).zip(number(to)).map(|(from, to)| from..=to)
            }
            _ => None,
        };
        let range = range.filter(|range| !range.is_empty() && *range.start() >= 100 && *range.end() <= 599);
        if range.is_none() {
            let what = format!(
                "a status from 100 to 599, or a range such as 200-399, is due here, found {}",
                node.value.describe()
            );
            self.problem(node.place, what);
        }
        // 101 ends an exchange of HTTP; after every other one below 200 the answer is still to come.
        let is_final = |range: &RangeInclusive<u16>| *range.end() >= 200 || range.contains(&101);
        if range.as_ref().is_some_and(|range| !is_final(range)) {
            self.problem(
                node.place,
                "no answer has this status: what is below 200 comes before the answer, which decides",
            );
        }
        range
    }
}

/// A text that can stand in a request's line or field and be nothing but itself.
fn in_a_request(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("nothing stands here: write it, or take the key out".to_owned());
    }
    if text.len() > HttpProbe::LONGEST {
        return Err(format!("at most {} bytes are due here, these are {}", HttpProbe::LONGEST, text.len()));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        None => Ok(text.to_owned()),
        Some(' ') => Err(format!("{} cannot stand in a request: it has a blank", quoted(text))),
        Some(c) if c.is_control() => {
            Err(format!("{} cannot stand in a request: it has a control character", quoted(text)))
        }
        Some(c) => Err(format!("{} cannot stand in a request: {c} is not ASCII", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::report::Place;

    fn node(value: Value) -> Node {
        Node { value, place: Place::START, used: Place::START }
    }

    #[test]
    fn only_what_is_nothing_but_itself_stands_in_a_request() {
        for text in ["/", "/health?deep=1&x=%20", "web.example:8080", "[::1]:80"] {
            assert_eq!(in_a_request(text).as_deref(), Ok(text));
        }
        // Every control character ends or disturbs a line of HTTP, a blank the target.
        for c in (0..=0x20).chain(0x7f..=0xa0).filter_map(char::from_u32) {
            assert!(in_a_request(&format!("/a{c}b")).is_err(), "{c:?} was accepted");
        }
        assert!(in_a_request(&"a".repeat(HttpProbe::LONGEST)).is_ok());
        assert!(in_a_request(&"a".repeat(HttpProbe::LONGEST + 1)).is_err());
    }

    #[test]
    fn a_status_is_a_number_or_a_range_within_http() {
        let read = |value| Reader::default().status(&node(value));
        assert_eq!(read(Value::Integer(200)), Some(200..=200));
        for (text, range) in [("200", 200..=200), ("100-599", 100..=599), ("204-204", 204..=204)] {
            assert_eq!(read(Value::Text(text.to_owned())), Some(range));
        }
        for text in ["", "-", "99-200", "200-600", "300-299", "200-+299", "200 - 299", "200-250-299", "70000"] {
            assert_eq!(read(Value::Text(text.to_owned())), None, "{text:?}");
        }
        assert_eq!(read(Value::Integer(i128::MAX)), None);
    }

    #[test]
    fn an_interval_as_long_as_its_timeout_is_accepted() {
        let mut reader = Reader::default();
        let text = |text: &str| node(Value::Text(text.to_owned()));
        let second = Duration::from_secs(1);
        assert_eq!(reader.pace(Some(&text("1s")), None), (second, second));
        assert!(reader.problems.is_empty());
        reader.pace(Some(&text("999ms")), None);
        assert_eq!(reader.problems.len(), 1);
    }
}
