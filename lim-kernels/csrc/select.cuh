// Building blocks of the selection, for one block of 1024 threads.
//
// Every candidate has a 64-bit key: the order of its score in the high word, ~position in the low word. Keys are
// unique and "greater" is exactly "ranks before" (higher score, ties by the lower position), so nothing below has to
// think about ties, and integer atomics in any order give the same result.
#pragma once
#include <cuda_runtime.h>

#include "lim_kernels.h"

namespace lim_select_ {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBuckets = 2 * kThreads;

// Ascending order of float scores as unsigned integers; -0 as +0, NaN as -inf.
__device__ inline lim_u32 score_order(float score) {
  if (score != score) score = -__int_as_float(0x7f800000);
  const lim_u32 bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline lim_u64 make_key(float score, int position) {
  return (lim_u64)score_order(score) << 32 | (lim_u32)~position;
}

__device__ inline int key_position(lim_u64 key) { return (int)~(lim_u32)key; }

struct BlockShared {
  lim_u64 min[kWarps], max[kWarps];
  lim_u32 sums[kWarps];
  lim_u32 bucket, before, through;
};

// Exclusive prefix sum over the block's threads; *total gets the sum.
__device__ inline lim_u32 block_scan(lim_u32 value, BlockShared &sh, lim_u32 *total) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  lim_u32 sum = value;
  for (int step = 1; step < 32; step *= 2) {
    const lim_u32 other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();
  if (lane == 31) sh.sums[warp] = sum;
  __syncthreads();
  lim_u32 warps = sh.sums[lane];
  for (int step = 1; step < 32; step *= 2) {
    const lim_u32 other = __shfl_up_sync(~0u, warps, step);
    if (lane >= step) warps += other;
  }
  *total = __shfl_sync(~0u, warps, 31);
  const lim_u32 before = __shfl_sync(~0u, warps, warp == 0 ? 0 : warp - 1);
  return (warp == 0 ? 0 : before) + sum - value;
}

// Buckets of equal width over [min, max]; the width is 2^shift.
struct Buckets {
  lim_u64 min;
  int shift;
  __device__ int of(lim_u64 key) const { return (int)((key - min) >> shift); }
  __device__ lim_u64 edge(int bucket) const { return min + ((lim_u64)bucket << shift); }
};

// Buckets that cover the keys in [lo, hi], and in hist[kBuckets] how many lie in each.
template <class KeyAt>
__device__ Buckets bucket_keys(KeyAt key_at, int n, lim_u64 lo, lim_u64 hi, lim_u32 *hist, BlockShared &sh) {
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  lim_u64 mn = ~0ull, mx = 0;
  for (int i = tid; i < n; i += kThreads) {
    const lim_u64 key = key_at(i);
    if (key < lo || key > hi) continue;
    mn = min(mn, key);
    mx = max(mx, key);
  }
  for (int step = 16; step > 0; step /= 2) {
    mn = min(mn, __shfl_xor_sync(~0u, mn, step));
    mx = max(mx, __shfl_xor_sync(~0u, mx, step));
  }
  __syncthreads();
  if (lane == 0) sh.min[warp] = mn, sh.max[warp] = mx;
  for (int i = tid; i < kBuckets; i += kThreads) hist[i] = 0;
  __syncthreads();
  mn = sh.min[lane], mx = sh.max[lane];
  for (int step = 16; step > 0; step /= 2) {
    mn = min(mn, __shfl_xor_sync(~0u, mn, step));
    mx = max(mx, __shfl_xor_sync(~0u, mx, step));
  }
  const int bits = 64 - __clzll((long long)(mx - mn));
  const Buckets buckets{mn, max(0, bits - 11)};
  for (int i = tid; i < n; i += kThreads) {
    const lim_u64 key = key_at(i);
    if (key >= lo && key <= hi) atomicAdd(&hist[buckets.of(key)], 1u);
  }
  __syncthreads();
  return buckets;
}

// Turns counts into the number of keys in higher buckets: hist[b] becomes the sum of hist[b + 1 ..].
__device__ inline void suffix_counts(lim_u32 *hist, BlockShared &sh) {
  const int top = kBuckets - 1 - 2 * threadIdx.x;
  const lim_u32 high = hist[top], low = hist[top - 1];
  lim_u32 total;
  const lim_u32 above = block_scan(high + low, sh, &total);
  hist[top] = above;
  hist[top - 1] = above + high;
  __syncthreads();
}

// A key L with want <= #{i : key_at(i) >= L} <= most, where 1 <= want <= n and want <= most. Narrows the bucket in
// which the want-th key lies, 11 bits a round; six rounds at most.
template <class KeyAt>
__device__ lim_u64 lower_bound_of(KeyAt key_at, int n, lim_u32 want, lim_u32 most, lim_u32 *hist, BlockShared &sh) {
  lim_u64 lo = 0, hi = ~0ull;
  lim_u32 above = 0;
  while (true) {
    const Buckets buckets = bucket_keys(key_at, n, lo, hi, hist, sh);
    const int top = kBuckets - 1 - 2 * threadIdx.x;
    const lim_u32 high = hist[top], low = hist[top - 1];
    lim_u32 total;
    lim_u32 before = above + block_scan(high + low, sh, &total);
    if (before < want && before + high >= want) {
      sh.bucket = top, sh.before = before, sh.through = before + high;
    } else if (before + high < want && before + high + low >= want) {
      sh.bucket = top - 1, sh.before = before + high, sh.through = before + high + low;
    }
    __syncthreads();
    lo = buckets.edge(sh.bucket);
    if (sh.through <= most || buckets.shift == 0) return lo;
    above = sh.before;
    hi = buckets.edge(sh.bucket + 1) - 1;
    __syncthreads();
  }
}

// Calls emit(rank, key) for the keys >= lo that rank below want. start and end are [kBuckets], sorted has room for
// every key >= lo: the keys go there bucket by bucket, and a key's rank is the number of keys in higher buckets plus
// that of greater ones in its own.
template <class KeyAt, class Emit>
__device__ void rank_keys(KeyAt key_at, int n, lim_u64 lo, lim_u32 want, lim_u32 *start, lim_u32 *end,
                          lim_u64 *sorted, BlockShared &sh, Emit emit) {
  const int tid = threadIdx.x;
  const Buckets buckets = bucket_keys(key_at, n, lo, ~0ull, start, sh);
  suffix_counts(start, sh);
  for (int i = tid; i < kBuckets; i += kThreads) end[i] = start[i];
  __syncthreads();
  for (int i = tid; i < n; i += kThreads) {
    const lim_u64 key = key_at(i);
    if (key < lo) continue;
    const int bucket = buckets.of(key);
    if (start[bucket] < want) sorted[atomicAdd(&end[bucket], 1u)] = key;
  }
  __syncthreads();
  for (int i = tid; i < n; i += kThreads) {
    const lim_u64 key = key_at(i);
    if (key < lo) continue;
    const int bucket = buckets.of(key);
    lim_u32 rank = start[bucket];
    if (rank >= want) continue;
    for (lim_u32 j = rank, last = end[bucket]; j < last; ++j) rank += sorted[j] > key;
    if (rank < want) emit(rank, key);
  }
}

// Calls emit(index, bit) for every set bit of words[count], index counting from 0 in ascending order.
template <class Emit>
__device__ void emit_bits(const lim_u32 *words, int count, BlockShared &sh, Emit emit) {
  const int each = (count + kThreads - 1) / kThreads;
  const int first = min(count, (int)threadIdx.x * each), last = min(count, first + each);
  lim_u32 bits = 0, total;
  for (int w = first; w < last; ++w) bits += __popc(words[w]);
  lim_u32 index = block_scan(bits, sh, &total);
  for (int w = first; w < last; ++w) {
    for (lim_u32 word = words[w]; word != 0; word &= word - 1) emit(index++, w * 32 + __ffs(word) - 1);
  }
}

}  // namespace lim_select_
