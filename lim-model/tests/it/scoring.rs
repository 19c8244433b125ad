//! The ways through a model agree: prefill in chunks or at once, prefill or decode, scoring or generating.

use std::sync::atomic::{AtomicBool, Ordering};

use lim_model::{Error, ScoreOptions};
use lim_select::{Attention, Policy};

use crate::goldens::distance;
use crate::tiny::{alone, attention, engine, greedy, options, prompt};

/// Scores `ids` with `prefill` tokens prefilled `rows` at a time.
fn score(attention: Attention, ids: &[u32], prefill: usize, rows: usize) -> Vec<f32> {
    let mut options = options();
    options.capacity.rows = rows;
    let mut engine = engine(attention, options);
    let nll = engine.score(ScoreOptions { ids, prefill }, &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!(engine.cache().used_pages(), 0, "pages leak");
    nll
}

#[test]
fn chunks_do_not_matter() {
    let ids = prompt(100, 1);
    let whole = score(attention(Policy::Full, 0), &ids, 100, 128);
    for rows in [4, 7, 33] {
        let chunked = score(attention(Policy::Full, 0), &ids, 100, rows);
        assert!(distance(&whole, &chunked) < 1e-5, "{rows}");
    }
}

#[test]
fn decode_agrees_with_prefill() {
    let ids = prompt(100, 2);
    let prefill = score(attention(Policy::Full, 0), &ids, 100, 128);
    let decode = score(attention(Policy::Full, 0), &ids, 1, 128);
    assert_eq!(decode.len(), 99);
    assert!(distance(&prefill, &decode) < 1e-5);
}

#[test]
fn the_first_value_needs_no_decode() {
    let first = |seed| {
        let nll = score(attention(Policy::Full, 0), &prompt(2, seed), 1, 16);
        assert_eq!(nll.len(), 1);
        nll[0]
    };
    // A random model knows nothing: about ln of the vocabulary, on average.
    let mean = (0..16).map(first).sum::<f32>() / 16.0;
    assert!((mean - 128f32.ln()).abs() < 1.0, "{mean}");
}

#[test]
fn scoring_what_was_generated_gives_its_logprobs() {
    for policy in Policy::ALL {
        let request = greedy(40, 5, 50);
        let prompt = request.prompt.clone();
        let generated = alone(attention(policy, 24), request).remove(0);
        let ids = [prompt, generated.tokens].concat();
        let nll = score(attention(policy, 24), &ids, 40, 16);
        let scored: Vec<u32> = nll[39..].iter().map(|x| (-x).to_bits()).collect();
        assert_eq!(scored, generated.logprobs, "{policy}");
    }
}

#[test]
fn bad_texts_are_refused() {
    let mut engine = engine(attention(Policy::Full, 0), options());
    let long = prompt(258, 1);
    for (ids, prefill, message) in [
        (&[1][..], 1, "text to score has 1 tokens, from 2 to 257"),
        (&long, 1, "text to score has 258 tokens, from 2 to 257"),
        (&[1, 2], 0, "prefill is 0, from 1 to the 2 tokens"),
        (&[1, 2], 3, "prefill is 3, from 1 to the 2 tokens"),
        (&[1, 999], 1, "text to score token 1 is 999, the vocabulary has 128"),
    ] {
        let error = engine.score(ScoreOptions { ids, prefill }, &AtomicBool::new(false), |_| ());
        assert_eq!(error.unwrap_err().to_string(), message);
    }
}

#[test]
fn a_cancelled_score_frees_its_pages() {
    let (ids, cancel) = (prompt(60, 1), AtomicBool::new(false));
    let mut engine = engine(attention(Policy::Full, 0), options());
    let scored = |done| cancel.store(done >= 20, Ordering::Relaxed);
    let error = engine.score(ScoreOptions { ids: &ids, prefill: 1 }, &cancel, scored).unwrap_err();
    assert!(matches!(error, Error::Interrupted));
    assert_eq!(engine.cache().used_pages(), 0);
}
