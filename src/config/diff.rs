//! What a reload changes: the difference between two configurations in words, and whether it may be a slip.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;

use super::{AccessLog, AdminSocket, Backend, Balance, Config, Health, Listen, Probe, Service, WhenAllDown};
use crate::duration;

/// How many sessions are open with a service, or with one of its backends.
pub trait Open {
    /// With the service of this name.
    fn with_service(&self, service: &str) -> u32;
    /// With this backend of the service.
    fn with_backend(&self, service: &str, backend: &Backend) -> u32;
}

/// What changes from `old` to `new`, a line each, in the order of the new file; what is removed comes first.
pub fn changes(old: &Config, new: &Config, open: &impl Open) -> Vec<String> {
    let mut lines = Vec::new();
    settings(&mut lines, "", &of_process(old), &of_process(new));
    for service in &old.services {
        if find(new, &service.name).is_none() {
            lines.push(format!("{}: removed{}", service.name, will_finish(open.with_service(&service.name))));
        }
    }
    for service in &new.services {
        match find(old, &service.name) {
            Some(before) => of_service(&mut lines, before, service, open),
            None => lines.push(format!(
                "{}: added on {}, with {}",
                service.name,
                list(&service.listen),
                number(service.backends.len(), "backend")
            )),
        }
    }
    lines
}

/// Services that `new` leaves with less of their old backends than the guard of `old` allows: why each is suspicious.
///
/// Backends survive by identity, which is their name and their address. A service that is gone keeps none.
pub fn losses(old: &Config, new: &Config) -> Vec<String> {
    let guard = usize::from(old.reload.guard);
    old.services
        .iter()
        .filter_map(|before| {
            let now = find(new, &before.name).map(|service| identities(&service.backends)).unwrap_or_default();
            let kept = before.backends.iter().filter(|backend| now.contains_key(&identity(backend))).count();
            let all = before.backends.len();
            (kept * 100 < guard * all)
                .then(|| format!("{} would keep {kept} of its {}", before.name, number(all, "backend")))
        })
        .collect()
}

fn find<'c>(config: &'c Config, name: &str) -> Option<&'c Service> {
    config.services.iter().find(|service| &*service.name == name)
}

/// What makes a backend the same in another configuration.
type Identity<'c> = (&'c str, SocketAddr);

fn identity(backend: &Backend) -> Identity<'_> {
    (&backend.name, backend.address)
}

fn identities(backends: &[Backend]) -> HashMap<Identity<'_>, &Backend> {
    backends.iter().map(|backend| (identity(backend), backend)).collect()
}

fn of_service(lines: &mut Vec<String>, old: &Service, new: &Service, open: &impl Open) {
    let name = &new.name;
    let before = lines.len();
    let were = [identities(&old.backends), identities(&old.backups)];
    let are = [identities(&new.backends), identities(&new.backups)];
    for (role, kind, other) in [(0, "backend", "backup"), (1, "backup", "backend")] {
        for backend in if role == 0 { &old.backends } else { &old.backups } {
            if !are.iter().any(|are| are.contains_key(&identity(backend))) {
                let sessions = will_finish(open.with_backend(name, backend));
                lines.push(format!("{name}: {kind} {} ({}) removed{sessions}", backend.name, backend.address));
            }
        }
        for backend in if role == 0 { &new.backends } else { &new.backups } {
            let label = format!("{name}: {kind} {}", backend.name);
            match [were[role].get(&identity(backend)), were[1 - role].get(&identity(backend))] {
                [Some(previous), _] => {
                    settings(lines, &format!("{label} "), &of_backend(previous), &of_backend(backend));
                }
                [None, Some(_)] => lines.push(format!("{label} was a {other} until now")),
                [None, None] => lines.push(format!("{label} ({}) added", backend.address)),
            }
        }
    }
    let (was, is) = (capacity(old), capacity(new));
    if was != is
        && let Some(line) = lines[before..].last_mut()
    {
        line.push_str(&format!("; capacity {was} → {is}"));
    }
    for (kind, old, new) in [("backends", &old.backends, &new.backends), ("backups", &old.backups, &new.backups)] {
        if !common(old, new).eq(common(new, old)) {
            lines.push(format!("{name}: the order of its {kind} has changed"));
        }
    }
    for listen in old.listen.iter().filter(|listen| !new.listen.contains(listen)) {
        lines.push(format!("{name}: listens no more on {listen}"));
    }
    for listen in new.listen.iter().filter(|listen| !old.listen.contains(listen)) {
        lines.push(format!("{name}: listens on {listen}"));
    }
    settings(lines, &format!("{name}: "), &of_settings(old), &of_settings(new));
}

/// Those of `some` that are among the others, too, in their order.
fn common<'c>(some: &'c [Backend], others: &[Backend]) -> impl Iterator<Item = Identity<'c>> {
    let others = identities(others);
    some.iter().map(identity).filter(move |one| others.contains_key(one))
}

/// The sum of the weights of its backends.
fn capacity(service: &Service) -> u64 {
    service.backends.iter().map(|backend| u64::from(backend.weight.get())).sum()
}

