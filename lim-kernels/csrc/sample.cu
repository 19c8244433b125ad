// Draws one token per row of logits: penalties, temperature, top-k, top-p, min-p, in this order; temperature 0 takes
// the highest logit, the lowest id on ties. Also the natural log of the token's probability under the plain softmax.
//
// Think of the tokens as sorted by (adjusted logit descending, id ascending). Each filter keeps a prefix of that order,
// so the kept set is the shortest of the prefixes. Nothing is sorted: a histogram over (max - logit) / T, in bins of 1/64,
// says in which bin a prefix ends; only that bin's tokens are looked at. The draw is a position inside the kept mass,
// counted in ascending ids.
// Masses are exp((l - max) / T) in units of 2^-30, as integers: sums do not depend on the order of additions, so the
// result is the same in every run.
//
// Results go to one of LIM_DRAW_SLOTS slots in turn, so that the host may read one step's while the next runs.
//
// Mapping: `stats` and `bins`, (kSplits, rows) blocks over slices of a row; `draw`, one block a row.
// Bytes: rows * vocab * 4, read three times, of which the later two come from the L2 cache.
#include "device.cuh"

namespace lim {

constexpr int kSplits = 64, kSliceThreads = 256, kDrawThreads = 1024;
constexpr float kBinsPerNat = 64.0f;
constexpr int kBins = 1344;       // e^-21 in units of 2^-30 is 0
constexpr int kListed = 2048;     // tokens of a bin that are ranked in shared memory

typedef unsigned long long u64;

struct Stats {
  float max, sum;  // of the plain logits: max, and sum of exp(l - max)
  float best;      // highest adjusted logit
  int best_id;     // its lowest id
  int bad;         // lowest id of a logit that is NaN or +inf, vocab where none is
};

struct RowScratch {
  Stats slices[kSplits];
  u64 mass[kBins];
  unsigned count[kBins];
  u64 likely;  // mass of the tokens that min-p keeps
};

__device__ __forceinline__ RowScratch &scratch_of(const lim_sample_args &a, int row) {
  return static_cast<RowScratch *>(a.scratch)[row];
}

__device__ __forceinline__ void join(Stats &a, const Stats &b) {
  const float max = fmaxf(a.max, b.max);
  if (max > NEG_INF) a.sum = a.sum * __expf(a.max - max) + b.sum * __expf(b.max - max);
  a.max = max;
  if (b.best > a.best || (b.best == a.best && b.best_id < a.best_id)) {
    a.best = b.best;
    a.best_id = b.best_id;
  }
  a.bad = min(a.bad, b.bad);
}

// All lanes end with the joined value.
__device__ __forceinline__ void join_warp(Stats &s) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) {
    const Stats other = {__shfl_xor_sync(FULL, s.max, d), __shfl_xor_sync(FULL, s.sum, d),
                         __shfl_xor_sync(FULL, s.best, d), __shfl_xor_sync(FULL, s.best_id, d),
                         __shfl_xor_sync(FULL, s.bad, d)};
    join(s, other);
  }
}

// The row's statistics, joined from its slices by the first warp and shared with the block.
__device__ __forceinline__ Stats row_stats(const RowScratch &r, Stats *shared) {
  if (threadIdx.x < WARP) {
    Stats s = r.slices[threadIdx.x];
    for (int i = threadIdx.x + WARP; i < kSplits; i += WARP) join(s, r.slices[i]);
    join_warp(s);
    if (threadIdx.x == 0) *shared = s;
  }
  __syncthreads();
  return *shared;
}

// Penalties as HF and vLLM define them: repetition over prompt and output, presence and frequency over output.
__device__ __forceinline__ bool has_penalty(const lim_draw &p) {
  return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}
__device__ __forceinline__ float adjusted(const lim_sample_args &a, const lim_draw &p, size_t at, float l) {
  const unsigned seen = has_penalty(p) ? a.seen[at] : 0u;
  if (seen == 0) return l;
  l = l > 0.0f ? l / p.repetition_penalty : l * p.repetition_penalty;
  const unsigned generated = seen & ~LIM_SEEN_IN_PROMPT;
  if (generated) l -= p.presence_penalty + p.frequency_penalty * static_cast<float>(generated);
  return l;
}

