//! The directory of a run: results as they come, so that a run that was stopped goes on where they end.
//!
//! Lines are appended in a fixed order, each in one write. So the file of a run that was killed and went on is that of a run
//! that was not, byte for byte. What is finished before its turn waits in a file of its own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config;
use super::record::{Count, Outcome, Record};
use crate::error::{Error, Result};

/// A run's outcomes by position, and the files they go to.
pub(super) struct Store {
    /// In order, from the first on.
    outcomes: Vec<Outcome>,
    /// Finished before their turn.
    early: BTreeMap<usize, Outcome>,
    /// None without a directory.
    files: Option<Files>,
}

struct Files {
    results: Log,
    counts: Log,
    early: Log,
}

/// A line of early.jsonl.
#[derive(Deserialize, Serialize)]
struct Early {
    position: usize,
    record: Record,
    count: Option<Count>,
}

/// A file of lines.
struct Log {
    path: PathBuf,
    file: File,
}

const RESULTS: &str = "results.jsonl";
const COUNTS: &str = "counts.jsonl";
const EARLY: &str = "early.jsonl";
const RUN: &str = "run.json";

impl Store {
    /// Opens `dir` for a run of `config`, or begins it. `is_at` tells whether a record is the one at a position.
    ///
    /// # Errors
    /// When the directory belongs to another configuration, another process writes to it, or a line of it is damaged
    /// other than by being cut off.
    pub(super) fn open(
        dir: Option<&Path>,
        config: &Value,
        is_at: impl Fn(usize, &Record) -> bool,
    ) -> Result<Self> {
        let (mut outcomes, mut waiting) = (Vec::new(), BTreeMap::new());
        let Some(dir) = dir else { return Ok(Store { outcomes, early: waiting, files: None }) };
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let mut results = Log::open(dir.join(RESULTS))?;
        begin(dir, config, &results)?;
        let (mut counts, mut early) = (Log::open(dir.join(COUNTS))?, Log::open(dir.join(EARLY))?);
        let records: Vec<Record> = results.read()?;
        let known: Vec<Option<Count>> = counts.read()?;
        counts.cut(records.len())?;
        for (position, record) in records.into_iter().enumerate() {
            results.expect(position, is_at(position, &record), &record)?;
            let count = known.get(position).copied().flatten();
            if position >= known.len() {
                counts.append(&count)?;
            }
            outcomes.push(Outcome { record, count });
        }
        for (line, Early { position, record, count }) in early.read()?.into_iter().enumerate() {
            early.expect(line, is_at(position, &record), &record)?;
            if position >= outcomes.len() {
                waiting.insert(position, Outcome { record, count });
            }
        }
        let mut store = Store { outcomes, early: waiting, files: Some(Files { results, counts, early }) };
        store.take_turns()?;
        Ok(store)
    }

    /// Outcomes in all.
    pub(super) fn len(&self) -> usize {
        self.outcomes.len() + self.early.len()
    }

    /// Whether the outcome at a position is there.
    pub(super) fn has(&self, position: usize) -> bool {
        position < self.outcomes.len() || self.early.contains_key(&position)
    }

