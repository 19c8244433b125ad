//! The lim.json that a calibration comes to: what there was, with the new settings in it.

use std::fs;
use std::path::Path;

use lim_select::{Policy, Settings};
use serde_json::{Map, Value, json};

use crate::console::Console;
use crate::error::{Error, Result};

const NAME: &str = "lim.json";

/// A lim.json to be written.
#[derive(Debug)]
pub(super) struct Merged {
    text: String,
    /// Against the model's own, by name.
    changes: Vec<String>,
}

/// The lim.json with `settings` in place of those of the same name. The others stay where they are of the same policy.
///
/// # Errors
/// When `there` is no lim.json.
pub(super) fn merged(there: Option<&str>, settings: &Settings) -> Result<Merged> {
    let bad = |e: serde_json::Error| Error::Failed(format!("{NAME}: {e}"));
    let mut file: Map<String, Value> = there.map_or(Ok(Map::new()), serde_json::from_str).map_err(bad)?;
    let before = match file.get("attention") {
        Some(Value::Object(attention)) => attention.clone(),
        _ => Map::new(),
    };
    let policy =
        |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or(Policy::default().name()).to_owned();
    let new = match serde_json::to_value(settings).map_err(bad)? {
        Value::Object(new) => new,
        _ => Map::new(),
    };
    // Settings belong to their policy.
    let same = policy(before.get("policy")) == policy(new.get("policy"));
    let mut after = if same { before.clone() } else { Map::new() };
    after.extend(new);
    let changes = changes(&before, &after);
    file.insert("attention".into(), Value::Object(after));
    let text = serde_json::to_string_pretty(&file).map_err(bad)? + "\n";
    Ok(Merged { text, changes })
}

fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut changes = Vec::new();
    for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
        match (before.get(key), after.get(key)) {
            (was, is) if was == is => {}
            (Some(was), None) => changes.push(format!("{key} {was} is left out")),
            (was, is) => {
                let [was, is] = [was, is].map(|value| value.cloned().unwrap_or(json!(null)));
                changes.push(if was.is_null() {
                    format!("{key} {is}")
                } else {
                    format!("{key} {was} -> {is}")
                });
            }
        }
    }
    changes
}

impl Merged {
    /// Puts it into a directory in one piece, and says what that changes.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(super) fn write(&self, dir: &Path, console: Console) -> Result<()> {
        let (path, part) = (dir.join(NAME), dir.join("lim.json.part"));
        let was = fs::read_to_string(&path).ok();
        // A link there, as in the hub's cache, is replaced and not written through.
        fs::write(&part, &self.text).map_err(Error::io(&part))?;
        fs::rename(&part, &path).map_err(Error::io(&path))?;
        let how = match was {
            Some(was) if was == self.text => "is as it was",
            Some(_) => "replaces the one that was there",
            None => "is new",
        };
        let against =
            if self.changes.is_empty() { "the model's settings".into() } else { self.changes.join(", ") };
        console.item("written", format_args!("{} {how}: {against}", path.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lim_select::ModelFile;

    use super::*;

    fn settings() -> Settings {
        Settings {
            policy: Some(Policy::Lim),
            token_budget: Some(128),
            layers: Some("dense=0-1,select=2,4".parse().expect("valid")),
            ..Settings::default()
        }
    }

    fn read(text: &str) -> Settings {
        serde_json::from_str::<ModelFile>(text).expect("loads").attention
    }

    #[test]
    fn a_new_file_holds_what_was_chosen() {
        let new = merged(None, &settings()).expect("merges");
        assert_eq!(read(&new.text), settings());
        assert_eq!(new.changes, ["policy \"lim\"", "token_budget 128", "layers \"dense=0-1,select=2,4\""]);
        let again = merged(Some(&new.text), &settings()).expect("merges");
        assert_eq!((again.text, again.changes.len()), (new.text, 0));
    }

    #[test]
    fn other_settings_of_the_policy_stay() {
        let there = r#"{"attention": {"sinks": 2, "recent_ratio": 0.5, "layers": "select=3"}}"#;
        let new = merged(Some(there), &settings()).expect("merges");
        assert_eq!(read(&new.text), Settings { sinks: Some(2), recent_ratio: Some(0.5), ..settings() });
        assert_eq!(
            new.changes,
            ["layers \"select=3\" -> \"dense=0-1,select=2,4\"", "policy \"lim\"", "token_budget 128"]
        );
    }

    #[test]
    fn settings_of_another_policy_go() {
        let there = r#"{"attention": {"policy": "topp", "top_mass": 0.9, "sinks": 2}}"#;
        let new = merged(Some(there), &settings()).expect("merges");
        assert_eq!(read(&new.text), settings());
        assert_eq!(new.changes[..2], ["policy \"topp\" -> \"lim\"", "top_mass 0.9 is left out"]);
    }

    #[test]
    fn a_file_says_whether_it_was_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(NAME);
        let new = merged(None, &settings()).expect("merges");
        for _ in 0..2 {
            new.write(dir.path(), Console::new(true)).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), new.text);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no part is left");
        new.write(&dir.path().join("none"), Console::new(true)).expect_err("no such directory");
    }
}
