//! Standard error, written by a thread of its own: who has something to say hands it over and never waits, whoever reads it or not.
//!
//! What waits to be written is bounded. Lines that find no room, or that could not be written, are dropped and counted; once lines can
//! be written again, one says how many are missing, in their place. The order of lines is kept.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::line_writer::{LineWriter, count};
use super::writer_thread::WriterThread;

/// Bytes that may wait: the lines of 20,000 backends that change their state together.
const ROOM: usize = 4 << 20;
/// Bytes that are written together: a pipe takes so many without others' in between, `PIPE_BUF` in pipe(7). A process that has handed
/// over writes to the same one.
const CHUNK: usize = 4096;
/// At the end of the process a reader who takes nothing for this long is not waited for.
const STALLED: Duration = Duration::from_secs(1);
/// At the end of the process a reader who is slow is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process's own, once it is started.
static STDERR: OnceLock<Arc<Output>> = OnceLock::new();

/// From now on all that goes through [`say`] is written by a thread. `missing` makes the line that says how many are missing.
///
/// # Errors
/// The system gives no thread.
pub fn start(missing: impl Fn(u64) -> Vec<u8> + Send + 'static) -> io::Result<Started> {
    let output = Arc::new(Output::new(ROOM));
    let writing = Arc::clone(&output);
    WriterThread::start("log", move || writing.run(Stderr, missing))?;
    Ok(Started(Arc::clone(STDERR.get_or_init(|| output))))
}

/// Says whole lines, each with its end. Never waits where it was started; else it writes them at once.
pub fn say(lines: &[u8]) {
    match STDERR.get() {
        Some(output) => output.push(lines),
        // Nobody is left to whom a failure could be told.
        None => _ = io::stderr().write_all(lines),
    }
}

/// Lines dropped so far: no room, or they could not be written.
pub fn dropped() -> u64 {
    STDERR.get().map_or(0, |output| output.dropped.load(Ordering::Relaxed))
}

/// Dropping it waits until what was said is written, or until that makes no progress.
#[derive(Debug)]
pub struct Started(Arc<Output>);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// The descriptor itself: the standard library's has a lock, which a write that hangs would hold.
#[derive(Debug)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stderr {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stderr()
    }
}

/// Nobody else writes lines to standard error while this is held: the access log may go there, too.
pub(super) fn turn() -> Option<MutexGuard<'static, ()>> {
    STDERR.get().map(|output| output.turn())
}

/// What waits to be written.
#[derive(Debug)]
struct Output {
    room: usize,
    state: Mutex<State>,
    /// There is something to write.
    more: Condvar,
    /// Something was written.
    progress: Condvar,
    dropped: AtomicU64,
    /// Held while whole lines are written.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, oldest first.
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of those.
    bytes: usize,
    /// Lines dropped behind them, for want of room.
    missing: u64,
    /// When the write that is under way began.
    writing: Option<Instant>,
}