__global__ void __launch_bounds__(kSliceThreads) sample_stats_kernel(const __grid_constant__ lim_sample_args a) {
  await_dependencies();
  allow_dependents();
  __shared__ Stats warps[kSliceThreads / WARP];
  const int row = blockIdx.y, slice = (a.vocab + kSplits - 1) / kSplits;
  const int begin = blockIdx.x * slice, end = min(begin + slice, a.vocab);
  const lim_draw p = a.draws[row];
  RowScratch &r = scratch_of(a, row);
  for (int i = blockIdx.x * kSliceThreads + threadIdx.x; i < kBins; i += kSplits * kSliceThreads) r.mass[i] = 0, r.count[i] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) r.likely = 0;
  if (blockIdx.x == 0 && row == 0 && threadIdx.x == 0) *a.turn += 1;

  Stats s = {NEG_INF, 0.0f, NEG_INF, a.vocab, a.vocab};
#pragma unroll 4
  for (int id = begin + threadIdx.x; id < end; id += kSliceThreads) {
    const size_t at = static_cast<size_t>(row) * a.vocab + id;
    const float l = a.logits[at], v = adjusted(a, p, at, l);
    if (!(l < INFINITY)) s.bad = min(s.bad, id);
    if (l > s.max) {
      s.sum = s.sum * __expf(s.max - l) + 1.0f;
      s.max = l;
    } else if (l > NEG_INF) {
      s.sum += __expf(l - s.max);
    }
    if (v > s.best) s.best = v, s.best_id = id;  // ids ascend: the first of equals stays
  }
  join_warp(s);
  if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = s;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < kSliceThreads / WARP; w++) join(s, warps[w]);
  r.slices[blockIdx.x] = s;
}

__device__ __forceinline__ bool draws(const lim_sample_args &a, const lim_draw &p, const Stats &s, int forced) {
  return p.temperature > 0.0f && s.bad == a.vocab && s.best > NEG_INF && forced < 0;
}

struct Token {
  int bin;        // kBins where the mass is 0
  unsigned mass;  // in units of 2^-30
  float weight;   // exp((l - max) / T)
  float logit;    // adjusted
};

__device__ __forceinline__ Token token_at(const lim_sample_args &a, const lim_draw &p, float best, int row, int id) {
  const size_t at = static_cast<size_t>(row) * a.vocab + id;
  Token t;
  t.logit = adjusted(a, p, at, a.logits[at]);
  const float far = (best - t.logit) / p.temperature;
  t.weight = expf(-far);
  t.mass = static_cast<unsigned>(t.weight * 1073741824.0f);
  t.bin = t.mass ? min(static_cast<int>(far * kBinsPerNat), kBins - 1) : kBins;
  return t;
}

__global__ void __launch_bounds__(kSliceThreads) sample_bins_kernel(const __grid_constant__ lim_sample_args a) {
  await_dependencies();
  allow_dependents();
  // A slice's mass in a bin, as two sums that cannot overflow: the low 12 bits and the rest.
  __shared__ unsigned count[kBins], low[kBins], high[kBins];
  __shared__ Stats shared;
  const int row = blockIdx.y, slice = (a.vocab + kSplits - 1) / kSplits;
  const int begin = blockIdx.x * slice, end = min(begin + slice, a.vocab);
  const lim_draw p = a.draws[row];
  RowScratch &r = scratch_of(a, row);
  const Stats s = row_stats(r, &shared);
  if (!draws(a, p, s, a.forced[row])) return;
  for (int i = threadIdx.x; i < kBins; i += kSliceThreads) count[i] = low[i] = high[i] = 0;
  __syncthreads();
  u64 likely = 0;
#pragma unroll 4
  for (int id = begin + threadIdx.x; id < end; id += kSliceThreads) {
    const Token t = token_at(a, p, s.best, row, id);
    if (t.bin == kBins) continue;
    atomicAdd(&count[t.bin], 1u);
    atomicAdd(&low[t.bin], t.mass & 4095u);
    atomicAdd(&high[t.bin], t.mass >> 12);
    if (t.weight >= p.min_p) likely += t.mass;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kSliceThreads) {
    if (count[i] == 0) continue;
    atomicAdd(&r.count[i], count[i]);
    atomicAdd(&r.mass[i], static_cast<u64>(low[i]) + (static_cast<u64>(high[i]) << 12));
  }
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) likely += __shfl_xor_sync(FULL, likely, d);
  if (threadIdx.x % WARP == 0 && likely) atomicAdd(&r.likely, likely);
}

