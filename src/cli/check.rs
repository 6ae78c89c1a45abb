//! `balancer check`: reads and validates the configuration as `run` would, and binds nothing.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, count, say};
use crate::config::Loaded;

/// Validate the configuration: print every error in it, change nothing
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Exits 0 when the file is valid, 1 when not.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.config.load() {
        Ok(loaded) => {
            say(&summary(&loaded));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// One line of what the file holds.
fn summary(loaded: &Loaded) -> String {
    let services = &loaded.config.services;
    let backends: usize = services.iter().map(|service| service.backends.len()).sum();
    format!(
        "{}: ok: {}, {}",
        loaded.path.display(),
        count(services.len() as u64, "service"),
        count(backends as u64, "backend")
    )
}
