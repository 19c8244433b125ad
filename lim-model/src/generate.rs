//! From a prompt to texts: the engine's tokens through the tokenizer, until each sample has ended.

use std::sync::atomic::{AtomicBool, Ordering};

use lim_kernels::{Backend, SampleParams, Sampled};

use crate::{
    Engine, Error, Event, FinishReason, Request, Result, SeqId, Sparsity, StopStrings, TextStream,
    ThinkingBudget, Timing, Tokenizer,
};

/// Ends thinking in a model's own words, as in the recipe of the Qwen3 report (arXiv 2505.09388, section 4.3).
pub const END_OF_THINKING: &str = "\n\nConsidering the limited time by the user, I have to give the solution based on \
                                   the thinking directly now.\n</think>\n\n";

/// A prompt and how to continue it.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Prompt, taken as it is.
    pub prompt: Vec<u32>,
    /// Continuations of it.
    pub samples: usize,
    /// How to draw.
    pub params: SampleParams,
    /// Most tokens of one continuation.
    pub max_new_tokens: usize,
    /// Texts that end a continuation; they are no part of it.
    pub stop: Vec<String>,
    /// Tokens that end a continuation: its last token, but no part of its text. Empty to ignore all.
    pub eos: Vec<u32>,
    /// Tokens after which a model that is still thinking is made to answer.
    pub thinking_budget: Option<usize>,
}

/// What has just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Prompt tokens are cached.
    Prefill {
        /// So far.
        done: usize,
        /// In all.
        total: usize,
    },
    /// A sample got a token.
    Token {
        /// Number of the sample.
        sample: usize,
        /// Tokens of the sample so far.
        tokens: usize,
        /// Text that is now certain; empty while a character or a stop string may still be under way.
        text: &'a str,
    },
    /// A sample has ended.
    Finished {
        /// Number of the sample.
        sample: usize,
        /// Text that was held back until the end.
        text: &'a str,
        /// Why.
        reason: FinishReason,
    },
}

/// One continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Text, without the stop string or end token that ended it.
    pub text: String,
    /// All tokens.
    pub token_ids: Vec<u32>,
    /// Natural logs of the tokens' probabilities under the unscaled softmax.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// All continuations, and what they took.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// One a sample.
    pub samples: Vec<Sample>,
    /// Times and speeds.
    pub timing: Timing,
    /// What attention read.
    pub sparsity: Sparsity,
}

