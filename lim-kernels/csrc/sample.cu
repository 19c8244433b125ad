// Draws one token per row of logits: penalties, temperature, top-k, top-p, min-p, in this order; temperature 0 takes
// the highest logit, the lowest id on ties. Also the natural log of the token's probability under the plain softmax.
//
// Tokens are thought of as sorted by (adjusted logit descending, id ascending). Each filter keeps a prefix of that
// order, so the kept set is the shortest of the prefixes, and the draw is a position inside its mass. Nothing is
// sorted: a prefix ends where a radix descent over the order's key says, digit by digit, by counts or by masses.
// Masses are exp((l - max) / T) in units of 2^-32, as integers: sums do not depend on the order of additions, so the
// result is the same in every run.
//
// Mapping: lim_sample runs two kernels. `stats`: (kSplits, rows) blocks reduce slices of a row. `draw`: one block a
// row joins them, gathers the tokens of non-zero mass to scratch and descends. Bytes: rows * vocab * 4, read twice.
#include <cfloat>

#include "device.cuh"

namespace lim {

constexpr int kSplits = 32, kStatsThreads = 256, kDrawThreads = 1024;

struct Stats {
  float max, sum;  // of the plain logits: max and sum of exp(l - max)
  float best;      // highest adjusted logit
  int best_id;     // its lowest id
  int nan;         // whether any logit was NaN
};

__device__ __forceinline__ void join(Stats &a, const Stats &b) {
  const float max = fmaxf(a.max, b.max);
  if (max > -INFINITY) a.sum = a.sum * __expf(a.max - max) + b.sum * __expf(b.max - max);
  a.max = max;
  if (b.best > a.best || (b.best == a.best && b.best_id < a.best_id)) {
    a.best = b.best;
    a.best_id = b.best_id;
  }
  a.nan |= b.nan;
}

__device__ __forceinline__ Stats shuffle(const Stats &s, int d) {
  return {__shfl_xor_sync(~0u, s.max, d), __shfl_xor_sync(~0u, s.sum, d), __shfl_xor_sync(~0u, s.best, d),
          __shfl_xor_sync(~0u, s.best_id, d), __shfl_xor_sync(~0u, s.nan, d)};
}

// Penalties as HF and vLLM define them: repetition over prompt and output, presence and frequency over output.
__device__ __forceinline__ float penalised(float l, const lim_sample_params &p, unsigned seen) {
  if (seen == 0) return l;
  l = l > 0.0f ? l / p.repetition_penalty : l * p.repetition_penalty;
  const unsigned generated = seen & ~LIM_SEEN_IN_PROMPT;
  if (generated) l -= p.presence_penalty + p.frequency_penalty * static_cast<float>(generated);
  return l;
}

__device__ __forceinline__ float adjusted(const lim_sample_args &a, const lim_sample_params &p, int row, int id) {
  const size_t at = static_cast<size_t>(row) * a.vocab + id;
  return penalised(a.logits[at], p, a.seen ? a.seen[at] : 0u);
}

__global__ void __launch_bounds__(kStatsThreads) sample_stats_kernel(const __grid_constant__ lim_sample_args a) {
  allow_dependents();
  await_dependencies();
  __shared__ Stats warps[kStatsThreads / 32];
  const int row = blockIdx.y, slice = (a.vocab + kSplits - 1) / kSplits;
  const int begin = blockIdx.x * slice, end = min(begin + slice, a.vocab);
  const lim_sample_params p = a.params[row];
  Stats s = {-INFINITY, 0.0f, -INFINITY, a.vocab, 0};
  for (int id = begin + threadIdx.x; id < end; id += blockDim.x) {
    const float l = a.logits[static_cast<size_t>(row) * a.vocab + id];
    const Stats one = {l, l > -INFINITY ? 1.0f : 0.0f, adjusted(a, p, row, id), id, isnan(l)};
    join(s, one);
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) join(s, shuffle(s, d));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < kStatsThreads / 32; w++) join(s, warps[w]);
  static_cast<Stats *>(a.scratch)[row * kSplits + blockIdx.x] = s;
}

// Larger logits get smaller keys, so ascending keys are the order of preference.
__device__ __forceinline__ unsigned key_of(float l) {
  const unsigned bits = __float_as_uint(l == 0.0f ? 0.0f : l);
  return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

// Philox4x32-10 (Salmon et al., SC 2011): 64 random bits for (seed, draw).
__device__ unsigned long long random_bits(unsigned long long seed, unsigned draw) {
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
  return static_cast<unsigned long long>(c[0]) << 32 | c[1];
}

struct Candidates {
  const unsigned *key;   // [count]
  const unsigned *id;    // [count]
  const unsigned long long *mass;
  int count;
};

struct Prefix {
  unsigned key, id;           // the order's last kept token
  unsigned long long mass;    // mass up to and including it
};

// The shortest prefix whose weight (tokens, or mass) reaches `target` >= 1; the whole list where it never does.
// Called by the whole block; `bins` is shared.
__device__ Prefix shortest_prefix(const Candidates &c, bool by_mass, unsigned long long target,
                                  unsigned long long (*bins)[256], unsigned long long *shared) {
  unsigned long long order = 0, before_weight = 0, before_mass = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 512; i += blockDim.x) bins[i / 256][i % 256] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < c.count; i += blockDim.x) {
      const unsigned long long full = static_cast<unsigned long long>(c.key[i]) << 32 | c.id[i];
      if (shift < 56 && full >> (shift + 8) != order >> (shift + 8)) continue;
      const int bin = static_cast<int>(full >> shift & 255);
      atomicAdd(&bins[0][bin], 1ull);
      atomicAdd(&bins[1][bin], c.mass[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = 0, last = -1;
      for (; bin < 256; bin++) {
        if (bins[0][bin] == 0) continue;
        last = bin;
        if (before_weight + bins[by_mass][bin] >= target) break;
        before_weight += bins[by_mass][bin];
        before_mass += bins[1][bin];
      }
      if (bin == 256) {  // the list ends first: its last token
        bin = last;
        before_weight -= bins[by_mass][bin];
        before_mass -= bins[1][bin];
      }
      shared[0] = order | static_cast<unsigned long long>(bin) << shift;
      shared[1] = before_weight;
      shared[2] = before_mass + bins[1][bin];
      shared[3] = before_mass;
    }
    __syncthreads();
    order = shared[0];
    before_weight = shared[1];
    before_mass = shared[3];
    if (shift == 0) break;
  }
  const unsigned long long mass = shared[2];
  __syncthreads();
  return {static_cast<unsigned>(order >> 32), static_cast<unsigned>(order), mass};
}

