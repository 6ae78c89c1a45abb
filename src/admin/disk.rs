//! Whether the configuration file is still what runs. It is looked at on a thread of its own, because a disk can hang.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use crate::observe::regular_file;
use crate::observe::running::ConfigFile;

/// Who asks waits no longer for the disk: what is asked is the status of the process.
const PATIENCE: Duration = Duration::from_millis(250);

/// A file is compared up to here; no configuration is longer.
const LONGEST_FILE: u64 = 8 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    /// Held by the thread that looks: where one hangs, it remains the only one.
    looking: Arc<Mutex<()>>,
}

impl Disk {
    /// `same`, `changed` or `missing`; `None` where there is no file, or where it cannot be read now.
    pub(super) async fn compare(&self, file: &ConfigFile) -> Option<&'static str> {
        let path = file.path.clone()?;
        let look = async {
            let alone = Arc::clone(&self.looking).lock_owned().await;
            let (done, looked) = oneshot::channel();
            let body = move || {
                let sha256 = sha256_of(&path);
                drop(alone);
                let _ = done.send(sha256);
            };
            thread::Builder::new().name("on-disk".to_owned()).spawn(body).ok()?;
            looked.await.ok()
        };
        match timeout(PATIENCE, look).await.ok()?? {
            Ok(sha256) if Some(sha256) == file.sha256 => Some("same"),
            Ok(_) => Some("changed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("missing"),
            Err(_) => None,
        }
    }
}

fn sha256_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut text = Vec::new();
    regular_file::open(path, File::options().read(true))?.take(LONGEST_FILE).read_to_end(&mut text)?;
    Ok(Sha256::digest(&text).into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_changed_or_removed_file_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balancer.yaml");
        let disk = Disk::default();
        fs::write(&path, "services: {}").unwrap();
        let mut file = ConfigFile::new(Some(path.clone()), Some(Sha256::digest("services: {}").into()));
        assert_eq!(disk.compare(&file).await, Some("same"));
        fs::write(&path, "services: {a: b}").unwrap();
        assert_eq!(disk.compare(&file).await, Some("changed"));
        fs::remove_file(&path).unwrap();
        assert_eq!(disk.compare(&file).await, Some("missing"));
        fs::create_dir(&path).unwrap();
        assert_eq!(disk.compare(&file).await, None, "what is no file cannot be compared");
        file.path = None;
        assert_eq!(disk.compare(&file).await, None);
    }
}