// Philox4x32-10 (Salmon et al., SC 2011): 24 random bits for (seed, draw), the same as the CPU's.
__device__ u64 random_bits(u64 seed, unsigned draw) {
  unsigned c[4] = {draw, 0, 0, 0}, k[2] = {static_cast<unsigned>(seed), static_cast<unsigned>(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    const unsigned hi0 = __umulhi(0xD2511F53u, c[0]), lo0 = 0xD2511F53u * c[0];
    const unsigned hi1 = __umulhi(0xCD9E8D57u, c[2]), lo1 = 0xCD9E8D57u * c[2];
    c[0] = hi1 ^ c[1] ^ k[0];
    c[1] = lo1;
    c[2] = hi0 ^ c[3] ^ k[1];
    c[3] = lo0;
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c[0] >> 8;
}

// Place in the order: larger logits first, then lower ids.
__device__ __forceinline__ u64 place_of(float l, int id) {
  const unsigned bits = __float_as_uint(l == 0.0f ? 0.0f : l);
  const unsigned key = bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
  return static_cast<u64>(key) << 32 | static_cast<unsigned>(id);
}

// A row being drawn from: everything in shared memory.
struct Draw {
  u64 mass_before[kBins + 1];  // mass of the bins before
  unsigned count_before[kBins + 1];
  u64 place[kListed];
  unsigned mass[kListed];
  int listed, first, last;  // tokens listed, and the bins they are of
  u64 found_place, found_mass;
  u64 warp_mass[WARP];
  unsigned warp_count[WARP];
  int token;
  u64 digit_weight[256], digit_mass[256];
};

// Exclusive prefix sums of the row's bins.
__device__ void sum_bins(Draw &d, const RowScratch &r) {
  constexpr int kEach = (kBins + kDrawThreads - 1) / kDrawThreads;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, begin = threadIdx.x * kEach;
  u64 mass = 0;
  unsigned count = 0;
  for (int i = begin; i < min(begin + kEach, kBins); i++) mass += r.mass[i], count += r.count[i];
  u64 mass_to = mass;
  unsigned count_to = count;
  for (int step = 1; step < WARP; step *= 2) {
    const u64 m = __shfl_up_sync(FULL, mass_to, step);
    const unsigned c = __shfl_up_sync(FULL, count_to, step);
    if (lane >= step) mass_to += m, count_to += c;
  }
  if (lane == WARP - 1) d.warp_mass[warp] = mass_to, d.warp_count[warp] = count_to;
  __syncthreads();
  mass_to -= mass;
  count_to -= count;
  for (int w = 0; w < warp; w++) mass_to += d.warp_mass[w], count_to += d.warp_count[w];
  for (int i = begin; i < min(begin + kEach, kBins); i++) {
    d.mass_before[i] = mass_to, d.count_before[i] = count_to;
    mass_to += r.mass[i], count_to += r.count[i];
    if (i == kBins - 1) d.mass_before[kBins] = mass_to, d.count_before[kBins] = count_to;
  }
  if (threadIdx.x == 0) d.first = 0, d.last = -1;
  __syncthreads();
}

// Lists the tokens of bins first..last.
__device__ void list_bins(Draw &d, const lim_sample_args &a, const lim_draw &p, float best, int row, int first, int last) {
  if (threadIdx.x == 0) d.listed = 0, d.first = first, d.last = last;
  __syncthreads();
#pragma unroll 4
  for (int id = threadIdx.x; id < a.vocab; id += kDrawThreads) {
    const Token t = token_at(a, p, best, row, id);
    if (t.bin < first || t.bin > last) continue;
    const int at = atomicAdd(&d.listed, 1);
    d.place[at] = place_of(t.logit, id);
    d.mass[at] = t.mass;
  }
  __syncthreads();
}

// A bin with more tokens than the list holds (logits nearly alike): finds the token digit by digit of its place.
__device__ void descend(Draw &d, const lim_sample_args &a, const lim_draw &p, float best, int row, int bin,
                        bool by_mass, u64 target) {
  u64 place = 0, weight = by_mass ? d.mass_before[bin] : d.count_before[bin], mass = d.mass_before[bin];
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kDrawThreads) d.digit_weight[i] = d.digit_mass[i] = 0;
    __syncthreads();
    for (int id = threadIdx.x; id < a.vocab; id += kDrawThreads) {
      const Token t = token_at(a, p, best, row, id);
      const u64 at = place_of(t.logit, id);
      if (t.bin != bin || (shift < 56 && at >> (shift + 8) != place >> (shift + 8))) continue;
      atomicAdd(&d.digit_weight[at >> shift & 255], by_mass ? t.mass : 1ull);
      atomicAdd(&d.digit_mass[at >> shift & 255], static_cast<u64>(t.mass));
    }
    __syncthreads();
    int digit = 0;
    while (weight + d.digit_weight[digit] < target) {
      weight += d.digit_weight[digit];
      mass += d.digit_mass[digit];
      digit++;
    }
    place |= static_cast<u64>(digit) << shift;
    if (shift == 0) mass += d.digit_mass[digit];
    __syncthreads();
  }
  if (threadIdx.x == 0) d.found_place = place, d.found_mass = mass;
  __syncthreads();
}

