//! A few layers of decode attention by role: what is selected, what is read, what is counted.
//!
//! Queries and keys are small multiples of 1/8, so scores, page bounds and gates are exact in any order of summation, and
//! selections must equal the reference on scores computed here, ties included.

use lim_kernels::{
    Append, Backend, Capacity, DType, Heads, HostTensor, KeyGates, KvLayout, LayerCount, NormGateUp,
    PageExtras, PageGates, PageSize, RowsKind, Sets, Step, Tensor,
};
use lim_select::{
    Attention, Buffers, DecodeAttend, DecodeLayer, Mass, ModelHint, Policy, Scoring, Settings,
    decode_attention, gate_up_and_select, reference,
};

use crate::cases::draw;

const H: usize = 4;
const KV: usize = 2;
const D: usize = 64;
const WIDTH: usize = (H + 2 * KV) * D;
const LAYERS: usize = 4;
const K: usize = 32;
const PAGE: usize = 16;
const SCALE: f32 = 0.125;
/// Of the residual stream, and of the rows of gate and up.
const HIDDEN: usize = 16;
const INNER: usize = 24;
/// Two of them, K and 5, are within the budget.
const LENGTHS: [usize; 6] = [100, K, K + 1, 70, 5, 97];

/// A sequence's fused rows `[n][q | k | v]`, the same in every layer.
struct Sequence {
    rows: Vec<f32>,
}

impl Sequence {
    fn new(n: usize) -> Self {
        let values: Vec<f32> = (-8..=8).map(|i| i as f32 / 8.0).collect();
        Sequence { rows: draw(&values, n * WIDTH, n as u64) }
    }

    fn len(&self) -> usize {
        self.rows.len() / WIDTH
    }

    /// The last token's query of head `h`.
    fn query(&self, h: usize) -> &[f32] {
        &self.rows[(self.len() - 1) * WIDTH + h * D..][..D]
    }

    fn key(&self, t: usize, h: usize) -> &[f32] {
        &self.rows[t * WIDTH + (H + h / (H / KV)) * D..][..D]
    }

    fn value(&self, t: usize, h: usize) -> &[f32] {
        &self.rows[t * WIDTH + (H + KV + h / (H / KV)) * D..][..D]
    }

    fn score(&self, t: usize, h: usize) -> f32 {
        self.query(h).iter().zip(self.key(t, h)).map(|(q, k)| q * k).sum()
    }

    fn bound(&self, page: usize, h: usize) -> f32 {
        let keys = || (page * PAGE..self.len().min((page + 1) * PAGE)).map(|t| self.key(t, h));
        let fold = |least: f32, pick: fn(f32, f32) -> f32| -> Vec<f32> {
            (0..D).map(|i| keys().fold(least, |acc, key| pick(acc, key[i]))).collect()
        };
        let (min, max) = (fold(f32::INFINITY, f32::min), fold(f32::NEG_INFINITY, f32::max));
        reference::page_bound(self.query(h), &min, &max)
    }

    /// The score of a page's gate under [`gate_weights`]: 0 where the page is not full.
    fn gate(&self, page: usize, kv_head: usize) -> f32 {
        if (page + 1) * PAGE > self.len() {
            return 0.0;
        }
        let heads = || (0..H / KV).map(|h| kv_head * (H / KV) + h);
        let element = |i: usize| {
            let keys = || (page * PAGE..(page + 1) * PAGE).map(|t| self.key(t, kv_head * (H / KV))[i]);
            let key = match i % 3 {
                0 => keys().fold(f32::NEG_INFINITY, f32::max),
                1 => keys().fold(f32::INFINITY, f32::min),
                _ => keys().sum::<f32>() / PAGE as f32,
            };
            heads().map(|h| self.query(h)[i]).sum::<f32>() * key
        };
        (0..D).map(element).sum::<f32>() / (D as f32).sqrt()
    }

    /// The sets that `policy` chooses for this sequence.
    fn expected_sets(&self, policy: Policy, attention: &Attention) -> Option<Vec<Vec<u32>>> {
        let page_size = PageSize::new(PAGE).expect("valid");
        let choice = policy.rule().select.expect("sparse").choice;
        let scores: Vec<f32> = match choice.scores() {
            Some(Scoring::Gates) => (0..KV)
                .flat_map(|j| (0..page_size.pages_for(self.len())).map(move |p| (p, j)))
                .map(|(p, j)| self.gate(p, j))
                .collect(),
            Some(Scoring::Bounds) => (0..H)
                .flat_map(|h| (0..page_size.pages_for(self.len())).map(move |p| (p, h)))
                .map(|(p, h)| self.bound(p, h))
                .collect(),
            _ => (0..H)
                .flat_map(|h| (0..self.len()).map(move |t| (t, h)))
                .map(|(t, h)| self.score(t, h))
                .collect(),
        };
        let heads = Heads::new(H, KV, D).expect("valid");
        let mass = Mass { scale: SCALE, share: attention.report().top_mass.unwrap_or(1.0) };
        let quota = attention.quota().expect("sparse");
        reference::select(choice, &scores, heads, self.len(), page_size, quota, mass)
    }

