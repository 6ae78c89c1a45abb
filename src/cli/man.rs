//! `balancer man`: the manual pages, made from the command line itself.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap_mangen::Man;

/// The sections of balancer(1) that the command line does not know of, in the language of man(7).
const SECTIONS: &str = r#".SH "EXIT STATUS"
0 where it was done, 1 where it failed, 2 for wrong usage; \fBbalancer status \-\-check\fR has codes of its own.
With 1, the last line on standard error says why and what to do.
.SH ENVIRONMENT
.TP
\fBBALANCER_CONFIG\fR
The configuration where \fB\-\-config\fR names none
.TP
\fBBALANCER_SOCKET\fR
The admin socket where \fB\-\-socket\fR names none
.TP
\fBBALANCER_LOG\fR
From which level on \fBrun\fR and \fBdemo\fR log: error, warn, info (the default), debug
.TP
\fBBALANCER_DISABLE\fR
Kernel features that \fBrun\fR and \fBdemo\fR must not use: names separated by commas, or all
.TP
\fBNO_COLOR\fR
No colours in \fBstatus\fR and \fBtop\fR
.SH FILES
.TP
\fI/etc/balancer/balancer.yaml\fR
The configuration
.TP
\fI/run/balancer/admin.sock\fR
The admin socket; of an ordinary user \fI$XDG_RUNTIME_DIR/balancer/admin.sock\fR
.TP
\fI/var/lib/balancer\fR
Drains, removed backends and the timeline
.SH SIGNALS
.TP
\fBSIGHUP\fR
Reload the configuration, all of it or nothing
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
Accept no more, let sessions finish for the time of \fBdrain\fR, and end; a second one ends at once
.TP
\fBSIGUSR1\fR
Open the access log anew
.TP
\fBSIGUSR2\fR
Replace the running program by the one installed now, without losing a connection
"#;

/// Print the manual page balancer(1), or write one for each command into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write balancer.1, balancer-run.1 and so on into this directory, which is made if missing
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

/// Prints the page, or writes all of them.
///
/// # Errors
/// A file cannot be written: which, and why.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let command = super::command().disable_help_subcommand(true);
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    page.extend_from_slice(SECTIONS.as_bytes());
    let Some(directory) = &arguments.output else {
        super::print(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .and_then(|()| fs::write(directory.join("balancer.1"), page))
        .with_context(|| format!("cannot write the pages into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
