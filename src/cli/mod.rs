//! The command line: one file a subcommand, each with its arguments and a `run`.

mod check;
mod client;
mod completions;
mod demo;
mod drain;
mod drill;
mod log;
mod man;
mod monitoring_check;
mod reload;
mod run;
mod status;
mod timeline;
mod top;
mod upgrade;
mod whatif;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::app::{self, Program};
use crate::config::{self, Loaded};
use crate::duration;
use crate::observe::stderr;
use crate::visible;

/// The place of the configuration where neither `--config` nor `BALANCER_CONFIG` names one.
const DEFAULT_CONFIG: &str = "/etc/balancer/balancer.yaml";

/// A layer-4 TCP load balancer on Linux io_uring
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Demo(demo::Arguments),
    Status(status::Arguments),
    Drain(drain::Arguments),
    Restore(drain::Restore),
    Forget(drain::Forget),
    Whatif(whatif::Arguments),
    Drill(drill::Arguments),
    Timeline(timeline::Arguments),
    Top(top::Arguments),
    Reload(reload::Arguments),
    Upgrade(upgrade::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Does what the arguments of this process ask for. Wrong usage ends the process with 2.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Status(arguments) => status::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Drain(arguments) => drain::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Restore(arguments) => drain::restore(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Forget(arguments) => drain::forget(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Whatif(arguments) => whatif::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Drill(arguments) => drill::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Timeline(arguments) => timeline::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Top(arguments) => top::run(arguments).unwrap_or_else(|error| failed(&error)),
        Command::Reload(arguments) => reload::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Upgrade(arguments) => upgrade::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Completions(arguments) => completions::run(&arguments).unwrap_or_else(|error| failed(&error)),
        Command::Man(arguments) => man::run(&arguments).unwrap_or_else(|error| failed(&error)),
    }
}

/// The whole command line, to make other things from.
fn command() -> clap::Command {
    Cli::command()
}

/// Runs a program until it ends, and says why it did where that was not asked for.
fn serve(program: Program) -> ExitCode {
    match app::run(program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

/// The last line on standard error: why, and what to do.
fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    complain(&format!("error: {error:#}"));
    ExitCode::FAILURE
}

/// Says something on standard error, in its place among the lines of the log where there is one.
fn complain(text: &str) {
    stderr::say(format!("{}\n", visible::lines(text)).as_bytes());
}

/// Prints a document; a reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// Standard output takes no more.
fn print(document: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match out.write_all(document).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Says how an order goes or what was found: that holds whoever reads it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Whether this process was asked to end (Ctrl-C, SIGTERM) since now.
///
/// # Errors
/// No handler can be had.
fn interrupted() -> io::Result<impl Fn() -> bool> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(move || asked.load(Ordering::Relaxed))
}

/// A number of things, in words that fit it.
fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A number in the first of these units, each `step` times the one before, that leaves it below a step: with tenths below 100, but
/// for the first unit.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What is less than a half below a step would be rounded to one.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$}{}", units[unit])
}

/// A `SERVICE/BACKEND`; what else it might be is for the balancer to say.
fn backend(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((service, backend)) if !service.is_empty() && !backend.is_empty() => Ok(text.to_owned()),
        _ => Err("SERVICE/BACKEND is due, such as web/web-02".into()),
    }
}

/// A duration, handed on as it is written.
fn time(text: &str) -> Result<String, String> {
    duration::parse(text).map(|_| text.to_owned())
}

/// The argument that names the configuration.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration; by default $BALANCER_CONFIG, then /etc/balancer/balancer.yaml
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
    // Other programs take the file without an option: an error says how it is done here. Nothing offers this one.
    #[arg(hide = true, value_name = "FILE", value_hint = ValueHint::Other, value_parser = misplaced)]
    misplaced: Option<Infallible>,
}

fn misplaced(file: &str) -> Result<Infallible, String> {
    Err(format!("write --config {file}"))
}

impl ConfigFile {
    /// Reads and validates the file; when it is wrong, says so on standard error, all errors first and what to do last.
    fn load(&self) -> Result<Loaded, ExitCode> {
        let path = self.resolve();
        config::load(&path).map_err(|report| {
            complain(&format!("{report}\nerror: {}", report.conclusion_at_start()));
            ExitCode::FAILURE
        })
    }

    /// Whether a person names a file: by the option, or by the environment.
    fn is_named(&self) -> bool {
        self.named().is_some()
    }

    fn named(&self) -> Option<PathBuf> {
        let variable = std::env::var_os("BALANCER_CONFIG").filter(|path| !path.is_empty());
        self.path.clone().or_else(|| variable.map(PathBuf::from))
    }

    fn resolve(&self) -> PathBuf {
        self.named().unwrap_or_else(|| DEFAULT_CONFIG.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_would_be_rounded_to_a_step_has_the_next_unit() {
        let thousands = |value| scaled(value, 1000.0, &["", "K", "M", "G"]);
        assert_eq!([0.0, 999.4, 999.5, 1000.0].map(thousands), ["0", "999", "1.0K", "1.0K"]);
        assert_eq!(
            [999_499.0, 999_700.0, 999_499_999.0, 999_700_000.0].map(thousands),
            ["999K", "1.0M", "999M", "1.0G"]
        );
        assert_eq!([99_940.0, 99_960.0, 5e12].map(thousands), ["99.9K", "100K", "5000G"]);
        assert_eq!([1023.4, 1023.6].map(|value| scaled(value, 1024.0, &[" B", " KiB"])), ["1023 B", "1.0 KiB"]);
    }
}
