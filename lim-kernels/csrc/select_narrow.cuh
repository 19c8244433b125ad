// The selection's way out where its estimates fail: ranks of a row's best keys whatever the scores look like (ties
// by the thousand, one huge outlier), in several passes over the row.
#pragma once
#include "select.cuh"

namespace lim_select_ {

template <int Threads> struct NarrowShared {
  lim_u64 min[Threads / 32], max[Threads / 32];
  lim_u32 sums[Threads / 32];
  lim_u32 bucket, before, through;
};

// Buckets of equal width over the keys in [min, max]; the width is 2^shift.
struct KeyBuckets {
  lim_u64 min;
  int shift;
  __device__ int of(lim_u64 key) const { return (int)((key - min) >> shift); }
  __device__ lim_u64 edge(int bucket) const { return min + ((lim_u64)bucket << shift); }
};

// Buckets that cover the keys in [lo, hi], and in hist[kBuckets] how many lie in each.
template <int Threads, class KeyAt>
__device__ KeyBuckets bucket_keys(KeyAt key_at, int n, lim_u64 lo, lim_u64 hi, lim_u32 *hist,
                                  NarrowShared<Threads> &sh) {
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  lim_u64 mn = ~0ull, mx = 0;
#pragma unroll 4
  for (int i = tid; i < n; i += Threads) {
    const lim_u64 key = key_at(i);
    if (key < lo || key > hi) continue;
    mn = min(mn, key);
    mx = max(mx, key);
  }
  const auto extremes = [&] {
    for (int step = 16; step > 0; step /= 2) {
      mn = min(mn, __shfl_xor_sync(~0u, mn, step));
      mx = max(mx, __shfl_xor_sync(~0u, mx, step));
    }
  };
  extremes();
  __syncthreads();
  if (lane == 0) sh.min[warp] = mn, sh.max[warp] = mx;
  for (int i = tid; i < kBuckets; i += Threads) hist[i] = 0;
  __syncthreads();
  mn = sh.min[lane % (Threads / 32)], mx = sh.max[lane % (Threads / 32)];
  extremes();
  const int bits = 64 - __clzll((long long)(mx - mn));
  const KeyBuckets buckets{mn, max(0, bits - 11)};
#pragma unroll 4
  for (int i = tid; i < n; i += Threads) {
    const lim_u64 key = key_at(i);
    if (key >= lo && key <= hi) atomicAdd(&hist[buckets.of(key)], 1u);
  }
  __syncthreads();
  return buckets;
}

// A key L with want <= #{i : key_at(i) >= L} <= most, where 1 <= want <= n and want <= most. Narrows the bucket in
// which the want-th key lies, 11 bits a round; six rounds at most.
template <int Threads, class KeyAt>
__device__ lim_u64 lower_bound_of(KeyAt key_at, int n, lim_u32 want, lim_u32 most, lim_u32 *hist,
                                  NarrowShared<Threads> &sh) {
  lim_u64 lo = 0, hi = ~0ull;
  lim_u32 outside = 0;
  while (true) {
    const KeyBuckets buckets = bucket_keys<Threads>(key_at, n, lo, hi, hist, sh);
    from_above<Threads>(hist, sh.sums, [&](int bucket, lim_u32 above, lim_u32 count) {
      const lim_u32 before = outside + above;
      if (before < want && before + count >= want) {
        sh.bucket = bucket, sh.before = before, sh.through = before + count;
      }
    });
    __syncthreads();
    lo = buckets.edge(sh.bucket);
    if (sh.through <= most || buckets.shift == 0) return lo;
    outside = sh.before;
    hi = buckets.edge(sh.bucket + 1) - 1;
    __syncthreads();
  }
}

// Calls emit(rank, key) for the `want` greatest of n keys. start and end are [kBuckets], sorted has room for
// want + want / 4 + 32 keys: they go there bucket by bucket, and a key's rank is the number of keys in higher buckets
// plus that of greater ones in its own.
template <int Threads, class KeyAt, class Emit>
__device__ void rank_any(KeyAt key_at, int n, lim_u32 want, lim_u32 *start, lim_u32 *end, lim_u64 *sorted,
                         NarrowShared<Threads> &sh, Emit emit) {
  const int tid = threadIdx.x;
  // Little more than the wanted keys: their scores lie close, so that few share a bucket.
  const lim_u32 most = want + want / 4 + 32;
  const lim_u64 lo = (lim_u32)n > most ? lower_bound_of<Threads>(key_at, n, want, most, start, sh) : 0;
  const KeyBuckets buckets = bucket_keys<Threads>(key_at, n, lo, ~0ull, start, sh);
  from_above<Threads>(start, sh.sums, [&](int bucket, lim_u32 above, lim_u32) { start[bucket] = end[bucket] = above; });
  __syncthreads();
#pragma unroll 4
  for (int i = tid; i < n; i += Threads) {
    const lim_u64 key = key_at(i);
    if (key < lo) continue;
    const int bucket = buckets.of(key);
    if (start[bucket] < want) sorted[atomicAdd(&end[bucket], 1u)] = key;
  }
  __syncthreads();
#pragma unroll 4
  for (int i = tid; i < n; i += Threads) {
    const lim_u64 key = key_at(i);
    if (key < lo) continue;
    const int bucket = buckets.of(key);
    lim_u32 rank = start[bucket];
    if (rank >= want) continue;
    for (lim_u32 j = rank, last = end[bucket]; j < last; ++j) rank += sorted[j] > key;
    if (rank < want) emit(rank, key);
  }
}

}  // namespace lim_select_