    /// Float64 attention of head `h` over `positions`, `[D]`.
    fn attention(&self, h: usize, positions: &[u32]) -> Vec<f64> {
        let weight = |t: u32| (f64::from(self.score(t as usize, h)) * f64::from(SCALE)).exp();
        let total: f64 = positions.iter().map(|&t| weight(t)).sum();
        let element = |i| {
            let sum: f64 =
                positions.iter().map(|&t| weight(t) * f64::from(self.value(t as usize, h)[i])).sum();
            sum / total
        };
        (0..D).map(element).collect()
    }
}

/// Wq that adds up the group's queries, and Wk that takes element i of the max, the min or the mean by i mod 3.
fn gate_weights() -> [HostTensor<2>; 2] {
    let weight = |inputs: usize, entries: &dyn Fn(usize) -> Vec<usize>| {
        let mut data = vec![0f32; KV * D * inputs];
        for row in 0..KV * D {
            entries(row % D).into_iter().for_each(|column| data[row * inputs + column] = 1.0);
        }
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        HostTensor { dtype: DType::F32, shape: [KV * D, inputs], bytes: bytes.into() }
    };
    [
        weight(H / KV * D, &|i| (0..H / KV).map(|h| h * D + i).collect()),
        weight(3 * D, &|i| vec![i % 3 * D + i]),
    ]
}

fn ones<const R: usize>(shape: [usize; R]) -> HostTensor<R> {
    let bytes = 1f32.to_le_bytes().repeat(shape.iter().product()).into();
    HostTensor { dtype: DType::F32, shape, bytes }
}

/// Sequences in pages, ready to decode their last token.
struct Rig<B: Backend> {
    backend: B,
    heads: Heads,
    capacity: Capacity,
    kv: B::Kv,
    gate_q: B::Linear,
    gate_k: B::Linear,
    rope: B::Rope,
    batch: B::Batch,
    q: Tensor<B::Rows, 2>,
    out: Tensor<B::Rows, 2>,
    /// Residual stream, `[seqs][HIDDEN]`, and what comes behind attention.
    x: Tensor<B::Rows, 2>,
    norm: B::Vector,
    gate_up: B::Linear,
    gated: Tensor<B::Rows, 2>,
    sequences: Vec<Sequence>,
}

/// What the layers of one step gave.
struct Outcome {
    /// By layer: `[seqs][H * D]`.
    outputs: Vec<Vec<f32>>,
    /// By sequence, after the last layer.
    selection: Vec<Option<Vec<Vec<u32>>>>,
    counts: Vec<LayerCount>,
}

