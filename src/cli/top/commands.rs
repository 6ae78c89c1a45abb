//! Commands to the balancer, each on a thread of its own, so that a slow answer holds up no frame.

use super::screen::Request;
use crate::admin::{BackendRequest, DrainRequest};
use crate::cli::client::Target;
use crate::cli::drain::ask;

/// Passes an order on: what was done, or why it was not.
pub(super) fn order(target: &Target, request: &Request) -> Result<String, String> {
    let of = |backend: &String| BackendRequest { backend: backend.clone() };
    let said = match request {
        Request::Drain { backend, time, reason, force } => {
            let (backend, length, reason) = (backend.clone(), time.clone(), reason.clone());
            ask(
                target,
                "/v1/drain",
                &DrainRequest { backend, length, reason, force: *force, ..DrainRequest::default() },
            )
        }
        Request::Restore(backend) => ask(target, "/v1/restore", &of(backend)),
        Request::Forget(backend) => ask(target, "/v1/forget", &of(backend)),
    };
    said.map_err(|error| format!("{error:#}"))
}