    /// Keeps an outcome, and writes its lines if its turn has come.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn put(&mut self, position: usize, outcome: Outcome) -> Result<()> {
        if position > self.outcomes.len()
            && let Some(files) = &mut self.files
        {
            let Outcome { record, count } = outcome.clone();
            files.early.append(&Early { position, record, count })?;
        }
        self.early.insert(position, outcome);
        self.take_turns()
    }

    /// Writes what waits and is next. Counts go first: a count without a result is cut off later, and nothing is lost.
    fn take_turns(&mut self) -> Result<()> {
        while let Some(outcome) = self.early.remove(&self.outcomes.len()) {
            if let Some(files) = &mut self.files {
                files.counts.append(&outcome.count)?;
                files.results.append(&outcome.record)?;
            }
            self.outcomes.push(outcome);
        }
        match &mut self.files {
            Some(files) if self.early.is_empty() => files.early.truncate(0),
            _ => Ok(()),
        }
    }

    /// Removes what a finished run needs no more.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn tidy(self) -> Result<Vec<Outcome>> {
        if let Some(Files { early, .. }) = self.files.filter(|_| self.early.is_empty()) {
            fs::remove_file(&early.path).map_err(Error::io(&early.path))?;
        }
        Ok(self.outcomes)
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

    /// # Errors
    /// When `record`, in the line after `lines` others, is not the one that belongs there.
    fn expect(&self, lines: usize, belongs: bool, record: &Record) -> Result<()> {
        if belongs {
            return Ok(());
        }
        let Record { setting, problem, sample, .. } = record;
        let (path, line) = (self.path.display(), lines + 1);
        Err(Error::Failed(format!(
            "{path} line {line}: sample {sample} of {problem} under {setting} does not belong there; was the file edited?"
        )))
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

    fn open(dir: &Path, config: &Value) -> Result<Store> {
        Store::open(Some(dir), config, |position, record| record.sample == position)
    }

    fn text(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).expect(name)
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = json!({"seed": 1, "temperature": 0.6});
        let whole = {
            let mut store = open(dir.path(), &config).expect("a new directory");
            assert_eq!(store.len(), 0);
            (0..3).for_each(|i| store.put(i, outcome(i)).expect("written"));
            text(dir.path(), RESULTS)
        };
        // Killed in the middle of the last line.
        fs::write(dir.path().join(RESULTS), &whole.as_bytes()[..whole.len() - 5]).expect("written");
        let mut store = open(dir.path(), &config).expect("the same configuration");
        assert_eq!((store.len(), store.has(1), store.has(2)), (2, true, false));
        let Outcome { record, count } = &store.outcomes[1];
        assert_eq!((record, count), (&outcome(1).record, &outcome(1).count));
        store.put(2, outcome(2)).expect("written");
        assert_eq!(text(dir.path(), RESULTS), whole);
        assert_eq!(text(dir.path(), COUNTS).lines().count(), 3);
        assert!(open(dir.path(), &config).is_err_and(|e| e.to_string().contains("another process")));
        assert_eq!(store.tidy().expect("tidied").len(), 3);
        assert!(!dir.path().join(EARLY).exists());
    }

    #[test]
    fn what_is_early_waits_and_outlives_a_kill() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(dir.path(), &json!({})).expect("a new directory");
        for i in [2, 1, 4] {
            store.put(i, outcome(i)).expect("written");
        }
        assert_eq!(text(dir.path(), RESULTS), "");
        drop(store);
        // The last of them was not written to its end.
        let early = text(dir.path(), EARLY);
        fs::write(dir.path().join(EARLY), &early.as_bytes()[..early.len() - 1]).expect("written");
        let mut store = open(dir.path(), &json!({})).expect("the same");
        assert_eq!([0, 1, 2, 3, 4].map(|i| store.has(i)), [false, true, true, false, false]);
        for i in [0, 3] {
            store.put(i, outcome(i)).expect("written");
        }
        let samples: Vec<usize> = store.outcomes.iter().map(|o| o.record.sample).collect();
        assert_eq!(samples, [0, 1, 2, 3]);
        assert_eq!((text(dir.path(), RESULTS).lines().count(), text(dir.path(), EARLY).as_str()), (4, ""));
        drop(store);
        // Killed between writing a result and clearing the file of early ones.
        let last = serde_json::to_string(&Early { position: 3, record: outcome(3).record, count: None });
        fs::write(dir.path().join(EARLY), last.expect("JSON") + "\n").expect("written");
        assert_eq!(open(dir.path(), &json!({})).expect("the same").len(), 4);
    }

    #[test]
    fn lost_counts_are_lost_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = json!({});
        (0..2).for_each(|i| open(dir.path(), &config).expect("open").put(i, outcome(i)).expect("written"));
        fs::remove_file(dir.path().join(COUNTS)).expect("removed");
        let store = open(dir.path(), &config).expect("open");
        assert!(store.len() == 2 && store.outcomes.iter().all(|o| o.count.is_none()));
        assert_eq!(text(dir.path(), COUNTS), "null\nnull\n");
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
        open(dir.path(), &json!({})).expect("open").put(0, outcome(1)).expect("written");
        assert!(open(dir.path(), &json!({})).is_err_and(|e| e.to_string().contains("line 1")));
    }
}
