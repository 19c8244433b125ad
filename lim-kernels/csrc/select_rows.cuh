// rows [slice, row, seq]: the best keys of a row in order, or as ids for rules with a set a row.
//
// A cluster of blocks shares a row. The blocks draw a sample of it together and each finds the same bound, which about
// the M best pass. Each lists the keys of its slice that reach it, in its own shared memory: a remote atomic per key or
// per warp costs more than the pass over the scores. What the others have listed goes to the first block in one copy,
// which puts the keys in order, bucket by bucket. Bound and buckets only save work: where too few or too many keys
// pass, or many share a bucket, the first block goes over the whole row instead.
#pragma once
#include "device.cuh"
#include "select_first.cuh"
#include "select_ids.cuh"
#include "select_narrow.cuh"

namespace lim_select_ {

constexpr int kRowThreads = 1024;
constexpr int kQuads = 2;
template <int Threads> constexpr int kTile = Threads * 4 * kQuads;  // positions that a block takes at once
constexpr lim_u32 kCrowd = 256;                                     // keys of one bucket that are compared pairwise

template <int Threads> struct RowShared {
  lim_u32 hist[kBuckets];        // of the sample
  lim_u32 cursor[kBuckets + 1];  // of the listed keys; then where a bucket's next key goes, best bucket first
  lim_u32 min[Threads / 32], max[Threads / 32], sums[Threads / 32], more_sums[Threads / 32];
  lim_u32 bucket, listed, place, crowded;
  NarrowShared<Threads> narrow;
};

// What the sample says of a row: the bound that keys of the list reach, and buckets for these.
struct Bound {
  float least;
  Buckets buckets;
};

template <int Threads>
__device__ inline Bound bound_of(const Candidates &c, bool whole, const float *samples, int count, RowShared<Threads> &sh) {
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  lim_u32 low = ~0u, high = 0;
  for (int i = tid; i < count; i += Threads) {
    const lim_u32 order = score_order(samples[i]);
    low = min(low, order), high = max(high, order);
  }
  low = __reduce_min_sync(~0u, low);
  high = __reduce_max_sync(~0u, high);
  if (lane == 0) sh.min[warp] = low, sh.max[warp] = high;
  __syncthreads();
  const float lowest = ordered_score(__reduce_min_sync(~0u, sh.min[lane % (Threads / 32)]));
  const float highest = ordered_score(__reduce_max_sync(~0u, sh.max[lane % (Threads / 32)]));
  const Buckets all(lowest, highest);
  if (whole) return {lowest, all};
  for (int i = tid; i < count; i += Threads) {
    atomicAdd(&sh.hist[all.of(ordered_score(score_order(samples[i])))], 1u);
  }
  const lim_u32 want = min((lim_u32)count, (lim_u32)samples_passing((float)c.want * count / c.count));
  __syncthreads();
  from_above<Threads>(sh.hist, sh.sums, [&](int bucket, lim_u32 above, lim_u32 held) {
    if (above < want && above + held >= want) sh.bucket = bucket;
  });
  __syncthreads();
  const float least = all.edge(sh.bucket);
  return {least, Buckets(least, Buckets::near(highest) + 0.5f * (Buckets::near(highest) - least))};
}

// Lists the keys of the tiles first, first + step, .. that reach the bound.
template <int Threads>
__device__ inline void list_keys(const Plan &p, const Candidates &c, const float *row, bool whole, const Bound &bound,
                                 float4 (&scores)[kQuads], int first, int step, lim_u64 *list, lim_u32 *listed) {
  const int lane = threadIdx.x & 31, end = c.lo + c.count;
  for (int tile = first; tile < end; tile += step) {
    const int base = tile + 4 * threadIdx.x;
    float4 next[kQuads];
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int at = base + step + q * Threads * 4;
      if (at < end) next[q] = *reinterpret_cast<const float4 *>(row + at);
    }
    lim_u32 passed = 0;  // bit 4 * q + j
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float quad[4] = {scores[q].x, scores[q].y, scores[q].z, scores[q].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int i = base + q * Threads * 4 + j - c.lo;
        passed |= (lim_u32)((lim_u32)i < (lim_u32)c.count && (whole || quad[j] >= bound.least)) << (4 * q + j);
      }
    }
    const lim_u32 mine = __popc(passed);
    lim_u32 place = warp_scan(mine);
    lim_u32 at = 0;
    if (lane == 31 && place != 0) at = atomicAdd(listed, place);
    place += __shfl_sync(~0u, at, 31) - mine;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float quad[4] = {scores[q].x, scores[q].y, scores[q].z, scores[q].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!(passed >> (4 * q + j) & 1)) continue;
        if (place < (lim_u32)p.list_cap) list[place] = make_key(quad[j], base + q * Threads * 4 + j);
        ++place;
      }
    }
