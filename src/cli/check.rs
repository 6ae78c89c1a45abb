//! `balancer check`: reads and validates the configuration as `run` would, and binds nothing.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, complain, count, say};
use crate::config::{Listen, Loaded};
use crate::sys::address::{self, AddressUnavailable};

/// Validate the configuration: print every error in it, change nothing
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Exits 0 when the file is valid, also with warnings, 1 when not.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.config.load() {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                complain(&loaded.warnings.to_string());
            }
            not_here(&loaded).iter().for_each(|warning| complain(&format!("warning: {warning}")));
            say(&summary(&loaded));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// Addresses that `run` could not listen on here and now. The file may be for another machine.
fn not_here(loaded: &Loaded) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in loaded.config.services.iter().filter(|service| !service.freebind) {
        for listen in &service.listen {
            // A tentative one is waited for.
            if let Listen::Tcp(address) = listen
                && let Some(absence @ (AddressUnavailable::Missing | AddressUnavailable::Duplicate)) =
                    address::absence(*address)
            {
                let remedy = address::remedy(Some(absence), *address, true);
                warnings.push(format!("service {}: {address} could not be listened on here: {remedy}", service.name));
            }
        }
    }
    warnings
}

/// One line of what the file holds.
fn summary(loaded: &Loaded) -> String {
    let services = &loaded.config.services;
    let backends: usize = services.iter().map(|service| service.backends.len()).sum();
    let mut parts = vec![count(services.len() as u64, "service"), count(backends as u64, "backend")];
    if !loaded.warnings.is_empty() {
        parts.push(count(loaded.warnings.len() as u64, "warning"));
    }
    format!("{}: ok: {}", loaded.path.display(), parts.join(", "))
}
