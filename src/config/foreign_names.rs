//! What users of HAProxy and nginx write by habit, and what it is called here.

use super::sections::{BACKEND, CONNECT, FILE, HEALTH, Kind, QUEUE, SERVICE, TIMEOUTS};

/// Their key, ours, and the section that ours stands in.
const KEYS: [(&str, &str, &Kind); 37] = [
    ("frontend", "services", &FILE),
    ("nbthread", "workers", &FILE),
    ("worker_processes", "workers", &FILE),
    ("worker_connections", "max_connections", &FILE),
    ("hard_stop_after", "drain", &FILE),
    ("worker_shutdown_timeout", "drain", &FILE),
    ("stats", "admin", &FILE),
    ("bind", "listen", &SERVICE),
    ("server", "backends", &SERVICE),
    ("servers", "backends", &SERVICE),
    ("backend", "backends", &SERVICE),
    ("upstream", "backends", &SERVICE),
    ("proxy_pass", "backends", &SERVICE),
    ("backup", "backups", &SERVICE),
    ("algorithm", "balance", &SERVICE),
    ("maxconn", "max_connections", &SERVICE),
    ("max_conns", "max_connections", &BACKEND),
    ("check", "health", &SERVICE),
    ("health_check", "health", &SERVICE),
    ("tcp_check", "probe", &HEALTH),
    ("httpchk", "probe", &HEALTH),
    ("inter", "interval", &HEALTH),
    ("max_fails", "passive", &HEALTH),
    ("fail_timeout", "interval", &HEALTH),
    ("observe", "passive", &HEALTH),
    ("slowstart", "slow_start", &HEALTH),
    ("proxy_connect_timeout", "timeout", &CONNECT),
    ("timeout_connect", "timeout", &CONNECT),
    ("retries", "attempts", &CONNECT),
    ("redispatch", "attempts", &CONNECT),
    ("proxy_next_upstream", "attempts", &CONNECT),
    ("proxy_timeout", "idle", &TIMEOUTS),
    ("timeout_client", "idle", &TIMEOUTS),
    ("timeout_server", "idle", &TIMEOUTS),
    ("client", "idle", &TIMEOUTS),
    ("server", "idle", &TIMEOUTS),
    ("timeout_queue", "timeout", &QUEUE),
];

/// Their ways to balance, and ours.
const ALGORITHMS: [(&str, &str); 7] = [
    ("static_rr", "round_robin"),
    ("leastconn", "least_connections"),
    ("least_conn", "least_connections"),
    ("random", "random_two"),
    ("source", "source_hash"),
    ("hash", "source_hash"),
    ("ip_hash", "source_hash"),
];

/// What a key is called here, and the section that it stands in: `kind` where it has it.
pub(super) fn key(theirs: &str, kind: &Kind) -> Option<(&'static str, &'static Kind)> {
    let theirs = plain(theirs);
    let meant = || KEYS.iter().filter(|(name, ..)| *name == theirs).map(|(_, ours, home)| (*ours, *home));
    meant().find(|(ours, _)| kind.has(ours)).or_else(|| meant().next())
}

/// What a way to balance is called here; any other word as it is.
pub(super) fn algorithm(word: &str) -> &str {
    let theirs = plain(word);
    ALGORITHMS.iter().find(|(name, _)| *name == theirs).map_or(word, |(_, ours)| ours)
}

/// HAProxy writes some words with `-`.
fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_what_there_is() {
        for (theirs, ours, home) in KEYS {
            assert!(home.has(ours) && !home.has(theirs), "{theirs}");
            assert_eq!(key(theirs, home).map(|(ours, _)| ours), Some(ours), "{theirs}");
        }
        for (theirs, ours) in ALGORITHMS {
            assert!(super::super::file::ALGORITHMS.iter().any(|(name, _)| *name == ours), "{theirs}");
        }
    }
}
