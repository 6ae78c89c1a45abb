//! From a path to a configuration: the bytes, their bounds, the text, and what is said when there is no such file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::report::{Place, Problem, Report, nearest};
use super::tree::{Value, quoted};
use super::{Config, file, tree};

/// No honest configuration is larger: some 100,000 backends.
const MAX_BYTES: usize = 4 << 20;

/// A configuration and the file that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// The file, as it was named.
    pub path: PathBuf,
    /// The SHA-256 of the file's bytes.
    pub sha256: [u8; 32],
    /// What in the file may mean something else than its author thinks.
    pub warnings: Report,
}

/// Reads and validates a configuration file; binds nothing and changes nothing.
///
/// # Errors
///
/// Everything that is wrong with the file, at once.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let bytes = read(path).map_err(|what| Report::new(path, "", vec![Problem::of_file(what)]))?;
    understand(path, &bytes)
}

pub(super) fn understand(path: &Path, bytes: &[u8]) -> Result<Loaded, Report> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(not_utf8(path, bytes, error.valid_up_to())),
    };
    let (config, problems) = parse(text);
    let usable = !problems.iter().any(Problem::is_error);
    let report = Report::new(path, text, problems);
    match config.filter(|_| usable) {
        Some(config) => {
            Ok(Loaded { config, path: path.to_owned(), sha256: Sha256::digest(bytes).into(), warnings: report })
        }
        None => Err(report),
    }
}

/// What a text says, as far as it can be read, and everything that is wrong with it, or may be. With an error among that the
/// configuration must not be used.
fn parse(text: &str) -> (Option<Config>, Vec<Problem>) {
    let (root, second) = match tree::parse(text) {
        Ok(parsed) => parsed,
        Err(problem) => return (None, vec![problem]),
    };
    if matches!(root.value, Value::Null) {
        let what = "the file is empty: `services` with at least one service is due";
        return (None, vec![Problem::new(Place::START, what)]);
    }
    let (config, mut problems) = file::read(&root, text);
    problems.extend(second);
    (Some(config), problems)
}

/// The file's bytes, or why they cannot be had.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("no such file{}", similar(path)),
        io::ErrorKind::IsADirectory => format!("this is a directory, a file is due{}", inside(path)),
        io::ErrorKind::PermissionDenied => format!("the file cannot be read: {error}; let this user read it"),
        _ => format!("the file cannot be read: {error}"),
    };
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| cannot(&error))?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("the file is larger than {} MiB, which no configuration needs", MAX_BYTES >> 20));
    }
    Ok(bytes)
}

/// The place of the first byte that is not UTF-8, with the line as far as it is text.
fn not_utf8(path: &Path, bytes: &[u8], valid: usize) -> Report {
    let before = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default());
    let last = before.rsplit('\n').next().unwrap_or_default();
    let place = Place { line: before.matches('\n').count() + 1, column: last.chars().count() + 1 };
    let text = String::from_utf8_lossy(bytes);
    Report::new(
        path,
        &text,
        vec![Problem::new(place, "the file is not UTF-8 text: this byte is not part of any character")],
    )
}

/// The files beside `path` whose names are near, for a message.
fn similar(path: &Path) -> String {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return String::new(),
    };
    let Ok(beside) = names(directory) else {
        return format!("; neither is there a directory {}", quoted(&directory.display().to_string()));
    };
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let near = |name: &&String| {
        nearest(&wanted, [name.as_str()]).is_some()
            || (is_yaml(name) && name.contains(&*stem))
            || name.starts_with(&*wanted)
    };
    let mut found: Vec<&String> = beside.iter().filter(near).collect();
    if found.is_empty() {
        found = beside.iter().filter(|name| is_yaml(name)).collect();
    }
    list("; beside it", &found)
}

/// The YAML files in a directory, for a message.
fn inside(directory: &Path) -> String {
    let names = names(directory).unwrap_or_default();
    list("; in it", &names.iter().filter(|name| is_yaml(name)).collect::<Vec<_>>())
}

fn list(where_: &str, names: &[&String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| quoted(name)).collect();
    match names.len() {
        0 => String::new(),
        1 => format!("{where_} is {}", shown.concat()),
        n if n > SHOWN => format!("{where_} are {} and {} more", shown.join(", "), n - SHOWN),
        _ => format!("{where_} are {}", shown.join(", ")),
    }
}

fn is_yaml(name: &str) -> bool {
    [".yaml", ".yml"].iter().any(|ending| name.ends_with(ending))
}

/// The names of the files in a directory, sorted; a bound keeps a huge directory from holding up a message.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(directory)?
        .flatten()
        .take(10_000)
        .filter(|entry| !entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../balancer.yaml");

    /// What YAML and this reader give a meaning to.
    const WORDS: [&str; 32] = [
        "\n",
        "\t",
        "\r",
        " ",
        "  ",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\"",
        "'",
        "# ",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!int ",
        "? ",
        "| ",
        "> ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "none",
        "-1",
        "1e999",
        ".nan",
        "\u{feff}",
        "services:\n",
        "99999999999999999999",
    ];

    fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..40)).min(bytes.len());
        match random.u8(..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, random.choice(WORDS).unwrap_or_default().bytes())),
            3 => drop(bytes.splice(at..end, random.choice(WORDS).unwrap_or_default().bytes())),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                for byte in &mut bytes[at..end.min(at + 2)] {
                    *byte = random.u8(..);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let path = Path::new("balancer.yaml");
        let (mut valid, mut wrong) = (0, 0);
        for seed in 0..5_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            for _ in 0..random.usize(1..12) {
                mutate(&mut bytes, &mut random);
            }
            let outcome = std::panic::catch_unwind(|| match understand(path, &bytes) {
                Ok(_) => true,
                Err(report) => {
                    assert!(report.to_string().starts_with("balancer.yaml:"));
                    false
                }
            });
            match outcome {
                Ok(true) => valid += 1,
                Ok(false) => wrong += 1,
                Err(_) => panic!("seed {seed}: {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        // Both ways must have been walked for this to mean anything.
        assert!(valid > 100 && wrong > 1_000, "{valid} valid, {wrong} wrong");
    }

    #[test]
    fn a_file_cut_short_anywhere_is_an_error_or_a_whole_configuration() {
        for length in 0..=EXAMPLE.len() {
            if let Ok(loaded) = understand(Path::new("balancer.yaml"), &EXAMPLE.as_bytes()[..length]) {
                assert!(loaded.config.services.iter().all(|service| !service.backends.is_empty()));
            }
        }
    }

    #[test]
    fn the_digest_is_of_the_bytes_of_the_file() {
        let bytes = "\u{feff}services: { web: { listen: 0.0.0.0:0, backends: { web-01: 10.0.0.1:80 } } }";
        let Ok(loaded) = understand(Path::new("x"), bytes.as_bytes()) else { panic!("a valid file was refused") };
        assert_eq!(loaded.sha256[..], Sha256::digest(bytes)[..]);
    }
}
