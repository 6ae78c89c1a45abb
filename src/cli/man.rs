//! `balancer man`: the manual pages, made from the command line itself.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap_mangen::Man;

/// Print the manual page balancer(1), or write one for each command into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write balancer.1, balancer-run.1 and so on into this directory, which is made if missing
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

/// Prints the page, or writes all of them.
///
/// # Errors
/// A file cannot be written: which, and why.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let command = super::command().disable_help_subcommand(true);
    let Some(directory) = &arguments.output else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return match io::stdout().write_all(&page) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        };
    };
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| format!("cannot write the pages into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
