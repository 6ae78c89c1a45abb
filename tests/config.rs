//! What `balancer check` says about configurations: the files in `tests/config`, each with the exact output expected.
//!
//! After a change of the messages, `UPDATE_EXPECTED=1 cargo test --test config` writes the new output beside the files: read the
//! difference before you keep it.
//!
//! covers: balancer.yaml, docs/CONFIGURATION, src/config, src/duration, tests/config

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use balancer::config::{
    self, AccessLog, Balance, Config, Connect, ExpectProbe, Health, HttpProbe, Listen, Probe, Queue, Timeouts, Weight,
    WhenAllDown,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program in a directory, so that paths in its output are short and the same everywhere.
fn balancer(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("BALANCER_CONFIG")
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks every YAML file of a directory against the `.expected` file beside it.
fn compare(directory: &str, command: &str, code: i32, shown: impl Fn(&Output) -> &[u8]) -> usize {
    let directory = root().join("tests/config").join(directory);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory).expect("the corpus").map(|e| e.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let output = balancer(&directory, &[command, "--config", name]);
        let actual = String::from_utf8_lossy(shown(&output)).into_owned();
        let expected = file.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &actual).expect("written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if output.status.code() != Some(code) || actual != expected {
            wrong.push(format!("{name}: {}\n--- expected\n{expected}--- actual\n{actual}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    files.len()
}

#[test]
fn every_broken_file_is_refused_with_exactly_these_messages() {
    for command in ["check", "run"] {
        assert!(compare("broken", command, 1, |output| &output.stderr) >= 60, "{command}");
    }
}

#[test]
fn every_valid_file_is_accepted_in_one_line() {
    assert!(compare("valid", "check", 0, |output| &output.stdout) >= 5);
}

#[test]
fn every_file_that_may_mean_something_else_is_accepted_with_exactly_these_warnings() {
    assert!(compare("warned", "check", 0, |output| &output.stderr) >= 1);
    // How many there are is said where a script looks, too.
    let output = balancer(&root().join("tests/config/warned"), &["check", "--config", "escapes.yaml"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "escapes.yaml: ok: 4 services, 4 backends, 2 warnings\n");
}

#[test]
fn the_example_shows_the_defaults() {
    let example = config::load(&root().join("balancer.yaml")).expect("the example is valid");
    let minimal = config::load(&root().join("tests/config/valid/minimal.yaml")).expect("valid");
    assert_eq!(example.config, minimal.config);
    assert_eq!(balancer(root(), &["check", "--config", "balancer.yaml"]).status.code(), Some(0));
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("example.yaml");
    let mut found = 0;
    for document in ["README.md", "docs/CONFIGURATION.md", "docs/INCIDENTS.md", "docs/MIGRATING.md"] {
        let text = fs::read_to_string(root().join(document)).expect("the document");
        for example in text.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()) {
            fs::write(&file, example).expect("written");
            config::load(&file).unwrap_or_else(|report| panic!("{document}: {report}\n{example}"));
            found += 1;
        }
    }
    assert!(found >= 6, "{found}");
}

#[test]
fn every_key_means_what_it_says() {
    let loaded = config::load(&root().join("tests/config/valid/every_key.yaml")).expect("valid");
    let number = std::num::NonZeroU32::new;
    let seconds = std::time::Duration::from_secs;
    let Config { workers, drain, max_connections, admin, state, access_log, reload, services } = loaded.config;
    assert_eq!((workers, drain, max_connections), (number(4), seconds(90), number(20_000)));
    assert_eq!(admin.socket.path(), Some(Path::new("/run/balancer/admin.sock")));
    assert_eq!(admin.hosts, ["lb-1.example.com", "lb"]);
    assert_eq!(admin.http, Some(([127, 0, 0, 1], 9900).into()));
    assert_eq!(access_log, AccessLog::File("/var/log/balancer/access.log".into()));
    assert_eq!(state.as_deref(), Some(Path::new("/srv/balancer")));
    assert_eq!(reload.guard, 100);
    let [web, db, cache, mail, bare, last] = services.as_slice() else { panic!("{services:?}") };
    let v6 = "[2001:db8::1]:8080".parse().expect("an address");
    assert_eq!(
        web.listen,
        [Listen::Tcp(([0, 0, 0, 0], 8080).into()), Listen::Tcp(v6), Listen::Unix("/run/web.sock".into())]
    );
    assert_eq!((web.freebind, db.freebind), (true, false));
    assert_eq!((&*web.name, web.balance, web.max_connections), ("web", Balance::RoundRobin, number(5_000)));
    assert_eq!(web.connect, Connect { timeout: std::time::Duration::from_millis(1_500), attempts: 8 });
    assert_eq!(web.timeouts, Timeouts { idle: seconds(7_200), half_closed: seconds(10), unresponsive: seconds(5) });
    let names: Vec<&str> = web.backends.iter().map(|backend| &*backend.name).collect();
    assert_eq!(names, ["web-02", "web-01", "3"]);
    assert_eq!(web.backends[0].address, ([10, 0, 0, 12], 8080).into());
    assert_eq!((Some(web.backends[0].weight), web.backends[0].max_connections), (Weight::new(256), number(400)));
    assert_eq!((web.backends[1].weight, web.backends[1].max_connections), (Weight::ONE, None));
    assert_eq!((db.connect, db.timeouts, db.max_connections), (Connect::default(), Timeouts::default(), None));
    assert_eq!((&db.health, db.queue, db.backups.len()), (&Health::default(), Queue::default(), 0));
    assert_eq!(web.backups.iter().map(|backup| &*backup.name).collect::<Vec<_>>(), ["web-04", "web-05"]);
    assert_eq!(web.queue, Queue { size: 1_000_000, timeout: std::time::Duration::from_millis(1) });
    let http = |path: &str, host: Option<&str>, status| {
        Probe::Http(HttpProbe { path: path.to_owned(), host: host.map(str::to_owned), status })
    };
    assert_eq!(
        web.health,
        Health {
            probe: http("/health", Some("web"), 200..=299),
            port: std::num::NonZeroU16::new(9100),
            interval: seconds(5),
            timeout: seconds(5),
            rise: 1,
            fall: 100,
            passive: None,
            slow_start: seconds(3600),
            when_all_down: WhenAllDown::TryAll,
        }
    );
    let probed: Vec<String> = web.backends.iter().map(|backend| backend.probed_at(&web.health).to_string()).collect();
    assert_eq!(probed, ["10.0.1.12:9000", "10.0.0.11:9100", "[2001:db8::3]:9100"]);
    assert_eq!(db.backends[0].probed_at(&db.health), db.backends[0].address);
    let ping = ExpectProbe { send: b"PING\r\n".to_vec(), receive: b"+PONG".to_vec() };
    assert_eq!(cache.health, Health { probe: Probe::Expect(ping), passive: None, ..Health::default() });
    assert_eq!(mail.health, Health { probe: http("/", None, 204..=204), passive: Some(100), ..Health::default() });
    assert_eq!((&bare.health.probe, bare.queue), (&Probe::None, Queue::default()));
    assert_eq!((&last.health.probe, last.queue), (&http("/", None, 200..=399), Queue::default()));
    assert_eq!(
        [cache.balance, mail.balance, bare.balance, last.balance],
        [Balance::LeastConnections, Balance::SourceHash, Balance::RandomTwo, Balance::First]
    );
}

#[test]
fn a_missing_file_names_similar_files_beside_it() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["balancer.yml", "balancer.yaml.bak", "notes.txt"] {
        fs::write(directory.path().join(name), "").expect("written");
    }
    let output = balancer(directory.path(), &["check", "--config", "balancer.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "balancer.yaml: no such file; beside it are `balancer.yaml.bak`, `balancer.yml`\n\
         error: no configuration was read: name its file with --config FILE or in $BALANCER_CONFIG\n"
    );
    let output = balancer(directory.path(), &["check", "--config", "nowhere/balancer.yaml"]);
    assert!(
        stderr(&output).starts_with("nowhere/balancer.yaml: no such file; neither is there a directory `nowhere`\n")
    );
}

#[test]
fn what_is_not_a_readable_file_of_a_sensible_size_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("large.yaml"), vec![b'#'; (4 << 20) + 1]).expect("written");
    for (path, said) in [
        (".", ".: this is a directory, a file is due; in it is `large.yaml`\n"),
        ("large.yaml", "large.yaml: the file is larger than 4 MiB, which no configuration needs\n"),
        ("large.yaml/x", "large.yaml/x: the file cannot be read: Not a directory (os error 20)\n"),
    ] {
        let output = balancer(directory.path(), &["check", "--config", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(said), "{path}: {}", stderr(&output));
    }
}

#[test]
fn the_environment_names_the_file_where_no_argument_does() {
    let check = |variable: &str, arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_balancer"))
            .arg("check")
            .args(arguments)
            .current_dir(root())
            .env("BALANCER_CONFIG", variable)
            .output()
            .expect("the program starts")
    };
    assert_eq!(check("balancer.yaml", &[]).status.code(), Some(0));
    assert!(stderr(&check("missing.yaml", &[])).starts_with("missing.yaml: no such file"));
    assert_eq!(check("missing.yaml", &["--config", "balancer.yaml"]).status.code(), Some(0));
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&[][..], &["chekc"], &["check", "--confg", "x"], &["check", "--config"], &["check", "x"]] {
        let output = balancer(root(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
    for command in ["check", "run"] {
        let said = stderr(&balancer(root(), &[command, "balancer.yaml"]));
        assert!(said.contains("write --config balancer.yaml"), "{said}");
        let help = balancer(root(), &[command, "--help"]);
        assert!(!String::from_utf8_lossy(&help.stdout).contains("[FILE]"));
    }
}
