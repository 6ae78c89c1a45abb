//! A browser without a window, driven through the pipe of its debugging protocol.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tools::program;
use super::{Kills, wait_until};

/// How long a test waits for a browser, which takes its time where others work.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page open.
pub(crate) struct Browser {
    _child: Kills,
    to: ChildStdin,
    from: Receiver<Value>,
    /// Where messages for the page go.
    session: Option<String>,
    asked: u64,
    /// What it has told of itself.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it and opens a page, in a window of 1440 × 900.
    #[track_caller]
    pub(crate) fn open(url: &str) -> Self {
        let profile = tempfile::Builder::new().prefix("balancer-browser-").tempdir().expect("a temporary directory");
        // It reads from descriptor 3 and writes to 4; the shell opens them and stays the same process. Its sandbox does not work
        // for root, and a page of ours is all that it sees.
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null")
            .arg(program("chromium-headless-shell"));
        command.args([
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
        ]);
        command.args(["--remote-debugging-pipe", "--window-size=1440,900"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starting the browser");
        let (to, mut out) = (child.stdin.take().expect("a pipe"), BufReader::new(child.stdout.take().expect("a pipe")));
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).unwrap_or_default();
                message.clear();
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut browser =
            Self { _child: Kills(child), to, from, session: None, asked: 0, events: Vec::new(), _profile: profile };
        let targets = browser.ask("Target.getTargets", json!({}));
        let target = targets["targetInfos"][0]["targetId"].clone();
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser.ask("Page.navigate", json!({ "url": url }));
        browser
    }

    /// The size of its window, and whether the user has asked for dark pages.
    #[track_caller]
    pub(crate) fn look(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What a script of ours finds in the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", json!({ "expression": script, "returnByValue": true }));
        assert!(answer.get("exceptionDetails").is_none(), "{script} fails in the page: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// The same, where a text is due.
    #[track_caller]
    pub(crate) fn text(&mut self, script: &str) -> String {
        self.evaluate(script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a script of ours says true.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, script: &str) {
        wait_until(&format!("the page has {script}"), PATIENCE, || self.evaluate(script) == json!(true));
    }

    /// Every address that was asked for so far.
    #[track_caller]
    pub(crate) fn requests(&mut self) -> Vec<String> {
        // What comes before this answer has come.
        self.evaluate("1");
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| event["params"]["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    /// Exceptions, errors that the page has logged, and what its policy forbade. An address that cannot be had is none.
    #[track_caller]
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.evaluate("1");
        let complaint = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => {
                event["params"]["entry"]["level"] == "error" && event["params"]["entry"]["source"] != "network"
            }
            _ => false,
        };
        self.events.iter().filter(complaint).map(Value::to_string).collect()
    }

    #[track_caller]
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let answer = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.asked {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }
}
