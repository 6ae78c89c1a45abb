//! `balancer upgrade`: has the running balancer hand over to the program that is installed now.

use std::process::ExitCode;
use std::time::Duration;

use super::client::Target;
use crate::admin::UpgradeAnswer;
use crate::control::UPGRADE_TAKES;

/// Longer than the running process needs in any case to know how it went.
const PATIENCE: Duration = Duration::from_secs(UPGRADE_TAKES.as_secs() + 10);

/// Replace the running program by the one installed now, without losing a connection: the same as SIGUSR2, but says how it went
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

/// Exits 0 once the new process serves, or says why the old one keeps serving and exits 1.
///
/// # Errors
/// Where the balancer cannot be reached or understood: why, and what to do.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments.target.order("/v1/upgrade", &serde_json::json!({}), PATIENCE)? {
        UpgradeAnswer { pid: Some(pid), .. } => {
            super::say(&format!("upgraded: process {pid} serves; the one before keeps its sessions until they end"));
            Ok(ExitCode::SUCCESS)
        }
        UpgradeAnswer { error, .. } => {
            anyhow::bail!("upgrade failed, the running process keeps serving: {}", error.unwrap_or_default())
        }
    }
}
