//! A timeline as lines, and as a postmortem's first page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use crate::duration;
use crate::observe::timeline::{Event, Kind};

/// One event on one line.
pub(super) fn line(event: &Event) -> String {
    let by = event.by.as_ref().map_or_else(String::new, |by| format!(" (by {by})"));
    // Some of it others have written: no line end and no escape sequence of theirs goes to the terminal.
    format!("{:.0}  {:<14}  {}{}{by}", event.time, event.kind.label(), whom(event), event.text)
        .replace(char::is_control, " ")
}

fn whom(event: &Event) -> String {
    match &event.service {
        Some(service) => format!("{service}: "),
        None => String::new(),
    }
}

/// What became of one service.
#[derive(Default)]
struct Service {
    state: String,
    since: Option<Timestamp>,
    degraded: Duration,
    down: Duration,
    refused: u64,
}

impl Service {
    fn pass(&mut self, now: Timestamp) {
        let passed = self
            .since
            .map_or(Duration::ZERO, |since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
        match self.state.as_str() {
            "degraded" => self.degraded += passed,
            "down" => self.down += passed,
            _ => {}
        }
        self.since = Some(now);
    }
}

/// The page, in Markdown.
pub(super) fn page(events: &[Event], since: Timestamp, now: Timestamp) -> String {
    let mut page = String::new();
    let from = events.first().map_or(since, |event| event.time);
    // Writing into a `String` cannot fail, so its results are dropped.
    let _ = writeln!(page, "# Incident: (what the users saw)\n\nFrom {from:.0} to {now:.0}, all times in UTC.\n");
    let _ = writeln!(page, "## Impact\n");
    let services = services(events, now);
    if services.is_empty() {
        let _ = writeln!(page, "No service has changed its state, and no client was refused.\n");
    } else {
        let _ = writeln!(
            page,
            "| service | degraded for | down for | clients refused | now |\n| --- | --- | --- | ---: | --- |"
        );
        for (name, service) in &services {
            let Service { state, degraded, down, refused, .. } = service;
            let state = if state.is_empty() { "as before" } else { state };
            let _ =
                writeln!(page, "| {} | {} | {} | {refused} | {state} |", cell(name), shown(*degraded), shown(*down));
        }
        page.push('\n');
    }
    let _ = writeln!(page, "## Who changed what\n");
    let people: Vec<_> = events.iter().filter(|event| event.by.is_some()).collect();
    if people.is_empty() {
        let _ = writeln!(page, "Nobody has changed anything.\n");
    }
    for event in people {
        let by = event.by.as_deref().unwrap_or_default();
        let _ = writeln!(page, "- {:.0} {}: {}{}", event.time, cell(by), cell(&whom(event)), cell(&event.text));
    }
    let _ = writeln!(page, "\n## Timeline\n\n| time | what | |\n| --- | --- | --- |");
    for event in events {
        let _ = writeln!(
            page,
            "| {:.0} | {} | {}{} |",
            event.time,
            event.kind.label(),
            cell(&whom(event)),
            cell(&event.text)
        );
    }
    let _ = writeln!(page, "\n## Cause, remedy, what will prevent it\n\n(to be written)");
    page
}

fn services(events: &[Event], now: Timestamp) -> BTreeMap<&str, Service> {
    let mut services: BTreeMap<&str, Service> = BTreeMap::new();
    for event in events {
        if matches!(event.kind, Kind::Start | Kind::Stop) {
            // A balancer that does not run serves nobody, but neither does it know for how long its servers were well.
            services.values_mut().for_each(|service| {
                service.pass(event.time);
                service.state.clear();
            });
        }
        let Some(name) = event.service.as_deref() else { continue };
        if let Some(state) = &event.state {
            let service = services.entry(name).or_default();
            service.pass(event.time);
            service.state.clone_from(state);
        }
        if event.count > 0 {
            services.entry(name).or_default().refused += event.count;
        }
    }
    services.values_mut().for_each(|service| service.pass(now));
    services
}

/// A duration for people: to the second.
fn shown(duration: Duration) -> String {
    if duration.is_zero() { "-".to_owned() } else { duration::format(Duration::from_secs(duration.as_secs().max(1))) }
}

/// A text that does not leave its cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str, event: Event) -> Event {
        Event { time: format!("2026-03-01T{time}Z").parse().unwrap(), ..event }
    }

    fn state(time: &str, state: &str, text: &str) -> Event {
        at(time, Event { state: Some(state.to_owned()), ..Event::new(Kind::State, text).of("web").with("web-02") })
    }

    #[test]
    fn the_page_tells_how_long_and_how_many() {
        let events = [
            at(
                "12:00:00",
                Event {
                    state: Some("degraded".into()),
                    ..Event::new(Kind::Drain, "up -> drained").of("web").by("ops")
                },
            ),
            state("12:10:00", "down", "web-01: up -> down: connect refused"),
            at(
                "12:10:01",
                Event { count: 41, ..Event::new(Kind::Refused, "41 clients were refused: no|backend").of("web") },
            ),
            state("12:12:30", "degraded", "back"),
            state("12:20:00", "ok", "all back"),
        ];
        let page = page(&events, Timestamp::MIN, "2026-03-01T13:00:00Z".parse().unwrap());
        assert!(page.contains("| web | 17m30s | 2m30s | 41 | ok |"), "{page}");
        assert!(page.contains("- 2026-03-01T12:00:00Z ops: web: up -> drained"), "{page}");
        assert!(page.contains("no\\|backend |"), "{page}");
    }

    #[test]
    fn one_event_is_one_line() {
        let event = at("12:00:00", Event::new(Kind::Drain, "up -> drained: \x1b[31mred\n").of("web").by("ops"));
        assert_eq!(line(&event), "2026-03-01T12:00:00Z  drain           web: up -> drained:  [31mred  (by ops)");
    }
}
