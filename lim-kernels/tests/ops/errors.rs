//! What does not fit is refused, by name.

use lim_kernels::{
    Append, Attend, Backend, Capacity, DType, Embed, Error, Over, PageExtras, PageSize, Pick, Quota,
    RowsKind, Score, ScoreOf, Select, Sets, Step,
};

use crate::attend::run;
use crate::fixture::{Cache, Rng, Subject, host, layout, no_rotation, plain_batch, rows};

#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Error>, words: &str) {
    match result {
        Ok(_) => panic!("accepted, expected: {words}"),
        Err(error) => assert!(error.to_string().contains(words), "{error}; expected: {words}"),
    }
}

pub(crate) fn weights<B: Backend>(s: &mut Subject<B>) {
    let w = |shape: [usize; 2], n: usize| host(DType::F32, [n], &vec![0.0; n]).bytes_as(shape);
    refused(s.b.linear(&[]), "parts");
    refused(s.b.linear(&[(w([2, 3], 5), None)]), "weight");
    refused(s.b.linear(&[(w([2, 3], 6), None), (w([2, 4], 8), None)]), "weight");
    let bias = host(DType::F32, [3], &[0.0; 3]);
    refused(s.b.linear(&[(w([2, 3], 6), Some(bias))]), "bias");
    refused(s.b.rope(&[1.0; 6], &[0.0; 4], 2), "rope");
}

/// The same bytes under another shape.
trait BytesAs {
    fn bytes_as(self, shape: [usize; 2]) -> lim_kernels::HostTensor<2>;
}

impl BytesAs for lim_kernels::HostTensor<1> {
    fn bytes_as(self, shape: [usize; 2]) -> lim_kernels::HostTensor<2> {
        lim_kernels::HostTensor { dtype: self.dtype, shape, bytes: self.bytes }
    }
}

pub(crate) fn steps<B: Backend>(s: &mut Subject<B>) {
    let capacity = Capacity { rows: 2, seqs: 1, tokens: 8 };
    let mut batch = s.b.batch(capacity, PageSize::new(4).unwrap()).unwrap();
    let step = |tokens: &[u32], len, pages: &[u32]| {
        let mut step = Step::default();
        step.push(tokens, len, pages).unwrap();
        step
    };
    refused(s.b.upload(&step(&[0; 3], 3, &[0]), &mut batch), "rows");
    refused(s.b.upload(&step(&[0], 9, &[0, 1, 2]), &mut batch), "tokens");
    refused(s.b.upload(&step(&[0], 5, &[0]), &mut batch), "page table");
    let mut two = step(&[0], 1, &[0]);
    two.push(&[0], 1, &[1]).unwrap();
    refused(s.b.upload(&two, &mut batch), "sequences");
    s.b.upload(&step(&[7], 5, &[0, 1]), &mut batch).unwrap();
    let table = s.b.linear(&[(host(DType::F32, [7, 4], &[0.0; 28]), None)]).unwrap();
    let mut x = s.b.rows(RowsKind::Residual, [1, 4]).unwrap();
    refused(s.b.embed(Embed { table: &table, batch: &batch, x: &mut x }), "token id is 7");
    let mut narrow = s.b.rows(RowsKind::Residual, [1, 3]).unwrap();
    refused(s.b.embed(Embed { table: &table, batch: &batch, x: &mut narrow }), "x has shape [1, 3]");
    refused(s.b.read_rows(&x, &mut [0.0; 3]), "shape");
    refused(s.b.write_rows(&[0.0; 8], &mut x), "shape");
}

