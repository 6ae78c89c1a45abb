//! The log: standard error, one line an event, with the syslog priority where that is the journal.

use std::io::{self, Write};
use std::process::ExitCode;

use env_logger::Builder;
use jiff::Timestamp;
use log::Level;

use crate::observe::stderr::{self, Started};
use crate::visible;

/// The variable that says what is logged.
const VARIABLE: &str = "BALANCER_LOG";

/// Starts logging as `BALANCER_LOG` says; by default everything from `info` on. Nobody who logs ever waits for who reads it.
/// Dropping what it answers writes the last lines, unless that hangs.
///
/// # Errors
/// There is no thread: that was said.
pub(super) fn start() -> Result<Started, ExitCode> {
    let filter = std::env::var_os(VARIABLE).unwrap_or_default().to_string_lossy().into_owned();
    let filter = if filter.trim().is_empty() { "info" } else { filter.as_str() };
    let journal = is_journal();
    let format = move |level, text: &str| if journal { journal_line(level, text) } else { line(level, text) };
    let missing = move |lines| format(Level::Warn, &missing(lines)).into_bytes();
    let started =
        stderr::start(missing).map_err(|error| super::failed(&format!("cannot start the log's thread: {error}")))?;
    Builder::new()
        .parse_filters(filter)
        .target(env_logger::Target::Pipe(Box::new(Queue)))
        .format(move |out, record| out.write_all(format(record.level(), &record.args().to_string()).as_bytes()))
        .init();
    // The standard library's hook writes to standard error itself, and waits for it.
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        let text = format!("thread `{}` {panic}{backtrace}", thread.name().unwrap_or("unnamed"));
        stderr::say(format(Level::Error, &text).as_bytes());
    }));
    Ok(started)
}

/// Where `env_logger` writes.
struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr::say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard error goes to the journal, which keeps the time itself: systemd.exec(5).
fn is_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// A line as a terminal or a file gets it.
fn line(level: Level, text: &str) -> String {
    // Several lines are one event: those behind the first are indented.
    format!("[{:.0} {level:<5}] {}\n", Timestamp::now(), visible::lines(text).replace('\n', "\n    "))
}

/// A line as the journal gets it, with the priority of syslog(3), as sd-daemon(3) takes it.
fn journal_line(level: Level, text: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let text = visible::lines(text).replace('\n', &format!("\n<{priority}>    "));
    format!("<{priority}>{text}\n")
}

fn missing(lines: u64) -> String {
    format!("{lines} lines of the log are missing here: standard error was not read, or could not be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_several_lines_is_seen_to_be_one_event_and_moves_no_cursor() {
        let text = line(Level::Warn, "a\u{1b}[2J\nb");
        assert!(text.ends_with("Z WARN ] a<U+001B>[2J\n    b\n") && text.starts_with('['), "{text}");
        assert_eq!(journal_line(Level::Error, "a\nb"), "<3>a\n<3>    b\n");
    }
}
