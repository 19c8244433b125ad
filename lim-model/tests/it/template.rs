//! Chat templates against HF's prompts.

use std::collections::BTreeMap;

use lim_model::{ChatTemplate, Message, ModelDir};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::goldens;

fn messages(value: &Value) -> Vec<Message> {
    let message = |m: &Value| {
        let mut more = m.as_object().unwrap().clone();
        let (role, content) = (more.remove("role").unwrap(), more.remove("content").unwrap());
        Message { role: role.as_str().unwrap().into(), content, more }
    };
    value.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn prompts_equal_hfs() {
    for case in goldens::json("templates/cases.json").as_array().unwrap() {
        let file = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(goldens::path("templates").join(file)).unwrap();
        let tokens = case["special_tokens"].as_object().unwrap();
        let tokens = tokens.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()));
        let template = ChatTemplate::new(file, &source, tokens.collect()).unwrap();
        let rendered = template.render(
            &messages(&case["messages"]),
            case["add_generation_prompt"].as_bool().unwrap(),
            case["variables"].as_object().unwrap(),
        );
        let name = format!("{file}: {}", case["name"]);
        match case["error"].as_str() {
            None => assert_eq!(rendered.expect(&name), case["prompt"].as_str().unwrap(), "{name}"),
            Some(error) => {
                let said = rendered.expect_err(&name).to_string();
                assert!(said.contains(error), "{name}: {said}");
            }
        }
    }
}

fn render(source: &str) -> Result<String, String> {
    let template = ChatTemplate::new("t", source, BTreeMap::new()).map_err(|e| e.to_string())?;
    template.render(&[Message::new("user", "hi")], true, &Map::new()).map_err(|e| e.to_string())
}

#[test]
fn failures_say_where() {
    let said = render("{% if %}").unwrap_err();
    assert!(said.starts_with("t: chat template default: ") && said.contains("syntax error"), "{said}");
    let said = render("line\n{{ raise_exception('Only ' ~ 2) }}").unwrap_err();
    assert!(said.contains("Only 2") && said.contains(":2"), "{said}");
    let said = render("{{ messages[0].content.explode() }}").unwrap_err();
    assert!(said.contains("explode"), "{said}");
    let said = render("{{ strftime_now('%') }}").unwrap_err();
    assert!(said.contains("strftime_now"), "{said}");
    let said = render("{{ undefined_name | tojson }}").unwrap_err();
    assert!(said.contains("no JSON form"), "{said}");
}

#[test]
fn the_template_is_found_where_hf_looks() {
    let template = |jinja: Option<&str>, config: Value| {
        let config = config.to_string();
        let config = Some(("tokenizer_config.json", config.as_bytes()));
        ChatTemplate::from_files(jinja.map(|t| ("chat_template.jinja", t.as_bytes())), config)
    };
    let render = |t: &ChatTemplate, variables: Value| t.render(&[], false, variables.as_object().unwrap());
    let single = json!({"chat_template": "single {{ bos_token }}", "bos_token": {"content": "<s>"}});
    let found = template(None, single.clone()).unwrap().unwrap();
    assert_eq!(render(&found, json!({})).unwrap(), "single <s>");
    let found = template(Some("file {{ bos_token }}"), single).unwrap().unwrap();
    assert_eq!(render(&found, json!({})).unwrap(), "file <s>");
    let named = json!({"chat_template": [{"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools"}]});
    let found = template(None, named).unwrap().unwrap();
    assert_eq!(render(&found, json!({})).unwrap(), "plain");
    assert_eq!(render(&found, json!({"tools": [{}]})).unwrap(), "tools");
    let only = template(None, json!({"chat_template": [{"name": "rag", "template": ""}]})).unwrap().unwrap();
    assert!(render(&only, json!({})).unwrap_err().to_string().contains("only rag"));
    assert!(template(None, json!({})).unwrap().is_none());
    let said = template(None, json!({"chat_template": 3})).unwrap_err().to_string();
    assert!(said.contains("chat_template is 3"), "{said}");
}

#[test]
fn a_rendered_prompt_has_one_bos() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = goldens::path("tokenizers/byte-level-bos").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    std::fs::copy(goldens::path("templates/headers-date.jinja"), dir.path().join("chat_template.jinja"))
        .unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let model = ModelDir::open(dir.path()).unwrap();
    let (template, tokenizer) = (model.chat_template().unwrap().unwrap(), model.tokenizer().unwrap());
    let prompt = template.render(&[Message::new("user", "hi")], true, &Map::new()).unwrap();
    let count = |ids: Vec<u32>| ids.iter().filter(|id| Some(**id) == tokenizer.bos()).count();
    assert_eq!(count(tokenizer.encode_rendered(&prompt).unwrap()), 1);
    assert_eq!(count(tokenizer.encode(&prompt).unwrap()), 2, "a plain text gets a BOS of its own");
}

/// Pieces that put together make templates, most of them broken.
fn fragment() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("{% for m in messages %}"),
        Just("{% endfor %}"),
        Just("{% if add_generation_prompt %}"),
        Just("{% endif %}"),
        Just("{% generation %}"),
        Just("{%- endgeneration -%}"),
        Just("{% set x = x ~ x if x else 'aa' %}"),
        Just("{% macro f(a) %}{{ f(a) }}{% endmacro %}"),
        Just("{{ f(1) }}"),
        Just("{{ messages[9].content }}"),
        Just("{{ messages | tojson(indent=2) }}"),
        Just("{{ 1 // 0 }}"),
        Just("{{ 9999999999999999999999 * -9 }}"),
        Just("{{ [1] | tojson(indent=-7, separators=(1,)) }}"),
        Just("{{ strftime_now('%Q%d') }}"),
        Just("{{ 'é'[1:] ~ 'abc'[5] ~ 'x'.split('') }}"),
        Just("{%"),
        Just("{{"),
        Just("-%}"),
        Just("{#"),
    ]
}

proptest! {
    #[test]
    fn any_template_is_rendered_or_refused(pieces in prop::collection::vec(fragment(), 0..12)) {
        let _ = render(&pieces.concat());
    }

    #[test]
    fn any_tokenizer_config_is_read_or_refused(text in "[\\[\\]{}:,\"a-z_0-9]{0,80}") {
        let _ = ChatTemplate::from_files(None, Some(("tokenizer_config.json", text.as_bytes())));
    }
}
