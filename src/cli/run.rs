//! `balancer run`: serves in the foreground until it is told to stop.

use std::process::ExitCode;

use clap::Args;

use super::{log, serve};
use crate::app::{self, Program};
use crate::observe::running::ConfigFile;

/// Balance in the foreground; logs to standard error
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: super::ConfigFile,
}

/// Exits 0 after an orderly stop.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    // To the end of the process: the last lines are written then.
    let _log = match log::start() {
        Ok(log) => log,
        Err(code) => return code,
    };
    let loaded = match arguments.config.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    loaded.warnings.lines().iter().for_each(|line| ::log::warn!("{line}"));
    let admin_socket = app::admin_socket(&loaded.config.admin);
    let source = ConfigFile::new(Some(loaded.path), Some(loaded.sha256));
    serve(Program { config: loaded.config, source, admin_socket, announce_sessions: false })
}
