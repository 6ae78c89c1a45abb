//! A terminal with a shell in it, as tmux emulates it: typed into, resized, and read as a person would read it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;

use super::{Kills, PATIENCE, Process, Tool, run, wait_until};

/// The shell, with a prompt that is the same for everybody.
const SHELL: &str = "exec env PS1='$ ' sh";

/// A terminal of its own; whatever runs in it is hung up on when dropped.
pub(crate) struct Terminal {
    directory: TempDir,
    _server: Kills,
}

impl Terminal {
    /// A terminal of this size.
    #[track_caller]
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let directory = tempfile::Builder::new().prefix("terminal-").tempdir().expect("a temporary directory");
        std::fs::write(
            directory.path().join("tmux.conf"),
            "set -g status off\nset -g default-terminal screen-256color\n",
        )
        .expect("writing the configuration of tmux");
        let mut server = Tool::new("tmux").0;
        server.arg("-D").arg("-u").arg("-S").arg(directory.path().join("tmux"));
        server.arg("-f").arg(directory.path().join("tmux.conf")).current_dir(directory.path());
        server.env_remove("TMUX").env_remove("NO_COLOR").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let server = Kills(server.spawn().expect("starting tmux"));
        let terminal = Self { directory, _server: server };
        wait_until("tmux listens", PATIENCE, || terminal.path("tmux").exists());
        let here = terminal.path("").display().to_string();
        terminal.tmux(&["new-session", "-d", "-c", &here, "-x", &width.to_string(), "-y", &height.to_string(), SHELL]);
        terminal.await_text("$");
        terminal
    }

    /// A file in the directory that the shell is in.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let socket = self.path("tmux");
        let first = [OsStr::new("-u"), OsStr::new("-S"), socket.as_os_str()];
        run("tmux", &first.into_iter().chain(arguments.iter().map(OsStr::new)).collect::<Vec<_>>())
    }

    /// Types a text.
    #[track_caller]
    pub(crate) fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses a key, by tmux's name for it.
    #[track_caller]
    pub(crate) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Has the shell run a command.
    #[track_caller]
    pub(crate) fn runs(&self, command: &str) {
        self.types(command);
        self.press("Enter");
    }

    /// What can be read on it now.
    #[track_caller]
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with the sequences that colour it.
    #[track_caller]
    pub(crate) fn painted(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// A variable of tmux, such as `alternate_on`.
    #[track_caller]
    pub(crate) fn says(&self, variable: &str) -> String {
        self.tmux(&["display-message", "-p", &format!("#{{{variable}}}")]).trim().to_owned()
    }

    /// Gives it another size.
    #[track_caller]
    pub(crate) fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What the shell runs in the foreground: its only child.
    #[track_caller]
    pub(crate) fn child(&self) -> Process {
        let shell = self.says("pane_pid");
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("a shell");
        Process(children.trim().parse().expect("one child"))
    }

    /// Writes to a file all that the program sends to the terminal from now on.
    #[track_caller]
    pub(crate) fn records(&self, file: &str) {
        self.tmux(&["pipe-pane", "-O", &format!("exec cat >{}", self.path(file).display())]);
        wait_until("the record begins", PATIENCE, || self.path(file).exists());
    }

    /// Waits until a text can be read: the whole screen then.
    #[track_caller]
    pub(crate) fn await_text(&self, text: &str) -> String {
        self.await_screen(text, |screen| screen.contains(text))
    }

    /// Waits until the screen is as it should be: the whole screen then.
    #[track_caller]
    pub(crate) fn await_screen(&self, what: &str, is_right: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(&format!("the terminal shows {what:?}"), PATIENCE, || {
                screen = self.screen();
                is_right(&screen)
            });
        }));
        if let Err(panic) = found {
            eprintln!("the terminal shows:\n{screen}");
            std::panic::resume_unwind(panic);
        }
        screen
    }
}
