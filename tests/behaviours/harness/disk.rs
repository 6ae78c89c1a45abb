//! A disk that is soon full: a file system in memory; and one that hangs. Both need root.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Command;

use super::run;

/// A file system of a few pages, gone when this is dropped.
pub(crate) struct Disk {
    place: PathBuf,
    /// Who would answer for it, and does not.
    _device: Option<File>,
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
        Self { place, _device: None }
    }

    /// Makes the directory `place` and mounts a file system there that answers nothing until it is gone: fuse(4) without a server.
    pub(crate) fn hung(place: PathBuf) -> Self {
        fs::create_dir(&place).expect("a directory to mount on");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("the kernel has fuse");
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "balancer-test"]);
        let mount = mount.arg(&place).stdin(device.try_clone().expect("a descriptor")).status();
        assert!(mount.expect("mount").success());
        Self { place, _device: Some(device) }
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
