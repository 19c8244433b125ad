//! Chat templates, rendered as HF transformers renders them.

mod environment;
mod json;

use std::collections::BTreeMap;

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{Object, parse_object};
use crate::tokenizer::special_token;
use crate::{Error, Result};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else a template knows.
    pub role: String,
    /// A text, or what else a template knows.
    pub content: Value,
    /// Further keys that a template may look at, such as `tool_calls` and `reasoning_content`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A message of text.
    pub fn new(role: &str, text: &str) -> Self {
        Message { role: role.into(), content: text.into(), more: Map::new() }
    }
}

/// A model's template or templates, compiled, with its special tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    names: Vec<String>,
    special_tokens: BTreeMap<String, String>,
}

const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// A single template from its text; `file` is its name in errors.
    ///
    /// # Errors
    /// When the template has a syntax error.
    pub fn new(file: &str, source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        ChatTemplate::compile(file, vec![(DEFAULT.to_owned(), source.to_owned())], special_tokens)
    }

    /// The template of `chat_template.jinja` where there is one, else that of `tokenizer_config.json`: pairs of name in
    /// errors and text. `None` where neither holds one.
    ///
    /// # Errors
    /// When a file is malformed, or the template has a syntax error.
    pub fn from_files(jinja: Option<(&str, &[u8])>, config: Option<(&str, &[u8])>) -> Result<Option<Self>> {
        let map = config.map(|(file, text)| parse_object(file, text)).transpose()?.unwrap_or_default();
        let json = Object::new(config.map_or("", |(file, _)| file), &map);
        let mut special_tokens = BTreeMap::new();
        for key in SPECIAL_TOKENS {
            if let Some(token) = special_token(&json, key)? {
                special_tokens.insert(key.to_owned(), token.to_owned());
            }
        }
        let (file, sources) = match jinja {
            Some((file, text)) => (file, vec![(DEFAULT.to_owned(), utf8(file, text)?)]),
            None => (json.file(), named_templates(&json)?),
        };
        match sources.is_empty() {
            true => Ok(None),
            false => ChatTemplate::compile(file, sources, special_tokens).map(Some),
        }
    }

    fn compile(
        file: &str,
        sources: Vec<(String, String)>,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self> {
        let malformed = |name: &str, e: &minijinja::Error| Error::Malformed {
            file: file.into(),
            reason: format!("chat template {name}: {}", environment::explain(e)),
        };
        let mut environment = environment::like_hf().map_err(|e| malformed("engine", &e))?;
        let mut names = Vec::new();
        for (name, source) in sources {
            let source = environment::without_generation_tags(&source);
            environment.add_template_owned(name.clone(), source).map_err(|e| malformed(&name, &e))?;
            names.push(name);
        }
        Ok(ChatTemplate { environment, names, special_tokens })
    }

    /// The prompt of a conversation. `variables` are further names that the template sees (`enable_thinking`, `tools`,
    /// `date_string`, ...); `add_generation_prompt` opens the assistant's turn.
    ///
    /// # Errors
    /// When the template raises an exception or fails.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Map<String, Value>,
    ) -> Result<String> {
        let name = self.choose(variables)?;
        let mut context = Map::new();
        context.extend(self.special_tokens.iter().map(|(k, v)| (k.clone(), v.as_str().into())));
        context.insert("tools".into(), Value::Null);
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        context.extend(variables.clone());
        let failed = |e: &minijinja::Error| Error::Template { reason: environment::explain(e) };
        let messages = minijinja::Value::from(Serde(messages));
        let context = minijinja::context! { messages, ..minijinja::Value::from(Serde(&context)) };
        let template = self.environment.get_template(name).map_err(|e| failed(&e))?;
        template.render(context).map_err(|e| failed(&e))
    }

    /// HF's choice among named templates: `tool_use` where there are tools, else `default`.
    fn choose(&self, variables: &Map<String, Value>) -> Result<&str> {
        let has = |name: &str| self.names.iter().any(|n| n == name);
        let tools = variables.get("tools").is_some_and(|tools| !tools.is_null());
        match (tools && has(TOOL_USE), has(DEFAULT)) {
            (true, _) => Ok(TOOL_USE),
            (false, true) => Ok(DEFAULT),
            (false, false) => {
                let names = self.names.join(", ");
                Err(Error::Template { reason: format!("there is no template `default`, only {names}") })
            }
        }
    }
}

fn utf8(file: &str, text: &[u8]) -> Result<String> {
    let malformed = |e| Error::Malformed { file: file.into(), reason: format!("not UTF-8: {e}") };
    std::str::from_utf8(text).map(str::to_owned).map_err(malformed)
}

/// `chat_template` is one template, or a list of objects with `name` and `template`.
fn named_templates(json: &Object<'_>) -> Result<Vec<(String, String)>> {
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
    match json.get("chat_template") {
        None => Ok(Vec::new()),
        Some(Value::String(source)) => Ok(vec![(DEFAULT.into(), source.clone())]),
        Some(value) => value
            .as_array()
            .and_then(|list| list.iter().map(|v| text(v, "name").zip(text(v, "template"))).collect())
            .ok_or_else(|| json.value_error("chat_template", "a string, or a list of named templates")),
    }
}
