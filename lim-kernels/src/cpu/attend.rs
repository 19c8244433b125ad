//! Decode attention, dense or over a selection: work is cut into runs of positions, attended one by one and merged in
//! order. Results depend on the number of positions only, not on threads or on neighbours in the batch.

use super::Cpu;
use super::buffer::{Buffer, Parts};
use super::simd::{Isa, Kernel, Simd};
use super::split::{Keys, Positions, SCORES, SPLIT, Split, partial_width};
use super::store::{Batch, Kv, Selection, expect_rows, shape_error};
use crate::{Attend, Error, Heads, LayerCount, Over, Result, Sets};

/// Heads of one sequence that attend to the same positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    seq: usize,
    /// Set of the selection; `None` where dense.
    set: Option<usize>,
    /// First KV head, and how many.
    kv: (usize, usize),
    /// First query head, and how many per KV head.
    query: (usize, usize),
    first_task: usize,
    tasks: usize,
    /// Start of this group's partial results, `[tasks][heads][partial_width]`.
    partial: usize,
}

impl Group {
    fn heads(&self) -> usize {
        self.kv.1 * self.query.1
    }
}

/// Merges the runs of one head: `out = sum_r e^(max_r - max) sums_r / sum_r e^(max_r - max) weight_r`.
struct Merge<'a> {
    /// `[runs]` rows `stride` apart: dim sums, maximum, weight.
    partial: &'a [f32],
    stride: usize,
    runs: usize,
    out: &'a mut [f32],
}

impl Kernel for Merge<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Merge { partial, stride, runs, out } = self;
        let dim = out.len();
        let mut top = f32::NEG_INFINITY;
        for r in 0..runs {
            top = top.max(partial[r * stride + dim]);
        }
        out.fill(0.0);
        let mut total = 0.0;
        for r in 0..runs {
            let row = &partial[r * stride..][..dim + 2];
            let scale = (row[dim] - top).exp();
            total += scale * row[dim + 1];
            for i in 0..dim {
                out[i] += scale * row[i];
            }
        }
        let inverse = 1.0 / total;
        for y in out {
            *y *= inverse;
        }
    }
}

fn groups(
    batch: &Batch,
    heads: Heads,
    selection: Option<&Selection>,
    groups: &mut Vec<Group>,
) -> (usize, usize) {
    groups.clear();
    let (mut first_task, mut partial) = (0, 0);
    for (seq, step) in batch.step.iter().enumerate().filter(|(_, step)| step.len > 0) {
        let chosen = selection.filter(|s| !s.dense[seq]);
        let sets = chosen.map_or(1, |s| s.sets.count(heads));
        for set in 0..sets {
            let group = heads.group();
            let (kv, query) = match chosen.map(|s| s.sets) {
                None | Some(Sets::Shared) => ((0, heads.kv()), (0, group)),
                Some(Sets::PerKvHead) => ((set, 1), (set * group, group)),
                Some(Sets::PerQueryHead) => ((set / group, 1), (set, 1)),
            };
            let tasks = chosen.map_or(step.len, |s| s.set(seq, set).len()).div_ceil(SPLIT);
            let set = chosen.map(|_| set);
            let new = Group { seq, set, kv, query, first_task, tasks, partial };
            first_task += tasks;
            partial += tasks * new.heads() * partial_width(heads.dim());
            groups.push(new);
        }
    }
    (first_task, partial)
}

impl Cpu {
    pub(super) fn attend_op(&mut self, op: Attend<'_, Self>) -> Result<()> {
        const OP: &str = "attend";
        let Attend { q, kv, heads, scale, batch, over, layer, counters, out } = op;
        kv.expect(OP, heads, batch)?;
        expect_rows(OP, "q", q, [batch.step.rows(), heads.qkv_width()])?;
        expect_rows(OP, "out", out, [batch.step.rows(), heads.query() * heads.dim()])?;
        if !batch.step.is_decode() {
            if !matches!(over, Over::Dense) {
                batch.expect_decode("attend over a selection or with scores")?;
            }
            return self.prefill_attention(q, kv, scale, batch, out);
        }
        let count = expect_layer(OP, counters, layer)?;
        let (selection, mut scores) = match over {
            Over::Dense => (None, None),
            Over::DenseScored(scores) => {
                scores.expect(OP, heads, batch)?;
                (None, Some(scores))
            }
            Over::Selected(selection) => {
                expect_selection(OP, selection, heads, batch)?;
                (Some(selection), None)
            }
        };
        let (tasks, partials) = groups(batch, heads, selection, &mut self.groups);
        count_reads(count, &self.groups, batch, kv, selection);
        self.partials.reserve(partials)?;
        for room in &mut self.scratch {
            room.reserve(2 * SPLIT + heads.query() * SCORES)?;
        }
        let stride = scores.as_ref().map_or(0, |s| s.tokens);
        if let Some(scores) = &mut scores {
            for (count, step) in scores.counts.iter_mut().zip(batch.step.iter()) {
                *count = step.len;
            }
        }
        let work = Work {
            isa: self.isa,
            groups: &self.groups,
            q: q.data().f32s(),
            kv,
            batch,
            scale,
            selection,
            raw: scores.map(|s| Parts::new(s.data.f32s_mut())),
            raw_stride: stride,
            partials: Parts::new(self.partials.f32s_mut()),
        };
        let rooms = Parts::new(&mut self.scratch);
        self.pool.run(tasks, |task, thread| {
            // SAFETY: a thread uses its own scratch.
            work.task(task, unsafe { &mut rooms.slice(thread, 1)[0] });
        });
        let out = Parts::new(out.data_mut().f32s_mut());
        let merges = self.groups.len();
        self.pool.run(merges, |index, _| work.merge(index, out));
        Ok(())
    }
}

