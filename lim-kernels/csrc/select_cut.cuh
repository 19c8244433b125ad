// cut [slice, head, seq]: LessIsMore's tokens and their ids, mostly from the few ranks that `few` has found.
//
// Where these do not hold M tokens, or none were found, the heads' clusters put all M ranks in order first (select_rows.cuh),
// and the head that comes last makes the union.
#pragma once
#include "select_rows.cuh"
#include "select_union.cuh"

namespace lim_select_ {

// Puts a head's M best in order and counts those from rank `counted` on. By the head's whole cluster. Apart, so that what is
// rarely needed takes no registers from what is always.
__device__ __noinline__ void all_ranks(const Plan &p, int n, int seq, int head, lim_u64 turn, int counted,
                                       unsigned char *shared, RowShared<kUnionThreads> &sh) {
  const lim_select_args &a = p.a;
  const Candidates c = candidates(p, n);
  const Firsts f(p, seq);
  const lim_i64 set = (lim_i64)seq * a.rows + head;
  const float *row = a.scores.data + set * a.scores.stride;
  const RowLists at(p, set, shared);
  const Bound bound = gather_keys<kUnionThreads>(p, c, row, at.list, at.samples, sh);
  if (lim::cluster_rank() != 0) return;
  lim_i32 *order = p.order + set * a.history;
  rank_keys<kUnionThreads>(p, c, row, bound, at.list, at.sorted, nullptr, true, sh, [&](lim_u32 rank, lim_u64 key) {
    const int position = key_position(key);
    order[rank] = position;
    if ((int)rank >= counted) count_place(f, turn, rank, head, position);
  });
}

__global__ void __launch_bounds__(kUnionThreads, 2) cut_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowShared<kUnionThreads> sh;
  __shared__ UnionShared of_all;
  __shared__ bool last;
  const int head = blockIdx.y, seq = blockIdx.z, tid = threadIdx.x;
  const lim_select_args &a = p.a;
  const bool leads = lim::cluster_rank() == 0, first = leads && head == 0;
  clear(sh);
  if (first) clear_bits(p, shared);
  Cut cut(p, seq);
  fetch(p);
  lim::await_dependencies();
  lim::allow_dependents();
  cut.load(p, first);
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) {
    if (first && tid == 0) a.out.count[seq] = LIM_DENSE;
    return;
  }
  cut.choose(p);
  if (p.few > 0) cut.find(p, p.few - (int)cut.lack, c.want, of_all);
  if (cut.found >= c.want) {
    // Another block than the one that makes the union.
    if (leads && head == min(1, a.rows - 1)) tidy(p, n, seq, cut, c.want);
    if (!first) return;
  } else {
    all_ranks(p, n, seq, head, cut.turn, p.few > 0 ? p.few - (int)cut.lack : 0, shared, sh);
    if (!leads) return;
    __threadfence();
    __syncthreads();
    if (tid == 0) last = atomicAdd(Firsts(p, seq).arrived, 1u) == a.rows - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    cut = Cut(p, seq);
    if (tid == 0) *cut.firsts.arrived = 0;
    clear_bits(p, shared);
    cut_all(p, c, n, seq, cut, of_all);
  }
  finish(p, c, n, seq, cut, shared, of_all);
}

}  // namespace lim_select_
