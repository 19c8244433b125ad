// few [slice, head, seq]: the first ranks of every head, of which the union rarely needs more.
//
// A cluster of blocks shares a row, 16 scores a block in turn. A block finds a bound that enough of its threads' maxima
// reach: at least as many of its scores do, and hardly more, whatever they look like. Those go to the first block, which
// puts in order what reaches the highest of the blocks' bounds. Code and registers are kept few: what the time of a block
// goes to is latency, of instructions too, and the kernels before and behind shall fit beside it.
#pragma once
#include <limits.h>

#include "device.cuh"
#include "select_first.cuh"
#include "select_ids.cuh"

namespace lim_select_ {

constexpr int kFewThreads = 512;
constexpr int kFewTile = kFewThreads * 16;  // scores that a block takes at once
constexpr int kFewKeys = 2048;              // listed of a row at most, an equal part by each block
constexpr int kFewBlocks = 8;

// What a block found of a row.
struct FewFound {
  lim_u64 bound;  // a key
  lim_u32 top;    // the greatest order
  lim_u32 count;  // of the keys that reach the bound
};

struct FewShared {
  lim_u64 list[kFewKeys], sorted[kFewKeys];
  lim_u32 cursor[kBuckets + 1];  // of the listed keys; then where a bucket's next key goes, best bucket first
  lim_u32 hist[kFewThreads];     // of the threads' maxima
  lim_u32 low[kFewThreads / 32], high[kFewThreads / 32], sums[2][kFewThreads / 32];
  alignas(16) FewFound found[kFewBlocks];  // in the first block
  lim_u32 listed, holders, bucket, reached, valid;
  unsigned short holder[kFewThreads];  // threads whose maximum reaches the bound
  alignas(16) float4 held[][4][kFewThreads + 1];  // the first tiles, as their threads read them; one more so that a thread's
                                                  // quads lie in different banks
};

// A block's part of a row.
struct FewRow {
  const float *scores;
  int lo, count;  // candidates
  int slice, slices;

  // Position of a thread's quad.
  __device__ int at(int tile, int q, int thread) const {
    return (((tile * 4 + q) * (kFewThreads / 4) + thread / 4) * slices + slice) * 16 + thread % 4 * 4;
  }
  // NaN in place of what is no candidate.
  __device__ void clean(float4 &quad, int position) const {
    const int first = position - lo;
    if (first >= 0 && first + 4 <= count) return;
    float *of = &quad.x;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if ((lim_u32)(first + j) >= (lim_u32)count) of[j] = __int_as_float(0x7fffffff);
    }
  }
  __device__ float4 quad(int position) const {
    float4 quad = {};
    if (position < lo + count) quad = *reinterpret_cast<const float4 *>(scores + position);
    return quad;
  }
};

__device__ inline float most_of(float most, const float4 &quad) {
  return fmaxf(fmaxf(fmaxf(most, quad.x), fmaxf(quad.y, quad.z)), quad.w);
}

