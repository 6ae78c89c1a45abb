//! The timeline's file: a preallocated ring of fixed records, each with a number and a checksum. A record that was cut short by
//! a crash is known by its checksum and passed over; a full disk takes nothing from what is allocated already.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{EVENTS, Event};
use crate::observe::regular_file;

/// The file's name in the state directory.
pub const NAME: &str = "timeline";
/// Bytes of one record.
const RECORD: usize = 1024;
/// What each record begins with: the format's name and version.
const MAGIC: [u8; 4] = *b"BTL1";
/// Magic, number, length, checksum.
const HEAD: usize = 4 + 8 + 2 + 8;
/// Bytes of the whole file.
const SIZE: u64 = (RECORD * EVENTS) as u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    /// The number of the next record.
    next: u64,
}

impl Ring {
    /// Opens the file of a state directory, made if it is missing, with all its blocks allocated.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(NAME);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let file = regular_file::open(&path, &mut options)?;
        Ok(Self { file, next: 0 })
    }

    /// Takes the file for this process alone, as long as the result lives; false: another one has it.
    pub(super) fn lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Allocates it, and reads what is there, oldest first. The next record follows the last one.
    pub(super) fn load(&mut self) -> io::Result<Vec<Event>> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, SIZE) {
            // NFSv3 and 9p cannot.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill()?,
            outcome => outcome?,
        }
        let records = read_all(&self.file)?;
        self.next = records.last().map_or(0, |(number, _)| number + 1);
        Ok(records.into_iter().map(|(_, event)| event).collect())
    }

    /// Takes the room by writing zeros where there is nothing yet.
    fn fill(&self) -> io::Result<()> {
        let mut place = self.file.metadata()?.len();
        while place < SIZE {
            let missing = (SIZE - place).min(RECORD as u64);
            self.file.write_all_at(&[0; RECORD][..missing as usize], place)?;
            place += missing;
        }
        Ok(())
    }

    /// Writes one event in place of the oldest.
    pub(super) fn write(&mut self, event: &Event) -> io::Result<()> {
        let place = (self.next % EVENTS as u64) * RECORD as u64;
        self.file.write_all_at(&encode(self.next, event), place)?;
        self.next += 1;
        Ok(())
    }

    /// Has the disk take what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The events in the file of a state directory, oldest first; nobody has to run for that.
///
/// # Errors
/// There is none, or it may not be read.
pub fn read(directory: &Path) -> io::Result<Vec<Event>> {
    let file = regular_file::open(&directory.join(NAME), File::options().read(true))?;
    Ok(read_all(&file)?.into_iter().map(|(_, event)| event).collect())
}

fn read_all(file: &File) -> io::Result<Vec<(u64, Event)>> {
    // One by one: freeing a block of megabytes would have the allocator keep blocks of that size from then on (M_MMAP_THRESHOLD in
    // mallopt(3)), and what sessions give back would stay resident.
    let mut record = [0; RECORD];
    let mut records = Vec::new();
    for place in 0..EVENTS {
        match file.read_exact_at(&mut record, (place * RECORD) as u64) {
            Ok(()) => records.extend(decode(&record)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    records.sort_by_key(|(number, _)| *number);
    Ok(records)
}

/// One record. A text that does not fit is shortened.
fn encode(number: u64, event: &Event) -> [u8; RECORD] {
    let mut body = serde_json::to_vec(event).unwrap_or_default();
    if body.len() > RECORD - HEAD {
        body = shortened(event);
    }
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&MAGIC);
    record[4..12].copy_from_slice(&number.to_le_bytes());
    record[12..14].copy_from_slice(&(body.len() as u16).to_le_bytes());
    record[HEAD..HEAD + body.len()].copy_from_slice(&body);
    let sum = checksum(number, &body);
    record[14..HEAD].copy_from_slice(&sum);
    record
}

/// The event with its names and its text cut until it fits.
fn shortened(event: &Event) -> Vec<u8> {
    let cut = |text: &str, keep: usize| {
        let end = (0..=keep.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
    };
    let name = |name: &Option<String>| name.as_deref().map(|name| cut(name, 64));
    let (service, backend, by) = (name(&event.service), name(&event.backend), name(&event.by));
    let mut short = Event { service, backend, by, text: event.text.clone(), ..event.clone() };
    let mut keep = RECORD;
    loop {
        let body = serde_json::to_vec(&short).unwrap_or_default();
        if body.len() <= RECORD - HEAD {
            return body;
        }
        keep = keep * 7 / 8;
        short.text = cut(&event.text, keep);
    }
}

fn decode(record: &[u8]) -> Option<(u64, Event)> {
    if record.get(..4)? != MAGIC {
        return None;
    }
    let number = u64::from_le_bytes(record.get(4..12)?.try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(record.get(12..14)?.try_into().ok()?));
    let body = record.get(HEAD..HEAD + length)?;
    if record.get(14..HEAD)? != checksum(number, body) {
        return None;
    }
    Some((number, serde_json::from_slice(body).ok()?))
}

/// The first eight bytes of the SHA-256 of number and body.
fn checksum(number: u64, body: &[u8]) -> [u8; 8] {
    let mut digest = Sha256::new();
    digest.update(number.to_le_bytes());
    digest.update(body);
    let sum = digest.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&sum[..8]);
    first
}
