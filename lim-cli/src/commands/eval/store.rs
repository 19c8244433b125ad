//! The directory of a run: results as they come, so that a run that was stopped goes on where they end.
//!
//! Lines are appended in a fixed order, each in one write. So the file of a run that was killed and went on is that of a run
//! that was not, byte for byte.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::config;
use super::record::{Count, Outcome, Record};
use crate::error::{Error, Result};

/// Where a run's lines go; nowhere without a directory.
pub(super) struct Store {
    files: Option<Files>,
}

struct Files {
    results: Log,
    counts: Log,
}

/// A file of lines.
struct Log {
    path: PathBuf,
    file: File,
}

const RESULTS: &str = "results.jsonl";
const COUNTS: &str = "counts.jsonl";
const RUN: &str = "run.json";

impl Store {
    /// Opens `dir` for a run of `config`, or begins it; gives what is there already. `is_next` tells whether a record is
    /// the one at a position.
    ///
    /// # Errors
    /// When the directory belongs to another configuration, another process writes to it, or a line of it is damaged
    /// other than by being cut off.
    pub(super) fn open(
        dir: Option<&Path>,
        config: &Value,
        is_next: impl Fn(usize, &Record) -> bool,
    ) -> Result<(Self, Vec<Outcome>)> {
        let Some(dir) = dir else { return Ok((Store { files: None }, Vec::new())) };
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let (mut results, mut counts) = (Log::open(dir.join(RESULTS))?, Log::open(dir.join(COUNTS))?);
        begin(dir, config, &results)?;
        let records: Vec<Record> = results.read()?;
        for (position, record) in records.iter().enumerate() {
            if !is_next(position, record) {
                return Err(Error::Failed(format!(
                    "{} line {}: {} of {} under {} is not what comes there; was the file edited?",
                    results.path.display(),
                    position + 1,
                    record.sample,
                    record.problem,
                    record.setting
                )));
            }
        }
        let mut known: Vec<Option<Count>> = counts.read()?;
        counts.cut(records.len())?;
        while known.len() < records.len() {
            counts.append(&None::<Count>)?;
            known.push(None);
        }
        let outcomes = records.into_iter().zip(known).map(|(record, count)| Outcome { record, count });
        Ok((Store { files: Some(Files { results, counts }) }, outcomes.collect()))
    }

    /// Writes a sample's lines. The counts go first: a count without a result is cut off later, and nothing is lost.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn append(&mut self, outcome: &Outcome) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.counts.append(&outcome.count)?;
        files.results.append(&outcome.record)
    }
}

/// Writes run.json, or compares with what is there.
fn begin(dir: &Path, config: &Value, results: &Log) -> Result<()> {
    let path = dir.join(RUN);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if results.file.metadata().map_err(Error::io(&results.path))?.len() > 0 {
                return Err(Error::Usage(format!(
                    "{} has a {RESULTS} but no {RUN}: its results cannot be told; take another --out",
                    dir.display()
                )));
            }
            let text =
                serde_json::to_string_pretty(config).map_err(|e| Error::Failed(format!("{RUN}: {e}")))?;
            // Whole or not at all.
            let new = dir.join("run.json.new");
            fs::write(&new, text + "\n").map_err(Error::io(&new))?;
            return fs::rename(&new, &path).map_err(Error::io(&path));
        }
        text => text.map_err(Error::io(&path))?,
    };
    let there: Value =
        serde_json::from_str(&text).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
    // As they are read back: the same numbers are written alike.
    let here = serde_json::from_str(&config.to_string()).unwrap_or_else(|_| config.clone());
    let differences = config::differences(&there, &here);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} holds results of another configuration: {}. Take another --out, or the same settings",
        dir.display(),
        differences.join("; ")
    )))
}