/// A setting's key, and its value as it would be written.
type Setting = (&'static str, String);

/// A line for each setting whose value differs.
fn settings(lines: &mut Vec<String>, whose: &str, old: &[Setting], new: &[Setting]) {
    for ((key, was), (_, is)) in old.iter().zip(new) {
        if was != is {
            lines.push(format!("{whose}{key} {was} → {is}"));
        }
    }
}

fn of_process(config: &Config) -> [Setting; 7] {
    let socket = match &config.admin.socket {
        AdminSocket::Default => "default".to_owned(),
        AdminSocket::None => "none".to_owned(),
        AdminSocket::At(path) => path.display().to_string(),
    };
    let hosts = config.admin.hosts.join(", ");
    let log = match &config.access_log {
        AccessLog::Off => "off".to_owned(),
        AccessLog::Stderr => "stderr".to_owned(),
        AccessLog::File(path) => path.display().to_string(),
    };
    [
        ("admin.socket", socket),
        ("admin.http", or("none", config.admin.http)),
        ("admin.hosts", format!("[{hosts}]")),
        ("access_log", log),
        ("drain", duration::format(config.drain)),
        ("max_connections", or("auto", config.max_connections)),
        ("reload.guard", format!("{}%", config.reload.guard)),
    ]
}

fn of_backend(backend: &Backend) -> [Setting; 3] {
    [
        ("weight", backend.weight.get().to_string()),
        ("max_connections", or("none", backend.max_connections)),
        ("probe_address", or("none", backend.probe_address)),
    ]
}

fn of_settings(service: &Service) -> [Setting; 18] {
    let Service { freebind, balance, health, connect, timeouts, max_connections, queue, .. } = service;
    let Health { probe, port, interval, timeout, rise, fall, passive, slow_start, when_all_down } = health;
    [
        ("freebind", freebind.to_string()),
        ("balance", balance_name(*balance).to_owned()),
        ("health.probe", shown(probe)),
        ("health.port", or("null", *port)),
        ("health.interval", duration::format(*interval)),
        ("health.timeout", duration::format(*timeout)),
        ("health.rise", rise.to_string()),
        ("health.fall", fall.to_string()),
        ("health.passive", or("off", *passive)),
        ("health.slow_start", duration::format(*slow_start)),
        ("health.when_all_down", if *when_all_down == WhenAllDown::Refuse { "refuse" } else { "try_all" }.to_owned()),
        ("connect.timeout", duration::format(connect.timeout)),
        ("connect.attempts", connect.attempts.to_string()),
        ("timeouts.idle", duration::format(timeouts.idle)),
        ("timeouts.half_closed", duration::format(timeouts.half_closed)),
        ("timeouts.unresponsive", duration::format(timeouts.unresponsive)),
        ("max_connections", or("none", *max_connections)),
        ("queue", format!("{} for {}", queue.size, duration::format(queue.timeout))),
    ]
}

fn balance_name(balance: Balance) -> &'static str {
    super::file::ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == balance).map_or("", |(name, _)| name)
}

fn shown(probe: &Probe) -> String {
    match probe {
        Probe::Tcp => "tcp".to_owned(),
        Probe::None => "none".to_owned(),
        Probe::Http(http) => {
            let host = http.host.as_ref().map_or_else(String::new, |host| format!(" of {host}"));
            format!("http {}{host}, {}-{}", http.path, http.status.start(), http.status.end())
        }
        Probe::Expect(expect) => {
            format!(
                "expect {:?} after {:?}",
                expect.receive.escape_ascii().to_string(),
                expect.send.escape_ascii().to_string()
            )
        }
    }
}

fn or(none: &str, value: Option<impl Display>) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

