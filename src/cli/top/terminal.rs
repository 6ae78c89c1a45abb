//! The terminal, taken and given back: after an error, a panic and a signal, too.

use std::io::{self, BufWriter, Stdout, stdout};
use std::panic;
use std::process;

use ratatui_core::layout::{Position, Rect};
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// The exit code of a program that has panicked.
const PANICKED: i32 = 101;

/// Bytes of a frame that go out in one piece.
const PIECE: usize = 64 << 10;

/// A terminal that is ours; given back when dropped.
pub(super) struct RawTerminal(Terminal<CrosstermBackend<BufWriter<Stdout>>>);

impl RawTerminal {
    /// Takes it: keys come one by one, and what stood on it comes back at the end.
    pub(super) fn take() -> io::Result<Self> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // On whatever thread: nothing more is drawn, and the message can be read.
            give_back();
            hook(info);
            process::exit(PANICKED);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(PIECE, stdout())))?;
        let mut ours = Self(terminal);
        ours.resume()?;
        Ok(ours)
    }

    /// Takes it again after [`give_back`].
    pub(super) fn resume(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        self.repaint()
    }

    /// Empties it, so that the next frame is drawn whole.
    pub(super) fn repaint(&mut self) -> io::Result<()> {
        // Not `clear`: that asks the terminal where its cursor is, and whoever reads the keys would get the answer.
        let area = Rect::from((Position::ORIGIN, self.0.size()?));
        self.0.resize(area)
    }

    /// To draw on.
    pub(super) fn terminal(&mut self) -> &mut Terminal<impl ratatui_core::backend::Backend<Error = io::Error>> {
        &mut self.0
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives it back. Where that fails there is nobody left to tell.
pub(super) fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}
