//! `balancer reload`: has the running balancer read its configuration again, and says what became of it.

use std::process::ExitCode;
use std::time::Duration;

use super::client::Target;
use crate::admin::{ReloadAnswer, ReloadRequest};

/// A file on a slow disk may take a while, and others may be waiting to reload, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Read the configuration again and apply it, all of it or nothing: the same as SIGHUP, but says what changed
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Apply it also where reload.guard refuses it, because a service would lose too many of its backends
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// Prints what has changed and exits 0, or says why nothing has and exits 1.
///
/// # Errors
/// Where the balancer cannot be reached or understood: why, and what to do.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let request = ReloadRequest { force: arguments.force };
    let answer: ReloadAnswer = arguments.target.order("/v1/reload", &request, PATIENCE)?;
    match answer.error {
        None => {
            answer.warnings.iter().for_each(|line| super::complain(line));
            let mut lines = answer.changes.join("\n");
            if lines.is_empty() {
                lines.push_str("nothing has changed");
            }
            super::say(&format!("{lines}\nreloaded: generation {}", answer.generation));
            Ok(ExitCode::SUCCESS)
        }
        Some(why) => anyhow::bail!("not reloaded, nothing has changed: {why}"),
    }
}
