// Building blocks of the selection, for one block of Threads threads.
//
// Every candidate has a 64-bit key: the order of its score in the high word, ~position in the low word. Keys are
// unique and "greater" is exactly "ranks before" (higher score, ties by the lower position), so nothing below has to
// think about ties, and integer atomics in any order give the same result.
#pragma once
#include <cuda_runtime.h>

#include "lim_kernels.h"

namespace lim_select_ {

constexpr int kBuckets = 2048;

// Ascending order of float scores as unsigned integers; -0 as +0, NaN as -inf.
__device__ inline lim_u32 score_order(float score) {
  if (score != score) score = -__int_as_float(0x7f800000);
  const lim_u32 bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline float ordered_score(lim_u32 order) {
  return __uint_as_float(order & 0x80000000u ? order ^ 0x80000000u : ~order);
}

__device__ inline lim_u64 make_key(float score, int position) {
  return (lim_u64)score_order(score) << 32 | (lim_u32)~position;
}

__device__ inline int key_position(lim_u64 key) { return (int)~(lim_u32)key; }
__device__ inline float key_score(lim_u64 key) { return ordered_score((lim_u32)(key >> 32)); }

// Buckets of equal width over the scores in [lo, hi], what lies outside in the first and the last. Monotone: every step
// of `of` rounds monotonically, so a key in a higher bucket is greater. Scores beyond kFar count as kFar, which keeps
// widths finite; a range of one score (scale inf) puts that score in bucket 0.
struct Buckets {
  static constexpr float kFar = 1e37f;
  float lo, width, scale;

  __device__ static float near(float score) { return fminf(fmaxf(score, -kFar), kFar); }
  __device__ Buckets(float from, float to)
      : lo(near(from)), width((near(to) - lo) * (1.0f / kBuckets)), scale(kBuckets / (near(to) - lo)) {}
  __device__ int of(float score) const { return min(max(__float2int_rz((near(score) - lo) * scale), 0), kBuckets - 1); }
  __device__ float edge(int bucket) const { return lo + bucket * width; }
};

// Inclusive prefix sum over the lanes of a warp.
template <class Count> __device__ inline Count warp_scan(Count value) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Count other = __shfl_up_sync(~0u, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

// Exclusive prefix sum over the block's threads; *total gets the sum. No thread may use `sums` [Threads / 32] any more
// when a thread calls this; all are in step afterwards. A warp without `any` has zeros alone.
template <int Threads>
__device__ inline lim_u32 block_scan(lim_u32 value, lim_u32 *sums, lim_u32 *total, bool any = true) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const lim_u32 sum = any ? warp_scan(value) : value;
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  const lim_u32 of_warp = lane < Threads / 32 ? sums[lane] : 0;
  const lim_u32 before = __reduce_add_sync(~0u, lane < warp ? of_warp : 0);
  *total = __reduce_add_sync(~0u, of_warp);
  return before + sum - value;
}

// Calls visit(bucket, above, count) for every bucket of hist[kBuckets], `above` being the sum of the counts of higher
// buckets; visit may overwrite hist[bucket]. As for block_scan, `sums` must be free; the visits end out of step.
template <int Threads, class Visit>
__device__ inline void from_above(const lim_u32 *hist, lim_u32 *sums, Visit visit) {
  constexpr int kEach = kBuckets / Threads;
  static_assert(kEach == 2 || kEach == 4, "a thread's buckets are one vector");
  const int first = kBuckets - kEach * (threadIdx.x + 1);
  lim_u32 counts[kEach], sum = 0, total;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sum += counts[i] = hist[first + i];
  lim_u32 above = block_scan<Threads>(sum, sums, &total);
#pragma unroll
  for (int i = kEach - 1; i >= 0; --i) {
    visit(first + i, above, counts[i]);
    above += counts[i];
  }
}

// Calls emit(index, bit) for every set bit of words[count], index counting from 0 in ascending order.
template <int Threads, class Emit>
__device__ void emit_bits(const lim_u32 *words, int count, lim_u32 *sums, Emit emit) {
  const int each = (count + Threads - 1) / Threads;
  const int first = min(count, (int)threadIdx.x * each), last = min(count, first + each);
  lim_u32 bits = 0, total;
  for (int w = first; w < last; ++w) bits += __popc(words[w]);
  lim_u32 index = block_scan<Threads>(bits, sums, &total);
  for (int w = first; w < last; ++w) {
    for (lim_u32 word = words[w]; word != 0; word &= word - 1) emit(index++, w * 32 + __ffs(word) - 1);
  }
}

}  // namespace lim_select_