// Ends the shortest prefix whose weight (tokens, or mass) reaches `target`, 1 <= target <= the weight of all:
// found_place is its last token, found_mass its mass.
__device__ void find_end(Draw &d, const lim_sample_args &a, const lim_draw &p, float best, int row, bool by_mass,
                         u64 target) {
  __syncthreads();  // the last call's result has been read
  auto before = [&](int bin) { return by_mass ? d.mass_before[bin] : static_cast<u64>(d.count_before[bin]); };
  int low = 0, high = kBins - 1;  // the bin with before(bin) < target <= before(bin + 1)
  while (low < high) {
    const int middle = (low + high) / 2;
    if (before(middle + 1) >= target) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  if (d.count_before[low + 1] - d.count_before[low] > kListed) return descend(d, a, p, best, row, low, by_mass, target);
  const bool listed = d.first <= low && low <= d.last;
  __syncthreads();  // every thread has looked before the list changes
  if (!listed) list_bins(d, a, p, best, row, d.count_before[low + 1] <= kListed ? 0 : low, low);
  const u64 mass_base = d.mass_before[d.first], count_base = d.count_before[d.first];
  for (int i = threadIdx.x; i < d.listed; i += kDrawThreads) {
    const u64 mine = d.place[i];
    u64 mass = mass_base, count = count_base;
    for (int j = 0; j < d.listed; j++) {
      if (d.place[j] >= mine) continue;
      mass += d.mass[j];
      count++;
    }
    const u64 weight = by_mass ? mass : count, own = by_mass ? d.mass[i] : 1;
    if (weight < target && weight + own >= target) d.found_place = mine, d.found_mass = mass + d.mass[i];
  }
  __syncthreads();
}

// The token of the kept set (place <= end, weight >= min-p) at which the mass, counted in ascending ids, passes `target`.
__device__ int draw_by_id(Draw &d, const lim_sample_args &a, const lim_draw &p, float best, int row, u64 end,
                          u64 target) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int slice = (a.vocab + kDrawThreads - 1) / kDrawThreads * WARP, first = warp * slice;
  const int last = min(first + slice, a.vocab);
  auto mass_at = [&](int id) -> u64 {
    if (id >= last) return 0;
    const Token t = token_at(a, p, best, row, id);
    return place_of(t.logit, id) <= end && t.weight >= p.min_p ? t.mass : 0;
  };
  u64 mine = 0;
#pragma unroll 4
  for (int id = first + lane; id < last; id += WARP) mine += mass_at(id);
#pragma unroll
  for (int s = WARP / 2; s > 0; s /= 2) mine += __shfl_xor_sync(FULL, mine, s);
  if (lane == 0) d.warp_mass[warp] = mine;
  __syncthreads();
  u64 before = 0;
  for (int w = 0; w < warp; w++) before += d.warp_mass[w];
  if (before <= target && target < before + mine) {
    for (int id = first; id < last; id += WARP) {
      const u64 mass = mass_at(id + lane);
      u64 to = mass;
      for (int step = 1; step < WARP; step *= 2) {
        const u64 below = __shfl_up_sync(FULL, to, step);
        if (lane >= step) to += below;
      }
      if (before + to - mass <= target && target < before + to) d.token = id + lane;
      before += __shfl_sync(FULL, to, WARP - 1);
    }
  }
  __syncthreads();
  return d.token;
}

