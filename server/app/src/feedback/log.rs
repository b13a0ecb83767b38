//! The experiment log: a line of JSON for the end of each routed request and for each feedback, in files that rotate.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use gristmill_engine::journal::Ended;
use serde_json::{Value, json};

use super::store::OfRoute;
use super::{Fate, Told};

/// Appended to by one thread. What was appended is the system's to bring to the disk.
pub(super) struct Log {
    path: PathBuf,
    bytes_max: u64,
    file: Option<File>,
    /// So that a full disk is told once, and not ten times a second.
    is_failing: bool,
}

/// A file that has grown to this is put aside ...
const BYTES_MAX: u64 = 64 << 20;
/// ... as `.1`, which becomes `.2`, and so on up to this.
const FILES_ASIDE_MAX: u32 = 8;

// === impl Log ===

impl Log {
    /// # Errors
    /// The file cannot be written.
    pub(super) fn open(path: &Path) -> Result<Log, String> {
        Log::rotating_at(path, BYTES_MAX)
    }

    fn rotating_at(path: &Path, bytes_max: u64) -> Result<Log, String> {
        let mut log = Log { path: path.to_owned(), bytes_max, file: None, is_failing: false };
        log.append("").map_err(|error| {
            format!(
                "--experiment-log: cannot write {}: {error}: give a file in a directory that exists",
                path.display()
            )
        })?;
        Ok(log)
    }

    /// Requests that ended, and what was accepted of what was told.
    pub(super) fn write(&mut self, ended: &[Ended], told: &[OfRoute<'_>], fates: &[Fate], now_ms: u64) {
        let mut text = String::new();
        for ended in ended {
            line(&mut text, &request(ended, now_ms));
        }
        let accepted = told.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Accepted);
        for ((route, item), _) in accepted {
            let (name, value) = match &item.told {
                Told::Reward(reward) => ("reward", json!(reward)),
                // It was read as JSON, or is a client's text.
                Told::Truth(truth) => {
                    ("truth", serde_json::from_str(truth).unwrap_or_else(|_no_json| json!(truth)))
                }
            };
            let id = item.prediction_id.to_string();
            line(&mut text, &json!({"at_ms": now_ms, "prediction_id": id, "route": route, name: value}));
        }
        if text.is_empty() {
            return;
        }
        match self.append(&text) {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                self.file = None;
                if !self.is_failing {
                    tracing::error!(path = %self.path.display(), %error, "the experiment log lacks lines from now on");
                }
                self.is_failing = true;
            }
        }
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        if self.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|data| data.len()))? >= self.bytes_max
        {
            self.file = None;
            self.put_aside()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).open(&self.path)?),
        };
        file.write_all(text.as_bytes())
    }

    fn put_aside(&self) -> io::Result<()> {
        for number in (0..FILES_ASIDE_MAX).rev() {
            let from = if number == 0 { self.path.clone() } else { self.aside(number) };
            match fs::rename(from, self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn line(text: &mut String, value: &Value) {
    writeln!(text, "{value}").expect("writing to a string does not fail; this is a bug");
}

fn request(ended: &Ended, now_ms: u64) -> Value {
    json!({
        "at_ms": now_ms,
        "prediction_id": ended.prediction_id.to_string(),
        "route": ended.arm.route,
        "arm": ended.arm.arm,
        "version": ended.version,
        "key_hash": ended.key_hash.map(|hash| format!("{hash:016x}")),
        "latency_us": u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX),
        "outcome": ended.outcome,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use expect_test::expect;
    use gristmill_engine::prediction::ArmName;

    use super::*;
    use crate::feedback::Item;

    fn ended(key_hash: Option<u64>) -> Ended {
        Ended {
            prediction_id: "5".repeat(32).parse().unwrap(),
            arm: Arc::new(ArmName { route: "r".into(), arm: "a".into() }),
            version: 2,
            key_hash,
            took: Duration::from_micros(1500),
            outcome: "ok",
            is_good: Some(true),
        }
    }

    #[test]
    fn a_line_is_a_request_or_what_was_told_of_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log.jsonl");
        let mut log = Log::open(&path).unwrap();
        let item = |told| Item { prediction_id: "5".repeat(32).parse().unwrap(), told };
        let items = [item(Told::Reward(0.5)), item(Told::Truth("[1]".into())), item(Told::Reward(1.0))];
        let told: Vec<OfRoute<'_>> = items.iter().map(|item| ("r", item)).collect();
        let fates = [Fate::Accepted, Fate::Accepted, Fate::Duplicate];
        log.write(&[ended(Some(255)), ended(None)], &told, &fates, 7);
        expect![[r#"
            {"at_ms":7,"prediction_id":"55555555555555555555555555555555","route":"r","arm":"a","version":2,"key_hash":"00000000000000ff","latency_us":1500,"outcome":"ok"}
            {"at_ms":7,"prediction_id":"55555555555555555555555555555555","route":"r","arm":"a","version":2,"key_hash":null,"latency_us":1500,"outcome":"ok"}
            {"at_ms":7,"prediction_id":"55555555555555555555555555555555","route":"r","reward":0.5}
            {"at_ms":7,"prediction_id":"55555555555555555555555555555555","route":"r","truth":[1]}
        "#]]
        .assert_eq(&fs::read_to_string(path).unwrap());
        let why = Log::open(&root.path().join("none/log.jsonl")).err().unwrap();
        assert!(why.starts_with("--experiment-log: cannot write "), "{why}");
    }

    #[test]
    fn files_rotate_and_the_oldest_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log.jsonl");
        let mut log = Log::rotating_at(&path, 1).unwrap();
        for at_ms in 0..20 {
            log.write(&[ended(None)], &[], &[], at_ms);
        }
        let first = |path: &Path| fs::read_to_string(path).unwrap().split(',').next().unwrap().to_owned();
        assert_eq!(first(&path), "{\"at_ms\":19");
        assert_eq!(first(&root.path().join("log.jsonl.8")), "{\"at_ms\":11");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 9);
    }
}
