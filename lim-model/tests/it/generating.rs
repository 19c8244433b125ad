//! From prompt to text: streams, stop strings, end tokens, thinking budgets, interruption.

use std::sync::atomic::{AtomicBool, Ordering};

use lim_kernels::SampleParams;
use lim_kernels::cpu::Cpu;
use lim_model::{
    END_OF_THINKING, Engine, FinishReason, GenerateOptions, Generation, Progress, Request, ThinkingBudget,
    Tokenizer, generate,
};
use lim_select::Policy;
use serde_json::{Map, Value, json};

use crate::tiny::{self, alone, attention, engine, greedy, options};

const EOS: u32 = 126;
const END_THINK: u32 = 127;

/// A byte-level tokenizer of 128 ids: printable ASCII, newline, 30 bytes of longer characters, two added tokens.
fn tokenizer(added: &[(&str, u32)]) -> Tokenizer {
    let mut bytes: Vec<u8> = (32..127).chain([10]).collect();
    bytes.extend("é€😀".bytes());
    bytes.extend((0xa0..0xff).filter(|b| !"é€😀".bytes().any(|c| c == *b)).take(30 - 9));
    // GPT-2's printable stand-ins for bytes: bytes that print stand for themselves, the others for 256 and up.
    let prints = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let stand_in = |byte: u8| match prints(byte) {
        true => char::from(byte),
        false => char::from_u32(256 + (0..byte).filter(|&b| !prints(b)).count() as u32).unwrap(),
    };
    let mut vocab = Map::new();
    for (id, &byte) in bytes.iter().enumerate() {
        vocab.insert(stand_in(byte).to_string(), Value::from(id));
    }
    assert_eq!(vocab.len(), EOS as usize);
    let added: Vec<Value> = added
        .iter()
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": content.starts_with("<e")})
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []}});
    Tokenizer::from_json(("tokenizer.json", file.to_string().as_bytes()), None).unwrap()
}

fn full() -> Tokenizer {
    tokenizer(&[("<eos>", EOS), ("</think>", END_THINK)])
}

/// A greedy request, or a random one where `temperature` says so.
fn ask(seed: u32, max_new_tokens: usize, temperature: f32) -> GenerateOptions {
    GenerateOptions {
        prompt: tiny::prompt(20, seed),
        samples: 1,
        params: SampleParams { temperature, seed: 5, ..SampleParams::default() },
        max_new_tokens,
        stop: Vec::new(),
        eos: Vec::new(),
        thinking_budget: None,
    }
}

fn machine() -> Engine<Cpu> {
    engine(attention(Policy::Lim, 24), options())
}

/// Generates, and checks that what was streamed is what came out, and that nothing stays behind.
fn go(options: &GenerateOptions) -> Generation {
    let mut engine = machine();
    let mut streamed = vec![String::new(); options.samples];
    let mut tokens = vec![0; options.samples];
    let mut prefilled = 0;
    let never = AtomicBool::new(false);
    let generation = generate(&mut engine, &full(), options, &never, |progress| match progress {
        Progress::Prefill { done, total } => {
            assert!(done > prefilled && done <= total);
            prefilled = done;
        }
        Progress::Token { sample, tokens: count, text } => {
            streamed[sample].push_str(text);
            tokens[sample] = count;
        }
        Progress::Finished { sample, text, .. } => streamed[sample].push_str(text),
    })
    .unwrap();
    assert_eq!(prefilled, options.prompt.len());
    for (i, sample) in generation.samples.iter().enumerate() {
        assert_eq!((&streamed[i], tokens[i]), (&sample.text, sample.token_ids.len()));
        assert_eq!(sample.logprobs.len(), sample.token_ids.len());
    }
    assert!(engine.is_idle());
    assert_eq!(engine.cache().used_pages(), 0);
    generation
}

#[test]
fn the_pieces_are_the_text_of_the_tokens() {
    let generation = go(&GenerateOptions { samples: 4, ..ask(1, 80, 1.5) });
    for sample in &generation.samples {
        assert_eq!(sample.text, full().decode(&sample.token_ids, true).unwrap());
        assert_eq!((sample.token_ids.len(), sample.finish_reason), (80, FinishReason::Length));
    }
    let timing = generation.timing;
    assert!(timing.prefill_tokens_per_s > 0.0 && timing.decode_tokens_per_s > 0.0);
    assert!(generation.sparsity.selections > 0);
}

#[test]
fn a_stop_string_across_tokens_ends_the_text_before_it() {
    let free = go(&ask(2, 60, 1.5)).samples.remove(0);
    let chars: Vec<char> = free.text.chars().collect();
    let stop: String = chars[20..23].iter().collect();
    let at = free.text.find(&stop).unwrap();
    let stopped =
        go(&GenerateOptions { stop: vec!["never this".into(), stop], ..ask(2, 60, 1.5) }).samples.remove(0);
    assert_eq!(stopped.text, free.text[..at]);
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert!(stopped.token_ids.len() < 60 && free.token_ids.starts_with(&stopped.token_ids));
}