#pragma unroll
    for (int q = 0; q < kQuads; ++q) scores[q] = next[q];
  }
}

// Appends this block's list to the first block's.
template <int Threads>
__device__ inline void hand_over(const Plan &p, const lim_u64 *list, lim_u64 *to, RowShared<Threads> &sh) {
  __syncthreads();
  const lim_u32 listed = sh.listed;
  if (threadIdx.x == 0) sh.place = atomicAdd(lim::in_block(&sh.listed, 0), listed);
  __syncthreads();
  const lim_u32 place = sh.place;
  const lim_u32 room = place < (lim_u32)p.list_cap ? p.list_cap - place : 0, handed = min(listed, room);
  for (lim_u32 i = threadIdx.x; i < handed; i += Threads) to[place + i] = list[i];
}

// Calls emit(rank, key) for the c.want best keys of a row; unless `ordered`, any ranks below c.want. By the cluster's
// first block.
template <int Threads, class Emit>
__device__ void rank_keys(const Plan &p, const Candidates &c, const float *row, const Bound &bound, lim_u64 *list,
                          lim_u64 *sorted, lim_u32 *bits, bool ordered, RowShared<Threads> &sh, Emit emit) {
  const lim_u32 want = c.want, listed = min(sh.listed, (lim_u32)p.list_cap);
  const bool fits = sh.listed >= want && sh.listed <= (lim_u32)p.list_cap;
  const auto bucket_of = [&](lim_u64 key) { return bound.buckets.of(key_score(key)); };
  for (lim_u32 i = threadIdx.x; i < listed; i += Threads) atomicAdd(&sh.cursor[bucket_of(list[i])], 1u);
  __syncthreads();
  from_above<Threads>(sh.cursor, sh.more_sums, [&](int bucket, lim_u32 above, lim_u32 count) {
    sh.cursor[bucket] = above;
    if (count > kCrowd && above < want) sh.crowded = 1;
  });
  __syncthreads();
  const bool simple = fits && sh.crowded == 0;
  if (simple) {
    for (lim_u32 i = threadIdx.x; i < listed; i += Threads) {
      const lim_u64 key = list[i];
      sorted[atomicAdd(&sh.cursor[bucket_of(key)], 1u)] = key;
    }
  }
  __syncthreads();
  if (bits) {  // which may lie where the list was
    for (int i = threadIdx.x; i < (c.count + 31) / 32; i += Threads) bits[i] = 0;
    __syncthreads();
  }
  if (!simple) {
    const auto key_at = [&](int i) { return make_key(row[c.lo + i], c.lo + i); };
    rank_any<Threads>(key_at, c.count, want, sh.hist, sh.cursor, sorted, sh.narrow, emit);
    return;
  }
  // After the scatter a bucket's cursor is its end, which is the start of the bucket below.
  for (lim_u32 i = threadIdx.x; i < listed; i += Threads) {
    const lim_u64 key = sorted[i];
    const int bucket = bucket_of(key);
    const lim_u32 start = sh.cursor[bucket + 1], end = sh.cursor[bucket];
    if (start >= want) break;
    lim_u32 rank = start;
    if (ordered || end > want) {
#pragma unroll 4
      for (lim_u32 j = start; j < end; ++j) rank += sorted[j] > key;
    }
    if (rank < want) emit(rank, key);
  }
}

