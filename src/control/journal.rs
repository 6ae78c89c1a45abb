//! The workers' reports as log lines: one line a second for each kind that a client can cause.

use std::time::{Duration, Instant};

use super::probe::Outcome;
use crate::link::Report;
use crate::observe::counters::{Probed, Refused};
use crate::sys::Errno;

/// Lines of one kind are at least this far apart.
const PAUSE: Duration = Duration::from_secs(1);

/// When each kind of line was last written.
#[derive(Debug, Default)]
pub(super) struct Journal {
    connect_failed: Option<Instant>,
    local_fault: Option<Instant>,
    refused: Option<Instant>,
    probe_fault: Option<Instant>,
}

impl Journal {
    /// Writes that a probe failed by a fault of this machine: such a probe says nothing, and clients may wait for it.
    pub(super) fn note_probe(&mut self, outcome: &Outcome) {
        if outcome.result == Probed::LocalFault && may(&mut self.probe_fault) {
            log::warn!("cannot probe a backend: {}: this machine's own fault, no backend is blamed", outcome.detail);
        }
    }

    /// Writes a report, unless one of its kind has just been written.
    pub(super) fn note(&mut self, report: Report) {
        match report {
            Report::Opened { client, service, backend } => {
                let client = client.map_or_else(|| "a Unix socket".to_owned(), |client| client.to_string());
                log::info!("{service}: session from {client} to {backend}");
            }
            Report::ConnectFailed { service, backend, address, error } if may(&mut self.connect_failed) => {
                log::warn!("{service}: backend {backend} ({address}): {}", connect_failure(error));
            }
            Report::LocalFault { doing, error } if may(&mut self.local_fault) => {
                log::warn!(
                    "cannot {doing}: {error}: this machine's own fault, no backend is blamed; {}",
                    remedy(error)
                );
            }
            // The local fault that led to it has its own line.
            Report::Refused { reason: Refused::Descriptors, .. } => {}
            Report::Refused { service, reason } if may(&mut self.refused) => {
                log::warn!("{service}: clients are refused: {}", reason.label());
            }
            _ => {}
        }
    }
}

fn may(last: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let may = last.is_none_or(|last| now - last >= PAUSE);
    if may {
        *last = Some(now);
    }
    may
}

/// What became of a connect, in words for people.
pub(super) fn connect_failure(error: Errno) -> String {
    match error {
        Errno::CONNREFUSED => "connect refused".to_owned(),
        Errno::CANCELED | Errno::TIMEDOUT => "connect timed out".to_owned(),
        Errno::HOSTUNREACH | Errno::NETUNREACH => "unreachable".to_owned(),
        Errno::CONNRESET => "connect reset".to_owned(),
        error => format!("connect failed: {error}"),
    }
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::MFILE => "raise the limit of descriptors (LimitNOFILE= in the unit)",
        Errno::NFILE => "raise fs.file-max",
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN => {
            "widen net.ipv4.ip_local_port_range, or set net.ipv4.tcp_tw_reuse=1"
        }
        Errno::AFNOSUPPORT => "this kernel has IPv6 switched off: give the backend an IPv4 address",
        _ => "the machine is short of memory",
    }
}
