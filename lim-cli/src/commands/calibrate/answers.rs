//! A model's answers to many prompts, as many at a time as its engine has room for.

use std::collections::HashMap;

use lim_kernels::Backend;
use lim_model::{Engine, Event, Request, SeqId};

use crate::error::Result;
use crate::interrupt::Interrupt;

/// Tokens of every request's first sample, in order, under the engine's policy. `done` is told how many are finished.
///
/// # Errors
/// When a request cannot be met, the engine fails, or the user interrupts.
pub(super) fn answers<B: Backend>(
    engine: &mut Engine<B>,
    requests: &[Request],
    interrupt: &Interrupt,
    mut done: impl FnMut(usize),
) -> Result<Vec<Vec<u32>>> {
    let mut places: HashMap<SeqId, usize> = HashMap::new();
    let mut answers = Vec::new();
    for request in requests {
        places.extend(engine.add(request.clone())?.first().map(|&id| (id, answers.len())));
        answers.push(Vec::new());
    }
    let mut finished = 0;
    while !engine.is_idle() {
        interrupt.check()?;
        for event in engine.step()? {
            match *event {
                Event::Token { id, sampled } => {
                    let answer = places.get(&id).and_then(|&place| answers.get_mut(place));
                    answer.into_iter().for_each(|answer| answer.push(sampled.token));
                }
                Event::Finished { .. } => finished += 1,
                Event::Prefill { .. } | Event::Preempted { .. } => {}
            }
        }
        done(finished);
    }
    Ok(answers)
}
