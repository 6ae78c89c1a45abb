//! The loop: what the balancer, the keyboard and the signals say, each on a thread of its own, and a frame after each.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui_crossterm::crossterm::event::{self, Event, KeyEventKind};
use ratatui_crossterm::crossterm::terminal::disable_raw_mode;
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::pipe;

use super::canvas::Look;
use super::commands::order;
use super::draw;
use super::poll::{Poll, poll};
use super::screen::{Action, Request, Screen};
use super::terminal::{RawTerminal, give_back};
use crate::cli::client::Target;

/// What may wait to be taken in: a terminal that takes nothing must not fill the memory.
const WAITING: usize = 16;

/// How long a frame that the terminal does not take holds up the end.
const LAST_FRAME: Duration = Duration::from_secs(1);

/// How long the kernel has to stop this process when it goes to the background.
const STOPPING: Duration = Duration::from_millis(200);

/// How long an answer may take before the screen says that there is none.
const SILENCE: Duration = Duration::from_secs(3);

/// Something that changes the screen.
enum Message {
    Polled(Box<Poll>),
    Failed(String),
    Input(Event),
    Answered(Request, Result<String, String>),
    /// A signal to end.
    End,
    /// The keyboard is gone.
    Broken(io::Error),
}

/// Draws until the user or a signal ends it.
pub(super) fn run(mut screen: Screen, target: Target, interval: Duration, look: Look) -> anyhow::Result<()> {
    let (sender, messages) = sync_channel(WAITING);
    watch_signals(sender.clone())?;
    let target = Arc::new(target);
    let mut ours = RawTerminal::take()?;
    let now = ask_again(Arc::clone(&target), interval, sender.clone())?;
    read_keys(sender.clone())?;
    let program = Program { target, sender, now, silence: SILENCE + interval };
    loop {
        ours.terminal().draw(|frame| {
            if let Some(cursor) = draw::draw(&mut screen, frame.buffer_mut(), look, Instant::now()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        for message in next(&messages, program.silence) {
            if !program.take_in(message, &mut screen, &mut ours)? {
                return Ok(());
            }
        }
        let waited = screen.model.answered().elapsed();
        if waited > program.silence && screen.model.trouble(Instant::now()).is_none() {
            screen.model.fail("the balancer takes long to answer".into());
        }
    }
}

/// All that has come, or nothing for a while: one frame for all of it keeps up on a slow terminal.
fn next(messages: &Receiver<Message>, patience: Duration) -> Vec<Message> {
    match messages.recv_timeout(patience) {
        Ok(first) => [first].into_iter().chain(messages.try_iter()).collect(),
        Err(RecvTimeoutError::Timeout) => Vec::new(),
        // A sender of our own keeps it open.
        Err(RecvTimeoutError::Disconnected) => vec![Message::End],
    }
}

struct Program {
    target: Arc<Target>,
    sender: SyncSender<Message>,
    /// Has the balancer asked at once.
    now: Sender<()>,
    silence: Duration,
}

impl Program {
    /// Takes in one message; `false`: it was the last.
    fn take_in(&self, message: Message, screen: &mut Screen, ours: &mut RawTerminal) -> anyhow::Result<bool> {
        match message {
            Message::Polled(poll) => screen.model.update(*poll),
            Message::Failed(why) => screen.model.fail(why),
            Message::Answered(request, answer) => {
                screen.answer(&request, answer);
                // What it has changed is worth a look.
                let _ = self.now.send(());
            }
            Message::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => match screen.key(key) {
                Action::Draw => {}
                Action::Quit => return Ok(false),
                Action::Repaint => ours.repaint()?,
                Action::Suspend => {
                    give_back();
                    kill_current_process_group(Signal::TSTP)?;
                    // The stop may come a moment later, or not at all where there is no job control. It ends with the sleep.
                    thread::sleep(STOPPING);
                    ours.resume()?;
                }
                Action::Ask(request) => {
                    screen.asked(&request);
                    self.ask(request)?;
                }
            },
            // The next frame has the new size.
            Message::Input(_) => {}
            Message::End => return Ok(false),
            Message::Broken(error) => return Err(anyhow::Error::new(error).context("cannot read the keyboard")),
        }
        Ok(true)
    }

    fn ask(&self, request: Request) -> io::Result<()> {
        let (target, sender) = (Arc::clone(&self.target), self.sender.clone());
        spawn("order", move || {
            let answer = order(&target, &request);
            let _ = sender.send(Message::Answered(request, answer));
        })
    }
}

/// Asks the balancer again and again, and whenever the result is told to.
fn ask_again(target: Arc<Target>, interval: Duration, sender: SyncSender<Message>) -> io::Result<Sender<()>> {
    let (now, orders) = channel();
    spawn("poll", move || {
        while orders.recv_timeout(interval) != Err(RecvTimeoutError::Disconnected) {
            let message = match poll(&target) {
                Ok(poll) => Message::Polled(Box::new(poll)),
                Err(error) => Message::Failed(format!("{error:#}")),
            };
            if sender.send(message).is_err() {
                return;
            }
        }
    })?;
    Ok(now)
}

fn read_keys(sender: SyncSender<Message>) -> io::Result<()> {
    spawn("keys", move || {
        loop {
            let (message, over) = match event::read() {
                Ok(event) => (Message::Input(event), false),
                Err(error) => (Message::Broken(error), true),
            };
            if sender.send(message).is_err() || over {
                return;
            }
        }
    })
}

/// Ends the program in order after a signal; if the terminal takes nothing more, without a last frame.
fn watch_signals(sender: SyncSender<Message>) -> io::Result<()> {
    let (mut heard, told) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        pipe::register(signal, told.try_clone()?)?;
    }
    spawn("signals", move || {
        // The handlers keep the other end for good.
        let _ = heard.read_exact(&mut [0]);
        let asked = Instant::now();
        while asked.elapsed() < LAST_FRAME {
            let _ = sender.try_send(Message::End);
            thread::sleep(LAST_FRAME / 10);
        }
        let _ = disable_raw_mode();
        process::exit(1);
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}
