// cut [slice, part, seq]: LessIsMore's tokens and their ids, mostly from the few ranks that `few` has found, by one block.
//
// Where these do not hold M tokens, or none were found, the heads' M ranks are put in order first (select_rows.cuh), by a cluster
// for each part of the heads, and the part that comes last makes the union. Right behind `few`, every block waits for its end before
// it ends itself. A selection that was begun before a product runs as that one's blocks leave: what it needs is there.
#pragma once
#include "select_rows.cuh"
#include "select_union.cuh"

namespace lim_select_ {

// Parts of a sequence's heads where ranks were found first: more blocks would start and end for nothing, each on a
// multiprocessor of its own (H200, 8 x 32k: 20.6 us with a part for each of 32 heads, 18.1 with 8).
constexpr int kCutParts = 8;

// Puts the M best of every head in order and counts those from rank `counted` on; the part that comes last makes the union. By
// all blocks of a sequence. Apart, so that what is rarely needed takes no registers from what is always.
__device__ __noinline__ void cut_behind_all(const Plan &p, int n, int seq, lim_u64 turn, int counted, unsigned char *shared,
                                            RowShared<kUnionThreads> &sh, UnionShared &of_all) {
  __shared__ bool last;
  const lim_select_args &a = p.a;
  const int tid = threadIdx.x;
  const Candidates c = candidates(p, n);
  Cut cut(p, seq);
  for (int head = blockIdx.y; head < a.rows; head += gridDim.y) {
    const lim_i64 set = (lim_i64)seq * a.rows + head;
    const float *row = a.scores.data + set * a.scores.stride;
    const RowLists at(p, set, shared);
    clear(sh);
    const Bound bound = gather_keys<kUnionThreads>(p, c, row, at.list, at.samples, sh);
    if (lim::cluster_rank() != 0) return;  // where a part has several blocks, it has one head
    lim_i32 *order = p.order + set * a.history;
    rank_keys<kUnionThreads>(p, c, row, bound, at.list, at.sorted, nullptr, true, sh, [&](lim_u32 rank, lim_u64 key) {
      const int position = key_position(key);
      order[rank] = position;
      if ((int)rank >= counted) count_place(cut.firsts, turn, rank, head, position);
    });
    __syncthreads();
  }
  if (tid == 0) {
    __threadfence();
    last = (atomicAdd(cut.firsts.heads, 1u) & 0xff) == gridDim.y - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (tid == 0) atomicAnd(cut.firsts.heads, ~0xffu);
  clear_bits(p, shared);
  cut_all(p, c, n, seq, cut, of_all);
  finish(p, c, n, seq, cut, shared, of_all);
}

__global__ void __launch_bounds__(kUnionThreads, 1) cut_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowShared<kUnionThreads> sh;
  __shared__ UnionShared of_all;
  const int part = blockIdx.y, seq = blockIdx.z, tid = threadIdx.x;
  const lim_select_args &a = p.a;
  const bool leads = lim::cluster_rank() == 0, first = leads && part == 0;
  fetch(p);
  if (first) clear_bits(p, shared);
  Cut cut(p, seq);
  // Who waits for this kernel has to have waited for the product, too: one block waits for that, the last thing it does.
  const bool ahead = a.begun && a.early, waits = !ahead || (blockIdx.x == 0 && part == 0 && seq == 0);
  if (!ahead) {
    // The block that makes the union does not wait for the end of `few`, but for the last head that is counted. Others do, so
    // that the next kernel, which starts behind all their waits, finds that one complete.
    if (first && p.few > 0 && gridDim.y > 1) {
      cut.await_few(p, seq);
    } else {
      lim::await_dependencies();
    }
  }
  lim::allow_dependents();
  cut.load(p, first);
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) {
    if (first && tid == 0) a.out.count[seq] = LIM_DENSE;
    if (waits) lim::await_dependencies();
    return;
  }
  cut.choose(p);
  cut.look(c, first);
  cut.find(cut.few, c.want, of_all);
  if (cut.found < c.want) {
    if (!ahead) lim::await_dependencies();
    cut_behind_all(p, n, seq, cut.turn, cut.few, shared, sh, of_all);
    if (waits) lim::await_dependencies();
    return;
  }
  // Another block than the one that makes the union.
  if (leads && part == min(1, (int)gridDim.y - 1)) tidy(p, n, seq, cut, c.want, of_all);
  if (first) finish(p, c, n, seq, cut, shared, of_all);
  if (first && tid == 0) *cut.firsts.done = cut.turn;
  if (waits) lim::await_dependencies();
}

}  // namespace lim_select_
