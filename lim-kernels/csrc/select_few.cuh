// few [slice, head, seq]: the first ranks of every head, of which the union rarely needs more.
//
// A cluster of blocks shares a row, 32 scores a block in turn. A block finds a bound that enough of its threads' maxima
// reach: at least as many of its scores do, and hardly more, whatever they look like. Those go to the first block, which
// puts in order what reaches the highest of the blocks' bounds. How many ranks that are, a sequence's last selections say
// (few_by). Code and registers are kept few: what the time of a block goes to is latency and what its warps issue, and the
// kernels before and behind shall fit beside it.
#pragma once
#include "select_few_rank.cuh"

namespace lim_select_ {

__device__ __forceinline__ void find_few(const Plan &p, FewShared &sh) {
  const int head = blockIdx.y, seq = blockIdx.z, tid = threadIdx.x;
  const lim_select_args &a = p.a;
  const lim_i64 set = (lim_i64)seq * a.rows + head;
  FewRow row{a.scores.data + set * a.scores.stride, 0, a.scores.stride, lim::cluster_rank(), lim::cluster_size()};
  const int slice = row.slice;
  int split = p.few_split;  // log2 of row.slices
  sh.hist[tid] = 0;
  if (tid == 0) sh.listed = sh.holders = 0;
  const Firsts f(p, seq);
  fetch(p);
  if (!a.early) lim::await_dependencies();
  const int n = a.batch.len[seq];
  const lim_u64 turn = __ldcg(f.done) + 1;
  const lim_u32 needs = __ldcg(f.needs);
  // The first two tiles travel beside the length that says how much of them counts.
  float4 quads[2][4];
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int q = 0; q < 4; ++q) quads[t][q] = row.quad(row.at(t, q, tid));
  }
  const Candidates c = candidates(p, n);
  int few = few_by(p, needs);
  // Short rows are put in order whole.
  const bool whole = c.count <= kFewKeys && (c.count <= kFewWhole || c.count < 3 * few);
  if (whole && needs == 0) few = p.few_most;
  const FewOut out{f, turn, p.order + set * a.history, head};
  if (c.dense) return;
  if (slice == 0 && head == 0 && tid == 0) *f.begun = turn << kFewBits | few;
  if (few == 0) {
    if (slice == 0) out.done(0);
    return;
  }
  row.lo = c.lo, row.count = c.count;
  if (row.slices > 1 && c.lo + c.count <= kFewTile) {
    // A long row's blocks, for a short one: the first alone is done sooner, though it asks again.
    if (slice != 0) return;
    row.slices = 1, split = 0;
#pragma unroll
    for (int q = 0; q < 4; ++q) quads[0][q] = row.quad(row.at(0, q, tid));
  }
  // Blocks write into the first one: all have to have started.
  if (row.slices > 1) lim::cluster_arrive();
  const int tiles = (c.lo + c.count + (kFewTile << split) - 1) >> (13 + split);
  static_assert(kFewTile == 1 << 13, "tiles");
  // A block lists its share of the ranks and a standard deviation more, if as many of its threads hold one as chance has it.
  const float share = (float)few / row.slices, listed = share + sqrtf(share), of_block = (float)c.count / row.slices;
  const float threads = fminf(kFewThreads, of_block / 4);
  const auto holders = [&](float keys) {
    return (int)ceilf(threads * (1 - __powf(fmaxf(0, 1 - __fdividef(keys, of_block)), __fdividef(of_block, threads))));
  };
  const int want = holders(listed), want_most = max(want + 1, holders(1.25f * listed));
  // The greatest score of each of the first eight quads, and of all; NaN for none.
  float tops[8], most = __int_as_float(0x7fffffff);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float4 &quad = quads[i / 4][i % 4];
    row.clean(quad, row.at(i / 4, i % 4, tid));
    if (i < 4) sh.held[i][tid] = quad;
    tops[i] = most_of(most, quad);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) most = fmaxf(most, tops[i]);
  if (tiles > 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) quads[i / 4][i % 4] = row.quad(row.at(2 + i / 4, i % 4, tid));
  }
