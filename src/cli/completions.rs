//! `balancer completions`: what a shell needs to complete the command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap_complete::{Shell, generate};

/// Print completions for a shell, to be sourced by it or put where it looks for them
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// bash, zsh or fish
    #[arg(value_parser = clap::value_parser!(Shell))]
    shell: Shell,
}

/// Prints them.
///
/// # Errors
/// Standard output takes no more; a reader that has seen enough is no error.
pub(super) fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut text = Vec::new();
    generate(arguments.shell, &mut super::command(), "balancer", &mut text);
    match io::stdout().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}
