//! Sampling: greedy, log-probabilities, truncation rules, penalties, determinism.

use lim_kernels::{
    Append, Attend, Backend, Capacity, Draw, Embed, Error, Heads, KvLayout, Over, PageExtras, PageSize,
    RowsKind, Sample, SampleParams, Sampled, Step, Tensor,
};

use crate::fixture::{Rng, Subject, close, host, rows};

fn draw<B: Backend>(
    b: &mut B,
    logits: &[f32],
    vocab: usize,
    draws: &[Draw<'_>],
) -> Result<Vec<Sampled>, Error> {
    let logits = rows(b, RowsKind::Logits, vocab, logits);
    let mut places = b.draws(draws.len(), vocab)?;
    b.start_draws(draws, &mut places)?;
    b.sample(Sample { logits: &logits, draws: &mut places, next: None })?;
    b.post_draws(&mut places)?;
    read(b, &mut places, draws.len())
}

fn read<B: Backend>(b: &mut B, places: &mut B::Draws, rows: usize) -> Result<Vec<Sampled>, Error> {
    let mut out = vec![Sampled { token: u32::MAX, logprob: f32::NAN }; rows];
    b.read_draws(places, &mut out)?;
    Ok(out)
}

fn plain(params: SampleParams) -> Draw<'static> {
    Draw { params, ..Draw::default() }
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
        let got = draw(&mut s.b, &logits, 4, &[Draw { params, prompt, generated, forced: None, stop: &[] }])
            .unwrap()[0];
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
    let stops = Draw { stop: &[1; 17], ..plain(base) };
    let error = draw(&mut s.b, &[0.0; 4], 4, &[stops]).unwrap_err();
    assert!(error.to_string().contains("number of stop tokens is 17"), "{error}");
    let mut places = s.b.draws(1, 4).unwrap();
    let error = s.b.start_draws(&[plain(base), plain(base)], &mut places).unwrap_err();
    assert!(matches!(error, Error::Shape { op: "sample", .. }), "{error}");
    let error = s.b.force_draws(&[Some(4)], &mut places).unwrap_err();
    assert!(error.to_string().contains("token id is 4"), "{error}");
    assert!(read(&mut s.b, &mut places, 1).is_err(), "nothing was posted");
}

/// Draws that go on by themselves are those of fresh starts: places in the stream, counts, forced tokens.
pub(crate) fn going_on<B: Backend>(s: &mut Subject<B>) {
    const VOCAB: usize = 300;
    let base = SampleParams { temperature: 1.2, seed: 9, ..Default::default() };
    let (repetition_penalty, frequency_penalty) = (1.3, 0.4);
    let all = [base, SampleParams { repetition_penalty, frequency_penalty, ..base }, SampleParams::default()];
    let mut rng = Rng(52);
    let logits = rng.grids(all.len() * VOCAB);
    let on_device = rows(&mut s.b, RowsKind::Logits, VOCAB, &logits);
    let prompt = [3u32, 7, 7, 250];
    let mut generated = vec![vec![5u32, 7, 299]; all.len()];
    let start = |generated: &[Vec<u32>], b: &mut B, places: &mut B::Draws| {
        let rows = all.iter().zip(generated);
        let draws: Vec<Draw<'_>> =
            rows.map(|(&params, generated)| Draw { prompt: &prompt, generated, ..plain(params) }).collect();
        b.start_draws(&draws, places).unwrap();
    };
    let sample = |b: &mut B, places: &mut B::Draws| {
        b.sample(Sample { logits: &on_device, draws: places, next: None }).unwrap();
        b.post_draws(places).unwrap();
    };
    let [mut going, mut fresh] = [(); 2].map(|()| s.b.draws(all.len() + 1, VOCAB).unwrap());
    start(&generated, &mut s.b, &mut going);
    for i in 0..40 {
        let forced = [None, (i % 7 == 3).then_some(11), None];
        s.b.force_draws(&forced, &mut going).unwrap();
        sample(&mut s.b, &mut going);
        start(&generated, &mut s.b, &mut fresh);
        s.b.force_draws(&forced, &mut fresh).unwrap();
        sample(&mut s.b, &mut fresh);
        let (a, b) = (read(&mut s.b, &mut going, 3).unwrap(), read(&mut s.b, &mut fresh, 3).unwrap());
        assert_eq!(a, b, "draw {i}");
        assert!(forced[1].is_none_or(|token| a[1].token == token));
        for (list, sampled) in generated.iter_mut().zip(a) {
            list.push(sampled.token);
        }
    }
}

/// Two steps may wait to be read, and are read in order.
pub(crate) fn read_behind<B: Backend>(s: &mut Subject<B>) {
    let logits = rows(&mut s.b, RowsKind::Logits, 4, &[0.0, 1.0, 2.0, 3.0]);
    let mut places = s.b.draws(1, 4).unwrap();
    s.b.start_draws(&[plain(SampleParams::default())], &mut places).unwrap();
    let step = |b: &mut B, places: &mut B::Draws, token| {
        b.force_draws(&[Some(token)], places).unwrap();
        b.sample(Sample { logits: &logits, draws: places, next: None }).unwrap();
        b.post_draws(places)
    };
    step(&mut s.b, &mut places, 2).unwrap();
    for (token, before) in [(1, 2), (0, 1), (3, 0), (2, 3)] {
        step(&mut s.b, &mut places, token).unwrap();
        assert_eq!(read(&mut s.b, &mut places, 1).unwrap()[0].token, before);
    }
    step(&mut s.b, &mut places, 0).unwrap();
    assert!(step(&mut s.b, &mut places, 0).is_err(), "a third one waits");
    s.b.start_draws(&[plain(SampleParams::default())], &mut places).unwrap();
    assert!(read(&mut s.b, &mut places, 1).is_err(), "a start forgets what waits");
}