__global__ void __launch_bounds__(kDrawThreads) sample_draw_kernel(const __grid_constant__ lim_sample_args a) {
  await_dependencies();
  allow_dependents();
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ Stats shared;
  Draw &d = *reinterpret_cast<Draw *>(memory);
  const int row = blockIdx.x;
  const lim_draw p = a.draws[row];
  const RowScratch &r = scratch_of(a, row);
  // What the first thread changes at the end is read by all before the barrier in row_stats.
  const int forced = a.forced[row];
  const bool empty = a.next_len && a.next_len[row] == 0;
  const Stats s = row_stats(r, &shared);
  if (empty) return;

  int token = s.best > NEG_INF ? s.best_id : -1;
  if (forced >= 0) token = forced;
  if (draws(a, p, s, forced)) {
    sum_bins(d, r);
    u64 kept = d.mass_before[kBins], end = ~0ull;
    if (p.top_k > 0 && p.top_k < static_cast<int>(d.count_before[kBins])) {
      find_end(d, a, p, s.best, row, false, p.top_k);
      kept = d.found_mass, end = d.found_place;
    }
    if (p.top_p < 1.0f) {
      const u64 target = static_cast<u64>(static_cast<double>(p.top_p) * static_cast<double>(kept));
      find_end(d, a, p, s.best, row, true, max(target, 1ull));
      kept = min(kept, d.found_mass), end = min(end, d.found_place);
    }
    if (p.min_p > 0.0f) kept = min(kept, r.likely);
    token = draw_by_id(d, a, p, s.best, row, end, __umul64hi(random_bits(p.seed, p.draw) << 40, kept));
  }
  if (threadIdx.x) return;
  const bool valid = s.bad == a.vocab && token >= 0 && token < a.vocab;
  const int bad = s.bad < a.vocab ? s.bad : 0, slot = *a.turn % LIM_DRAW_SLOTS * a.stride + row;
  const float *logits = a.logits + static_cast<size_t>(row) * a.vocab;
  a.token[slot] = valid ? token : -1 - bad;
  a.logprob[slot] = valid ? logits[token] - s.max - logf(s.sum) : logits[bad];

  a.draws[row].draw = p.draw + 1;
  a.forced[row] = -1;
  if (!valid) token = 0;
  if (has_penalty(p)) a.seen[static_cast<size_t>(row) * a.vocab + token] += 1;
  if (!a.next_len) return;
  bool stops = false;
#pragma unroll
  for (int i = 0; i < LIM_STOP_TOKENS; i++) stops |= p.stop[i] == token;
  a.next_token[row] = token;
  a.next_pos[row] += 1;
  a.next_len[row] = stops ? 0 : a.next_len[row] + 1;
}

}  // namespace lim

extern "C" lim_u64 lim_sample_scratch(lim_i32 rows) { return static_cast<lim_u64>(rows) * sizeof(lim::RowScratch); }

extern "C" lim_i32 lim_sample(const lim_sample_args *args, void *stream) {
  const lim_sample_args &a = *args;
  if (a.rows < 1 || a.vocab < 1 || a.stride < a.rows) return LIM_E_SHAPE;
  if (a.scratch_bytes < lim_sample_scratch(a.rows)) return LIM_E_SCRATCH;
  lim::Machine m;
  if (const lim_i32 status = lim::machine(&m)) return status;
  const dim3 slices(lim::kSplits, a.rows);
  if (const lim_i32 status = lim::launch(m, lim::sample_stats_kernel, slices, lim::kSliceThreads, 0, stream, a))
    return status;
  if (const lim_i32 status = lim::launch(m, lim::sample_bins_kernel, slices, lim::kSliceThreads, 0, stream, a))
    return status;
  return lim::launch(m, lim::sample_draw_kernel, dim3(a.rows), lim::kDrawThreads, sizeof(lim::Draw), stream, a);
}
