//! Sampling: greedy, log-probabilities, truncation rules, penalties, determinism.

use lim_kernels::{Backend, Draw, Error, RowsKind, Sample, SampleParams, Sampled};

use crate::fixture::{Rng, Subject, close, rows};

fn draw<B: Backend>(
    b: &mut B,
    logits: &[f32],
    vocab: usize,
    draws: &[Draw<'_>],
) -> Result<Vec<Sampled>, Error> {
    let logits = rows(b, RowsKind::Logits, vocab, logits);
    let mut out = vec![Sampled { token: u32::MAX, logprob: f32::NAN }; draws.len()];
    b.sample(Sample { logits: &logits, draws, out: &mut out })?;
    Ok(out)
}

fn plain(params: SampleParams) -> Draw<'static> {
    Draw { params, prompt: &[], generated: &[], forced: None }
}

/// Tokens drawn at 4000 places of the stream, counted.
fn histogram<B: Backend>(b: &mut B, logits: &[f32], params: SampleParams) -> Vec<usize> {
    let generated = vec![0u32; 4000];
    let mut counts = vec![0; logits.len()];
    for chunk in 0..40 {
        let draws: Vec<Draw<'_>> =
            (0..100).map(|i| Draw { generated: &generated[..chunk * 100 + i], ..plain(params) }).collect();
        for sampled in draw(b, &logits.repeat(100), logits.len(), &draws).unwrap() {
            counts[sampled.token as usize] += 1;
        }
    }
    counts
}

pub(crate) fn greedy_and_logprob<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(50);
    for vocab in [1, 5, 1000, 4099] {
        let count = 3;
        let mut logits = rng.grids(count * vocab);
        logits[vocab / 2] = 3.0;
        logits[vocab - 1] = 3.0;
        let forced = Draw { forced: Some(0), ..plain(SampleParams::default()) };
        let draws = [plain(SampleParams::default()), plain(SampleParams::default()), forced];
        let got = draw(&mut s.b, &logits, vocab, &draws).unwrap();
        for (row, sampled) in got.iter().enumerate() {
            let row_logits: Vec<f64> = logits[row * vocab..][..vocab].iter().map(|&x| f64::from(x)).collect();
            let top = row_logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let first = row_logits.iter().position(|&x| x == top).unwrap();
            let want = if row == 2 { 0 } else { first };
            assert_eq!(sampled.token as usize, want, "vocab {vocab} row {row}");
            let log_sum = row_logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            close(sampled.logprob, row_logits[want] - log_sum, 1e-5, format!("vocab {vocab} row {row}"));
        }
    }
    // Far from zero, where a softmax without its maximum would overflow.
    let got =
        draw(&mut s.b, &[1000.0, 999.0, f32::NEG_INFINITY], 3, &[plain(SampleParams::default())]).unwrap();
    assert_eq!(got[0].token, 0);
    close(got[0].logprob, -(1.0 + (-1.0f64).exp()).ln(), 1e-6, "large logits");
}

/// Frequencies follow the softmax at the temperature.
pub(crate) fn frequencies<B: Backend>(s: &mut Subject<B>) {
    let logits = [1.0f32, 0.0, -1.0, 2.0, f32::NEG_INFINITY];
    for temperature in [0.5, 1.0, 2.0] {
        let counts =
            histogram(&mut s.b, &logits, SampleParams { temperature, seed: 5, ..Default::default() });
        let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (token, weight) in weights.iter().enumerate() {
            let (p, n) = (weight / total, 4000.0);
            let deviation = (n * p * (1.0 - p)).sqrt();
            close(counts[token] as f32, n * p, 4.5 * deviation, format!("T {temperature} token {token}"));
        }
    }
}

fn support<B: Backend>(b: &mut B, logits: &[f32], params: SampleParams) -> Vec<usize> {
    let counts = histogram(b, logits, params);
    (0..logits.len()).filter(|&t| counts[t] > 0).collect()
}

/// top-k, top-p and min-p keep exactly the tokens they should.
pub(crate) fn truncation<B: Backend>(s: &mut Subject<B>) {
    // Probabilities .4 .3 .15 .1 .05, in another order.
    let p = [0.1f32, 0.4, 0.05, 0.3, 0.15];
    let logits = p.map(f32::ln);
    let base = SampleParams { temperature: 1.0, seed: 3, ..Default::default() };
    let cases = [
        (SampleParams { top_k: 1, ..base }, vec![1]),
        (SampleParams { top_k: 3, ..base }, vec![1, 3, 4]),
        (SampleParams { top_k: 99, ..base }, vec![0, 1, 2, 3, 4]),
        (SampleParams { top_p: 0.3, ..base }, vec![1]),
        (SampleParams { top_p: 0.65, ..base }, vec![1, 3]),
        (SampleParams { top_p: 0.72, ..base }, vec![1, 3, 4]),
        // Of the two that top-k keeps, .4 is 57%.
        (SampleParams { top_k: 2, top_p: 0.56, ..base }, vec![1]),
        (SampleParams { min_p: 0.3, ..base }, vec![1, 3, 4]),
        (SampleParams { min_p: 0.3, top_k: 2, ..base }, vec![1, 3]),
        (SampleParams { min_p: 1.0, ..base }, vec![1]),
    ];
    for (params, want) in cases {
        assert_eq!(support(&mut s.b, &logits, params), want, "{params:?}");
    }
    // Ties go to the lower id.
    assert_eq!(support(&mut s.b, &[0.5; 4], SampleParams { top_k: 2, ..base }), [0, 1]);
    assert_eq!(support(&mut s.b, &[0.5; 4], SampleParams { top_p: 0.7, ..base }), [0, 1, 2]);
    // A flat distribution, for which top-p keeps many.
    let flat = vec![0.0; 3000];
    let kept = support(&mut s.b, &flat, SampleParams { top_p: 0.5, ..base });
    assert!(kept.len() > 1000 && *kept.last().unwrap() < 1500, "{} {:?}", kept.len(), kept.last());
}

