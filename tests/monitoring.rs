//! What is shipped for Prometheus and Grafana: alerts that fire when they should, and queries over metrics that there are.
//!
//! covers: packaging/monitoring, src/admin/metrics

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(monitoring(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs promtool, which must be content: what it says.
fn promtool(arguments: &[&str], file: &Path) -> String {
    let output = Command::new("promtool").args(arguments).arg(file).stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("promtool: {error}; scripts/test.sh installs what the tests need"));
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// The names of balancer's metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("balancer_")).collect()
}

/// The names that the manual explains.
fn metrics_that_there_are() -> BTreeSet<String> {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `balancer_")?.split_once("` | "));
    let mut names = BTreeSet::new();
    for (name, rest) in rows {
        names.insert(format!("balancer_{name}"));
        if rest.starts_with("histogram") {
            names.extend(["bucket", "sum", "count"].map(|part| format!("balancer_{name}_{part}")));
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

/// Every query of the dashboard, with the title of its panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let panels = dashboard["panels"].as_array().expect("panels");
    let of_panels = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"])))
    });
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations");
    of_panels.chain(annotations.iter().map(|one| (text(&one["name"]), text(&one["expr"])))).collect()
}

#[test]
fn alerts_fire_when_they_should_and_each_of_them_is_tried() {
    let said = promtool(&["check", "rules"], &monitoring("balancer.rules.yml"));
    assert!(said.contains("SUCCESS"), "{said}");
    promtool(&["test", "rules"], &monitoring("balancer.rules.test.yml"));
    let (rules, tests) = (read("balancer.rules.yml"), read("balancer.rules.test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        // One that is never expected to fire would pass with any expression.
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} is never tried");
    }
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let known = metrics_that_there_are();
    for file in ["balancer.rules.yml", "grafana-dashboard.json"] {
        let text = read(file);
        let asked = metrics_in(&text);
        assert!(asked.len() > 8, "{file}: {asked:?}");
        for name in asked {
            assert!(known.contains(name), "{file} asks for {name}, which docs/OPERATING.md does not have");
        }
    }
}

#[test]
fn prometheus_understands_every_query_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{}", queries.len());
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(number, (_, query))| {
            let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$service", ".*");
            assert!(!query.contains('$'), "a variable that is not known: {query}");
            serde_json::json!({ "record": format!("query_{number}"), "expr": query })
        })
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    // JSON is YAML.
    let file = directory.path().join("queries.yml");
    let text = serde_json::json!({ "groups": [{ "name": "queries", "rules": rules }] }).to_string();
    std::fs::write(&file, text).expect("writing");
    let said = promtool(&["check", "rules"], &file);
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
}

#[test]
fn the_panels_of_the_dashboard_stand_side_by_side() {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len(), "an id comes twice");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        assert!(x + w <= 24 && w > 0 && h > 0, "{} leaves the grid", panel["title"]);
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{} lies on another", panel["title"]);
        }
        assert_eq!(panel["type"] == "row", panel.get("targets").is_none(), "{} asks nothing", panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
}
