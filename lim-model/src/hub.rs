//! Models by name: from the Hugging Face cache that Python tools use too, else downloaded into it.

mod cache;
mod http;

use std::path::PathBuf;

use crate::config::{Object, parse_object};
use crate::weights::{INDEX, SINGLE, shard_files};
use crate::{Error, ModelDir, Result};
use cache::Repository;
use http::Client;

/// Files besides the weights that a model may have.
const SMALL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Where models come from, and where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Server, without a slash at the end.
    pub endpoint: String,
    /// Cache directory, `models--ORG--NAME` folders in it.
    pub cache: PathBuf,
    /// Access token for gated and private models.
    pub token: Option<String>,
    /// Never ask the server.
    pub offline: bool,
}

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// File name.
    pub file: &'a str,
    /// Bytes on disk, those of an earlier attempt included.
    pub done: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

impl Hub {
    /// What the environment says: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE`, read as Hugging Face's own tools read them.
    ///
    /// # Errors
    /// When neither a cache directory nor a home directory is set.
    pub fn from_env() -> Result<Self> {
        Hub::from_vars(|name| std::env::var(name).ok())
    }

    /// As [`Hub::from_env`], with `var` for the environment.
    ///
    /// # Errors
    /// As [`Hub::from_env`].
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name| var(name).filter(|value: &String| !value.is_empty());
        let path = |name| var(name).map(PathBuf::from);
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
            .or_else(|| path("HOME").map(|home| home.join(".cache/huggingface/hub")))
            .ok_or_else(|| Error::Hub {
                model: "Hugging Face cache".into(),
                reason: "none of HF_HUB_CACHE, HF_HOME and HOME is set".into(),
            })?;
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        Ok(Hub {
            endpoint: endpoint.trim_end_matches('/').into(),
            cache,
            token: var("HF_TOKEN"),
            offline: var("HF_HUB_OFFLINE").is_some_and(yes),
        })
    }

    /// The model `ORG/NAME`, or `ORG/NAME@REVISION`: the cached copy where it is whole, without asking the server,
    /// else downloaded. A download that was cut goes on where it stopped. `progress` is told of every piece.
    ///
    /// # Errors
    /// When the name is not that of a repository, the model is not in the cache and the hub is offline, the server
    /// refuses or cannot be reached, a file is not as announced, or the cache cannot be written.
    pub fn model(&self, name: &str, progress: &mut dyn FnMut(Download<'_>)) -> Result<ModelDir> {
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let refuse = |reason: &str| Error::Hub { model: name.into(), reason: reason.into() };
        if !is_repository(name) {
            return Err(refuse("neither a directory nor the name of a repository, ORG/NAME"));
        }
        if !is_revision(revision) {
            return Err(refuse("the revision is not a branch, tag or commit"));
        }
        let repository = Repository::new(&self.cache, name);
        match repository.cached(revision) {
            // Python tools may have brought the weights alone: the rest is asked for where that is allowed.
            Some((snapshot, tokenizer)) if tokenizer || self.offline => ModelDir::open(snapshot),
            None if self.offline => Err(refuse(&format!(
                "not whole in the cache, {}, and HF_HUB_OFFLINE forbids downloading it",
                self.cache.display()
            ))),
            _ => ModelDir::open(self.download(name, revision, &repository, progress)?),
        }
    }

    fn download(
        &self,
        name: &str,
        revision: &str,
        repository: &Repository,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<PathBuf> {
        let refuse = |reason: String| Error::Hub { model: name.into(), reason };
        let client = Client::new(self, name);
        let (commit, files) = listing(&client.get_json(&format!("api/models/{name}/revision/{revision}"))?)?;
        let has = |file: &str| files.iter().any(|f| f == file);
        if !has("config.json") {
            return Err(refuse("has no config.json".into()));
        }
        let mut fetch = |file: &str| {
            let url = format!("{name}/resolve/{commit}/{file}");
            repository.add(&client, &url, &commit, file, progress)
        };
        for file in SMALL_FILES.into_iter().filter(|file| has(file)) {
            fetch(file)?;
        }
        match (has(SINGLE), has(INDEX)) {
            (true, _) => fetch(SINGLE)?,
            (false, true) => {
                fetch(INDEX)?;
                for shard in shard_files(&repository.snapshot(&commit))? {
                    fetch(&shard)?;
                }
            }
            (false, false) => return Err(refuse("has no safetensors weights".into())),
        }
        repository.point(revision, &commit)?;
        Ok(repository.snapshot(&commit))
    }
}

/// The commit and the file names of a model's description.
fn listing((url, text): &(String, Vec<u8>)) -> Result<(String, Vec<String>)> {
    let map = parse_object(url, text)?;
    let json = Object::new(url, &map);
    let commit = json.string("sha")?.filter(|sha| cache::is_hash(sha));
    let commit = commit.ok_or_else(|| json.value_error("sha", "a commit"))?;
    let file = |v: &serde_json::Value| v.get("rfilename")?.as_str().map(str::to_owned);
    let files = json.get("siblings").and_then(|v| v.as_array()?.iter().map(file).collect::<Option<_>>());
    let files = files.ok_or_else(|| json.value_error("siblings", "a list of files"))?;
    Ok((commit.into(), files))
}

/// One or two parts of letters, digits, `-`, `_` and `.`; no part starts or ends with a dot or a dash.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.contains("..")
            && !part.contains("--")
    };
    name.len() <= 96 && name.split('/').count() <= 2 && name.split('/').all(part)
}

fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !revision.is_empty() && revision.chars().all(allowed) && !revision.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_like_hfs_tools_do() {
        let hub = |vars: &[(&str, &str)]| {
            let vars: Vec<(String, String)> =
                vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Hub::from_vars(move |name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        let plain = hub(&[("HOME", "/home/u"), ("HF_TOKEN", "")]).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.cache, PathBuf::from("/home/u/.cache/huggingface/hub"));
        assert_eq!((plain.token, plain.offline), (None, false));
        let xdg = hub(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/x")]).unwrap();
        assert_eq!(xdg.cache, PathBuf::from("/x/huggingface/hub"));
        let home = hub(&[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "true")]).unwrap();
        assert_eq!((home.cache, home.offline), (PathBuf::from("/hf/hub"), true));
        let all = hub(&[
            ("HF_HUB_CACHE", "/c"),
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", "t"),
            ("HF_HUB_OFFLINE", "0"),
        ]);
        let expected = Hub {
            endpoint: "http://mirror".into(),
            cache: "/c".into(),
            token: Some("t".into()),
            offline: false,
        };
        assert_eq!(all.unwrap(), expected);
        assert!(hub(&[]).unwrap_err().to_string().contains("HF_HOME"));
    }

    #[test]
    fn names_cannot_leave_the_cache() {
        for name in ["Qwen/Qwen3-8B", "gpt2", "a/b_c.d-e"] {
            assert!(is_repository(name), "{name}");
        }
        for name in
            ["", "/", "a/", "/a", "../x", "a/..", "a/../b", "a/b/c", ".a", "a.", "-a", "a--b", "a b", "a\\b"]
        {
            assert!(!is_repository(name), "{name}");
        }
        for revision in ["main", "v1.0", "0123abc"] {
            assert!(is_revision(revision), "{revision}");
        }
        for revision in ["", "..", "../x", "a/b", "a b"] {
            assert!(!is_revision(revision), "{revision}");
        }
    }
}
