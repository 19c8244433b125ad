// The first ranks of a head, from the keys that `few` lists.
#pragma once
#include "select_few_list.cuh"

namespace lim_select_ {

// The least and the greatest order of the listed keys, and whether these lie evenly: a warp's spread far. By the first block.
struct FewExtremes {
  lim_u32 low, high;
  bool even;
};

__device__ inline FewExtremes few_extremes(const lim_u64 *list, lim_u32 first, lim_u32 step, lim_u32 total, FewShared &sh) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  lim_u32 low = ~0u, high = 0;
#pragma unroll 1
  for (lim_u32 i = first; i < total; i += step) {
    const lim_u32 order = (lim_u32)(list[i] >> 32);
    low = min(low, order), high = max(high, order);
  }
  low = __reduce_min_sync(~0u, low), high = __reduce_max_sync(~0u, high);
  if (lane == 0) sh.low[warp] = low, sh.high[warp] = high;
  __syncthreads();
  low = sh.low[lane % (kFewThreads / 32)], high = sh.high[lane % (kFewThreads / 32)];
  const float spread = high > low ? ordered_score(high) - ordered_score(low) : 0;
  const float least = __uint_as_float(__reduce_min_sync(~0u, __float_as_uint(spread)));
  low = __reduce_min_sync(~0u, low), high = __reduce_max_sync(~0u, high);
  return {low, high, ordered_score(high) - ordered_score(low) < 4 * least};
}

// What a row's first block writes of it: which token has which rank.
struct FewOut {
  Firsts firsts;
  lim_u64 turn;
  lim_i32 *order;
  int head;

  // Ranks that are wanted and not there; and everything is counted.
  __device__ void done(lim_u32 lack) const {
    if (threadIdx.x == 0 && lack > 0) atomicMax(firsts.lacks_of(turn), lack);
    __syncthreads();
    if (threadIdx.x != 0) return;
    __threadfence();
    atomicAdd(firsts.heads, 1u << Firsts::ready_at(turn));
  }
};

// Orders the listed keys and counts the first `few` ranks. By the first block.
__device__ inline void few_rank(const Candidates &c, const FewOut &out, int few_split, lim_u32 few, bool whole,
                                FewShared &sh) {
  // So many threads take a block's part of the list.
  const int split = whole ? 0 : few_split, tid = threadIdx.x, each = kFewThreads >> split, part = tid >> (9 - split);
  static_assert(kFewThreads == 1 << 9, "part");
  const lim_u32 room = kFewKeys >> split;
  lim_u64 bound = 0;
  lim_u32 high = 0;
  bool fits = true, even = false;
  if (!whole) {
#pragma unroll
    for (int s = 0; s < kFewBlocks; ++s) {
      if (s >> split) break;
      const FewFound found = sh.found[s];
      bound = max(bound, found.bound);
      high = max(high, found.top);
      fits = fits && found.count <= room;
    }
    if (!fits) return out.done(few);
  }
  const lim_u64 *list = sh.list + part * room;
  const lim_u32 total = whole ? c.count : sh.found[part].count;
  if (bound == 0) {
    const FewExtremes of = few_extremes(list, tid & (each - 1), each, total, sh);
    bound = (lim_u64)of.low << 32 | (lim_u32)~(c.lo + c.count - 1), high = of.high, even = of.even;
  }
  const lim_u64 top = (lim_u64)high << 32 | (lim_u32)~c.lo;
  const int shift = max(0, 53 - __clzll((long long)(top - bound)));  // to 11 bits
  const Buckets buckets(key_score(bound), key_score(top));
  const auto bucket_of = [&](lim_u64 key) { return even ? buckets.of(key_score(key)) : (int)((key - bound) >> shift); };
  lim_u64 *sorted = sh.sorted();
#pragma unroll 1
  for (lim_u32 i = tid & (each - 1); i < total; i += each) {
    const lim_u64 key = list[i];
    if (key >= bound) atomicAdd(&sh.cursor[bucket_of(key)], 1u);
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
    if (key >= bound) sorted[atomicAdd(&sh.cursor[bucket_of(key)], 1u)] = key;
  }
  __syncthreads();
  // A bucket's cursor is its end now, which is the start of the bucket below. Positions go where the list was.
  const lim_u32 valid = sh.valid, ranks = min(few, valid);
  lim_i32 *by_rank = (lim_i32 *)sh.list;
#pragma unroll 1
  for (lim_u32 i = tid; i < valid; i += kFewThreads) {
    const lim_u64 key = sorted[i];
    const int bucket = bucket_of(key);
    lim_u32 rank = sh.cursor[bucket + 1];
    if (rank >= ranks) break;
    const lim_u32 end = sh.cursor[bucket];
#pragma unroll 4
    for (lim_u32 j = rank; j < end; ++j) rank += sorted[j] > key;
    if (rank < ranks) by_rank[rank] = key_position(key);
  }
  __syncthreads();
#pragma unroll 1
  for (lim_u32 first = tid; first < ranks; first += 4 * kFewThreads) {
    // Their ways to memory and back overlap.
    int positions[4];
    lim_u64 before[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const lim_u32 rank = first + k * kFewThreads;
      if (rank >= ranks) continue;
      positions[k] = by_rank[rank];
      before[k] = atomicMax(out.firsts.places + positions[k], place_word(out.turn, rank, out.head));
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const lim_u32 rank = first + k * kFewThreads;
      if (rank >= ranks) continue;
      const bool earlier = count_earlier(out.firsts, out.turn, rank, out.head, before[k]);
      out.order[rank] = earlier ? positions[k] : -1;
    }
  }
  out.done(few - ranks);
}

}  // namespace lim_select_