#[test]
fn one_sample_stops_and_the_others_go_on() {
    let free = go(&GenerateOptions { samples: 3, ..ask(3, 40, 1.5) }).samples;
    let stop: String = free[1].text.chars().skip(4).take(4).collect();
    let stopped = go(&GenerateOptions { samples: 3, stop: vec![stop.clone()], ..ask(3, 40, 1.5) }).samples;
    for (stopped, free) in stopped.iter().zip(&free) {
        match free.text.find(&stop) {
            Some(at) => assert_eq!(stopped.text, free.text[..at]),
            None => assert_eq!(stopped, free),
        }
    }
    assert_eq!(stopped[1].finish_reason, FinishReason::Stop);
}

#[test]
fn an_end_token_is_a_token_but_no_text() {
    let free = go(&ask(4, 40, 1.0)).samples.remove(0);
    let eos = free.token_ids[9];
    let first = free.token_ids.iter().position(|&t| t == eos).unwrap();
    let ended = go(&GenerateOptions { eos: vec![eos], ..ask(4, 40, 1.0) }).samples.remove(0);
    assert_eq!(ended.token_ids, free.token_ids[..=first]);
    assert_eq!(ended.text, full().decode(&free.token_ids[..first], true).unwrap());
    assert_eq!(ended.finish_reason, FinishReason::Stop);
}

#[test]
fn a_thinking_budget_puts_the_end_of_thinking() {
    let free = go(&ask(5, 30, 0.0)).samples.remove(0);
    assert!(!free.token_ids[..7].contains(&END_THINK));
    let closing = full().encode_rendered(END_OF_THINKING).unwrap();
    assert_eq!(full().decode(&closing, true).unwrap(), END_OF_THINKING);
    let options = GenerateOptions { thinking_budget: Some(7), ..ask(5, closing.len() + 20, 0.0) };
    let cut = go(&options).samples.remove(0);
    assert_eq!(cut.token_ids[..7], free.token_ids[..7]);
    assert_eq!(cut.token_ids[7..7 + closing.len()], closing);
    assert_eq!(cut.token_ids.len(), closing.len() + 20);
    assert!(cut.text.contains(END_OF_THINKING));
}

#[test]
fn a_model_that_stops_thinking_by_itself_is_left_alone() {
    let free = alone(attention(Policy::Lim, 24), greedy(20, 6, 40));
    let ends_at = |end, tokens| {
        let thinking = Some(ThinkingBudget { tokens, end, closing: vec![1, 2, 3] });
        alone(attention(Policy::Lim, 24), Request { thinking, ..greedy(20, 6, 40) })
    };
    let end = free[0].tokens[8];
    let first = free[0].tokens.iter().position(|&t| t == end).unwrap();
    assert_eq!(ends_at(end, first + 1), free);
    let cut = ends_at(end, first).remove(0);
    assert_eq!(cut.tokens[..first], free[0].tokens[..first]);
    assert_eq!(cut.tokens[first..first + 3], [1, 2, 3]);
}

#[test]
fn an_interruption_keeps_what_there_is() {
    let (cancel, mut engine) = (AtomicBool::new(false), machine());
    let options = GenerateOptions { samples: 2, ..ask(7, 80, 1.0) };
    let generation = generate(&mut engine, &full(), &options, &cancel, |progress| {
        if let Progress::Token { sample: 1, tokens: 12, .. } = progress {
            cancel.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    for sample in &generation.samples {
        assert_eq!((sample.token_ids.len(), sample.finish_reason), (12, FinishReason::Interrupted));
        assert_eq!(sample.text, full().decode(&sample.token_ids, true).unwrap());
    }
    assert!(engine.is_idle());
    assert_eq!(engine.cache().used_pages(), 0);
}

#[test]
fn what_cannot_be_met_is_refused() {
    let (never, mut engine) = (AtomicBool::new(false), machine());
    let mut refused = |tokenizer: &Tokenizer, options: &GenerateOptions| {
        generate(&mut engine, tokenizer, options, &never, |_| ()).unwrap_err().to_string()
    };
    let stop = vec![String::new()];
    assert_eq!(
        refused(&full(), &GenerateOptions { stop, ..ask(1, 4, 0.0) }),
        "stop string number 0 is empty"
    );
    let thinking = GenerateOptions { thinking_budget: Some(4), ..ask(1, 4, 0.0) };
    let error = refused(&tokenizer(&[("<eos>", EOS)]), &thinking);
    assert_eq!(error, "thinking budget needs a model with a </think> token");
    engine.add(greedy(4, 1, 4)).unwrap();
    let error = generate(&mut engine, &full(), &ask(1, 4, 0.0), &never, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "engine has other sequences, must be idle");
}
