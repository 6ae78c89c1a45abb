//! The load scripts, run as a user runs them.
//!
//! covers: scripts/load, scripts/packages, scripts/usage

mod oha;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use serde_json::Value;

/// Loads do not share the machine.
static TURN: Mutex<()> = Mutex::new(());

fn load(arguments: &[&str]) -> Output {
    load_where(&[], arguments)
}

/// The same in another environment.
fn load_where(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/load.sh");
    let mut command = Command::new(script);
    // scripts/test.sh has installed what is needed.
    command.args(arguments).args(["--no-install", "--binary", env!("CARGO_BIN_EXE_balancer")]);
    command.envs(environment.iter().copied()).output().expect("running scripts/load.sh")
}

/// Its results by name, after a run that must succeed.
#[track_caller]
fn results(arguments: &[&str]) -> serde_json::Map<String, Value> {
    results_where(&[], arguments)
}

#[track_caller]
fn results_where(environment: &[(&str, &str)], arguments: &[&str]) -> serde_json::Map<String, Value> {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("result.json");
    let output = load_where(environment, &[arguments, &["--json", json.to_str().unwrap()]].concat());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let rows = document["results"].as_array().expect("results").iter();
    rows.map(|row| {
        let name = row["name"].as_str().expect("a name");
        // Percentiles are columns, their rates lines.
        let said = name.split(" at ").all(|part| out.contains(part));
        assert!(said, "{name} is missing in {out}");
        (name.to_owned(), row["value"].clone())
    })
    .collect()
}

#[track_caller]
fn above_zero(results: &serde_json::Map<String, Value>, names: &[&str]) {
    for name in names {
        let value = results.get(*name).and_then(Value::as_f64);
        assert!(value > Some(0.0), "{name} in {results:?}");
    }
}

#[test]
fn each_load_runs_on_a_balancer_of_its_own_and_says_what_it_carried_and_what_that_cost() {
    let _turn = TURN.lock().unwrap();
    for (name, rate) in [("requests", "requests"), ("connections", "connections"), ("throughput", "throughput")] {
        let results = results(&[name, "--seconds", "1"]);
        above_zero(&results, &[rate, "CPU of the balancer", "CPU of the whole machine"]);
    }
    let idle = results(&["idle", "--seconds", "1", "--connections", "500", "--workers", "1"]);
    above_zero(&idle, &["memory"]);
}

#[test]
fn figures_are_the_same_where_a_comma_stands_before_decimals() {
    let _turn = TURN.lock().unwrap();
    let locales = tempfile::tempdir().unwrap();
    let german = locales.path().join("de_DE.UTF-8");
    let made = Command::new("localedef").args(["-i", "de_DE", "-f", "UTF-8"]).arg(german).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let environment = [("LOCPATH", locales.path().to_str().unwrap()), ("LC_ALL", "de_DE.UTF-8")];
    let results = results_where(&environment, &["throughput", "--seconds", "1"]);
    above_zero(&results, &["throughput", "CPU of the balancer", "CPU of the whole machine"]);
}

#[test]
fn latency_is_asked_for_at_shares_of_the_highest_rate_with_every_request_waited_for() {
    let _turn = TURN.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let programs = oha::stand_in(directory.path());
    let results = results_where(&[("PATH", &programs)], &["latency", "--seconds", "3", "--connections", "20"]);
    for (name, value) in
        [("highest rate", 2000), ("p50 at 1000/s", 100), ("p99 at 1600/s", 1200), ("p99.99 at 1900/s", 500_000)]
    {
        assert_eq!(results[name], value, "{name} in {results:?}");
    }
    oha::assert_asked(directory.path(), &[200, 1000, 1600, 1900], 3, 20);
}