// A bound (a key) that the greatest keys of about `want` threads reach, and of `most` hardly more; 0 where fewer threads have
// any. `order` is of a thread's greatest key, 0 for none; tie_at(order) the position of its first key of that order. *low,
// *high: the least and the greatest order. sh.hist is clear.
template <class TieAt>
__device__ inline lim_u64 few_bound(lim_u32 order, int want, int most, FewShared &sh, lim_u32 *low, lim_u32 *high,
                                    TieAt tie_at) {
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  lim_u32 from = __reduce_min_sync(~0u, order == 0 ? ~0u : order), to = __reduce_max_sync(~0u, order);
  if (lane == 0) sh.low[warp] = from, sh.high[warp] = to;
  int reached = __syncthreads_count(order != 0);  // threads that reach `from`
  *low = from = __reduce_min_sync(~0u, sh.low[lane % (kFewThreads / 32)]);
  *high = to = __reduce_max_sync(~0u, sh.high[lane % (kFewThreads / 32)]);
  if (want == 0 || reached < want) return 0;
  // First by equal widths of scores; where many share a bucket, by equal widths of orders inside it.
  const float lo = Buckets::near(ordered_score(from)), hi = Buckets::near(ordered_score(to));
  const float scale = __fdividef(kFewThreads, hi - lo);
  constexpr int kTop = kFewThreads - 1;
  for (int round = 0; from < to && reached > most; ++round) {
    const int shift = max(0, 24 - __clz(to - from));  // to 8 bits
    int bucket = -1;
    if (round == 0) {
      if (order != 0) bucket = min(max(__float2int_rz((Buckets::near(ordered_score(order)) - lo) * scale), 0), kTop);
    } else if (order >= from) {
      bucket = order > to ? kTop : (int)((order - from) >> shift);
    }
    if (bucket >= 0) atomicAdd(&sh.hist[bucket], 1u);
    __syncthreads();
    const int mine = kTop - tid;
    const lim_u32 held = sh.hist[mine];
    sh.hist[mine] = 0;
    lim_u32 total;
    const lim_u32 above = block_scan<kFewThreads>(held, sh.sums[round & 1], &total);
    if (above < want && above + held >= want) sh.bucket = mine, sh.reached = above + held;
    if (tid == 0 && total < want) sh.bucket = ~0u;
    __syncthreads();
    if (sh.bucket == ~0u) break;  // rounding put some below `from`
    const int chosen = sh.bucket;
    reached = sh.reached;
    if (round == 0) {
      const float width = (hi - lo) / kFewThreads;
      if (chosen < kTop) to = min(to, score_order(lo + (chosen + 1) * width));
      if (chosen > 0) from = max(from, score_order(lo + chosen * width));
    } else if (chosen == kTop) {
      from = to;
      break;
    } else {
      from += chosen << shift;
      to = min(to, from + (1u << shift) - 1);
    }
  }
  if (reached <= most || from < to) return (lim_u64)from << 32;
  // Too many of one order: the first positions.
  const int above = __syncthreads_count(order > from), first = order == from ? tie_at(from) : INT_MAX;
  int least = 0, last = 1 << 24;
  while (least < last && reached > most) {
    const int middle = (least + last) / 2, count = above + __syncthreads_count(first <= middle);
    if (count < want) {
      least = middle + 1;
    } else {
      last = middle, reached = count;
    }
  }
  return (lim_u64)from << 32 | (lim_u32)~last;
}