/// Continues a prompt on an idle engine. `progress` is told of every token; once `cancel` is set, what has been
/// generated is returned with [`FinishReason::Interrupted`].
///
/// # Errors
/// When the engine is busy, the request cannot be met ([`Engine::add`]), a stop string is empty, there is a thinking
/// budget but no `</think>` token, or the backend fails.
pub fn generate<B: Backend>(
    engine: &mut Engine<B>,
    tokenizer: &Tokenizer,
    options: &GenerateOptions,
    cancel: &AtomicBool,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Generation> {
    if !engine.is_idle() {
        return Err(Error::Request { what: "engine", reason: "has other sequences, must be idle".into() });
    }
    let mut writers = Vec::with_capacity(options.samples);
    for sample in 0..options.samples {
        writers.push(Writer::new(sample, tokenizer.stream(true), StopStrings::new(&options.stop)?));
    }
    let thinking = match options.thinking_budget {
        Some(tokens) => Some(thinking_budget(tokenizer, tokens)?),
        None => None,
    };
    let before = engine.usage()?;
    let ids = engine.add(Request {
        prompt: options.prompt.clone(),
        random_prefix: 0,
        samples: options.samples,
        params: options.params,
        max_new_tokens: options.max_new_tokens,
        stop_ids: options.eos.clone(),
        thinking,
    })?;
    let result = drive(engine, &ids, &mut writers, &options.eos, cancel, &mut progress);
    for &id in &ids {
        engine.finish(id)?;
    }
    result?;
    let usage = engine.usage()?.since(&before);
    Ok(Generation {
        samples: writers.into_iter().map(Writer::into_sample).collect(),
        timing: usage.timing(),
        sparsity: usage.sparsity(),
    })
}

/// Steps the engine until every writer has ended; sequences may be left in it.
fn drive<B: Backend>(
    engine: &mut Engine<B>,
    ids: &[SeqId],
    writers: &mut [Writer<'_>],
    eos: &[u32],
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<()> {
    let number = |id: SeqId| ids.iter().position(|&other| other == id);
    let mut events = Vec::new();
    while writers.iter().any(|w| w.reason.is_none()) {
        if cancel.load(Ordering::Relaxed) {
            for writer in writers.iter_mut() {
                writer.end(FinishReason::Interrupted, progress)?;
            }
            break;
        }
        events.clear();
        events.extend_from_slice(engine.step()?);
        for event in &events {
            match *event {
                Event::Prefill { done, total, .. } => progress(Progress::Prefill { done, total }),
                Event::Token { id, sampled } => {
                    let Some(sample) = number(id) else { continue };
                    let text = !eos.contains(&sampled.token);
                    if writers[sample].token(sampled, text, progress)? {
                        engine.finish(id)?;
                    }
                }
                Event::Finished { id, reason } => {
                    let Some(sample) = number(id) else { continue };
                    writers[sample].end(reason, progress)?;
                }
                Event::Preempted { .. } => {}
            }
        }
    }
    Ok(())
}

/// A sample as it is written.
struct Writer<'t> {
    number: usize,
    /// `None` once the sample has ended.
    stream: Option<TextStream<'t>>,
    stops: StopStrings,
    text: String,
    token_ids: Vec<u32>,
    logprobs: Vec<f32>,
    reason: Option<FinishReason>,
}

impl<'t> Writer<'t> {
    fn new(number: usize, stream: TextStream<'t>, stops: StopStrings) -> Self {
        let (token_ids, logprobs) = (Vec::new(), Vec::new());
        Writer { number, stream: Some(stream), stops, text: String::new(), token_ids, logprobs, reason: None }
    }

    /// Takes a token, and its text where it `has_text`. True if that completes a stop string: the sample has ended.
    fn token(
        &mut self,
        sampled: Sampled,
        has_text: bool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<bool> {
        self.token_ids.push(sampled.token);
        self.logprobs.push(sampled.logprob);
        let (sample, tokens, before) = (self.number, self.token_ids.len(), self.text.len());
        let mut stopped = false;
        if has_text && let Some(stream) = &mut self.stream {
            let piece = stream.push(sampled.token)?;
            stopped = self.stops.push(&piece, &mut self.text);
        }
        progress(Progress::Token { sample, tokens, text: &self.text[before..] });
        if stopped {
            let reason = FinishReason::Stop;
            (self.stream, self.reason) = (None, Some(reason));
            progress(Progress::Finished { sample, text: "", reason });
        }
        Ok(stopped)
    }

    /// Writes out what was held back, unless the sample has ended already.
    fn end(&mut self, reason: FinishReason, progress: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        let (sample, before) = (self.number, self.text.len());
        let rest = stream.finish()?;
        if !self.stops.push(&rest, &mut self.text) {
            self.stops.finish(&mut self.text);
        }
        self.reason = Some(reason);
        progress(Progress::Finished { sample, text: &self.text[before..], reason });
        Ok(())
    }

    fn into_sample(self) -> Sample {
        let finish_reason = self.reason.unwrap_or(FinishReason::Interrupted);
        let Writer { text, token_ids, logprobs, .. } = self;
        Sample { text, token_ids, logprobs, finish_reason }
    }
}

/// Ends thinking after `tokens` tokens with [`END_OF_THINKING`].
///
/// # Errors
/// When the tokenizer has no `</think>` token.
pub fn thinking_budget(tokenizer: &Tokenizer, tokens: usize) -> Result<ThinkingBudget> {
    let Some(end) = tokenizer.token_id("</think>") else {
        let reason = "needs a model with a </think> token".into();
        return Err(Error::Request { what: "thinking budget", reason });
    };
    Ok(ThinkingBudget { tokens, end, closing: tokenizer.encode_rendered(END_OF_THINKING)? })
}