// What the sample says, with the keys that reach the bound in the first block's list. By the whole cluster.
template <int Threads>
__device__ inline Bound gather_keys(const Plan &p, const Candidates &c, const float *row, lim_u64 *list, float *samples,
                                    RowShared<Threads> &sh) {
  const int slice = lim::cluster_rank(), slices = lim::cluster_size(), tid = threadIdx.x;
  Bound bound{0, Buckets(0, 0)};
  if (c.want > 0) {
    // Blocks write into one another: all have to have started, with their counts cleared.
    if (slices > 1) lim::cluster_arrive();
    const bool whole = c.count <= p.list_cap;
    int count = kFewSamples, log = 10;
    while (count < kMostSamples && (lim_i64)count * p.stratum < c.count) count *= 2, ++log;
    // The first tile's scores and this block's part of the sample travel together.
    constexpr int kEach = kMostSamples / Threads;
    const int part = count / slices;
    float sampled[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int of_part = i * Threads + tid;
      if (of_part >= part) continue;
      // Anywhere in its own of `count` equal strata, by a fixed hash.
      const lim_u32 index = slice * part + of_part;
      const lim_u32 at = ((lim_u64)index * c.count + __umulhi(index * 2654435761u, c.count)) >> log;
      sampled[i] = row[c.lo + at];
    }
    float4 scores[kQuads];
    const int first = slice * kTile<Threads>;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int at = first + 4 * tid + q * Threads * 4;
      if (at < c.lo + c.count) scores[q] = *reinterpret_cast<const float4 *>(row + at);
    }
    if (slices > 1) lim::cluster_wait();
    for (int block = 0; block < slices; ++block) {
      float *there = lim::in_block(samples, block) + slice * part;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (i * Threads + tid < part) there[i * Threads + tid] = sampled[i];
      }
    }
    // A single block's threads read what they wrote themselves.
    if (slices > 1) lim::cluster_arrive(), lim::cluster_wait();
    bound = bound_of<Threads>(c, whole, samples, count, sh);
    // Lists in global memory are one a row.
    lim_u32 *listed = p.lists_shared ? &sh.listed : lim::in_block(&sh.listed, 0);
    list_keys<Threads>(p, c, row, whole, bound, scores, first, slices * kTile<Threads>, list, listed);
    if (slice != 0 && p.lists_shared) hand_over<Threads>(p, list, lim::in_block(list, 0), sh);
    if (slices > 1) {
      lim::cluster_arrive(), lim::cluster_wait();
    } else {
      __syncthreads();
    }
  }
  return bound;
}

// Nothing sampled or listed yet. The block is in step after the next barrier.
template <int Threads> __device__ inline void clear(RowShared<Threads> &sh) {
  const int tid = threadIdx.x;
  for (int i = tid; i < kBuckets; i += Threads) sh.hist[i] = 0;
  for (int i = tid; i <= kBuckets; i += Threads) sh.cursor[i] = 0;
  if (tid == 0) sh.listed = sh.crowded = 0;
}

// Where a row's lists lie: of a whole plan's, or in shared memory.
struct RowLists {
  lim_u64 *list, *sorted;
  float *samples;
  __device__ RowLists(const Plan &p, int row, unsigned char *shared) {
    list = p.lists_shared ? (lim_u64 *)shared : p.list + (lim_i64)row * p.list_cap;
    sorted = p.lists_shared ? (lim_u64 *)shared + p.list_cap : p.sorted + (lim_i64)row * p.list_cap;
    samples = p.lists_shared ? (float *)sorted : (float *)shared;  // nothing is sorted yet
  }
};

__global__ void __launch_bounds__(kRowThreads, 1) rows_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowShared<kRowThreads> sh;
  const int of_seq = blockIdx.y, seq = blockIdx.z, set = seq * gridDim.y + of_seq, tid = threadIdx.x;
  const int slice = lim::cluster_rank();
  const lim_select_args &a = p.a;
  clear(sh);
  fetch(p);
  lim::await_dependencies();
  lim::allow_dependents();
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) {
    if (!merges(a.rule) && slice == 0 && tid == 0) a.out.count[set] = LIM_DENSE;
    return;
  }
  const float *row = a.scores.data + (lim_i64)set * a.scores.stride;
  const RowLists at(p, set, shared);
  const Bound bound = gather_keys<kRowThreads>(p, c, row, at.list, at.samples, sh);
  if (slice != 0) return;
  if (merges(a.rule)) {
    if (c.want == 0) return;
    lim_i32 *order = p.order + (lim_i64)set * a.history;
    rank_keys<kRowThreads>(p, c, row, bound, at.list, at.sorted, nullptr, true, sh,
                           [&](lim_u32 rank, lim_u64 key) { order[rank] = key_position(key); });
    return;
  }
  lim_u32 *bits = p.bits_shared ? (lim_u32 *)at.list : p.bits + (lim_i64)set * p.bit_words;
  if (c.want > 0) {
    rank_keys<kRowThreads>(p, c, row, bound, at.list, at.sorted, bits, false, sh, [&](lim_u32, lim_u64 key) {
      const int bit = key_position(key) - c.lo;
      atomicOr(&bits[bit / 32], 1u << bit % 32);
    });
    __syncthreads();
  }
  write_ids<kRowThreads>(p, c, bits, n, set, sh.sums);
  if (a.rule != LIM_PICK_PAGES) write_frame<kRowThreads>(a, n, set, a.history);
  if (of_seq == 0 && tid == 0) atomicAdd(&a.counters[2], 1ull);
}

}  // namespace lim_select_
