//! The timeline in memory and on disk.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;

fn event(text: &str) -> Event {
    Event::new(Kind::State, text).of("web").with("web-02")
}

fn texts(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.text.as_str()).collect()
}

#[test]
fn what_was_recorded_is_read_back_and_goes_on_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let timeline = Arc::new(Timeline::default());
    let writer = timeline.keep_in(directory.path(), false).unwrap();
    let first = event("web-02: up -> down").by("root");
    timeline.record(first.clone());
    drop(writer);
    assert_eq!(file::read(directory.path()).unwrap(), [first]);

    let again = Arc::new(Timeline::default());
    let writer = again.keep_in(directory.path(), false).unwrap();
    again.record(event("second"));
    drop(writer);
    assert_eq!(texts(&again.since(None, 10)), ["web-02: up -> down", "second"]);
    assert_eq!(texts(&file::read(directory.path()).unwrap()), ["web-02: up -> down", "second"]);
}

#[test]
fn the_oldest_events_give_way_and_the_file_keeps_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let timeline = Arc::new(Timeline::default());
    let mut ring = file::Ring::open(directory.path()).unwrap();
    assert!(ring.load().unwrap().is_empty());
    for number in 0..EVENTS + 10 {
        ring.write(&event(&number.to_string())).unwrap();
        timeline.record(event(&number.to_string()));
    }
    let size = std::fs::metadata(directory.path().join(file::NAME)).unwrap().len();
    assert_eq!(size, 4 << 20);
    for events in [file::read(directory.path()).unwrap(), timeline.since(None, usize::MAX)] {
        assert_eq!(events.len(), EVENTS);
        assert_eq!((&*events[0].text, &*events[EVENTS - 1].text), ("10", "4105"));
    }
}

#[test]
fn a_damaged_record_is_passed_over_and_no_text_is_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let mut ring = file::Ring::open(directory.path()).unwrap();
    ring.load().unwrap();
    let long = "ein sehr langer Grund für \u{1}\"alles\" ".repeat(200);
    for text in ["whole", "cut short", &long] {
        ring.write(&event(text).by(&"root ".repeat(100))).unwrap();
    }
    let file = OpenOptions::new().write(true).open(directory.path().join(file::NAME)).unwrap();
    file.write_all_at(b"#", 1024 + 100).unwrap();
    let events = file::read(directory.path()).unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0].text, "whole");
    let text = &events[1].text;
    assert!(text.starts_with("ein sehr langer Grund") && text.ends_with('…') && text.len() > 500, "{text}");
    // A file that somebody has cut is made whole again.
    file.set_len(10).unwrap();
    assert!(file::Ring::open(directory.path()).unwrap().load().unwrap().is_empty());
    assert_eq!(file.metadata().unwrap().len(), 4 << 20);
}

#[test]
fn a_successor_gets_the_file_with_all_that_its_predecessor_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
    let writer = old.keep_in(directory.path(), false).unwrap();
    assert!(matches!(new.keep_in(directory.path(), false), Err(Unrecorded::InUse(_))));
    let successor = new.keep_in(directory.path(), true).unwrap();
    new.record(event("new"));
    old.record(event("old"));
    drop(writer);
    let start = std::time::Instant::now();
    while new.since(None, 9).len() < 2 {
        assert!(start.elapsed().as_secs() < 5, "the file is not taken over");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(successor);
    assert_eq!(texts(&new.since(None, 9)), ["old", "new"]);
    assert_eq!(texts(&file::read(directory.path()).unwrap()), ["old", "new"]);
    old.record(event("too late"));
    assert_eq!(file::read(directory.path()).unwrap().len(), 2);
}

#[test]
fn only_what_is_asked_for_is_answered() {
    let timeline = Timeline::default();
    for text in ["a", "b", "c"] {
        timeline.record(event(text));
    }
    assert_eq!(texts(&timeline.since(None, 2)), ["b", "c"]);
    assert!(timeline.since(Some(Timestamp::MAX), 2).is_empty());
}