pub(crate) fn pages<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(60);
    let layout = layout(4, 2, 32, 4, s.dtypes[0]);
    let heads = layout.heads;
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[10]);
    let rope = no_rotation(&mut s.b, 9, 16);
    let mut qkv = rows(&mut s.b, RowsKind::Activation, heads.qkv_width(), &vec![0.0; heads.qkv_width()]);
    let op = Append {
        qkv: &mut qkv,
        qk_norm: None,
        eps: 0.0,
        rope: &rope,
        batch: &cache.batch,
        kv: &mut cache.kv,
    };
    refused(s.b.append(op), "sequence length is 10");
    let narrow = no_rotation(&mut s.b, 20, 8);
    let op = Append {
        qkv: &mut qkv,
        qk_norm: None,
        eps: 0.0,
        rope: &narrow,
        batch: &cache.batch,
        kv: &mut cache.kv,
    };
    refused(s.b.append(op), "rope");
    let pages = cache.tables[0].len() as u32 + 1;
    cache.tables[0][1] = pages;
    cache.upload(&mut s.b);
    let rope = no_rotation(&mut s.b, 20, 16);
    let op = Append {
        qkv: &mut qkv,
        qk_norm: None,
        eps: 0.0,
        rope: &rope,
        batch: &cache.batch,
        kv: &mut cache.kv,
    };
    refused(s.b.append(op), &format!("page id is {pages}"));
    let mut out = s.b.rows(RowsKind::Activation, [1, 128]).unwrap();
    let mut counters = s.b.counters(1).unwrap();
    let op = Attend {
        q: &qkv,
        kv: &cache.kv,
        heads,
        scale: 1.0,
        batch: &cache.batch,
        over: Over::Dense,
        layer: 0,
        counters: &mut counters,
        out: &mut out,
    };
    refused(s.b.attend(op), &format!("page id is {pages}"));
}

pub(crate) fn selections<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(61);
    let layout = layout(4, 2, 32, 4, s.dtypes[0]);
    let heads = layout.heads;
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[40]);
    let mut counters = s.b.counters(1).unwrap();
    let mut scores = s.b.scores(cache.capacity(), heads).unwrap();
    run(&mut s.b, &cache, Over::DenseScored(&mut scores), &mut counters);
    let quota = Quota { sinks: 1, history: 4, window: 3 };
    let mut per_head = s.b.selection(cache.capacity(), heads, Sets::PerQueryHead, 8).unwrap();
    let mut shared = s.b.selection(cache.capacity(), heads, Sets::Shared, 8).unwrap();
    let mut op = |pick, quota, layer, out: &mut B::Selection| {
        s.b.select(Select { pick, quota, heads, batch: &cache.batch, layer, counters: &mut counters, out })
    };
    refused(op(Pick::Union(&scores), quota, 0, &mut per_head), "sets of the selection");
    refused(op(Pick::Best(&scores, Sets::PerQueryHead), quota, 0, &mut shared), "sets of the selection");
    refused(op(Pick::Union(&scores), Quota { history: 5, ..quota }, 0, &mut shared), "token budget is 9");
    refused(op(Pick::Union(&scores), quota, 1, &mut shared), "layer is 1");
    refused(op(Pick::Pages(&scores, Sets::PerQueryHead), quota, 0, &mut per_head), "scores of a sequence");
    op(Pick::Union(&scores), quota, 0, &mut shared).unwrap();
    // A selection serves the step it was made in.
    cache.lens[0] = 39;
    cache.upload(&mut s.b);
    let mut out = s.b.rows(RowsKind::Activation, [1, 128]).unwrap();
    let attend = Attend {
        q: &cache.q,
        kv: &cache.kv,
        heads,
        scale: 1.0,
        batch: &cache.batch,
        over: Over::Selected(&shared),
        layer: 0,
        counters: &mut counters,
        out: &mut out,
    };
    refused(s.b.attend(attend), "tokens the selection was made for");
    let bare = s.b.kv(layout, 20, PageExtras::default()).unwrap();
    let score = Score {
        q: &cache.q,
        kv: &bare,
        heads,
        batch: &cache.batch,
        of: ScoreOf::Pages,
        budget: 0,
        layer: 0,
        counters: &mut counters,
        out: &mut scores,
    };
    refused(s.b.score(score), "page bounds");
    let prompt = plain_batch(&mut s.b, 4);
    let select = Select {
        pick: Pick::Nothing,
        quota,
        heads,
        batch: &prompt,
        layer: 0,
        counters: &mut counters,
        out: &mut shared,
    };
    refused(s.b.select(select), "rows of the step");
}