// Orders the listed keys and counts the first ranks. By the first block.
__device__ inline void few_rank(const Plan &p, int seq, int head, bool whole, const Firsts &f, lim_u64 turn,
                                FewShared &sh) {
  // So many threads take a block's part of the list.
  const int tid = threadIdx.x, each = kFewThreads >> p.few_split, part = tid >> (9 - p.few_split);
  static_assert(kFewThreads == 1 << 9, "part");
  const lim_u32 room = kFewKeys >> p.few_split, few = p.few;
  lim_u64 bound = whole ? ~0ull : 0;
  lim_u32 high = 0;
  bool fits = true;
#pragma unroll
  for (int s = 0; s < kFewBlocks; ++s) {
    if (s >> p.few_split) break;
    const FewFound found = sh.found[s];
    bound = whole ? min(bound, found.bound) : max(bound, found.bound);
    high = max(high, found.top);
    fits = fits && found.count <= room;
  }
  const lim_u64 top = (lim_u64)high << 32 | ~0u, *list = sh.list + part * room;
  const lim_u32 total = sh.found[part].count;
  if (!fits) {
    if (tid == 0) atomicMax(f.lacks_of(turn), few);
    return;
  }
  const int shift = max(0, 53 - __clzll((long long)(top - bound)));  // to 11 bits
  const auto counts = [&](lim_u64 key) { return whole || key >= bound; };
  const auto bucket_of = [&](lim_u64 key) { return key < bound ? 0 : (int)((key - bound) >> shift); };
#pragma unroll 1
  for (lim_u32 i = tid & (each - 1); i < total; i += each) {
    const lim_u64 key = list[i];
    if (counts(key)) atomicAdd(&sh.cursor[bucket_of(key)], 1u);
  }
  __syncthreads();
  from_above<kFewThreads>(sh.cursor, sh.sums[0], [&](int bucket, lim_u32 above, lim_u32 held) {
    sh.cursor[bucket] = above;
    if (bucket == 0) sh.valid = above + held;
  });
  __syncthreads();
#pragma unroll 1
  for (lim_u32 i = tid & (each - 1); i < total; i += each) {
    const lim_u64 key = list[i];
    if (counts(key)) sh.sorted[atomicAdd(&sh.cursor[bucket_of(key)], 1u)] = key;
  }
  __syncthreads();
  // A bucket's cursor is its end now, which is the start of the bucket below.
  const lim_u32 valid = sh.valid, ranks = min(few, valid);
  lim_i32 *order = p.order + ((lim_i64)seq * p.a.rows + head) * p.a.history;
#pragma unroll 1
  for (lim_u32 i = tid; i < valid; i += kFewThreads) {
    const lim_u64 key = sh.sorted[i];
    const int bucket = bucket_of(key);
    lim_u32 rank = sh.cursor[bucket + 1];
    if (rank >= ranks) break;
    const lim_u32 end = sh.cursor[bucket];
#pragma unroll 4
    for (lim_u32 j = rank; j < end; ++j) rank += sh.sorted[j] > key;
    if (rank >= ranks) continue;
    const int position = key_position(key);
    order[rank] = position;
    count_place(f, turn, rank, head, position);
  }
  if (tid == 0 && valid < few) atomicMax(f.lacks_of(turn), few - valid);
}

__global__ void __launch_bounds__(kFewThreads, 2) few_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  FewShared &sh = *(FewShared *)shared;
  const int head = blockIdx.y, seq = blockIdx.z, tid = threadIdx.x, lane = tid & 31;
  const lim_select_args &a = p.a;
  FewRow row{a.scores.data + ((lim_i64)seq * a.rows + head) * a.scores.stride, 0, a.scores.stride, lim::cluster_rank(),
             lim::cluster_size()};
  const int slice = row.slice, slices = row.slices;
  for (int i = tid; i <= kBuckets; i += kFewThreads) sh.cursor[i] = 0;
  sh.hist[tid] = 0;
  if (tid == 0) sh.listed = sh.holders = 0;
  const Firsts f(p, seq);
  fetch(p);
  lim::await_dependencies();
  lim::allow_dependents();
  // The first tile travels beside the length that says how much of it counts.
  float4 quads[4];
