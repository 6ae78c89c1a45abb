//! `balancer completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::aot;

/// Print completions for a shell, to be sourced by it or put where it looks for them
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose completions
    shell: Shell,
}

/// The shells that the package brings completions for; clap knows more, which nobody here has tried.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints them.
///
/// # Errors
/// Standard output takes no more; a reader that has seen enough is no error.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    let shell = match arguments.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    aot::generate(shell, &mut super::command(), "balancer", &mut text);
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