/// A decode step's rows go on with what they drew; a stop token leaves an empty place, which embeds something, touches
/// no page and counts nothing.
pub(crate) fn what_a_step_goes_on_with<B: Backend>(s: &mut Subject<B>) {
    let heads = Heads::new(2, 1, 32).unwrap();
    let (dtype, page_size) = (s.dtypes[0], PageSize::new(4).unwrap());
    let layout = KvLayout { heads, page_size, dtype };
    let capacity = Capacity { rows: 4, seqs: 4, tokens: 16 };
    let mut rng = Rng(53);
    let table = rng.grids(5 * 8);
    let linear = s.b.linear(&[(host(dtype, [5, 8], &table), None)]).unwrap();
    let ones = vec![1.0; 16 * 16];
    let rope = s.b.rope(&ones, &vec![0.0; 16 * 16], 16).unwrap();
    let mut batch = s.b.batch(capacity, page_size).unwrap();
    let mut kv = s.b.kv(layout, 8, PageExtras { bounds: true, gates: false }).unwrap();
    let mut counters = s.b.counters(1).unwrap();
    let mut places = s.b.draws(4, 5).unwrap();
    let logits = rows(&mut s.b, RowsKind::Logits, 5, &[0.0; 20]);

    // Lengths 4, 3, 6, and an empty place. The first goes on to a new page; the second draws its stop token.
    let pages: [&[u32]; 3] = [&[0, 7], &[1], &[2, 3]];
    let mut step = Step::default();
    for (token, len, pages) in [(0, 4, pages[0]), (1, 3, pages[1]), (2, 6, pages[2])] {
        step.push(&[token], len, pages).unwrap();
    }
    step.pad(4);
    s.b.upload(&step, &mut batch).unwrap();
    let stop = [3u32, 4];
    let draws = [4, 3, 3].map(|token| Draw { forced: Some(token), ..plain(SampleParams::default()) });
    let [first, second, third] = draws;
    s.b.start_draws(&[first, Draw { stop: &stop, ..second }, third], &mut places).unwrap();
    s.b.sample(Sample { logits: &logits, draws: &mut places, next: Some(&mut batch) }).unwrap();
    s.b.post_draws(&mut places).unwrap();
    let tokens: Vec<u32> = read(&mut s.b, &mut places, 3).unwrap().iter().map(|s| s.token).collect();
    assert_eq!(tokens, [4, 3, 3]);

    let mut next = Step::default();
    for (len, pages) in [(5, pages[0]), (4, pages[1]), (7, pages[2])] {
        next.push_next(len, pages).unwrap();
    }
    next.pad(4);
    assert!(next.push(&[0], 1, &[0]).is_err() && step.push_next(1, &[0]).is_err());
    s.b.upload(&next, &mut batch).unwrap();
    let mut x = s.b.rows(RowsKind::Residual, [4, 8]).unwrap();
    s.b.embed(Embed { table: &linear, batch: &batch, x: &mut x }).unwrap();
    let mut embedded = vec![0.0; 4 * 8];
    s.b.read_rows(&x, &mut embedded).unwrap();
    assert_eq!(embedded[..8], table[4 * 8..][..8]);
    assert_eq!(embedded[16..24], table[3 * 8..][..8]);
    assert!(embedded.iter().all(|x| x.is_finite()));

    // Keys of one value each, so that what attention reads shows who wrote.
    let mut qkv = s.b.rows(RowsKind::Activation, [4, heads.qkv_width()]).unwrap();
    let values: Vec<f32> = (0..4).flat_map(|row| vec![row as f32 + 1.0; heads.qkv_width()]).collect();
    s.b.write_rows(&values, &mut qkv).unwrap();
    s.b.append(Append { qkv: &mut qkv, qk_norm: None, eps: 0.0, rope: &rope, batch: &batch, kv: &mut kv })
        .unwrap();
    let mut out = s.b.rows(RowsKind::Activation, [4, 64]).unwrap();
    // Without a scale all tokens weigh the same.
    let mut attend = |b: &mut B, q: &Tensor<B::Rows, 2>, batch: &B::Batch, counters: &mut B::Counters| {
        let (kv, over, out) = (&kv, Over::Dense, &mut out);
        b.attend(Attend { q, kv, heads, scale: 0.0, batch, over, layer: 0, counters, out }).unwrap();
        let mut attended = vec![0.0; 4 * 64];
        b.read_rows(out, &mut attended).unwrap();
        attended
    };
    let attended = attend(&mut s.b, &qkv, &batch, &mut counters);
    let count = s.b.read_counters(&counters).unwrap()[0];
    assert_eq!((count.attended, count.context), (5 + 7, 5 + 7));
    // The other slots hold zeros, so a mean over n tokens is the new value over n.
    close(attended[0], 1.0 / 5.0, 0.01, "first");
    close(attended[2 * 64], 3.0 / 7.0, 0.01, "third");

    // A sequence on the page of the ended one finds nothing of its row there.
    let mut other = Step::default();
    other.push(&[0], 4, &[1]).unwrap();
    other.push(&[0], 1, &[6]).unwrap();
    s.b.upload(&other, &mut batch).unwrap();
    s.b.write_rows(&vec![0.0; 2 * heads.qkv_width()], &mut qkv).unwrap();
    let attended = attend(&mut s.b, &qkv, &batch, &mut counters);
    assert_eq!(attended[..128], [0.0; 128]);
}
