//! `inspect`: a model's shape and memory, what each layer does under the settings, and what it keeps of a prompt.

mod highlight;
mod picture;
mod selection;

use lim_select::{Own, Report as Attention, Role};
use serde::Serialize;

use crate::args::{InspectArgs, OutputFormat};
use crate::console::Console;
use crate::error::{Error, Result};
use crate::open::{self, Opened, Text};
use crate::{output, policy, report};

/// `inspect --output json`.
#[derive(Debug, Serialize)]
struct Inspected {
    model: String,
    architecture: &'static str,
    parameters: u64,
    layers: usize,
    hidden: usize,
    intermediate: usize,
    vocab: usize,
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
    qk_norm: bool,
    qkv_bias: bool,
    tied_head: bool,
    rope: String,
    dtype: &'static str,
    weight_bytes: u64,
    kv_bytes_per_1k_tokens: u64,
    eos_token_ids: Vec<u32>,
    chat_template: bool,
    attention: Attention,
    /// One a layer: `dense`, `select`, `select own sparse` or `reuse`.
    roles: Vec<&'static str>,
    unused_tensors: Vec<String>,
}

pub(super) fn run(args: InspectArgs) -> Result<()> {
    let console = Console::new(args.report.quiet);
    if args.selection {
        return selection::run(&args, console);
    }
    if args.has_prompt() {
        return Err(Error::usage(
            "a prompt is for --selection, which shows what the select layers keep of it",
        ));
    }
    let opened = open::open(&args.model, console)?;
    let flags = policy::from_flags(args.attention.attention, &args.attention.budget)?;
    let attention = opened.attention(&flags, args.model.page_size)?;
    let inspected = inspect(&opened, &opened.text()?, &attention);
    match args.report.output {
        OutputFormat::Json => console.result(output::json(&inspected)?),
        OutputFormat::Text => console.result(text(&inspected, &policy::describe(&attention))),
    }
}

fn inspect(opened: &Opened, text: &Text, attention: &lim_select::Attention) -> Inspected {
    let config = &opened.config;
    Inspected {
        model: opened.name.clone(),
        architecture: config.family.architecture(),
        parameters: config.parameters(),
        layers: config.layers,
        hidden: config.hidden,
        intermediate: config.intermediate,
        vocab: config.vocab,
        query_heads: config.heads.query(),
        kv_heads: config.heads.kv(),
        head_dim: config.heads.dim(),
        context: config.max_positions,
        qk_norm: config.qk_norm,
        qkv_bias: config.qkv_bias,
        tied_head: config.tied_head,
        rope: opened.rope(),
        dtype: opened.dtype.name(),
        weight_bytes: config.parameters() * opened.dtype.bytes() as u64,
        kv_bytes_per_1k_tokens: 1024 * opened.kv_token_bytes(),
        eos_token_ids: text.end_ids.clone(),
        chat_template: text.template.is_some(),
        attention: attention.report(),
        roles: attention.plan().roles().iter().map(|&role| name(role)).collect(),
        unused_tensors: opened.weights.unused(),
    }
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Dense => "dense",
        Role::Select { own: Own::Dense } => "select",
        Role::Select { own: Own::Sparse } => "select own sparse",
        Role::Reuse => "reuse",
    }
}

fn text(i: &Inspected, attention: &str) -> String {
    let with = [(i.qk_norm, "QK-norm"), (i.qkv_bias, "QKV bias"), (i.tied_head, "tied head")];
    let with: Vec<&str> = with.iter().filter_map(|&(has, what)| has.then_some(what)).collect();
    let mut lines = vec![
        ("model", format!("{} ({})", i.model, i.architecture)),
        ("parameters", report::millions(i.parameters)),
        (
            "shape",
            format!(
                "{} layers, hidden {}, intermediate {}, vocabulary {}",
                i.layers, i.hidden, i.intermediate, i.vocab
            ),
        ),
        ("heads", format!("{} query, {} KV, {} wide", i.query_heads, i.kv_heads, i.head_dim)),
        ("with", if with.is_empty() { "-".into() } else { with.join(", ") }),
        ("context", format!("{} tokens, rope {}", i.context, i.rope)),
        ("weights", format!("{}, {}", i.dtype, report::bytes(i.weight_bytes))),
        ("KV cache", format!("{} per 1024 tokens", report::bytes(i.kv_bytes_per_1k_tokens))),
        ("ends at", format!("tokens {:?}", i.eos_token_ids)),
        ("chat", if i.chat_template { "has a template".into() } else { "no template".into() }),
        ("attention", attention.to_owned()),
    ];
    for role in ["dense", "select", "select own sparse", "reuse"] {
        let layers: Vec<usize> = (0..i.layers).filter(|&l| i.roles[l] == role).collect();
        if !layers.is_empty() {
            lines.push(("layers", format!("{} {role}", policy::ranges(&layers))));
        }
    }
    if !i.unused_tensors.is_empty() {
        lines.push(("unused", i.unused_tensors.join(", ")));
    }
    lines.iter().map(|(subject, text)| format!("{subject:<10} {text}\n")).collect()
}