impl<B: Backend> Rig<B> {
    fn new(mut backend: B, dtype: DType, lengths: &[usize]) -> Self {
        let heads = Heads::new(H, KV, D).expect("valid");
        let page_size = PageSize::new(PAGE).expect("valid");
        let most = *lengths.iter().max().expect("not empty");
        let capacity = Capacity { rows: most, seqs: lengths.len(), tokens: most };
        let count = lengths.len() * page_size.pages_for(most);
        let layout = KvLayout { heads, page_size, dtype };
        let extras = PageExtras { bounds: true, gates: true };
        let mut kv = backend.kv(layout, count, extras).expect("kv");
        let [gate_q, gate_k] = gate_weights().map(|w| backend.linear(&[(w, None)]).expect("gates"));
        let mut batch = backend.batch(capacity, page_size).expect("batch");
        let mut q = backend.rows(RowsKind::Activation, [most, WIDTH]).expect("rows");
        let out = backend.rows(RowsKind::Activation, [most, H * D]).expect("rows");
        let rope = backend.rope(&vec![1.0; most * D / 2], &vec![0.0; most * D / 2], D / 2).expect("rope");
        let sequences: Vec<Sequence> = lengths.iter().map(|&n| Sequence::new(n)).collect();
        // Pages of the sequences interleave, and run downwards.
        let pages = |seq: usize, n: usize| -> Vec<u32> {
            (0..page_size.pages_for(n)).map(|p| (count - 1 - (p * lengths.len() + seq)) as u32).collect()
        };
        let mut step = Step::default();
        for (seq, sequence) in sequences.iter().enumerate() {
            let n = sequence.len();
            step.clear();
            step.push(&vec![0; n], n, &pages(seq, n)).expect("rows");
            backend.upload(&step, &mut batch).expect("upload");
            backend.write_rows(&sequence.rows, &mut q).expect("write");
            let append =
                Append { qkv: &mut q, qk_norm: None, eps: 1e-6, rope: &rope, batch: &batch, kv: &mut kv };
            backend.append(append).expect("append");
            let gates = PageGates { q: &gate_q, k: &gate_k, rope: &rope };
            backend.key_gates(KeyGates { gates, batch: &batch, kv: &mut kv }).expect("gates");
        }
        step.clear();
        let mut last_rows = Vec::new();
        for (seq, sequence) in sequences.iter().enumerate() {
            let n = sequence.len();
            step.push(&[0], n, &pages(seq, n)).expect("row");
            last_rows.extend_from_slice(&sequence.rows[(n - 1) * WIDTH..]);
        }
        backend.upload(&step, &mut batch).expect("upload");
        backend.write_rows(&last_rows, &mut q).expect("write");
        let norm = backend.vector(&ones([HIDDEN])).expect("norm");
        let parts = [(ones([INNER, HIDDEN]), None), (ones([INNER, HIDDEN]), None)];
        let gate_up = backend.linear(&parts).expect("weights");
        let mut x = backend.rows(RowsKind::Residual, [lengths.len(), HIDDEN]).expect("rows");
        backend.write_rows(&vec![1.0; lengths.len() * HIDDEN], &mut x).expect("write");
        let gated = backend.rows(RowsKind::Activation, [lengths.len(), INNER]).expect("rows");
        Rig {
            backend,
            heads,
            capacity,
            kv,
            gate_q,
            gate_k,
            rope,
            batch,
            q,
            out,
            x,
            norm,
            gate_up,
            gated,
            sequences,
        }
    }

    fn run(&mut self, attention: &Attention) -> Outcome {
        let Rig { backend, heads, capacity, kv, gate_q, gate_k, rope, batch, q, out, sequences, .. } = self;
        let Rig { x, norm, gate_up, gated, .. } = self;
        let seqs = sequences.len();
        let mut buffers = Buffers::new(backend, attention, *capacity, *heads).expect("buffers");
        let mut counters = backend.counters(LAYERS).expect("counters");
        let mut outputs = Vec::new();
        let max_len = sequences.iter().map(Sequence::len).max().expect("not empty");
        for layer in 0..LAYERS {
            backend.write_rows(&vec![f32::NAN; seqs * H * D], out).expect("write");
            let at = DecodeLayer { heads: *heads, scale: SCALE, batch, max_len, layer };
            let gates = Some(PageGates { q: gate_q, k: gate_k, rope });
            let op = DecodeAttend { at, q, kv, gates, counters: &mut counters, out };
            decode_attention(backend, attention, &mut buffers, op).expect("attention");
            backend.write_rows(&vec![f32::NAN; seqs * INNER], gated).expect("write");
            let product = NormGateUp { x, norm, eps: 0.0, gate_up, batch, out: gated };
            gate_up_and_select(backend, attention, &mut buffers, at, &mut counters, product)
                .expect("selection");
            let mut rows = vec![f32::NAN; seqs * INNER];
            backend.read_rows(gated, &mut rows).expect("read");
            // silu(16) * 16 where a row of ones has the norm 1.
            assert!(rows.iter().all(|y| (y - 256.0).abs() < 1.0), "layer {layer}: {rows:?}");
            let mut output = vec![f32::NAN; seqs * H * D];
            backend.read_rows(out, &mut output).expect("read");
            outputs.push(output);
        }
        let read = |seq| match buffers.selection() {
            Some(selection) if max_len > K => backend.read_selection(seq, selection).expect("made"),
            _ => None,
        };
        let selection = (0..seqs).map(read).collect();
        let counts = backend.read_counters(&counters).expect("counters");
        Outcome { outputs, selection, counts }
    }
}

/// Layer 0 selects and reads everything, layer 1 selects and reads its own choice, the others reuse.
fn attention(policy: Policy) -> Attention {
    let mut settings = Settings { policy: Some(policy), ..Settings::default() };
    if policy != Policy::Full {
        settings.token_budget = Some(K);
        settings.layers = Some("select=0,1s".parse().expect("valid"));
    }
    let hint = ModelHint { model_type: "test", name: "", layers: LAYERS, hidden: H * D };
    settings.resolve(&hint, PageSize::new(PAGE).expect("valid")).expect("valid")
}

/// Every policy but `full`.
fn sparse() -> impl Iterator<Item = Policy> {
    Policy::ALL.into_iter().filter(|&policy| policy != Policy::Full)
}

