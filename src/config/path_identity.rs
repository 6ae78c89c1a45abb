//! Which file a path means, however it is written: through symbolic links, bind mounts, `//`, `.` and `..`.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Two paths with the same identity name the same file, whether it is there yet or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PathIdentity {
    /// Device and inode of the nearest directory above it that can be seen.
    directory: (u64, u64),
    /// The way from there: mostly just its name.
    rest: PathBuf,
}

impl PathIdentity {
    /// What an absolute path means now.
    pub(super) fn of(path: &Path) -> Self {
        let mut above: Vec<Component<'_>> = path.components().collect();
        let mut rest: Vec<OsString> = above.pop().into_iter().map(|name| name.as_os_str().to_owned()).collect();
        loop {
            let directory = std::fs::metadata(above.iter().collect::<PathBuf>()).ok().filter(std::fs::Metadata::is_dir);
            match (directory, above.pop()) {
                (Some(found), _) => {
                    return Self { directory: (found.dev(), found.ino()), rest: rest.iter().rev().collect() };
                }
                (None, Some(name)) => rest.push(name.as_os_str().to_owned()),
                (None, None) => return Self { directory: (0, 0), rest: rest.iter().rev().collect() },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_is_what_its_directory_and_its_name_say() {
        let directory = tempfile::tempdir().unwrap();
        let at = |rest: &str| PathIdentity::of(Path::new(&format!("{}/{rest}", directory.path().display())));
        fs::create_dir(directory.path().join("real")).unwrap();
        symlink("real", directory.path().join("link")).unwrap();
        symlink("nowhere", directory.path().join("broken")).unwrap();
        for other in ["link/x", "real//x", "./link/./x", "real/../link/x"] {
            assert_eq!(at(other), at("real/x"), "{other}");
        }
        // What is not there yet lies below what is.
        assert_eq!(at("link/later/deep/x"), at("real/later/deep/x"));
        for other in ["real/y", "x", "later/x", "broken/x", "real/later/x"] {
            assert_ne!(at(other), at("real/x"), "{other}");
        }
    }
}