/// All that the tasks of one attention share.
struct Work<'a> {
    isa: Isa,
    groups: &'a [Group],
    q: &'a [f32],
    kv: &'a Kv,
    batch: &'a Batch,
    scale: f32,
    selection: Option<&'a Selection>,
    raw: Option<Parts<'a, f32>>,
    raw_stride: usize,
    partials: Parts<'a, f32>,
}

impl Work<'_> {
    fn task(&self, task: usize, room: &mut Buffer) {
        let group = &self.groups[self.groups.partition_point(|g| g.first_task <= task) - 1];
        let layout = self.kv.layout;
        let (heads, dim) = (layout.heads, layout.heads.dim());
        let step = self.batch.step.seq(group.seq);
        let index = task - group.first_task;
        let positions = match (self.selection, group.set) {
            (Some(selection), Some(set)) => Positions::List(selection.set(group.seq, set)),
            _ => Positions::Range(0, step.len),
        };
        let run = positions.split(index);
        let (offsets, scores) = room.f32s_mut().split_at_mut(2 * SPLIT);
        let offsets: &mut [usize] = bytemuck::cast_slice_mut(offsets);
        let offsets = &mut offsets[..run.len()];
        run.offsets(layout, step.pages, offsets);
        let size = group.heads() * partial_width(dim);
        // SAFETY: this task alone writes its partial result.
        let out = unsafe { self.partials.slice(group.partial + index * size, size) };
        let raw = self.raw.map(|raw| {
            let row = group.seq * heads.query() + group.query.0;
            (raw, row * self.raw_stride + index * SPLIT, self.raw_stride)
        });
        let q = &self.q[step.rows.start * heads.qkv_width() + group.query.0 * dim..][..group.heads() * dim];
        let keys = Keys {
            layout,
            pages: self.kv.data.bytes(),
            q,
            kv: group.kv,
            group: group.query.1,
            offsets,
            count: run.len(),
            scores,
        };
        self.isa.run(Split { keys, scale: self.scale, raw, out });
    }

    fn merge(&self, index: usize, out: Parts<'_, f32>) {
        let group = &self.groups[index];
        let heads = self.kv.layout.heads;
        let (dim, width) = (heads.dim(), partial_width(heads.dim()));
        let stride = group.heads() * width;
        for head in 0..group.heads() {
            let at = group.partial + head * width;
            // SAFETY: the tasks that wrote the partial results are done.
            let partial = unsafe { self.partials.slice(at, (group.tasks - 1) * stride + dim + 2) };
            let row = self.batch.step.seq(group.seq).rows.start * heads.query() + group.query.0 + head;
            // SAFETY: this task alone writes its group's heads.
            let out = unsafe { out.slice(row * dim, dim) };
            self.isa.run(Merge { partial, stride, runs: group.tasks, out });
        }
    }
}

pub(super) fn expect_layer<'a>(
    op: &'static str,
    counters: &'a mut [LayerCount],
    layer: usize,
) -> Result<&'a mut LayerCount> {
    let layers = counters.len();
    counters.get_mut(layer).ok_or_else(|| Error::Range {
        op,
        what: "layer",
        got: layer as u64,
        must: format!("below the counters' {layers} layers"),
    })
}

fn expect_selection(op: &'static str, selection: &Selection, heads: Heads, batch: &Batch) -> Result<()> {
    if selection.heads != heads {
        let list = |h: Heads| [h.query(), h.kv(), h.dim()];
        return Err(shape_error(op, "heads of the selection", &list(selection.heads), &list(heads)));
    }
    if selection.lens.len() < batch.step.seqs() {
        return Err(shape_error(op, "selection", &[selection.lens.len()], &[batch.step.seqs()]));
    }
    for (step, &len) in batch.step.iter().zip(&selection.lens) {
        if step.len != len {
            return Err(shape_error(op, "tokens the selection was made for", &[len], &[step.len]));
        }
    }
    Ok(())
}

fn count_reads(
    count: &mut LayerCount,
    groups: &[Group],
    batch: &Batch,
    kv: &Kv,
    selection: Option<&Selection>,
) {
    let layout = kv.layout;
    let head_bytes = (2 * layout.heads.dim() * layout.dtype.bytes()) as u64;
    let mut at = 0;
    for (seq, step) in batch.step.iter().enumerate().filter(|(_, step)| step.len > 0) {
        let sets = groups[at..].iter().take_while(|g| g.seq == seq).count();
        let (mut tokens, mut bytes) = (0, 0);
        for group in &groups[at..at + sets] {
            let read = match (selection, group.set) {
                (Some(s), Some(set)) => s.set(seq, set).len(),
                _ => step.len,
            } as u64;
            tokens += read;
            bytes += read * group.kv.1 as u64 * head_bytes;
        }
        at += sets;
        let sets = sets as u64;
        count.attended += (tokens + sets / 2) / sets;
        count.context += step.len as u64;
        count.kv_bytes += bytes;
    }
}
