//! Answers problems on one engine, as many at a time as it has room for.

use std::collections::HashMap;

use lim_kernels::{Backend, SampleParams};
use lim_model::{
    Engine, Event, FinishReason, Request, SeqId, StopStrings, TextStream, ThinkingBudget, Tokenizer,
};

use super::reads::{Reads, Share};
use super::record::{Outcome, Record};
use super::settings::Setting;
use crate::error::Result;
use crate::grade::Graded;
use crate::interrupt::Interrupt;
use crate::problems::Problem;

/// How answers are generated, whatever the setting and the problem.
pub(super) struct Recipe<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    /// Tokens that end an answer.
    pub(super) eos: Vec<u32>,
    pub(super) stop: Vec<String>,
    pub(super) params: SampleParams,
    pub(super) max_new_tokens: usize,
    pub(super) thinking: Option<ThinkingBudget>,
    /// Sequences that decode together.
    pub(super) batch: usize,
    /// Keep what was written.
    pub(super) text: bool,
}

/// One answer to be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    /// In the order of all answers.
    pub(super) position: usize,
    pub(super) problem: &'a Problem,
    pub(super) prompt: &'a [u32],
    pub(super) sample: usize,
    pub(super) seed: u64,
}

/// An answer on its way.
struct Live<'a> {
    task: Task<'a>,
    stream: TextStream<'a>,
    stops: StopStrings,
    text: String,
    /// A stop text has come: nothing belongs to `text` any more.
    stopped: bool,
    tokens: usize,
    share: Share,
}

/// Solves `tasks` under `setting`. `done` gets each outcome with its task's position, as they are finished.
///
/// # Errors
/// When the engine or `done` fails, or the user interrupts.
pub(super) fn solve<'a, B: Backend>(
    engine: &mut Engine<B>,
    recipe: &'a Recipe<'a>,
    setting: &Setting,
    mut tasks: impl Iterator<Item = Task<'a>>,
    interrupt: &Interrupt,
    mut done: impl FnMut(usize, Outcome) -> Result<()>,
) -> Result<()> {
    engine.set_attention(setting.attention.clone())?;
    let reads = Reads::new(&setting.attention, engine.options().page_size);
    let mut usage = engine.usage()?;
    let mut live: HashMap<SeqId, Live<'a>> = HashMap::new();
    let (mut events, mut ended) = (Vec::new(), Vec::new());
    loop {
        // One more than decode together, so that its prompt waits ready.
        while live.len() <= recipe.batch
            && let Some(task) = tasks.next()
        {
            live.insert(engine.add(recipe.request(&task))?[0], Live::new(recipe, task)?);
        }
        if live.is_empty() {
            return Ok(());
        }
        interrupt.check()?;
        events.clear();
        events.extend_from_slice(engine.step()?);
        for event in &events {
            match *event {
                Event::Token { id, sampled } => {
                    let Some(one) = live.get_mut(&id) else { continue };
                    // The first token comes from the prompt's last row, the others from decode steps.
                    if one.tokens > 0 {
                        reads.step(&mut one.share, one.task.prompt.len() + one.tokens);
                    }
                    if one.token(sampled.token, &recipe.eos)? {
                        engine.finish(id)?;
                        ended.push((id, FinishReason::Stop));
                    }
                }
                // After a stop text it has ended already.
                Event::Finished { id, reason } if !ended.iter().any(|(other, _)| *other == id) => {
                    ended.push((id, reason));
                }
                _ => {}
            }
        }
        if ended.is_empty() {
            continue;
        }
        let now = engine.usage()?;
        reads.settle(&now.since(&usage), live.values_mut().map(|one| &mut one.share));
        usage = now;
        for (id, reason) in ended.drain(..) {
            if let Some(one) = live.remove(&id) {
                done(one.task.position, one.outcome(recipe, setting, &reads, reason)?)?;
            }
        }
    }
}

impl Recipe<'_> {
    fn request(&self, task: &Task<'_>) -> Request {
        Request {
            params: SampleParams { seed: task.seed, ..self.params },
            stop_ids: self.eos.clone(),
            thinking: self.thinking.clone(),
            ..Request::new(task.prompt.to_vec(), self.max_new_tokens)
        }
    }
}

impl<'a> Live<'a> {
    fn new(recipe: &'a Recipe<'a>, task: Task<'a>) -> Result<Self> {
        let (stream, stops) = (recipe.tokenizer.stream(true), StopStrings::new(&recipe.stop)?);
        Ok(Live {
            task,
            stream,
            stops,
            text: String::new(),
            stopped: false,
            tokens: 0,
            share: Share::default(),
        })
    }

    /// Takes a token. True if that completes a stop text.
    fn token(&mut self, token: u32, eos: &[u32]) -> Result<bool> {
        self.tokens += 1;
        if eos.contains(&token) {
            return Ok(false);
        }
        let piece = self.stream.push(token)?;
        self.stopped = self.stops.push(&piece, &mut self.text);
        Ok(self.stopped)
    }

    fn outcome(
        self,
        recipe: &Recipe<'_>,
        setting: &Setting,
        reads: &Reads,
        reason: FinishReason,
    ) -> Result<Outcome> {
        let Live { task, stream, mut stops, mut text, stopped, tokens, share, .. } = self;
        if !stopped && !stops.push(&stream.finish()?, &mut text) {
            stops.finish(&mut text);
        }
        let Task { problem, sample, seed, .. } = task;
        let Graded { answer, grade } = problem.reference.grade(&text, reason == FinishReason::Stop);
        let record = Record {
            setting: setting.label.clone(),
            problem: problem.id.clone(),
            group: problem.group.clone(),
            sample,
            seed,
            answer,
            reference: problem.reference.show(),
            grade,
            tokens,
            finish_reason: reason.name().to_owned(),
            text: recipe.text.then_some(text),
        };
        Ok(Outcome { record, count: Some(reads.count(&share)) })
    }
}