fn list(listen: &[Listen]) -> String {
    listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn number(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn will_finish(sessions: u32) -> String {
    if sessions == 0 { String::new() } else { format!(" ({} will finish)", number(sessions as usize, "session")) }
}

#[cfg(test)]
mod tests {
    use super::super::load::understand;
    use super::*;
    use std::path::Path;

    /// FirstFew sessions with every service and backend.
    struct FirstFew;

    impl Open for FirstFew {
        fn with_service(&self, _: &str) -> u32 {
            5
        }

        fn with_backend(&self, _: &str, _: &Backend) -> u32 {
            5
        }
    }

    fn config(text: &str) -> Config {
        understand(Path::new("f"), text.as_bytes()).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn between(old: &str, new: &str) -> Vec<String> {
        changes(&config(old), &config(new), &FirstFew)
    }

    #[test]
    fn nothing_is_said_where_nothing_changes() {
        let file = include_str!("../../balancer.yaml");
        assert_eq!(between(file, file), [] as [String; 0]);
        // The same in another form.
        let short = "services: { web: { listen: 127.0.0.1:80, backends: { a: 10.0.0.1:80 } } }";
        let long =
            "services: { web: { listen: [127.0.0.1:80], backends: { a: { address: 10.0.0.1:80, weight: 1 } } } }";
        assert_eq!(between(short, long), [] as [String; 0]);
    }

    #[test]
    fn every_kind_of_change_has_its_line() {
        let old = "
drain: 30s
services:
  web:
    listen: 127.0.0.1:80
    backends: { a: 10.0.0.1:80, b: 10.0.0.2:80, c: 10.0.0.3:80 }
    backups: { d: 10.0.0.4:80 }
  gone: { listen: 127.0.0.1:81, backends: { a: 10.0.0.1:81 } }
  order: { listen: 127.0.0.1:82, backends: { a: 10.0.0.1:82, b: 10.0.0.2:82 } }";
        let new = "
drain: 1m
services:
  web:
    listen: \"[::1]:80\"
    balance: least_connections
    backends: { a: { address: 10.0.0.1:80, weight: 3 }, b: 10.0.0.9:80, d: 10.0.0.4:80 }
    backups: { c: 10.0.0.3:80 }
    health: { interval: 5s, probe: { http: { path: /health } } }
    queue: { size: 10 }
  order: { listen: 127.0.0.1:82, backends: { b: 10.0.0.2:82, a: 10.0.0.1:82 } }
  new: { listen: 127.0.0.1:83, backends: { a: 10.0.0.1:83 } }";
        assert_eq!(
            between(old, new),
            [
                "drain 30s → 1m",
                "gone: removed (5 sessions will finish)",
                "web: backend b (10.0.0.2:80) removed (5 sessions will finish)",
                "web: backend a weight 1 → 3",
                "web: backend b (10.0.0.9:80) added",
                "web: backend d was a backup until now",
                "web: backup c was a backend until now; capacity 3 → 5",
                "web: listens no more on 127.0.0.1:80",
                "web: listens on [::1]:80",
                "web: balance round_robin → least_connections",
                "web: health.probe tcp → http /health, 200-399",
                "web: health.interval 2s → 5s",
                "web: queue 0 for 1s → 10 for 1s",
                "order: the order of its backends has changed",
                "new: added on 127.0.0.1:83, with 1 backend",
            ]
        );
    }

    #[test]
    fn an_order_that_changes_is_told_whatever_else_changes() {
        let of = |backends: &str, backups: &str| {
            let service = format!("listen: 127.0.0.1:80, backends: {{ {backends} }}, backups: {{ {backups} }}");
            format!("services: {{ web: {{ {service} }} }}")
        };
        let [a, b, c] = ["a: 10.0.0.1:80", "b: 10.0.0.2:80", "c: 10.0.0.3:80"];
        let [d, e] = ["d: 10.0.0.4:80", "e: 10.0.0.5:80"];
        let list = |of: &[&str]| of.join(", ");
        let (backends, backups) =
            ("web: the order of its backends has changed", "web: the order of its backups has changed");
        let from = of(&list(&[a, b]), &list(&[d, e]));
        assert_eq!(between(&from, &of(&list(&[a, b]), &list(&[e, d]))), [backups]);
        assert_eq!(between(&from, &of(&list(&[b, a]), &list(&[e, d]))), [backends, backups]);
        assert_eq!(
            between(&from, &of(&list(&[b, c, a]), &list(&[d, e]))),
            ["web: backend c (10.0.0.3:80) added; capacity 2 → 3", backends]
        );
        // Those that stay have kept theirs.
        assert_eq!(
            between(&from, &of(&list(&[c, b]), &list(&[d]))),
            [
                "web: backend a (10.0.0.1:80) removed (5 sessions will finish)",
                "web: backend c (10.0.0.3:80) added",
                "web: backup e (10.0.0.5:80) removed (5 sessions will finish)",
            ]
        );
    }

    #[test]
    fn the_guard_counts_survivors_by_name_and_address() {
        let of = |guard: &str, backends: &str| {
            config(&format!(
                "reload: {{ guard: {guard} }}\nservices: {{ web: {{ listen: 127.0.0.1:80, backends: {{ {backends} }} }} }}"
            ))
        };
        let four = "a: 10.0.0.1:80, b: 10.0.0.2:80, c: 10.0.0.3:80, d: 10.0.0.4:80";
        let losses = |guard, new| losses(&of(guard, four), &of("0%", new));
        let kept = |count| vec![format!("web would keep {count} of its 4 backends")];
        assert_eq!(losses("50%", "a: 10.0.0.1:80, b: 10.0.0.2:80"), [] as [String; 0]);
        assert_eq!(losses("51%", "a: 10.0.0.1:80, b: 10.0.0.2:80"), kept(2));
        assert_eq!(losses("50%", "a: 10.0.0.1:80, b: 10.0.0.9:80"), kept(1));
        assert_eq!(losses("100%", four), [] as [String; 0]);
        assert_eq!(losses("0%", "z: 10.0.0.9:80"), [] as [String; 0]);
        let renamed = config("services: { web2: { listen: 127.0.0.1:80, backends: { a: 10.0.0.1:80 } } }");
        assert_eq!(super::losses(&of("1%", four), &renamed), kept(0));
    }
}
