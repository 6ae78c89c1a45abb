//! What the Debian package ships: the unit and its restrictions, the configuration, the scripts, pages and completions.
//!
//! covers: Cargo.toml, packaging, src/cli/completions, src/cli/man

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BALANCER: &str = env!("CARGO_BIN_EXE_balancer");

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(packaging(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs a program to its end; a missing one is a failure.
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; scripts/test.sh installs what the tests need"))
}

/// All that it has said.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn the_unit_is_right_and_its_exposure_is_at_most_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("balancer.service");
    // The program is not installed here.
    std::fs::write(&unit, read("balancer.service").replace("/usr/bin/balancer", BALANCER)).expect("writing the unit");
    let unit = unit.to_str().expect("UTF-8");
    let output = run("systemd-analyze", &["verify", "--man=no", unit]);
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    let socket = directory.path().join("balancer.socket");
    std::fs::write(&socket, read("balancer.socket")).expect("writing the unit");
    let output = run("systemd-analyze", &["verify", "--man=no", socket.to_str().expect("UTF-8"), unit]);
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));

    let report = said(&run("systemd-analyze", &["security", "--offline=true", "--no-pager", unit]));
    let line = report.lines().find(|line| line.contains("Overall exposure level")).expect("an exposure");
    let exposure: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");
    assert!(exposure <= 2.0, "{report}");
    eprintln!("{line}");
}

#[test]
fn the_unit_lets_the_program_do_all_that_it_does() {
    let unit = read("balancer.service");
    for line in ["Type=notify", "NotifyAccess=main", "User=balancer", "AmbientCapabilities=CAP_NET_BIND_SERVICE"] {
        assert!(unit.lines().any(|own| own == line), "no {line}");
    }
    let filters: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    // The system calls of a set, and of the sets in it.
    let members = |set: &str| {
        let text = said(&run("systemd-analyze", &["syscall-filter", "--no-pager", set]));
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.starts_with('#')).collect::<Vec<_>>()
    };
    let mut allowed = std::collections::BTreeSet::new();
    for filter in filters {
        let (names, forbids) = filter.strip_prefix('~').map_or((filter, false), |names| (names, true));
        let mut todo: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        while let Some(name) = todo.pop() {
            if name.starts_with('@') {
                todo.extend(members(&name).into_iter().skip(1));
            } else if forbids {
                allowed.remove(&name);
            } else {
                allowed.insert(name);
            }
        }
    }
    let needed = [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "splice",
        "pipe2",
        "fcntl",
        "accept4",
        "connect",
        "shutdown",
        "getsockopt",
        "setsockopt",
        "sendmsg",
        "recvmsg",
        "eventfd2",
        "epoll_wait",
        "execve",
        "clone3",
        "sched_setaffinity",
        "prlimit64",
        "mmap",
        "socketpair",
        "unlink",
        "chmod",
        "fchmod",
        "getrandom",
        "openat",
        "statx",
    ];
    for call in needed {
        assert!(allowed.contains(call), "{call} is not allowed: {allowed:?}");
    }
    for call in ["ptrace", "mount", "reboot", "init_module", "bpf", "setuid", "chroot"] {
        assert!(!allowed.contains(call), "{call} is allowed");
    }
}

