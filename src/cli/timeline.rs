//! `balancer timeline`: what happened and when, from the running balancer or, where none runs, from its file.

mod render;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use super::client::Target;
use crate::admin::TimelineAnswer;
use crate::config::{self, Config};
use crate::duration;
use crate::observe::timeline::{EVENTS, Event, file};

/// Show what happened and when: the incident timeline
///
/// Where no balancer runs, the file in its state directory is read.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How far back
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    since: Duration,
    /// One JSON document
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// A postmortem's first page
    #[arg(long)]
    markdown: bool,
    /// Read the file of this state directory; by default that of the configuration, where no balancer answers
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    config: super::ConfigFile,
    #[command(flatten)]
    target: Target,
}

/// Prints the events, oldest first.
///
/// # Errors
/// Neither a balancer nor a file can be asked: why, and what to do.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let since = SignedDuration::try_from(arguments.since)
        .ok()
        .and_then(|ago| now.checked_sub(ago).ok())
        .unwrap_or(Timestamp::MIN);
    let events = events(arguments, since)?;
    let text = if arguments.json {
        let mut text = serde_json::to_string_pretty(&TimelineAnswer { events })?;
        text.push('\n');
        text
    } else if arguments.markdown {
        render::page(&events, since, now)
    } else if events.is_empty() {
        format!("nothing has happened in the last {}\n", duration::format(arguments.since))
    } else {
        events.iter().map(|event| render::line(event) + "\n").collect()
    };
    super::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// From whom there is.
fn events(arguments: &Arguments, since: Timestamp) -> anyhow::Result<Vec<Event>> {
    if let Some(directory) = &arguments.state {
        return read(directory, since);
    }
    let path = format!("/v1/timeline?since={}&limit={EVENTS}", duration::format(arguments.since));
    match arguments.target.reach(&path) {
        Ok(answer) => answer
            .and_then(|answer| Ok(serde_json::from_slice::<TimelineAnswer>(&answer)?.events))
            .context("this timeline is of another version of balancer: use the program that is running"),
        Err(error) => {
            eprintln!("{error:#}");
            let directory = directory(arguments);
            let events = read(&directory, since).context("no file either; name a directory with --state")?;
            eprintln!("this is what the last one left in {}", directory.display());
            Ok(events)
        }
    }
}

/// Where the last balancer kept it.
fn directory(arguments: &Arguments) -> PathBuf {
    let named = arguments.config.resolve(std::env::var_os("BALANCER_CONFIG"));
    let loaded = config::load(&named).ok().and_then(|loaded| loaded.config.state);
    loaded.unwrap_or_else(|| Config::STATE.into())
}

fn read(directory: &std::path::Path, since: Timestamp) -> anyhow::Result<Vec<Event>> {
    match file::read(directory) {
        Ok(events) => Ok(events.into_iter().filter(|event| event.time >= since).collect()),
        Err(error) => bail!("cannot read {}: {error}", directory.join(file::NAME).display()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::answering;
    use super::*;

    #[test]
    fn a_balancer_that_is_not_understood_is_an_error_whatever_file_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let [socket, config] = ["admin.sock", "balancer.yaml"].map(|name| directory.path().join(name));
        std::fs::write(directory.path().join(file::NAME), []).unwrap();
        let services = "services: { web: { listen: 127.0.0.1:0, backends: { a: 127.0.0.1:1 } } }";
        std::fs::write(&config, format!("state: {}\n{services}\n", directory.path().display())).unwrap();
        let arguments = Arguments {
            since: Duration::from_secs(60),
            json: true,
            markdown: false,
            state: None,
            config: crate::cli::ConfigFile { path: Some(config), misplaced: None },
            target: Target::at(&socket),
        };
        let told = || events(&arguments, Timestamp::MIN);
        assert_eq!(told().unwrap(), [], "the file is read where nobody can be asked");
        let serving = answering(&socket, &[("200 OK", "{}"), ("404 Not Found", "nothing here")]);
        for cause in ["missing field `events`", "404 Not Found"] {
            let said = format!("{:#}", told().unwrap_err());
            assert!(said.contains("use the program that is running") && said.contains(cause), "{said}");
        }
        serving.join().unwrap();
    }
}