#[test]
fn a_download_that_is_not_there_is_no_throughput() {
    let _turn = TURN.lock().unwrap();
    let output = load(&["throughput", "--seconds", "1", "--path", "/large/"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(1) && err.contains("404") && !out.contains("GiB/s"), "{out}{err}");
}

#[test]
fn a_soak_goes_through_requests_connections_and_downloads_and_finds_nothing_wrong() {
    let _turn = TURN.lock().unwrap();
    let results = results(&["soak", "--seconds", "6", "--connections", "10"]);
    above_zero(&results, &["requests", "connections", "downloads"]);
    assert_eq!(results["refused"], 0);
}

#[test]
fn wrong_usage_is_told_what_is_right_and_ends_with_2() {
    let address = "127.0.0.1:1";
    let cases: [(&[&str], &str); 8] = [
        (&[], "which load? There are: throughput requests"),
        (&["request"], "unknown load 'request'"),
        (&["requests", "localhost:80"], "ADDRESS is IP:PORT, not 'localhost:80'"),
        (
            &["idle", "--socket", "/run/balancer/admin.sock"],
            "--socket is that of a balancer that runs: of which ADDRESS?",
        ),
        (&["idle", "--pid", "1"], "--pid is that of a program that runs: at which ADDRESS?"),
        (&["requests", "--seconds", "0"], "--seconds needs a number above 0, not '0'"),
        (&["requests", address, address], "one load and one address"),
        (&["latency", "--rate", "fast"], "--rate needs numbers above 0, not 'fast'"),
    ];
    for (arguments, why) in cases {
        let output = load(arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && err.contains(why) && err.contains("--help"), "{arguments:?}: {err}");
    }
}

#[test]
fn every_program_that_is_missing_is_named_before_anything_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["bash", "dirname", "sort"] {
        let found =
            ["/bin", "/usr/bin"].map(|place| Path::new(place).join(name)).into_iter().find(|path| path.exists());
        std::os::unix::fs::symlink(found.expect(name), directory.path().join(name)).unwrap();
    }
    let output = load_where(&[("PATH", directory.path().to_str().unwrap())], &["requests", "127.0.0.1:1"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("load.sh: missing: "), "{err}");
    for package in ["bsdextrautils", "curl", "iproute2", "procps", "wrk"] {
        assert!(err.contains(package), "{package} is not named: {err}");
    }
}

#[test]
fn what_another_service_costs_is_not_asked_of_this_machines_balancer() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let program = Path::new(env!("CARGO_BIN_EXE_balancer"));
    let (socket, file, state) = (path("admin.sock"), path("balancer.yaml"), path("state"));
    let services = "services: { web: { listen: 127.0.0.1:0, backends: { one: 127.0.0.1:9 } } }";
    std::fs::write(&file, format!("admin: {{ socket: {socket} }}\nstate: {state}\n{services}\n")).unwrap();
    let mut balancer = Command::new(program).args(["run", "--config", &file]).spawn().unwrap();
    let status = || Command::new(program).args(["status", "--socket", &socket]).output().unwrap().status.success();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !status() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let programs = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = load_where(&[("BALANCER_SOCKET", &socket), ("PATH", &programs)], &["requests", "127.0.0.1:1"]);
    balancer.kill().unwrap();
    balancer.wait().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("the balancer of this machine does not serve 127.0.0.1:1: "), "{err}");
}

#[test]
fn sessions_that_take_no_memory_are_told_to_have_used_that_of_earlier_ones() {
    let _turn = TURN.lock().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 1024]);
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            open.push(client);
        }
    });
    // Its memory stays as it is.
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = process.id().to_string();
    let output = load(&["idle", &address, "--pid", &pid, "--seconds", "1", "--connections", "20"]);
    process.kill().unwrap();
    process.wait().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    for part in ["resident bytes/session", "µs/s of all sessions together", "from earlier sessions was used again"] {
        assert!(out.contains(part), "no {part:?} in {out}{err}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_told_before_it_is_measured() {
    let begun = std::time::Instant::now();
    let output = load(&["requests", "--seconds", "600", "--json", "/nowhere/result.json"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("cannot write /nowhere/result.json"), "{err}");
    assert!(begun.elapsed().as_secs() < 60, "{err}");
}

#[test]
fn a_program_that_is_no_balancer_is_told() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/load.sh");
    let output = Command::new(script).args(["requests", "--no-install", "--binary", "/bin/false"]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("/bin/false does not say its version"), "{err}");
}

#[test]
fn an_address_where_nobody_answers_is_an_error_with_a_remedy() {
    let _turn = TURN.lock().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = load(&["requests", &closed.to_string(), "--pid", &std::process::id().to_string()]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(&format!("no answer from http://{closed}/: ")) && err.contains("HTTP server"), "{err}");
}
