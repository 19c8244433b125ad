// Which scores of a row may be among its first ranks: what `few` keeps of a row, and the keys that it lists.
#pragma once
#include <limits.h>

#include "device.cuh"
#include "select_first.cuh"
#include "select_ids.cuh"

namespace lim_select_ {

constexpr int kFewThreads = 512;
constexpr int kFewTile = kFewThreads * 16;  // scores that a block takes at once
constexpr int kFewKeys = 4096;              // listed of a row at most, an equal part by each block
constexpr int kFewWhole = 2048;             // candidates that are listed without a bound
constexpr int kFewBlocks = 8;

// What a block found of a row.
struct FewFound {
  lim_u64 bound;  // a key
  lim_u32 top;    // the greatest order
  lim_u32 count;  // of the keys that reach the bound
};

struct FewShared {
  lim_u64 list[kFewKeys];
  lim_u32 cursor[kBuckets + 1];  // of the listed keys; then where a bucket's next key goes, best bucket first
  lim_u32 hist[kFewThreads];     // of the threads' maxima
  lim_u32 low[kFewThreads / 32], high[kFewThreads / 32], sums[2][kFewThreads / 32];
  alignas(16) FewFound found[kFewBlocks];  // in the first block
  lim_u32 listed, holders, bucket, reached, valid;
  alignas(16) float4 held[4][kFewThreads + 1];  // the first tile, as its threads read it; one more so that a thread's quads lie
                                                // in different banks

  // The listed keys by bucket, in place of the first tile.
  __device__ lim_u64 *sorted() { return (lim_u64 *)held; }
  // What holds listed keys, in place of the cursors: quads of the first two tiles, which of a thread's eight and the thread; then
  // threads.
  __device__ unsigned short *holder() { return (unsigned short *)cursor; }
};
// With what a block takes by itself.
static_assert(sizeof(FewShared) + 1024 <= LIM_SELECT_ROOM, "room");
static_assert(2 * 8 * kFewThreads <= 4 * kBuckets, "holder");
static_assert(sizeof(FewShared::held) >= sizeof(lim_u64) * kFewKeys, "sorted");

// A block's part of a row.
struct FewRow {
  const float *scores;
  int lo, count;  // candidates
  int slice, slices;

  // Position of a thread's quad.
  __device__ int at(int tile, int q, int thread) const {
    return (((tile * 4 + q) * (kFewThreads / 8) + thread / 8) * slices + slice) * 32 + thread % 8 * 4;
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
// any. `order` is of a thread's greatest key, 0 for none; tie_at(order) the position of its first key of that order. *high: the
// greatest order. sh.hist is clear.
template <class TieAt>
__device__ inline lim_u64 few_bound(lim_u32 order, int want, int most, FewShared &sh, lim_u32 *high, TieAt tie_at) {
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  lim_u32 from = __reduce_min_sync(~0u, order == 0 ? ~0u : order), to = __reduce_max_sync(~0u, order);
  if (lane == 0) sh.low[warp] = from, sh.high[warp] = to;
  int reached = __syncthreads_count(order != 0);  // threads that reach `from`
  from = __reduce_min_sync(~0u, sh.low[lane % (kFewThreads / 32)]);
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

// Where a block lists the keys that reach the bound.
struct FewList {
  lim_u64 *to;
  lim_u32 room;
  lim_u64 bound;
  float least;
  bool exact;  // keys are compared, else scores
  const lim_u64 *places;
  Candidates c;

  __device__ bool passes(float score, int position) const {
    const bool counts = (lim_u32)(position - c.lo) < (lim_u32)c.count;
    return counts && (exact ? make_key(score, position) >= bound : score >= least);
  }
  // Whether a quad of this maximum may hold a key that does.
  __device__ bool may_pass(float top, int first) const {
    return first + 3 >= c.lo && first < c.lo + c.count && make_key(top, first) >= bound;
  }
  __device__ void put(lim_u32 place, float score, int position) const {
    if (place < room) to[place] = make_key(score, position);
    asm volatile("prefetch.global.L2 [%0];" ::"l"(places + position));
  }
};

// Lists what passes of the quads of the first two tiles that hold something, a thread a score.
__device__ inline void few_list(const FewList &list, const FewRow &row, FewShared &sh) {
  const int tid = threadIdx.x, lane = tid & 31, j = lane % 4, scores = 4 * sh.holders;
#pragma unroll 1
  for (int first = tid - lane; first < scores; first += kFewThreads) {
    const int quad = sh.holder()[min(first + lane, scores - 1) / 4], thread = quad & (kFewThreads - 1);
    const int tile = quad >> 11, q = quad >> 9 & 3, position = row.at(tile, q, thread) + j;
    float score = 0;
    if (tile == 0) {
      score = reinterpret_cast<const float *>(&sh.held[q][thread])[j];
    } else if (position < row.lo + row.count) {
      score = row.scores[position];
    }
    const bool passes = first + lane < scores && list.passes(score, position);
    const lim_u32 all = __ballot_sync(~0u, passes);
    lim_u32 base = 0;
    if (lane == 0 && all != 0) base = atomicAdd(&sh.listed, __popc(all));
    base = __shfl_sync(~0u, base, 0);
    if (passes) list.put(base + __popc(all & ((1u << lane) - 1)), score, position);
  }
}

// Lists what passes of the tiles behind these: of the quads of threads whose maximum reaches the bound, a thread a quad.
__device__ inline void few_list_behind(const FewList &list, const FewRow &row, int tiles, FewShared &sh) {
  const int lane = threadIdx.x & 31, of_tile = 4 * sh.holders, all = (tiles - 2) * of_tile;
#pragma unroll 1
  for (int first = threadIdx.x - lane, tile = 2, tile_at = 0; first < all; first += 4 * kFewThreads) {
    int positions[4];
    float4 quads[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int i = first + lane + k * kFewThreads;
      positions[k] = INT_MAX - 4;
      if (i >= all) continue;
      while (i - tile_at >= of_tile) tile_at += of_tile, ++tile;
      positions[k] = row.at(tile, i % 4, sh.holder()[(i - tile_at) / 4]);
      quads[k] = row.quad(positions[k]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (first + k * kFewThreads >= all) break;
      const float *of = &quads[k].x;
      lim_u32 passed[4], sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        passed[j] = __ballot_sync(~0u, list.passes(of[j], positions[k] + j));
        sum += __popc(passed[j]);
      }
      if (sum == 0) continue;
      lim_u32 place = 0;
      if (lane == 0) place = atomicAdd(&sh.listed, sum);
      place = __shfl_sync(~0u, place, 0);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (passed[j] >> lane & 1) list.put(place + __popc(passed[j] & ((1u << lane) - 1)), of[j], positions[k] + j);
        place += __popc(passed[j]);
      }
    }
  }
}

}  // namespace lim_select_