pub(crate) fn penalties<B: Backend>(s: &mut Subject<B>) {
    let logits = [2.0f32, 1.8, 1.7, -0.5];
    let base = SampleParams::default();
    let mut winner = |params: SampleParams, prompt: &[u32], generated: &[u32]| {
        let got = draw(&mut s.b, &logits, 4, &[Draw { params, prompt, generated, forced: None }]).unwrap()[0];
        // The log-probability is that of the logits as they are.
        let log_sum = logits.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        close(got.logprob, f64::from(logits[got.token as usize]) - log_sum, 1e-6, "logprob");
        got.token
    };
    let repetition = SampleParams { repetition_penalty: 1.15, ..base };
    assert_eq!(winner(repetition, &[], &[]), 0);
    assert_eq!(winner(repetition, &[0, 0], &[]), 1);
    assert_eq!(winner(repetition, &[0], &[0, 1]), 0, "2.0 and 1.8 over 1.15 leave 1.74 ahead of 1.7");
    let presence = SampleParams { presence_penalty: 0.25, ..base };
    assert_eq!(winner(presence, &[0], &[]), 0, "prompt tokens do not count");
    assert_eq!(winner(presence, &[], &[0, 0, 0]), 1);
    let frequency = SampleParams { frequency_penalty: 0.11, ..base };
    assert_eq!(winner(frequency, &[], &[0]), 0);
    assert_eq!(winner(frequency, &[], &[0, 3, 0]), 1);
    assert_eq!(winner(frequency, &[], &[0, 1, 0, 0, 1]), 2);
}

/// The same place of the same stream gives the same token, in any row.
pub(crate) fn repeatable<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(51);
    let logits = rng.grids(500);
    let generated = vec![0u32; 64];
    let at = |seed, i: usize| Draw {
        generated: &generated[..i],
        ..plain(SampleParams { temperature: 1.5, seed, ..Default::default() })
    };
    let draws: Vec<Draw<'_>> = (0..64).map(|i| at(7, i)).collect();
    let first = draw(&mut s.b, &logits.repeat(64), 500, &draws).unwrap();
    for i in [0, 13, 63] {
        assert_eq!(draw(&mut s.b, &logits, 500, &[at(7, i)]).unwrap()[0], first[i]);
    }
    let other: Vec<Draw<'_>> = (0..64).map(|i| at(8, i)).collect();
    assert_ne!(draw(&mut s.b, &logits.repeat(64), 500, &other).unwrap(), first);
}

pub(crate) fn refusals<B: Backend>(s: &mut Subject<B>) {
    let mut logits = vec![0.0; 200];
    logits[150] = f32::NAN;
    let greedy = plain(SampleParams::default());
    let nan = draw(&mut s.b, &logits, 100, &[greedy, plain(SampleParams::default())]).unwrap_err();
    assert!(matches!(nan, Error::NotFinite { op: "sample", row: 1, index: 50, .. }), "{nan}");
    logits[150] = f32::INFINITY;
    let draws = [plain(SampleParams::default()), plain(SampleParams::default())];
    let inf = draw(&mut s.b, &logits, 100, &draws).unwrap_err();
    assert!(matches!(inf, Error::NotFinite { row: 1, index: 50, .. }), "{inf}");
    let nothing = draw(&mut s.b, &[f32::NEG_INFINITY; 4], 4, &[plain(SampleParams::default())]).unwrap_err();
    assert!(matches!(nothing, Error::NotFinite { row: 0, .. }), "{nothing}");
    let base = SampleParams { temperature: 1.0, ..Default::default() };
    for bad in [
        SampleParams { temperature: -1.0, ..base },
        SampleParams { temperature: f32::NAN, ..base },
        SampleParams { top_p: 0.0, ..base },
        SampleParams { top_p: 1.5, ..base },
        SampleParams { min_p: -0.1, ..base },
        SampleParams { repetition_penalty: 0.0, ..base },
    ] {
        let error = draw(&mut s.b, &[0.0; 4], 4, &[plain(bad)]).unwrap_err();
        assert!(matches!(error, Error::Range { op: "sample", .. }), "{error}");
    }
    let beyond = Draw { generated: &[4], ..plain(base) };
    let error = draw(&mut s.b, &[0.0; 4], 4, &[beyond]).unwrap_err();
    assert!(error.to_string().contains("token id is 4"), "{error}");
}
