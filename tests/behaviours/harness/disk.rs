//! A disk that is soon full: a file system in memory. Needs root.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Command;

use super::run;

/// A file system of a few pages, gone when this is dropped.
pub(crate) struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Makes the directory `place` and mounts a file system of so many bytes there.
    pub(crate) fn mount(place: PathBuf, bytes: usize) -> Self {
        Self::of("tmpfs", &format!("size={bytes}"), place)
    }

    /// Makes the directory `place` and mounts a file system there that knows no fallocate(2), as NFSv3 and 9p do not.
    pub(crate) fn without_fallocate(place: PathBuf) -> Self {
        Self::of("ramfs", "mode=755", place)
    }

    fn of(kind: &str, options: &str, place: PathBuf) -> Self {
        fs::create_dir(&place).expect("a directory to mount on");
        let arguments = ["-t", kind, "-o", options, "balancer-test"].map(OsStr::new);
        run("mount", &[&arguments[..], &[place.as_os_str()]].concat());
        Self { place }
    }

    /// A file there.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Takes all the room that is left, until the file that is named is removed.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.file("filler");
        let mut file = File::create(&path).expect("a file that takes the room");
        loop {
            match file.write(&[0; 4096]) {
                Ok(1..) => {}
                Ok(0) => panic!("nothing is written, and nothing is wrong"),
                Err(error) if error.kind() == ErrorKind::StorageFull => return path,
                Err(error) => panic!("filling the disk: {error}"),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the program under test may still have a file open there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).output();
    }
}