#[test]
fn the_configuration_that_is_installed_is_valid_and_so_are_the_scripts() {
    let output = run(BALANCER, &["check", "--config", packaging("balancer.yaml").to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", said(&output));
    for script in ["postinst", "prerm", "postrm"] {
        let output = run("sh", &["-n", packaging("debian").join(script).to_str().expect("UTF-8")]);
        assert!(output.status.success(), "{script}: {}", said(&output));
    }
}

#[test]
fn every_kernel_setting_exists_and_says_why() {
    let text = read("sysctl.conf");
    let mut settings = 0;
    for block in text.split("\n\n").filter(|block| block.lines().any(|line| line.contains(" = "))) {
        let lines: Vec<_> = block.lines().collect();
        let (last, reasons) = lines.split_last().expect("a setting");
        let (name, value) = last.split_once(" = ").unwrap_or_else(|| panic!("{last} is no setting"));
        assert!(!value.trim().is_empty() && reasons.iter().all(|line| line.starts_with("# ")), "{block}");
        assert!(!reasons.is_empty(), "{name} has no reason");
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        assert!(Path::new(&path).exists(), "there is no {path}");
        settings += 1;
    }
    assert!(settings >= 6, "{settings}");
}

#[test]
fn connections_to_backends_leave_the_ports_of_the_configurations_alone() {
    let settings = read("sysctl.conf");
    let range =
        settings.lines().find_map(|line| line.strip_prefix("net.ipv4.ip_local_port_range = ")).expect("a range");
    let (first, last) = range.split_once(' ').expect("two ports");
    let range = first.parse::<u16>().expect("a port")..=last.parse().expect("a port");
    let mut listens = 0;
    for file in ["balancer.yaml", "../balancer.yaml"] {
        let text = read(file);
        for line in text.lines().filter(|line| line.contains("listen: ") || line.contains("http: 127")) {
            let address = line.split('#').find(|part| part.contains(':')).expect("an address").trim();
            let port = address.rsplit(':').next().and_then(|port| port.trim().parse::<u16>().ok());
            let port = port.unwrap_or_else(|| panic!("{file}: no port in {line}"));
            assert!(!range.contains(&port), "{file}: {port} may be taken by a connection, {range:?}");
            listens += 1;
        }
    }
    assert!(listens >= 4, "{listens}");
}

#[test]
fn shells_understand_the_completions() {
    let directory = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(BALANCER, &["completions", shell]);
        assert!(output.status.success(), "{}", said(&output));
        let text = said(&output);
        for command in ["run", "check", "demo", "status", "top", "reload", "upgrade"] {
            assert!(text.contains(command), "{shell}: no {command}");
        }
        let file = directory.path().join(shell);
        std::fs::write(&file, text).expect("writing");
        // Not every machine has all three.
        match Command::new(shell).arg("-n").arg(&file).stdin(Stdio::null()).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", said(&output)),
            Err(error) => assert!(shell != "bash", "{shell}: {error}"),
        }
    }
    // The one shell that every machine of ours has says what it completes.
    let script = format!(
        "set -e; . {}; COMP_WORDS=(balancer up); COMP_CWORD=1; _balancer balancer up balancer; echo \"${{COMPREPLY[@]}}\"",
        directory.path().join("bash").display()
    );
    let output = run("bash", &["-c", &script]);
    assert_eq!(said(&output).trim(), "upgrade");
    for shell in ["tcsh", "powershell"] {
        assert_eq!(run(BALANCER, &["completions", shell]).status.code(), Some(2), "{shell}");
    }
}

#[test]
fn the_manual_pages_are_clean_and_there_is_one_for_each_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let pages = directory.path().join("man");
    let output = run(BALANCER, &["man", "--output", pages.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", said(&output));
    let help = said(&run(BALANCER, &["--help"]));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> = commands
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    for page in names.iter().map(|name| format!("balancer-{name}.1")).chain(["balancer.1".to_owned()]) {
        let page = pages.join(page);
        let output = run("groff", &["-man", "-ww", "-Tutf8", "-P-cbu", page.to_str().expect("UTF-8")]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {}", page.display(), said(&output));
        assert!(said(&output).contains("SYNOPSIS"), "{}", page.display());
    }
    let output = run(BALANCER, &["man"]);
    for words in [".TH balancer 1", ".SH ENVIRONMENT", "BALANCER_SOCKET", ".SH FILES", ".SH SIGNALS", "SIGUSR2"] {
        assert!(said(&output).contains(words), "no {words}: {}", said(&output));
    }
    assert_eq!(std::fs::read(pages.join("balancer.1")).expect("balancer.1"), output.stdout, "the page that is written");
}
