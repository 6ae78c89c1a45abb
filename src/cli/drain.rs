//! `balancer drain`, `restore` and `forget`: taking a backend out for a limited time, and what goes with it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::client::Target;
use super::say;
use crate::admin::{BackendRequest, DrainRequest, Said};

/// The answer comes when the disk has it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Take a backend out for a limited time: new sessions go elsewhere, open ones finish; it comes back by itself
///
/// At the end it is probed, and serves again as soon as it passes; if it fails it is down. Again for the same backend: a new time.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whom
    #[arg(value_name = "SERVICE/BACKEND", value_parser = super::backend)]
    backend: String,
    /// For how long, such as 30m or 1h30m
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = super::time)]
    length: String,
    /// Why: it stands in the log, in the status and in the timeline
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Close sessions that are still open after this time
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    close_after: Option<String>,
    /// Close them one by one over this time, so that their clients do not all come back at once
    #[arg(long, value_name = "TIME", requires = "close_after", value_parser = super::time)]
    spread: Option<String>,
    /// Also where it is the last one that can serve, or reload.guard wants more kept
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// Bring a backend back now that is drained
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// Whom
    #[arg(value_name = "SERVICE/BACKEND", value_parser = super::backend)]
    backend: String,
    #[command(flatten)]
    target: Target,
}

/// Stop watching a backend that a reload removed
#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    /// Whom
    #[arg(value_name = "SERVICE/BACKEND", value_parser = super::backend)]
    backend: String,
    #[command(flatten)]
    target: Target,
}

/// Says what was done and exits 0, or why nothing was and exits 1.
///
/// # Errors
/// Where the balancer cannot be reached, or refuses: why, and what to do.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { backend, length, reason, close_after, spread, force, target } = arguments;
    let request = DrainRequest {
        backend: backend.clone(),
        length: length.clone(),
        reason: reason.clone(),
        force: *force,
        close_after: close_after.clone(),
        spread: spread.clone(),
        abort_if_refused: None,
    };
    say(&ask(target, "/v1/drain", &request)?);
    Ok(ExitCode::SUCCESS)
}

/// As [`run`].
///
/// # Errors
/// As [`run`].
pub(super) fn restore(arguments: &Restore) -> anyhow::Result<ExitCode> {
    let request = BackendRequest { backend: arguments.backend.clone() };
    say(&ask(&arguments.target, "/v1/restore", &request)?);
    Ok(ExitCode::SUCCESS)
}

/// As [`run`].
///
/// # Errors
/// As [`run`].
pub(super) fn forget(arguments: &Forget) -> anyhow::Result<ExitCode> {
    let request = BackendRequest { backend: arguments.backend.clone() };
    say(&ask(&arguments.target, "/v1/forget", &request)?);
    Ok(ExitCode::SUCCESS)
}

/// What the balancer says to an order.
///
/// # Errors
/// Where it cannot be reached, or refuses.
pub(super) fn ask(target: &Target, path: &str, request: &impl Serialize) -> anyhow::Result<String> {
    match target.order(path, request, PATIENCE)? {
        Said { message: Some(message), .. } => Ok(message),
        Said { error, .. } => {
            bail!(error.unwrap_or_else(|| "the balancer does not say what it has done: see `balancer status`".into()))
        }
    }
}
