//! The files of a model: an HF directory, or files built into the executable.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{
    ChatTemplate, Checkpoint, Config, Download, Error, Gates, GenerationConfig, Hub, Result, Tokenizer,
    weights,
};

/// Where a model's files lie. Files are read when they are asked for.
#[derive(Clone, Debug)]
pub struct ModelDir(Place);

#[derive(Clone, Debug)]
enum Place {
    Directory(PathBuf),
    Embedded { name: &'static str, files: &'static [(&'static str, &'static [u8])] },
}

impl ModelDir {
    /// An HF model directory.
    ///
    /// # Errors
    /// When `path` is not a directory with a `config.json`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.join("config.json").is_file() {
            let model = path.display().to_string();
            return Err(Error::MissingFile { model, file: "config.json".into() });
        }
        Ok(ModelDir(Place::Directory(path)))
    }

    /// The model that a user means: a directory, else a repository on the hub (`ORG/NAME`, `ORG/NAME@REVISION`).
    /// `progress` is told how downloads go.
    ///
    /// # Errors
    /// As [`ModelDir::open`] where there is a directory of that name, else as [`Hub::model`].
    pub fn find(name: &str, hub: &Hub, progress: &mut dyn FnMut(Download<'_>)) -> Result<Self> {
        match Path::new(name).is_dir() {
            true => ModelDir::open(name),
            false => hub.model(name, progress),
        }
    }

    /// A model whose files are part of the executable: pairs of file name and content.
    pub fn embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        ModelDir(Place::Embedded { name, files })
    }

    /// The directory, or the embedded model's name.
    pub fn name(&self) -> String {
        match &self.0 {
            Place::Directory(path) => path.display().to_string(),
            Place::Embedded { name, .. } => (*name).into(),
        }
    }

    /// The directory, unless the model is embedded.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Directory(path) => Some(path),
            Place::Embedded { .. } => None,
        }
    }

    /// The file's name in errors.
    fn describe(&self, file: &str) -> String {
        match &self.0 {
            Place::Directory(path) => path.join(file).display().to_string(),
            Place::Embedded { name, .. } => format!("{name}/{file}"),
        }
    }

    /// A file's content; `None` where the model has no such file.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'_, [u8]>>> {
        match &self.0 {
            Place::Directory(path) => match std::fs::read(path.join(file)) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io(path.join(file))(e)),
            },
            Place::Embedded { files, .. } => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| (*bytes).into()))
            }
        }
    }

    fn need(&self, file: &str) -> Result<Cow<'_, [u8]>> {
        let missing = || Error::MissingFile { model: self.name(), file: file.into() };
        self.read(file)?.ok_or_else(missing)
    }

    /// The model's hyperparameters, from `config.json`.
    ///
    /// # Errors
    /// When the file is missing, or as [`Config::from_json`].
    pub fn config(&self) -> Result<Config> {
        Config::from_json(&self.describe("config.json"), &self.need("config.json")?)
    }

    /// The authors' advice, from `generation_config.json`; empty where there is none.
    ///
    /// # Errors
    /// As [`GenerationConfig::from_json`].
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        const FILE: &str = "generation_config.json";
        match self.read(FILE)? {
            Some(text) => GenerationConfig::from_json(&self.describe(FILE), &text),
            None => Ok(GenerationConfig::default()),
        }
    }

    /// The tokenizer, from `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// When there is no `tokenizer.json`, or as [`Tokenizer::from_json`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        const FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];
        let config = self.read(FILES[1])?;
        let names = FILES.map(|file| self.describe(file));
        Tokenizer::from_json(
            (&names[0], &self.need(FILES[0])?),
            config.as_deref().map(|text| (names[1].as_str(), text)),
        )
    }

    /// The chat template: `chat_template.jinja`, else the one in `tokenizer_config.json`; `None` where there is none.
    ///
    /// # Errors
    /// When a file is malformed, or the template has a syntax error.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        const FILES: [&str; 2] = ["chat_template.jinja", "tokenizer_config.json"];
        let names = FILES.map(|file| self.describe(file));
        let (jinja, config) = (self.read(FILES[0])?, self.read(FILES[1])?);
        ChatTemplate::from_files(
            jinja.as_deref().map(|text| (names[0].as_str(), text)),
            config.as_deref().map(|text| (names[1].as_str(), text)),
        )
    }

    /// The weights.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] or [`Checkpoint::from_bytes`].
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        const FILE: &str = "model.safetensors";
        match &self.0 {
            Place::Directory(path) => Checkpoint::open(path),
            Place::Embedded { files, name } => match files.iter().find(|(name, _)| *name == FILE) {
                Some((_, bytes)) => Checkpoint::from_bytes(&self.describe(FILE), bytes),
                None => Err(Error::MissingFile { model: (*name).into(), file: FILE.into() }),
            },
        }
    }

    /// The gates that policy `seer` ranks pages by, from `seer.safetensors`.
    ///
    /// # Errors
    /// When there is no such file, or as [`Gates::open`].
    pub fn gates(&self, config: &Config) -> Result<Gates> {
        let missing = || Error::MissingFile { model: self.name(), file: weights::GATES.into() };
        match &self.0 {
            Place::Directory(path) => {
                let file = path.join(weights::GATES);
                if file.is_file() { Gates::open(&file, config) } else { Err(missing()) }
            }
            Place::Embedded { files, .. } => {
                let file = files.iter().find(|(name, _)| *name == weights::GATES);
                let (name, bytes) = file.ok_or_else(missing)?;
                Gates::from_bytes(&self.describe(name), bytes, config)
            }
        }
    }
}
