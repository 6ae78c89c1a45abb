//! What a reader may rely on anywhere in the tree, checked as text.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below these folders.
fn rust_files(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path.strip_prefix(root).unwrap().to_owned(), text));
        }
    }
    assert!(!files.is_empty(), "no file below {folders:?}");
    files
}

#[test]
fn every_file_says_in_its_first_line_what_it_is() {
    for (path, text) in rust_files(&["src", "tests", "benches"]) {
        assert!(text.starts_with("//! "), "{} does not begin with a //! line", path.display());
    }
}

#[test]
fn unsafe_code_stands_in_sys_alone_and_says_why() {
    // Spelt so that this file does not find itself.
    let (keyword, reason) = (["un", "safe {"].concat(), "// SAFETY: ");
    let mut found = 0;
    for (path, text) in rust_files(&["src", "tests", "benches"]) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.contains(&keyword)) {
            found += 1;
            assert!(path.starts_with("src/sys"), "{}:{} is outside of src/sys", path.display(), number + 1);
            let above = &lines[number.saturating_sub(4)..number];
            assert!(
                above.iter().any(|line| line.contains(reason)),
                "{}:{} gives no reason",
                path.display(),
                number + 1
            );
        }
    }
    assert!(found > 0, "the search finds nothing at all");
}

#[test]
fn nothing_is_left_unfinished() {
    let marks =
        [["to", "do!("].concat(), ["unimpl", "emented!("].concat(), ["TO", "DO"].concat(), ["#[ig", "nore"].concat()];
    for (path, text) in rust_files(&["src", "tests", "benches"]) {
        for mark in &marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
}

#[test]
fn the_data_path_neither_logs_nor_locks() {
    for (path, text) in rust_files(&["src/forward"]) {
        for word in [" log::", "(log::", "Mutex", "RwLock", "println!", "thread::sleep"] {
            assert!(!text.contains(word), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn each_room_uses_only_the_rooms_that_it_may() {
    // What is missing here (`cli`, `app`) may use everything.
    let rooms: [(&str, &[&str]); 10] = [
        ("config", &["duration", "visible"]),
        ("observe", &[]),
        ("sys", &[]),
        ("duration", &[]),
        ("visible", &[]),
        ("messages", &["observe", "sys"]),
        ("table", &["observe"]),
        ("forward", &["table", "observe", "messages", "sys"]),
        ("control", &["config", "table", "observe", "messages", "sys"]),
        ("admin", &["observe", "table", "messages", "sys", "duration"]),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [map, source] = ["docs/ARCHITECTURE.md", "src/lib.rs"].map(|file| fs::read_to_string(root.join(file)).unwrap());
    for (room, may) in rooms {
        for (text, start) in [(&map, format!("| `{room}` |")), (&source, format!("//! | [`{room}`] |"))] {
            let row = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row {start}"));
            let told = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            let told: Vec<_> = told.split('`').skip(1).step_by(2).collect();
            assert_eq!(told, may, "the row {start} tells something else");
        }
        let file = format!("src/{room}.rs");
        let place = if root.join(&file).exists() { file } else { format!("src/{room}") };
        for (path, text) in rust_files(&[&place]) {
            for (_, rest) in text.match_indices("crate::").map(|(at, word)| text.split_at(at + word.len())) {
                let used = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                assert!(used == room || may.contains(&used), "{}: {room} may not use crate::{used}", path.display());
            }
        }
    }
}

#[test]
fn the_manual_has_every_kernel_feature_that_can_be_switched_off() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md")).unwrap();
    for name in balancer::sys::features::Features::NAMES {
        assert!(manual.contains(&format!("| `{name}` |")), "docs/OPERATING.md does not explain {name}");
    }
    assert!(manual.contains(balancer::sys::features::DISABLE));
}

/// The fixed parts of a format string.
fn fixed_parts(format: &str) -> Vec<&str> {
    format
        .split('{')
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once('}').map_or("", |p| p.1) })
        .collect()
}

#[test]
fn the_manual_explains_every_line_of_the_log() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md")).unwrap();
    let mut lines = 0;
    for (path, text) in rust_files(&["src"]) {
        for level in ["info", "warn", "error"] {
            for call in text.split(&format!("log::{level}!(")).skip(1) {
                let Some((_, literal)) = call.split_once('"') else { continue };
                let literal = literal.split('"').next().unwrap_or_default();
                let longest = fixed_parts(literal).into_iter().max_by_key(|part| part.len()).unwrap_or_default().trim();
                // What is all variable is told by what it is made of.
                if longest.len() < 8 {
                    continue;
                }
                assert!(
                    manual.contains(longest),
                    "{}: docs/OPERATING.md does not explain the line {literal:?}",
                    path.display()
                );
                lines += 1;
            }
        }
    }
    assert!(lines > 20, "{lines}");
}

/// Names that the code had once, and what is said instead (docs/LEXICON.md). Spelt in halves, so that this file does not find itself.
const GONE: [(&str, &str); 21] = [
    ("Be|ll", "Waker"),
    ("De|af", "WorkerGone"),
    ("Do|ors", "Endpoints"),
    ("Est|ate", "HandedOver"),
    ("Fare|well", "ClosingSchedule"),
    ("Han|ds::", "PendingBytes"),
    ("HasPla|ces", "HasPermits"),
    ("Pla|ces", "Permits"),
    ("Rost|er", "Pool"),
    ("Stand|by", "BackupMember"),
    ("else|where::", "foreign_names"),
    ("fare|well", "closing"),
    ("fly|ing", "in_flight"),
    ("held o|ut", "drained"),
    ("is he|ld by", "drained by"),
    ("leave_w|ord", "enqueue"),
    ("outsi|de::", "orphans"),
    ("peop|le::", "peer_user"),
    ("rost|er", "pool"),
    ("take_le|ave", "close_due_sessions"),
    ("tell|ing::", "announce"),
];

/// Whether `text` has `name` as a word of its own.
fn has_word(text: &str, name: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
        !before.is_some_and(of_word) && (name.ends_with(':') || !after.is_some_and(of_word))
    })
}

