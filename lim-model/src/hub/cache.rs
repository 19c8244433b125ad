//! The cache's layout, as Hugging Face's tools keep it:
//!
//! ```text
//! models--ORG--NAME/refs/main              the commit that the branch stands at
//!                  /snapshots/COMMIT/FILE  link to a blob
//!                  /blobs/ETAG             content
//!                  /blobs/ETAG.incomplete  content so far
//! .locks/models--ORG--NAME/ETAG.lock       held while a blob is being written
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Download;
use super::http::{Client, Remote};
use crate::weights::{SINGLE, shard_files};
use crate::{Error, Result};

/// One model's folder.
pub(super) struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub(super) fn new(cache: &Path, name: &str) -> Self {
        let folder = format!("models--{}", name.replace('/', "--"));
        Repository { locks: cache.join(".locks").join(&folder), folder: cache.join(folder) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The snapshot of a branch, tag or commit, where config and weights are in it, and whether a tokenizer is too.
    pub(super) fn cached(&self, revision: &str) -> Option<(PathBuf, bool)> {
        let pointer = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let commit = pointer.as_deref().map_or(revision, str::trim);
        let dir = self.snapshot(Some(commit).filter(|commit| is_hash(commit))?);
        let has = |file: &str| dir.join(file).is_file();
        let weights = || has(SINGLE) || shard_files(&dir).is_ok_and(|shards| shards.iter().all(|s| has(s)));
        let tokenizer = has("tokenizer.json");
        (has("config.json") && weights()).then_some((dir, tokenizer))
    }

    /// Lets `revision` stand at `commit`.
    pub(super) fn point(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(Error::io(path))
    }

    /// Brings a file into the snapshot of `commit`, by way of the blobs.
    pub(super) fn add(
        &self,
        client: &Client<'_>,
        url: &str,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<()> {
        let remote = client.head(url)?;
        let blob = self.folder.join("blobs").join(&remote.etag);
        let _lock = self.lock(&remote.etag)?;
        if !blob.is_file() {
            self.fetch(client, &remote, &blob, file, progress)?;
        }
        let link = self.snapshot(commit).join(file);
        make_parent(&link)?;
        match fs::remove_file(&link) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&link)(e)),
            _ => link_to(&blob, &Path::new("../../blobs").join(&remote.etag), &link),
        }
    }

    fn fetch(
        &self,
        client: &Client<'_>,
        remote: &Remote,
        blob: &Path,
        file: &str,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<()> {
        let incomplete = self.folder.join("blobs").join(format!("{}.incomplete", remote.etag));
        make_parent(&incomplete)?;
        let total = remote.size;
        client.download(remote, &incomplete, &mut |done| progress(Download { file, done, total }))?;
        fs::rename(&incomplete, blob).map_err(Error::io(blob))
    }

    /// Held until dropped, so that two processes do not write one blob.
    fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::create(&path).map_err(Error::io(&path))?;
        file.lock().map_err(Error::io(path))?;
        Ok(file)
    }
}

/// Whether `text` is a commit: hexadecimal digits, and so a plain file name.
pub(super) fn is_hash(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(Error::io(parent)),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn link_to(_blob: &Path, relative: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(relative, link).map_err(Error::io(link))
}

#[cfg(not(unix))]
fn link_to(blob: &Path, _relative: &Path, link: &Path) -> Result<()> {
    fs::hard_link(blob, link).map_err(Error::io(link))
}