#pragma unroll
  for (int q = 0; q < 4; ++q) quads[q] = row.quad(row.at(0, q, tid));
  const int n = a.batch.len[seq];
  const lim_u64 turn = __ldcg(f.done) + 1;
  const Candidates c = candidates(p, n);
  if (c.dense) return;
  // Blocks write into the first one: all have to have started.
  if (slices > 1) lim::cluster_arrive();
  if (slice == 0 && head == 0 && tid == 0) *f.begun = turn;
  row.lo = c.lo, row.count = c.count;
  const int tiles = (c.lo + c.count + (kFewTile << p.few_split) - 1) >> (13 + p.few_split);
  static_assert(kFewTile == 1 << 13, "tiles");
  float most = __int_as_float(0x7fffffff);
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    float4 next[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) next[q] = row.quad(row.at(tile + 1, q, tid));
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      row.clean(quads[q], row.at(tile, q, tid));
      most = most_of(most, quads[q]);
      if (tile < p.few_held) sh.held[tile][q][tid] = quads[q];
      quads[q] = next[q];
    }
  }
  const bool whole = c.count + 48 * slices <= kFewKeys;
  const int want = whole ? 0 : p.few_want;
  const auto quad_of = [&](int tile, int q, int thread) {
    if (tile < p.few_held) return sh.held[tile][q][thread];
    float4 quad = row.quad(row.at(tile, q, thread));
    row.clean(quad, row.at(tile, q, thread));
    return quad;
  };
  const auto tie_at = [&](lim_u32 order) {
#pragma unroll 1
    for (int i = 0; i < 4 * tiles; ++i) {
      const float4 quad = quad_of(i / 4, i % 4, tid);
      const float *of = &quad.x;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (score_order(of[j]) == order) return row.at(i / 4, i % 4, tid) + j;
      }
    }
    return INT_MAX;
  };
  lim_u32 low, high;
  const lim_u32 order = most != most ? 0 : score_order(most);
  const lim_u64 bound = few_bound(order, want, want + want / 4, sh, &low, &high, tie_at);
  const lim_u32 least_order = (lim_u32)(bound >> 32);
  // Where ties matter, or the bound is so low that NaN may reach it, keys are compared, else scores.
  const bool low_bound = least_order <= score_order(lim::NEG_INF), exact = low_bound || (lim_u32)bound != 0;
  const float least = ordered_score(least_order);
  // The quads of threads that hold something are shared out among all.
  const bool mine = low_bound || order >= least_order;
  const lim_u32 holding = __ballot_sync(~0u, mine), below = (1u << lane) - 1;
  lim_u32 place = 0;
  if (lane == 0 && holding != 0) place = atomicAdd(&sh.holders, __popc(holding));
  place = __shfl_sync(~0u, place, 0) + __popc(holding & below);
  if (mine) sh.holder[place] = tid;
  if (slices > 1) lim::cluster_wait();
  __syncthreads();
  const lim_u32 room = kFewKeys >> p.few_split;
  lim_u64 *to = lim::in_block(sh.list, 0) + slice * room;
  const int of_tile = 4 * sh.holders, all = tiles * of_tile;
#pragma unroll 1
  for (int first = tid - lane, tile = 0, tile_at = 0; first < all; first += 4 * kFewThreads) {
    int positions[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int i = first + lane + k * kFewThreads;
      positions[k] = INT_MAX - 4;
      if (i >= all) continue;
      while (i - tile_at >= of_tile) tile_at += of_tile, ++tile;
      const int thread = sh.holder[(i - tile_at) / 4];
      quads[k] = quad_of(tile, i % 4, thread);
      positions[k] = row.at(tile, i % 4, thread);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (first + k * kFewThreads >= all) break;
      const float *of = &quads[k].x;
      bool passes[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) passes[j] = of[j] >= least && positions[k] < INT_MAX - 4;
      if (exact) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int position = positions[k] + j;
          passes[j] = (lim_u32)(position - row.lo) < (lim_u32)row.count && make_key(of[j], position) >= bound;
        }
      }
      lim_u32 places[4], sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const lim_u32 passed = __ballot_sync(~0u, passes[j]);
        places[j] = sum + __popc(passed & below);
        sum += __popc(passed);
      }
      if (sum == 0) continue;
      lim_u32 base = 0;
      if (lane == 0) base = atomicAdd(&sh.listed, sum);
      base = __shfl_sync(~0u, base, 0);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!passes[j]) continue;
        const int position = positions[k] + j;
        if (base + places[j] < room) to[base + places[j]] = make_key(of[j], position);
        asm volatile("prefetch.global.L2 [%0];" ::"l"(f.places + position));
      }
    }
  }
  __syncthreads();
  if (tid == 0) *lim::in_block(&sh.found[slice], 0) = {whole ? (lim_u64)low << 32 : bound, high, sh.listed};
  if (slices > 1) {
    lim::cluster_arrive(), lim::cluster_wait();
  } else {
    __syncthreads();
  }
  if (slice == 0) few_rank(p, seq, head, whole, f, turn, sh);
}

}  // namespace lim_select_
