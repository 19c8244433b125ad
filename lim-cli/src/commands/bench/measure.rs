//! Runs one test once.

use lim_kernels::Backend;
use lim_model::{Engine, Event, Request, Usage};
use lim_select::Attention;

use super::plan::{Test, WARM_STEPS};
use crate::error::Result;
use crate::interrupt::Interrupt;

/// What the engine counted while the test's own tokens ran, without the filling before them.
///
/// # Errors
/// When the engine fails, or the user interrupts.
pub(super) fn once<B: Backend>(
    engine: &mut Engine<B>,
    test: Test,
    attention: &Attention,
    vocab: usize,
    interrupt: &Interrupt,
) -> Result<Usage> {
    engine.set_attention(attention.clone())?;
    // Any tokens do; a stride that is odd and large spreads them over the embedding.
    let prompt: Vec<u32> = (0..test.prompt()).map(|i| (i * 7919 % vocab) as u32).collect();
    let filled = match test {
        Test::Prefill { depth, .. } => depth,
        Test::Decode { .. } => prompt.len() - 1,
    };
    for _ in 0..test.batch() {
        engine.add(Request { random_prefix: filled, ..Request::new(prompt.clone(), test.new_tokens()) })?;
    }
    let (mut tokens, mut prompts) = (0, 0);
    let fills = |tokens: usize, prompts: usize| match test {
        Test::Prefill { depth, .. } => tokens < depth,
        Test::Decode { batch, .. } => prompts < batch,
    };
    while fills(tokens, prompts) {
        interrupt.check()?;
        for event in engine.step()? {
            if let &Event::Prefill { done, total, .. } = event {
                tokens = done;
                prompts += usize::from(done == total);
            }
        }
    }
    if matches!(test, Test::Decode { .. }) {
        for _ in 0..WARM_STEPS {
            engine.step()?;
        }
    }
    let before = engine.usage()?;
    while !engine.is_idle() {
        interrupt.check()?;
        engine.step()?;
    }
    Ok(engine.usage()?.since(&before))
}
