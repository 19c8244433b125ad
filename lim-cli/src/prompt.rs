//! Where a prompt comes from, and its way to token ids.

use std::io::Read;

use crate::args::{ChatArgs, PromptArgs};
use crate::demo::Problem;
use crate::error::{Error, Result};
use crate::open::{Opened, Text};

/// What enters the model.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    /// The problem it states, where the demo model is to solve one.
    pub(crate) problem: Option<Problem>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Chat,
    Raw,
    Ids,
}

impl Form {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Chat => "in the model's chat template",
            Form::Raw => "raw",
            Form::Ids => "ids as given",
        }
    }
}

impl Prompt {
    /// One line for the report.
    pub(crate) fn describe(&self) -> String {
        format!("{} tokens, {}", self.ids.len(), self.form.name())
    }
}

const NO_PROMPT: &str = "no prompt: give PROMPT, - for stdin, --prompt-file or --prompt-ids";

/// The prompt of `generate`; where there is none the embedded model solves the sample problem of `seed`.
///
/// # Errors
/// When there is no prompt for a model of the user's own, it is empty, or it cannot be read or encoded.
pub(crate) fn for_generate(
    args: &PromptArgs,
    chat: &ChatArgs,
    seed: Option<u64>,
    opened: &Opened,
    text: &Text,
) -> Result<Prompt> {
    if let Some(ids) = &args.prompt_ids {
        let flags = [
            ("--chat", chat.chat),
            ("--system", chat.system.is_some()),
            ("--thinking", chat.thinking.is_some()),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|&(_, given)| given) {
            return Err(Error::Usage(format!(
                "{flag} cannot be used with --prompt-ids: they are taken as they are"
            )));
        }
        check_ids(ids, opened)?;
        return Ok(Prompt { ids: ids.clone(), problem: None, form: Form::Ids });
    }
    let prompt = match read(args)? {
        Some(prompt) => prompt,
        None if opened.is_embedded() => Problem::sample(seed.unwrap_or(0)).to_string(),
        None => return Err(Error::usage(NO_PROMPT)),
    };
    let (ids, form) = encode(&prompt, chat, opened, text)?;
    let problem = if opened.is_embedded() { Problem::parse(&prompt) } else { None };
    Ok(Prompt { ids, problem, form })
}

/// A prompt's ids, in the model's chat template where it has one or `chat` asks for it.
///
/// # Errors
/// When it is empty or cannot be encoded.
pub(crate) fn encode(
    prompt: &str,
    chat: &ChatArgs,
    opened: &Opened,
    text: &Text,
) -> Result<(Vec<u32>, Form)> {
    let asks_chat = chat.chat || chat.system.is_some() || chat.thinking.is_some();
    let (ids, form) = if asks_chat || (text.template.is_some() && !chat.raw) {
        (text.chat(prompt, chat.system.as_deref(), chat.thinking)?, Form::Chat)
    } else {
        (text.encode(prompt)?, Form::Raw)
    };
    if ids.is_empty() {
        return Err(Error::usage("the prompt is empty"));
    }
    check_ids(&ids, opened)?;
    Ok((ids, form))
}

/// The ids of `score`: a text is encoded with the tokenizer's own special tokens.
///
/// # Errors
/// As [`for_generate`].
pub(crate) fn for_score(args: &PromptArgs, opened: &Opened) -> Result<Vec<u32>> {
    let ids = match (&args.prompt_ids, read(args)?) {
        (Some(ids), _) => ids.clone(),
        (None, Some(prompt)) => opened.text()?.encode(&prompt)?,
        (None, None) => return Err(Error::usage(NO_PROMPT)),
    };
    check_ids(&ids, opened)?;
    Ok(ids)
}

/// The prompt's text, without the line end that files and pipes have at their end.
fn read(args: &PromptArgs) -> Result<Option<String>> {
    let prompt = match (&args.prompt, &args.prompt_file) {
        (Some(prompt), _) if prompt != "-" => prompt.clone(),
        (Some(_), _) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(Error::io("stdin"))?;
            without_line_end(text)
        }
        (None, Some(path)) => without_line_end(std::fs::read_to_string(path).map_err(Error::io(path))?),
        (None, None) => return Ok(None),
    };
    if prompt.is_empty() { Err(Error::usage("the prompt is empty")) } else { Ok(Some(prompt)) }
}

/// A file's text without the line end that files and pipes have at their end.
pub(crate) fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn check_ids(ids: &[u32], opened: &Opened) -> Result<()> {
    let vocab = opened.config.vocab;
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(Error::usage(format!("token {id} is not in the model's vocabulary of {vocab}"))),
        None => Ok(()),
    }
}
