//! The log: standard error, one line an event, with the syslog priority under systemd.

use std::io::Write as _;

use env_logger::{Builder, Env};
use jiff::Timestamp;
use log::Level;

/// Starts logging as `BALANCER_LOG` says; by default everything from `info` on.
pub(super) fn init() {
    let mut builder = Builder::from_env(Env::new().filter_or("BALANCER_LOG", "info"));
    // systemd sets JOURNAL_STREAM where standard error goes to the journal, which keeps the time itself: systemd.exec(5).
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|line, record| writeln!(line, "<{}>{}", priority(record.level()), record.args()));
    } else {
        builder
            .format(|line, record| writeln!(line, "[{:.0} {:<5}] {}", Timestamp::now(), record.level(), record.args()));
    }
    builder.init();
}

/// The priority of syslog(3), as sd-daemon(3) takes it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
