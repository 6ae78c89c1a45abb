//! `balancer top`: the live view in a terminal.

mod canvas;
mod commands;
mod details;
mod dialog;
mod draw;
mod events;
mod form;
mod format;
mod live;
mod model;
mod poll;
mod rows;
mod screen;
mod table;
mod terminal;
#[cfg(test)]
mod tests;

use std::env;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use self::canvas::Look;
use self::model::Model;
use self::poll::poll;
use self::screen::Screen;
use super::client::Target;
use crate::duration;

/// How often the balancer may be asked.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

/// The size of what `--once` prints, where nothing tells a width.
const WIDTH: u16 = 80;
const LEAST_HEIGHT: u16 = 24;

/// Watch services and backends live in a terminal, drain and restore backends: `?` there lists the keys
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How often to ask the balancer
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one frame as plain text, with rates over one interval, and exit
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    target: Target,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    if (SHORTEST..=LONGEST).contains(&interval) { Ok(interval) } else { Err("100ms to 1h".into()) }
}

/// Shows the balancer until the user has seen enough.
///
/// # Errors
/// There is no terminal, or nobody answers from the start: why, and what to do.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { interval, once, target } = arguments;
    if once {
        return print_once(&target, interval);
    }
    if !io::stdout().is_terminal() {
        anyhow::bail!(
            "standard output is not a terminal: `balancer top --once` prints a frame, `balancer status` a table"
        );
    }
    if env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        anyhow::bail!("the terminal can only print lines (TERM is not set, or dumb): try `balancer top --once`");
    }
    // A wrong socket is told at once, and not on a screen that goes away.
    let screen = Screen::new(Model::new(poll(&target)?));
    live::run(screen, target, interval, look())?;
    Ok(ExitCode::SUCCESS)
}

/// Colours but for those who do not want them (<https://no-color.org>), Unicode where the locale has it.
fn look() -> Look {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
    // The console's own font has no diagrams.
    let console = set("TERM").is_some_and(|term| term == "linux");
    let unicode = (locale.contains("utf-8") || locale.contains("utf8")) && !console;
    Look { colours: set("NO_COLOR").is_none(), unicode }
}

/// One frame with every row in it.
fn print_once(target: &Target, interval: Duration) -> anyhow::Result<ExitCode> {
    let mut model = Model::new(poll(target)?);
    std::thread::sleep(interval);
    model.update(poll(target)?);
    let screen = Screen::new(model);
    let width = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH);
    let rows = u16::try_from(screen.rows().0.len()).unwrap_or(u16::MAX);
    // What stands above the list has its place in the least height.
    let height = rows.saturating_add(LEAST_HEIGHT).saturating_add(events::lines(&screen.model, width));
    let mut buffer = Buffer::empty(Rect { width, height, ..Rect::ZERO });
    draw::sheet(&screen, &mut buffer, Look { colours: false, ..look() });
    let mut text = String::new();
    for line in buffer.content.chunks(usize::from(width.max(1))) {
        let line: String = line.iter().map(ratatui_core::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let text = format!("{}\n", text.trim_end());
    super::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
