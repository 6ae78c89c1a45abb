//! Pipes whose reader hangs.

use std::io::{PipeReader, Write};
use std::os::fd::OwnedFd;

/// A pipe that takes nothing more.
pub(crate) fn full_pipe() -> (PipeReader, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut filler = vec![b'-'; size];
    filler[size - 1] = b'\n';
    writer.write_all(&filler).expect("filling the pipe");
    (reader, writer.into())
}
