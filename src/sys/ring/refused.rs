//! Why there is no ring, and what to do about it.

use std::{fs, io};

use thiserror::Error;

/// The kernel refuses a ring, or one that can do what is needed.
#[derive(Debug, Error)]
#[error("the kernel refuses io_uring: {cause}; {remedy}")]
pub struct Refused {
    cause: String,
    remedy: &'static str,
}

impl Refused {
    /// OperationKind the kernel said when it was asked for a ring, with its likely cause.
    pub fn new(error: io::Error) -> Self {
        let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        Self::explain(&error, sysctl.trim())
    }

    /// `sysctl`: what kernel.io_uring_disabled says; nothing before Linux 6.6, nor where /proc/sys is hidden (`ProcSubset=pid`).
    pub(super) fn explain(error: &io::Error, sysctl: &str) -> Self {
        let (cause, remedy) = match (error.raw_os_error(), sysctl) {
            (Some(libc::EPERM), "2") => {
                ("kernel.io_uring_disabled is 2".to_owned(), "set it to 0: sysctl kernel.io_uring_disabled=0")
            }
            (Some(libc::EPERM), "1") => (
                "kernel.io_uring_disabled is 1 and this user is not in the group kernel.io_uring_group".to_owned(),
                "set it to 0, or add the user to that group",
            ),
            (Some(libc::EPERM), "") => (
                error.to_string(),
                "kernel.io_uring_disabled is not 0 (set it: sysctl kernel.io_uring_disabled=0), or a seccomp profile forbids it (a container's, or the unit's SystemCallFilter): allow io_uring_setup, io_uring_enter and io_uring_register",
            ),
            (Some(libc::EPERM | libc::EACCES), _) => (
                error.to_string(),
                "a seccomp profile forbids it (a container's, or the unit's SystemCallFilter): allow io_uring_setup, io_uring_enter and io_uring_register",
            ),
            (Some(libc::ENOSYS), _) => (
                error.to_string(),
                "this kernel has no io_uring, or a seccomp profile hides it: Linux 5.15 or later is needed",
            ),
            (Some(libc::ENOMEM), _) => {
                (error.to_string(), "raise the limit of locked memory (ulimit -l, or LimitMEMLOCK= in the unit)")
            }
            (Some(libc::EMFILE), _) => {
                (error.to_string(), "raise the limit of descriptors (ulimit -n, or LimitNOFILE= in the unit)")
            }
            (Some(libc::ENFILE), _) => (error.to_string(), "raise fs.file-max: sysctl fs.file-max"),
            _ => (error.to_string(), "see io_uring_setup(2)"),
        };
        Self { cause, remedy }
    }

    pub(in crate::sys) fn too_old() -> Self {
        Self { cause: "it is too old".to_owned(), remedy: "Linux 5.15 or later is needed" }
    }
}
