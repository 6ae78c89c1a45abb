//! `balancer check`: reads and validates the configuration as `run` would, and binds nothing.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::ConfigFile;
use crate::config::Loaded;

/// Validate the configuration: print every error in it, change nothing
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Exits 0 when `run` would accept the file, 1 when not.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.config.load() {
        // Who stops reading has learnt what they wanted: the exit code still holds.
        Ok(loaded) => {
            let _ = writeln!(std::io::stdout(), "{}", summary(&loaded));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// One line of what the file holds.
fn summary(loaded: &Loaded) -> String {
    let services = &loaded.config.services;
    let backends = services.iter().map(|service| service.backends.len()).sum();
    format!("{}: ok: {}, {}", loaded.path.display(), count(services.len(), "service"), count(backends, "backend"))
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