#[test]
fn names_that_are_gone_stay_gone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = rust_files(&["src", "tests", "benches"]);
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            files.push((path.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    for (path, text) in files {
        for (gone, now) in GONE {
            let gone = gone.replace('|', "");
            assert!(!has_word(&text, &gone), "{}: {gone} is now {now} (docs/LEXICON.md)", path.display());
        }
    }
}

/// What a line such as `//! covers: a, b` of a test file lists, if it has one.
fn listed<'a>(text: &'a str, line: &str) -> Option<Vec<&'a str>> {
    text.lines().find_map(|l| l.strip_prefix(&format!("//! {line}: "))).map(|list| list.split(", ").collect())
}

/// The topics of the behaviours.
fn topics() -> Vec<(PathBuf, String)> {
    let mut files = rust_files(&["tests/behaviours"]);
    files.retain(|(path, _)| path.components().count() == 3 && !path.ends_with("main.rs"));
    files
}

/// Whether a path of a `covers:` line stands for a file: for itself, or for a folder that it is in (scripts/topics.sh).
fn is_covered_by(file: &Path, place: &str) -> bool {
    let rest = file.to_str().and_then(|file| file.strip_prefix(place));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
}

#[test]
fn every_topic_says_what_it_covers_and_every_file_of_the_program_is_covered() {
    let sources = rust_files(&["src"]);
    let mut covered = Vec::new();
    for (path, text) in topics() {
        let places =
            listed(&text, "covers").unwrap_or_else(|| panic!("{} has no line //! covers: PATH", path.display()));
        for place in places {
            assert!(
                sources.iter().any(|(file, _)| is_covered_by(file, place)),
                "{}: there is no {place}",
                path.display()
            );
            covered.push(place.to_owned());
        }
    }
    for (file, _) in sources {
        assert!(
            covered.iter().any(|place| is_covered_by(&file, place)),
            "no topic of tests/behaviours covers {}",
            file.display()
        );
    }
}

#[test]
fn every_optional_kernel_feature_has_a_topic_that_runs_without_it_too() {
    let names = balancer::sys::features::Features::NAMES;
    let mut told = Vec::new();
    for (path, text) in topics() {
        for name in listed(&text, "kernel features").unwrap_or_default() {
            assert!(names.contains(&name), "{}: there is no kernel feature {name}", path.display());
            told.push(name.to_owned());
        }
    }
    for name in names {
        assert!(told.iter().any(|told| told == name), "no topic of tests/behaviours runs without {name}");
    }
}

#[test]
fn who_takes_the_machine_for_itself_says_so_in_the_test() {
    // scripts/test.sh --quick leaves these tests out: it finds them by their text.
    for (path, text) in topics() {
        for (before, _) in text.match_indices("Machine::alone()").map(|(at, _)| text.split_at(at)) {
            let (_, function) = before.rsplit_once("\nfn ").expect("it stands in a function");
            let head = before.len() - function.len() - "\nfn ".len();
            assert!(text[..head].ends_with("#[test]"), "{}: fn {}", path.display(), function.lines().next().unwrap());
        }
    }
}
