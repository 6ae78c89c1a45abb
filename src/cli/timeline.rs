//! `balancer timeline`: what happened and when, from the running balancer or, where none runs, from its file.

mod render;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jiff::{SignedDuration, Timestamp};

use super::client::Target;
use crate::admin::TimelineAnswer;
use crate::config::{self, AdminSocket, Config};
use crate::duration;
use crate::observe::timeline::{EVENTS, Event, file};

/// Show what happened and when: the incident timeline
///
/// Where no balancer runs, the file in its state directory is read, unless --socket or $BALANCER_SOCKET names the balancer. With --config
/// the balancer is asked whose file that is.
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

/// From the balancer that is meant, or from the file that it has left; never from another one's.
fn events(arguments: &Arguments, since: Timestamp) -> anyhow::Result<Vec<Event>> {
    if let Some(directory) = &arguments.state {
        return read(directory, since);
    }
    if arguments.target.named().is_some() {
        return ask(arguments, &arguments.target)?
            .map_err(|error| anyhow!("{error:#}; no file is read in its place, --state names one's directory"));
    }
    let config = configuration(arguments)?;
    let named = config.as_ref().filter(|_| arguments.config.is_named());
    let answer = match named.map(|config| &config.admin.socket) {
        Some(AdminSocket::None) => Err(anyhow!("it has no admin socket (`admin: {{ socket: none }}`)")),
        Some(AdminSocket::At(path)) => ask(arguments, &Target::at(path))?,
        Some(AdminSocket::Default) | None => ask(arguments, &arguments.target)?,
    };
    match answer {
        Ok(events) => Ok(events),
        Err(error) => {
            super::complain(&format!("{error:#}"));
            let directory = config.and_then(|config| config.state).unwrap_or_else(|| Config::STATE.into());
            let events = read(&directory, since).context("no file either; name a directory with --state")?;
            super::complain(&format!("this is what is on disk in {}", directory.display()));
            Ok(events)
        }
    }
}

/// What a balancer answers; the inner error: nobody can be asked.
fn ask(arguments: &Arguments, target: &Target) -> anyhow::Result<anyhow::Result<Vec<Event>>> {
    let path = format!("/v1/timeline?since={}&limit={EVENTS}", duration::format(arguments.since));
    match target.reach(&path) {
        Ok(answer) => answer
            .and_then(|answer| Ok(serde_json::from_slice::<TimelineAnswer>(&answer)?.events))
            .context("this timeline is of another version of balancer: use the program that is running")
            .map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

/// The configuration that is meant; `None`: nobody names one, and there is none at the default place.
fn configuration(arguments: &Arguments) -> anyhow::Result<Option<Config>> {
    let path = arguments.config.resolve();
    if !arguments.config.is_named() && !path.exists() {
        return Ok(None);
    }
    let loaded = config::load(&path);
    loaded.map(|loaded| Some(loaded.config)).map_err(|report| {
        super::complain(&report.to_string());
        anyhow!("{} does not say where the timeline is: mend it, or name a directory with --state", path.display())
    })
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
        let said = format!("{:#}", told().unwrap_err());
        assert!(said.contains("no balancer at") && said.contains("no file is read in its place"), "{said}");
        let serving = answering(&socket, &[("200 OK", "{}"), ("404 Not Found", "nothing here")]);
        for cause in ["missing field `events`", "404 Not Found"] {
            let said = format!("{:#}", told().unwrap_err());
            assert!(said.contains("use the program that is running") && said.contains(cause), "{said}");
        }
        serving.join().unwrap();
    }
}