impl Log {
    /// Opens it for this process alone.
    fn open(path: PathBuf) -> Result<Self> {
        let options = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = options.map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Log { path, file }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Error::Failed(format!("{} is being written by another process", path.display())))
            }
            Err(fs::TryLockError::Error(e)) => Err(Error::io(path)(e)),
        }
    }

    /// Its lines; a last one that was cut off is removed from the file.
    fn read<T: DeserializeOwned>(&mut self) -> Result<Vec<T>> {
        let bytes = fs::read(&self.path).map_err(Error::io(&self.path))?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            self.truncate(whole as u64)?;
        }
        let mut lines = Vec::new();
        for (index, line) in bytes[..whole].split_inclusive(|&b| b == b'\n').enumerate() {
            lines
                .push(serde_json::from_slice(line).map_err(|e| {
                    Error::Failed(format!("{} line {}: {e}", self.path.display(), index + 1))
                })?);
        }
        Ok(lines)
    }

    /// Keeps the first `lines` lines.
    fn cut(&mut self, lines: usize) -> Result<()> {
        let bytes = fs::read(&self.path).map_err(Error::io(&self.path))?;
        let kept = bytes.split_inclusive(|&b| b == b'\n').take(lines).map(<[u8]>::len).sum::<usize>();
        if kept < bytes.len() { self.truncate(kept as u64) } else { Ok(()) }
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        let done = self.file.set_len(len).and_then(|()| self.file.seek(SeekFrom::End(0)));
        done.map(drop).map_err(Error::io(&self.path))
    }

    fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let text = crate::output::json(value)?;
        self.file.write_all(text.as_bytes()).map_err(Error::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grade::Grade;

    fn outcome(sample: usize) -> Outcome {
        let record = Record {
            setting: "full".into(),
            problem: "p".into(),
            group: None,
            sample,
            seed: u64::MAX,
            answer: Some("é".into()),
            reference: "1".into(),
            grade: Grade::Wrong,
            tokens: 3,
            finish_reason: "stop".into(),
            text: None,
        };
        let count = Some(Count { steps: 2, context_tokens: 2.5, attended_tokens: 0.1 });
        Outcome { record, count }
    }

    fn open(dir: &Path, config: &Value) -> Result<(Store, Vec<Outcome>)> {
        Store::open(Some(dir), config, |position, record| record.sample == position)
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = json!({"seed": 1, "temperature": 0.6f32});
        let whole = {
            let (mut store, found) = open(dir.path(), &config).expect("a new directory");
            assert!(found.is_empty());
            (0..3).for_each(|i| store.append(&outcome(i)).expect("written"));
            fs::read(dir.path().join(RESULTS)).expect("a file")
        };
        // Killed in the middle of the last line.
        fs::write(dir.path().join(RESULTS), &whole[..whole.len() - 5]).expect("written");
        let (mut store, found) = open(dir.path(), &config).expect("the same configuration");
        assert_eq!(found.len(), 2);
        assert_eq!((&found[1].record, found[1].count), (&outcome(1).record, outcome(1).count));
        store.append(&outcome(2)).expect("written");
        assert_eq!(fs::read(dir.path().join(RESULTS)).expect("a file"), whole);
        let counts = fs::read_to_string(dir.path().join(COUNTS)).expect("a file");
        assert_eq!(counts.lines().count(), 3);
        assert!(open(dir.path(), &config).is_err_and(|e| e.to_string().contains("another process")));
    }

    #[test]
    fn lost_counts_are_lost_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = json!({});
        (0..2).for_each(|i| open(dir.path(), &config).expect("open").0.append(&outcome(i)).expect("written"));
        fs::remove_file(dir.path().join(COUNTS)).expect("removed");
        let (_, found) = open(dir.path(), &config).expect("open");
        assert!(found.len() == 2 && found.iter().all(|o| o.count.is_none()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path(), &json!({"seed": 1})).expect("a new directory"));
        let error = open(dir.path(), &json!({"seed": 2})).err().expect("another configuration");
        assert!(error.exit_code() == 2 && error.to_string().contains("seed is 1 there, 2 here"), "{error}");
        fs::write(dir.path().join(RESULTS), "{}\n").expect("written");
        let error = open(dir.path(), &json!({"seed": 1})).err().expect("a damaged line").to_string();
        assert!(error.contains("results.jsonl line 1"), "{error}");
        fs::remove_file(dir.path().join(RUN)).expect("removed");
        assert!(open(dir.path(), &json!({})).is_err_and(|e| e.to_string().contains("no run.json")));
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        open(dir.path(), &json!({})).expect("open").0.append(&outcome(1)).expect("written");
        assert!(open(dir.path(), &json!({})).is_err_and(|e| e.to_string().contains("line 1")));
    }
}
