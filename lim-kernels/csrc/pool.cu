// Softmax weights of token scores, pooled over heads, [seqs][heads][n] -> [seqs][rows][n or pages]:
//   groups     row j, token t: sum over the query heads of KV head j, upwards, of weight_h(t)
//   peak       token t: max over h of weight_h(t)
//   page peak  page p: sum over its tokens, upwards, of their peak
// weight_h is head h's softmax, rounded as mass.cuh says, so that results are the CPU's to the bit.
//
// Grid: [runs of tiles, seq]; a thread takes one token of a tile of 256 and goes through the heads. A tile holds whole
// pages. Bytes moved: the scores three times (tops, totals, weights), and the result.
#include "mass.cuh"

using namespace lim_mass_;

namespace lim_pool_ {

constexpr int kTile = 256;
constexpr int kHeads = 128;  // at most
constexpr int kAhead = 8;    // heads whose scores are on their way together

struct Plan {
  lim_pool_args a;
  Masses masses;
  lim_u64 bytes;  // of scratch
};

inline int rows_of(const lim_pool_args &a) { return a.by == LIM_POOL_GROUPS ? a.kv_heads : 1; }

inline lim_i32 check(const lim_pool_args &a) {
  if (a.by < LIM_POOL_GROUPS || a.by > LIM_POOL_PAGE_PEAK || !(a.scale_log2 > 0)) return LIM_E_SHAPE;
  if (a.heads < 1 || a.heads > kHeads || a.kv_heads < 1 || a.heads % a.kv_heads != 0) return LIM_E_HEADS;
  if (a.batch.seqs < 0 || a.batch.seqs > 65535 || a.batch.max_len < 1 || a.batch.max_len > 1 << 24) return LIM_E_SHAPE;
  if (a.page_size < 1 || a.page_size > kTile || (a.page_size & (a.page_size - 1)) != 0) return LIM_E_SHAPE;
  if (a.budget < 0 || a.scores.stride % 4 != 0 || a.scores.stride < a.batch.max_len) return LIM_E_SHAPE;
  const int columns =
      a.by == LIM_POOL_PAGE_PEAK ? (a.batch.max_len + a.page_size - 1) / a.page_size : a.batch.max_len;
  return a.out.stride < columns ? LIM_E_SHAPE : LIM_OK;
}

inline Plan plan(const lim_pool_args &a) {
  Plan p{a, {a.scores, a.batch.len, nullptr, nullptr, a.scale_log2, a.heads, slices_for(a.batch.max_len), a.budget}, 0};
  const lim_u64 parts = (lim_u64)a.batch.seqs * a.heads * p.masses.slices;
  p.masses.total = (lim_u64 *)a.scratch;
  p.masses.top = (float *)((unsigned char *)a.scratch + 8 * parts);
  p.bytes = 12 * parts;
  return p;
}

template <int By>
__global__ void __launch_bounds__(kTile) pool_kernel(const __grid_constant__ Plan p) {
  __shared__ Softmax heads[kHeads];
  __shared__ float peaks[kTile];
  const lim_pool_args &a = p.a;
  const int seq = blockIdx.y, tid = threadIdx.x;
  lim::await_dependencies();
  lim::allow_dependents();
  const int n = a.batch.len[seq];
  if (n <= a.budget) return;
  for (int h = tid / 32; h < a.heads; h += kTile / 32) {
    const Softmax s = softmax_of(p.masses, seq * a.heads + h);
    if (tid % 32 == 0) heads[h] = s;
  }
  __syncthreads();
  const int group = a.heads / a.kv_heads;
  const lim_i64 stride = a.scores.stride;
  float *out = a.out.data + (lim_i64)seq * (By == LIM_POOL_GROUPS ? a.kv_heads : 1) * a.out.stride;
  for (int tile = blockIdx.x * kTile; tile < n; tile += gridDim.x * kTile) {
    const int t = tile + tid;
    const float *column = a.scores.data + (lim_i64)seq * a.heads * stride + t;
    float pooled = 0.0f;
    int of_group = 0;
    for (int first = 0; first < a.heads && t < n; first += kAhead) {
      float scores[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first + i < a.heads) scores[i] = column[(first + i) * stride];
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first + i >= a.heads) continue;
        const float weight = heads[first + i].weight(scores[i]);
        if (By == LIM_POOL_GROUPS) {
          pooled = __fadd_rn(pooled, weight);
          if (++of_group == group) {
            out[(lim_i64)((first + i) / group) * a.out.stride + t] = pooled;
            pooled = 0.0f;
            of_group = 0;
          }
        } else {
          pooled = fmaxf(pooled, weight);
        }
      }
    }
    if (By == LIM_POOL_PEAK && t < n) out[t] = pooled;
    if (By == LIM_POOL_PAGE_PEAK) {
      peaks[tid] = pooled;
      __syncthreads();
      const int start = tid * a.page_size, end = min(start + a.page_size, min(kTile, n - tile));
      if (start < end) {
        float sum = 0.0f;
        for (int i = start; i < end; ++i) sum = __fadd_rn(sum, peaks[i]);
        out[tile / a.page_size + tid] = sum;
      }
      __syncthreads();
    }
  }
}

}  // namespace lim_pool_

using namespace lim_pool_;

extern "C" lim_u64 lim_pool_scratch(const lim_pool_args *args) {
  return check(*args) == LIM_OK ? plan(*args).bytes : 0;
}

extern "C" lim_i32 lim_pool(const lim_pool_args *args, void *stream) {
  const lim_pool_args &a = *args;
  const lim_i32 refused = check(a);
  if (refused != LIM_OK || a.batch.seqs == 0) return refused;
  const Plan p = plan(a);
  if (a.scratch_bytes < p.bytes) return LIM_E_SCRATCH;
  lim::Machine m;
  lim_i32 status = lim::machine(&m);
  if (status == LIM_OK) status = launch_masses(m, p.masses, a.batch.seqs, stream);
  if (status != LIM_OK) return status;
  const int tiles = (a.batch.max_len + kTile - 1) / kTile, most = 1 + 4 * m.sms / a.batch.seqs;
  const dim3 grid(tiles < most ? tiles : most, a.batch.seqs);
  switch (a.by) {
    case LIM_POOL_GROUPS: return lim::launch(m, pool_kernel<LIM_POOL_GROUPS>, grid, kTile, 0, stream, p);
    case LIM_POOL_PEAK: return lim::launch(m, pool_kernel<LIM_POOL_PEAK>, grid, kTile, 0, stream, p);
    default: return lim::launch(m, pool_kernel<LIM_POOL_PAGE_PEAK>, grid, kTile, 0, stream, p);
  }
}