#pragma unroll 1
  for (int tile = 2; tile < tiles; tile += 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float4 &quad = quads[i / 4][i % 4];
      row.clean(quad, row.at(tile + i / 4, i % 4, tid));
      most = most_of(most, quad);
      quad = row.quad(row.at(tile + 2 + i / 4, i % 4, tid));
    }
  }
  // Not before: blocks of `cut` that start meanwhile would slow the loads down.
  lim::allow_dependents();
  const auto quad_of = [&](int tile, int q) {
    if (tile == 0) return sh.held[q][tid];
    float4 quad = row.quad(row.at(tile, q, tid));
    row.clean(quad, row.at(tile, q, tid));
    return quad;
  };
  if (whole) {
    if (row.slices > 1) lim::cluster_wait();
    lim_u64 *to = lim::in_block(sh.list, 0);
#pragma unroll 1
    for (int i = 0; i < 4 * tiles; ++i) {
      const int first = row.at(i / 4, i % 4, tid) - c.lo;
      if (first >= c.count) break;
      const float4 quad = quad_of(i / 4, i % 4);
      const float *of = &quad.x;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if ((lim_u32)(first + j) < (lim_u32)c.count) to[first + j] = make_key(of[j], c.lo + first + j);
      }
    }
  } else {
    const auto tie_at = [&](lim_u32 order) {
#pragma unroll 1
      for (int i = 0; i < 4 * tiles; ++i) {
        const float4 quad = quad_of(i / 4, i % 4);
        const float *of = &quad.x;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (score_order(of[j]) == order) return row.at(i / 4, i % 4, tid) + j;
        }
      }
      return INT_MAX;
    };
    lim_u32 high;
    const lim_u32 order = most != most ? 0 : score_order(most);
    const lim_u64 bound = few_bound(order, want, want_most, sh, &high, tie_at);
    const lim_u32 least_order = (lim_u32)(bound >> 32);
    // Where ties matter, or the bound is so low that NaN may reach it, keys are compared, else scores.
    const bool low_bound = least_order <= score_order(lim::NEG_INF), exact = low_bound || (lim_u32)bound != 0;
    const float least = ordered_score(least_order);
    const FewList list{lim::in_block(sh.list, 0) + slice * (kFewKeys >> split), (lim_u32)kFewKeys >> split,
                       bound, least, exact, f.places, c};
    lim_u32 mask = 0;  // of the first eight quads, those that hold something
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      bool passes = tops[i] >= least;
      if (exact) passes = list.may_pass(tops[i], row.at(i / 4, i % 4, tid));
      mask |= (lim_u32)passes << i;
    }
    if (mask != 0) {
      lim_u32 at = atomicAdd(&sh.holders, __popc(mask));
      for (; mask != 0; mask &= mask - 1) sh.holder()[at++] = (__ffs(mask) - 1) << 9 | tid;
    }
    if (row.slices > 1) lim::cluster_wait();
    __syncthreads();
    few_list(list, row, sh);
    if (tiles > 2) {
      __syncthreads();
      if (tid == 0) sh.holders = 0;
      __syncthreads();
      if (low_bound || order >= least_order) sh.holder()[atomicAdd(&sh.holders, 1u)] = tid;
      __syncthreads();
      few_list_behind(list, row, tiles, sh);
    }
    __syncthreads();
    if (tid == 0) *lim::in_block(&sh.found[slice], 0) = {bound, high, sh.listed};
  }
  // Cursors again.
  if (slice == 0) {
    for (int i = tid; i <= kBuckets; i += kFewThreads) sh.cursor[i] = 0;
  }
  if (row.slices > 1) {
    lim::cluster_arrive(), lim::cluster_wait();
  } else {
    __syncthreads();
  }
  if (slice == 0) few_rank(c, out, split, few, whole, sh);
}

__global__ void __launch_bounds__(kFewThreads, 2) few_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  find_few(p, *(FewShared *)shared);
  // However early it started: who waits for this kernel has waited for those before it. One block does so for all, others leave
  // their multiprocessors to the kernels beside.
  if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) lim::await_dependencies();
}

}  // namespace lim_select_