impl Output {
    fn new(room: usize) -> Self {
        Self {
            room,
            state: Mutex::default(),
            more: Condvar::new(),
            progress: Condvar::new(),
            dropped: AtomicU64::new(0),
            turn: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        let is_full = !state.waiting.is_empty() && state.bytes + lines.len() > self.room;
        // Behind the first line that is missing they all are, until that can be said in its place.
        if is_full || state.missing > 0 {
            state.missing += count(lines);
            self.dropped.fetch_add(count(lines), Ordering::Relaxed);
            return;
        }
        state.bytes += lines.len();
        match state.waiting.back_mut().filter(|last| last.len() + lines.len() <= CHUNK) {
            Some(last) => last.extend_from_slice(lines),
            None => state.waiting.push_back(lines.to_vec()),
        }
        drop(state);
        self.more.notify_one();
    }

    /// The next lines, and how many are missing behind them; waits for them.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut state = self.state();
        loop {
            if let Some(lines) = state.waiting.pop_front() {
                state.bytes -= lines.len();
                state.writing = Some(Instant::now());
                let missing = if state.waiting.is_empty() { std::mem::take(&mut state.missing) } else { 0 };
                return (lines, missing);
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wrote(&self) {
        self.state().writing = None;
        self.progress.notify_all();
    }

    /// Writes for ever.
    fn run(&self, writer: impl Write + AsFd, missing_line: impl Fn(u64) -> Vec<u8>) {
        let mut writer = LineWriter::new(writer, None);
        // Lines that are missing in front of the next one.
        let mut missing = 0;
        loop {
            let (lines, missing_behind) = self.next();
            let mut write = |lines: &[u8]| {
                let _turn = self.turn();
                writer.write(lines)
            };
            if missing > 0 && write(&missing_line(missing)).is_ok() {
                missing = 0;
            }
            if let Err(lost) = write(&lines) {
                self.dropped.fetch_add(lost.lines, Ordering::Relaxed);
                missing += lost.lines;
            }
            missing += missing_behind;
            if missing_behind > 0 && write(&missing_line(missing)).is_ok() {
                missing = 0;
            }
            self.wrote();
        }
    }

    /// Waits until all is written, as long as that makes progress.
    fn finish(&self) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.writing.is_some() || !state.waiting.is_empty() {
            let now = Instant::now();
            let until = end.min(state.writing.unwrap_or(now) + STALLED);
            if now >= until {
                return;
            }
            state = self.progress.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, PipeWriter, Read};
    use std::thread;

    fn missing(lines: u64) -> Vec<u8> {
        format!("{lines} are missing\n").into_bytes()
    }

    fn started(room: usize) -> (Arc<Output>, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let output = Arc::new(Output::new(room));
        let running = Arc::clone(&output);
        // It ends with the test program.
        thread::spawn(move || running.run(writer, missing));
        (output, reader)
    }

    /// The lines of a pipe up to and with one.
    fn lines_to(reader: &mut PipeReader, last: &str) -> Vec<String> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(format!("{last}\n").as_bytes()) {
            reader.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn without_a_reader_nobody_waits_and_what_is_missing_is_said_in_its_place() {
        let (output, mut reader) = started(100 << 10);
        let begun = Instant::now();
        for number in 0..100_000 {
            output.push(format!("{number}\n").as_bytes());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits");
        let begun = Instant::now();
        output.finish();
        assert!(begun.elapsed() < PATIENCE, "the end is not held up");
        let dropped = output.dropped.load(Ordering::Relaxed);
        let lines = lines_to(&mut reader, &format!("{dropped} are missing"));
        assert_eq!(lines.len() as u64, 100_000 - dropped + 1);
        assert!(lines.iter().zip(0..).take(lines.len() - 1).all(|(line, number)| *line == number.to_string()));
        output.push(b"again\n");
        assert_eq!(lines_to(&mut reader, "again"), ["again"]);
        assert_eq!(output.dropped.load(Ordering::Relaxed), dropped);
    }

    #[test]
    fn a_quick_reader_misses_nothing_and_the_end_waits_for_the_last_line() {
        let (output, mut reader) = started(ROOM);
        let read = thread::spawn(move || lines_to(&mut reader, "last").len());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|number| output.push(format!("line {number}\n").as_bytes())));
            }
        });
        output.push(b"last\n");
        output.finish();
        assert!(output.state().waiting.is_empty());
        assert_eq!((read.join().unwrap(), output.dropped.load(Ordering::Relaxed)), (80_001, 0));
    }

    /// Takes so many bytes, then nothing, until it is told that there is room.
    struct Disk(Arc<Mutex<usize>>, PipeWriter);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.0.lock().unwrap();
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*room);
            *room -= count;
            self.1.write(&bytes[..count])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Disk {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.1.as_fd()
        }
    }

    #[test]
    fn on_a_full_disk_lines_are_counted_and_come_again_whole_where_there_is_room() {
        let (mut reader, writer) = io::pipe().unwrap();
        let room = Arc::new(Mutex::new(8));
        let output = Arc::new(Output::new(ROOM));
        let (running, disk) = (Arc::clone(&output), Disk(Arc::clone(&room), writer));
        thread::spawn(move || running.run(disk, missing));
        for (line, dropped) in [("whole\n", 0), ("cut\n", 1), ("lost\n", 2)] {
            output.push(line.as_bytes());
            output.finish();
            assert_eq!(output.dropped.load(Ordering::Relaxed), dropped);
        }
        *room.lock().unwrap() = usize::MAX;
        output.push(b"again\n");
        assert_eq!(lines_to(&mut reader, "again"), ["whole", "cu", "2 are missing", "again"]);
    }
}