__global__ void __launch_bounds__(kDrawThreads) sample_draw_kernel(const __grid_constant__ lim_sample_args a) {
  allow_dependents();
  await_dependencies();
  __shared__ unsigned long long bins[2][256];
  __shared__ unsigned long long shared[4];
  __shared__ int count;
  __shared__ unsigned long long total, likely;
  const int row = blockIdx.x;
  const lim_sample_params p = a.params[row];
  const Stats *partial = static_cast<const Stats *>(a.scratch) + row * kSplits;
  Stats s = partial[0];
  for (int i = 1; i < kSplits; i++) join(s, partial[i]);

  unsigned token = static_cast<unsigned>(s.best_id);
  const int forced = a.forced ? a.forced[row] : -1;
  if (forced >= 0) {
    token = forced;
  } else if (p.temperature > 0.0f && !s.nan && s.best > -INFINITY) {
    const size_t base = static_cast<size_t>(row) * a.vocab;
    unsigned char *lists = static_cast<unsigned char *>(a.scratch) + static_cast<size_t>(a.rows) * kSplits * sizeof(Stats);
    const size_t all = static_cast<size_t>(a.rows) * a.vocab;
    unsigned long long *mass = reinterpret_cast<unsigned long long *>(lists) + base;
    unsigned *key = reinterpret_cast<unsigned *>(lists + all * 8) + base;
    unsigned *id = reinterpret_cast<unsigned *>(lists + all * 12) + base;
    if (threadIdx.x == 0) count = 0, total = 0, likely = 0;
    __syncthreads();
    unsigned long long my_total = 0, my_likely = 0;
    for (int v = threadIdx.x; v < a.vocab; v += blockDim.x) {
      const float l = adjusted(a, p, row, v), w = expf((l - s.best) / p.temperature);
      const unsigned long long m = static_cast<unsigned long long>(w * 4294967296.0f);
      if (m == 0) continue;
      const int at = atomicAdd(&count, 1);
      mass[at] = m;
      key[at] = key_of(l);
      id[at] = v;
      my_total += m;
      if (w >= p.min_p) my_likely += m;
    }
    atomicAdd(&total, my_total);
    atomicAdd(&likely, my_likely);
    __syncthreads();
    const Candidates c = {key, id, mass, count};
    unsigned long long kept = total;
    if (p.top_k > 0 && p.top_k < count) kept = shortest_prefix(c, false, p.top_k, bins, shared).mass;
    if (p.top_p < 1.0f) {
      const unsigned long long target = static_cast<unsigned long long>(static_cast<double>(p.top_p) * static_cast<double>(kept));
      kept = min(kept, shortest_prefix(c, true, max(target, 1ull), bins, shared).mass);
    }
    kept = min(kept, likely);
    const unsigned long long at = __umul64hi(random_bits(p.seed, p.draw), kept);
    token = shortest_prefix(c, true, at + 1, bins, shared).id;
  }
  if (threadIdx.x) return;
  const bool valid = !s.nan && s.best > -INFINITY && token < static_cast<unsigned>(a.vocab);
  a.token[row] = valid ? static_cast<int>(token) : -1;
  a.logprob[row] = valid ? a.logits[static_cast<size_t>(row) * a.vocab + token] - s.max - logf(s.sum) : NAN;
}

}  // namespace lim

extern "C" lim_u64 lim_sample_scratch(lim_i32 rows, lim_i32 vocab) {
  return static_cast<lim_u64>(rows) * (lim::kSplits * sizeof(lim::Stats) + static_cast<lim_u64>(vocab) * 16);
}

extern "C" lim_i32 lim_sample(const lim_sample_args *args, void *stream) {
  const lim_sample_args &a = *args;
  if (a.rows < 1 || a.vocab < 1) return LIM_E_SHAPE;
  if (a.scratch_bytes < lim_sample_scratch(a.rows, a.vocab)) return LIM_E_SCRATCH;
  lim::Machine m;
  if (const lim_i32 status = lim::machine(&m)) return status;
  const dim3 slices(lim::kSplits, a.rows);
  if (const lim_i32 status = lim::launch(m, lim::sample_stats_kernel, slices, lim::kStatsThreads, 0, stream, a))
    return status;
  return lim::launch(m, lim::sample_draw_kernel, dim3(a.rows), lim::kDrawThreads, 0, stream, a);
}