/// Every role under every policy, against float64 attention over the reference's sets.
pub(crate) fn roles_read_what_they_should<B: Backend>(backend: B, dtype: DType, tolerance: f64) {
    let mut rig = Rig::new(backend, dtype, &LENGTHS);
    let full = rig.run(&attention(Policy::Full));
    for policy in sparse() {
        let attention = attention(policy);
        let got = rig.run(&attention);
        assert!(got.outputs[0] == full.outputs[0], "{policy}: a select layer that reads everything is dense");
        for layer in 2..LAYERS {
            assert!(got.outputs[layer] == got.outputs[1], "{policy}: layer {layer} reads another set");
        }
        for (seq, sequence) in rig.sequences.iter().enumerate() {
            let sets = sequence.expected_sets(policy, &attention);
            assert_eq!(got.selection[seq], sets, "{policy}: sets of sequence {seq}");
            let row = seq * H * D..(seq + 1) * H * D;
            let output = &got.outputs[1][row.clone()];
            let Some(sets) = sets else {
                assert!(*output == full.outputs[1][row], "{policy}: sequence {seq} is within the budget");
                continue;
            };
            for h in 0..H {
                let expected = sequence.attention(h, &sets[h * sets.len() / H]);
                for (&got, expected) in output[h * D..(h + 1) * D].iter().zip(expected) {
                    let error = (f64::from(got) - expected).abs();
                    assert!(error <= tolerance, "{policy}, sequence {seq}, head {h}: {got} for {expected}");
                }
            }
        }
        check_counts(policy, &attention, &rig, &got.counts, &full.counts, dtype);
    }
}

fn check_counts<B: Backend>(
    policy: Policy,
    attention: &Attention,
    rig: &Rig<B>,
    counts: &[LayerCount],
    full: &[LayerCount],
    dtype: DType,
) {
    let context: usize = LENGTHS.iter().sum();
    let attended: usize = rig
        .sequences
        .iter()
        .map(|s| s.expected_sets(policy, attention).map_or(s.len(), |sets| sets[0].len()))
        .sum();
    let selections = LENGTHS.iter().filter(|&&n| n > K).count();
    let count = |layer: usize| (counts[layer].context, counts[layer].attended, counts[layer].selections);
    assert_eq!(count(0), (context as u64, context as u64, selections as u64), "{policy}");
    assert_eq!(count(1), (context as u64, attended as u64, selections as u64), "{policy}");
    assert_eq!(count(2), (context as u64, attended as u64, 0), "{policy}");
    let token_bytes = KvLayout { heads: rig.heads, page_size: PageSize::default(), dtype }.token_bytes();
    assert_eq!(full[2].kv_bytes, (context * token_bytes) as u64);
    if policy.rule().select.expect("sparse").choice.sets() == Sets::Shared {
        assert_eq!(counts[2].kv_bytes, (attended * token_bytes) as u64, "{policy}");
    }
}

/// While no sequence exceeds the budget every policy is `full`: same bits, same reads, no selection.
pub(crate) fn within_the_budget_all_is_full<B: Backend>(backend: B, dtype: DType) {
    let mut rig = Rig::new(backend, dtype, &[K, 5, 17]);
    let full = rig.run(&attention(Policy::Full));
    for policy in sparse() {
        let got = rig.run(&attention(policy));
        assert!(got.outputs == full.outputs, "{policy}");
        assert_eq!(got.counts, full.counts, "{policy}");
    }
}

/// Buffers of one attention do not serve another, and a policy that ranks by gates wants a layer with gates.
pub(crate) fn what_does_not_belong_together_is_refused<B: Backend>(backend: B, dtype: DType) {
    let mut rig = Rig::new(backend, dtype, &[K + 1]);
    let Rig { backend, heads, capacity, kv, batch, q, out, .. } = &mut rig;
    for (made_for, used_with, layer, reason) in [
        (Policy::Full, Policy::Lim, 2, "its buffers were made for another policy or budget"),
        (Policy::Lim, Policy::Tidal, 2, "its buffers were made for another policy or budget"),
        (Policy::OmniKv, Policy::Kascade, 2, "its buffers were made for another policy or budget"),
        (Policy::Seer, Policy::Seer, 1, "layer 1 has no gates"),
    ] {
        let mut buffers = Buffers::new(backend, &attention(made_for), *capacity, *heads).expect("buffers");
        let mut counters = backend.counters(LAYERS).expect("counters");
        let at = DecodeLayer { heads: *heads, scale: SCALE, batch, max_len: K + 1, layer };
        let op = DecodeAttend { at, q, kv, gates: None, counters: &mut counters, out };
        let error = decode_attention(backend, &attention(used_with), &mut buffers, op).expect_err("refused");
        assert_eq!(error.to_string(), format!("decode step of policy `{used_with}`: {reason}"));
    }
}
