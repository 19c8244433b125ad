// Gates of pages (SeerAttention-R), per KV head, with d = head_dim and g query heads per KV head:
//   key gate of page p    = rope(Wk [max | min | mean over its keys], p * page_size), rounded to the pages' type
//   query gate of row s   = rope(Wq [its g queries], pos[s]) / sqrt(d)
//   score[s][j][p]        = query gate . key gate;  0 for the last page where it is not full
// Keys and queries enter as before their rotation: x = rope^-1(y), divided by cos^2 + sin^2 where tables are scaled.
//
// Layouts: Wk [kv_heads * d][3 d], Wq [kv_heads * d][g d], gates [page][kv_heads][d], scores [seqs][kv_heads][stride].
// Grids: [window of rows, KV head, part of the gate] for key gates, at work where a row of the window ends its page: a
// window is one row of a decode step, as many rows as a page has tokens in a prefill. [Sequence, KV head, part of the
// gate] for query gates, which go through scratch; [run of pages, KV head, sequence] for scores. A gate's sums have one
// order, so it does not depend on how its page was filled. Bytes moved: Wk and a page's keys for a page that fills; Wq
// each step and d * size for each full page and KV head.
#include <type_traits>

#include "paged.cuh"

namespace lim {

constexpr int KEY_WARPS = 8;     // each makes a pair of outputs (i, i + d / 2) of a key gate
constexpr int QUERY_PAIRS = 4;   // pairs that a block of query gates makes
constexpr int SCORE_WARPS = 4, SCORE_AHEAD = 4;  // pages that a thread has on their way together

// Elements that a thread loads at once.
template <class T> struct Vector {
  static constexpr int COUNT = 16 / sizeof(T);
  union {
    uint4 raw;
    T x[COUNT];
  };
};

template <class T> __device__ inline float dot(const Vector<T> &v, const float *x) {
  float s = 0;
#pragma unroll
  for (int i = 0; i < Vector<T>::COUNT; i++) s = __fmaf_rn(to_float(v.x[i]), x[i], s);
  return s;
}

// One head turned back, elements i and i + d / 2.
template <class T, int D>
__device__ inline float2 turn_back(const T *head, const float *cos, const float *sin, int i) {
  float c = cos[i], s = sin[i], a = to_float(head[i]), b = to_float(head[i + D / 2]), scale = 1 / (c * c + s * s);
  return make_float2((a * c + b * s) * scale, (b * c - a * s) * scale);
}

// A pair's sums rotated, the same in every lane of a warp.
__device__ inline float2 rotate_sums(float a, float b, float cos, float sin) {
  for (int d = 1; d < WARP; d *= 2) a += __shfl_xor_sync(FULL, a, d), b += __shfl_xor_sync(FULL, b, d);
  return make_float2(a * cos - b * sin, b * cos + a * sin);
}

// rope(W x)[i] and [i + d / 2] in every lane of a warp; `w` are the head's rows, `width` a multiple of a vector.
template <class T, int D>
__device__ inline float2 project(const T *w, const float *x, int width, const float *cos, const float *sin, int i) {
  const Vector<T> *low = reinterpret_cast<const Vector<T> *>(w + static_cast<long long>(i) * width);
  const Vector<T> *high = reinterpret_cast<const Vector<T> *>(w + static_cast<long long>(i + D / 2) * width);
  constexpr int COUNT = Vector<T>::COUNT;
  float a = 0, b = 0;
  for (int v = threadIdx.x % WARP; v < width / COUNT; v += WARP) {
    a += dot(low[v], x + v * COUNT);
    b += dot(high[v], x + v * COUNT);
  }
  return rotate_sums(a, b, cos[i], sin[i]);
}

// Max, min and sum over some keys of a page, of elements i (x) and i + d / 2 (y).
struct Pooled {
  float2 most, least, sum;

  __device__ static Pooled none() {
    return {make_float2(NEG_INF, NEG_INF), make_float2(-NEG_INF, -NEG_INF), make_float2(0, 0)};
  }
  __device__ void take(const Pooled &p) {
    most.x = fmaxf(most.x, p.most.x), most.y = fmaxf(most.y, p.most.y);
    least.x = fminf(least.x, p.least.x), least.y = fminf(least.y, p.least.y);
    sum.x += p.sum.x, sum.y += p.sum.y;
  }
};

template <class T, int D>
__global__ void __launch_bounds__(KEY_WARPS *WARP)
    key_gates_kernel(const __grid_constant__ lim_key_gates_args a, int window) {
  constexpr int HALF = D / 2, GROUPS = KEY_WARPS * WARP / HALF, WIDTH = 3 * D;
  constexpr int VECTORS = WIDTH / Vector<T>::COUNT, PER = (VECTORS + WARP - 1) / WARP;
  __shared__ Pooled parts[GROUPS][HALF];  // over every GROUPS-th key
  __shared__ float pooled[WIDTH];
  await_dependencies();
  allow_dependents();
  int head = blockIdx.y, size = a.kv.page_size, width = a.kv.kv_heads * D;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, pair = blockIdx.z * KEY_WARPS + warp;
  int end = min((static_cast<int>(blockIdx.x) + 1) * window, a.batch.rows);
  for (int row = blockIdx.x * window; row < end; row++) {
    int seq = a.batch.seq[row], pos = a.batch.pos[row];
    if (a.batch.len[seq] == 0 || (pos + 1) % size) continue;
    int start = pos + 1 - size;
    int page = a.batch.table[static_cast<long long>(seq) * a.batch.table_stride + pos / size];
    const T *keys = static_cast<const T *>(a.kv.pages) + static_cast<long long>(page) * 2 * size * width + head * D;
    const float *cos = a.cos + static_cast<long long>(start) * HALF, *sin = a.sin + static_cast<long long>(start) * HALF;
    // The weights are on their way while the keys are pooled.
    const T *w = static_cast<const T *>(a.w) + (static_cast<long long>(head) * D + min(pair, HALF - 1)) * WIDTH;
    Vector<T> low[PER], high[PER];
#pragma unroll
    for (int v = 0; v < PER; v++) {
      int vector = min(lane + v * WARP, VECTORS - 1);
      low[v].raw = reinterpret_cast<const uint4 *>(w)[vector];
      high[v].raw = reinterpret_cast<const uint4 *>(w + HALF * WIDTH)[vector];
    }
    int group = threadIdx.x / HALF, i = threadIdx.x % HALF;
    if (group < GROUPS) {
      Pooled p = Pooled::none();
#pragma unroll 4
      for (int slot = group; slot < size; slot += GROUPS) {
        float2 k = turn_back<T, D>(keys + slot * width, cos + slot * HALF, sin + slot * HALF, i);
        p.take({k, k, k});
      }
      parts[group][i] = p;
    }
    __syncthreads();
    if (threadIdx.x < HALF) {
      Pooled p = parts[0][i];
      for (int g = 1; g < GROUPS; g++) p.take(parts[g][i]);
      float share = 1.0f / size;
      pooled[i] = p.most.x, pooled[i + HALF] = p.most.y;
      pooled[D + i] = p.least.x, pooled[D + i + HALF] = p.least.y;
      pooled[2 * D + i] = p.sum.x * share, pooled[2 * D + i + HALF] = p.sum.y * share;
    }
    __syncthreads();
    float x = 0, y = 0;
#pragma unroll
    for (int v = 0; v < PER; v++) {
      int vector = lane + v * WARP;
      if (vector < VECTORS) {
        x += dot(low[v], pooled + vector * Vector<T>::COUNT);
        y += dot(high[v], pooled + vector * Vector<T>::COUNT);
      }
    }
    if (pair < HALF) {
      float2 gate = rotate_sums(x, y, cos[pair], sin[pair]);
      T *to = static_cast<T *>(a.kv.gates) + static_cast<long long>(page) * width + head * D;
      if (lane == 0) to[pair] = from_float<T>(gate.x), to[pair + HALF] = from_float<T>(gate.y);
    }
    __syncthreads();  // before the next page's pooling
  }
}

template <class T, int D>
__global__ void __launch_bounds__(SCORE_WARPS *WARP)
    query_gates_kernel(const __grid_constant__ lim_gate_score_args a) {
  extern __shared__ float turned[];  // [group * D]
  await_dependencies();
  allow_dependents();
  int seq = blockIdx.x, head = blockIdx.y, group = a.heads / a.kv.kv_heads, n = a.batch.len[seq];
  if (n <= a.budget) return;
  const T *q = static_cast<const T *>(a.q) + static_cast<long long>(seq) * a.q_stride + head * group * D;
  long long at = a.batch.pos[seq] * static_cast<long long>(D / 2);
  for (int i = threadIdx.x; i < group * (D / 2); i += SCORE_WARPS * WARP) {
    int h = i / (D / 2), e = i % (D / 2);
    float2 x = turn_back<T, D>(q + h * D, a.cos + at, a.sin + at, e);
    turned[h * D + e] = x.x, turned[h * D + e + D / 2] = x.y;
  }
  __syncthreads();
  const T *w = static_cast<const T *>(a.w) + static_cast<long long>(head) * D * group * D;
  float *gate = static_cast<float *>(a.scratch) + (static_cast<long long>(seq) * a.kv.kv_heads + head) * D;
  int first = blockIdx.z * QUERY_PAIRS, end = min(first + QUERY_PAIRS, D / 2);
  float scale = 1 / sqrtf(static_cast<float>(D));
  for (int i = first + threadIdx.x / WARP; i < end; i += SCORE_WARPS) {
    float2 y = project<T, D>(w, turned, group * D, a.cos + at, a.sin + at, i);
    if (threadIdx.x % WARP == 0) gate[i] = y.x * scale, gate[i + D / 2] = y.y * scale;
  }
}

// A gate of D elements is read by LANES threads, each PER vectors of it; a warp takes WARP / LANES pages at a time.
template <class T, int D> struct Lanes {
  static constexpr int VECTORS = D / Vector<T>::COUNT;
  static constexpr int LANES = VECTORS > 16 ? 32 : VECTORS > 8 ? 16 : VECTORS > 4 ? 8 : 4;
  static constexpr int PER = (VECTORS + LANES - 1) / LANES;
};

template <class T, int D>
__global__ void __launch_bounds__(SCORE_WARPS *WARP)
    gate_score_kernel(const __grid_constant__ lim_gate_score_args a) {
  using L = Lanes<T, D>;
  constexpr int COUNT = Vector<T>::COUNT, AT_ONCE = WARP / L::LANES;
  await_dependencies();
  allow_dependents();
  int head = blockIdx.y, seq = blockIdx.z, size = a.kv.page_size, kv_heads = a.kv.kv_heads;
  int n = a.batch.len[seq], pages = ceil_div(n, size), full = n / size;
  if (n <= a.budget) return;
  int lane = threadIdx.x % L::LANES, slot = threadIdx.x / L::LANES;
  const float *gate = static_cast<const float *>(a.scratch) + (static_cast<long long>(seq) * kv_heads + head) * D;
  const lim_i32 *table = a.batch.table + static_cast<long long>(seq) * a.batch.table_stride;
  const T *keys = static_cast<const T *>(a.kv.gates) + head * D;
  float *out = a.scores.data + (static_cast<long long>(seq) * kv_heads + head) * a.scores.stride;
  float q[L::PER][COUNT];
#pragma unroll
  for (int v = 0; v < L::PER; v++)
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int vector = lane + v * L::LANES;
      q[v][i] = vector < L::VECTORS ? gate[vector * COUNT + i] : 0;
    }
  constexpr int STRIDE = SCORE_WARPS * AT_ONCE;  // pages of a block at a time
  // All threads of a block go round as often, as the sums below are of whole warps.
  for (int base = blockIdx.x * STRIDE * SCORE_AHEAD; base < pages; base += gridDim.x * STRIDE * SCORE_AHEAD) {
    Vector<T> k[SCORE_AHEAD][L::PER];
#pragma unroll
    for (int x = 0; x < SCORE_AHEAD; x++) {
      int p = base + x * STRIDE + slot;
      const uint4 *from =
          reinterpret_cast<const uint4 *>(keys + static_cast<long long>(table[min(p, pages - 1)]) * kv_heads * D);
#pragma unroll
      for (int v = 0; v < L::PER; v++) {
        int vector = lane + v * L::LANES;
        k[x][v].raw = p < full && vector < L::VECTORS ? from[vector] : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int x = 0; x < SCORE_AHEAD; x++) {
      int p = base + x * STRIDE + slot;
      float s = 0;
#pragma unroll
      for (int v = 0; v < L::PER; v++) s += dot(k[x][v], q[v]);
#pragma unroll
      for (int d = 1; d < L::LANES; d *= 2) s += __shfl_xor_sync(FULL, s, d);
      if (lane == 0 && p < pages) out[p] = s;
    }
  }
  if (a.counters && head == 0 && blockIdx.x == 0 && threadIdx.x == 0)
    atomicAdd(a.counters + 3, static_cast<unsigned long long>(full) * kv_heads * (D * sizeof(T)));
}

template <class T, int D> lim_i32 launch_keys(const Machine &m, const lim_key_gates_args &a, void *stream) {
  int window = a.batch.rows == a.batch.seqs ? 1 : a.kv.page_size;
  dim3 grid(ceil_div(a.batch.rows, window), a.kv.kv_heads, ceil_div(D / 2, KEY_WARPS));
  return launch(m, key_gates_kernel<T, D>, grid, KEY_WARPS * WARP, 0, stream, a, window);
}

template <class T, int D> lim_i32 launch_score(const Machine &m, const lim_gate_score_args &a, void *stream) {
  int seqs = a.batch.seqs, kv_heads = a.kv.kv_heads;
  dim3 parts(seqs, kv_heads, ceil_div(D / 2, QUERY_PAIRS));
  int shared = a.heads / kv_heads * D * static_cast<int>(sizeof(float));
  lim_i32 status = launch(m, query_gates_kernel<T, D>, parts, SCORE_WARPS * WARP, shared, stream, a);
  if (status != LIM_OK) return status;
  int runs = ceil_div(ceil_div(a.batch.max_len, a.kv.page_size), SCORE_WARPS * (WARP / Lanes<T, D>::LANES) * SCORE_AHEAD);
  int most = 1 + 8 * m.sms / (seqs * kv_heads);
  dim3 grid(runs < most ? runs : most, kv_heads, seqs);
  return launch(m, gate_score_kernel<T, D>, grid, SCORE_WARPS * WARP, 0, stream, a);
}

// `run` with the kernels' element type and head size.
template <class T, class R> lim_i32 with_dim(int dim, R run) {
  switch (dim) {
    case 32: return run(T(), std::integral_constant<int, 32>());
    case 64: return run(T(), std::integral_constant<int, 64>());
    case 80: return run(T(), std::integral_constant<int, 80>());
    case 96: return run(T(), std::integral_constant<int, 96>());
    case 128: return run(T(), std::integral_constant<int, 128>());
    case 256: return run(T(), std::integral_constant<int, 256>());
  }
  return LIM_E_HEAD_DIM;
}
template <class R> lim_i32 with_type(const lim_kv &kv, R run) {
  switch (kv.dtype) {
    case LIM_F32: return with_dim<float>(kv.head_dim, run);
    case LIM_F16: return with_dim<__half>(kv.head_dim, run);
    default: return with_dim<__nv_bfloat16>(kv.head_dim, run);
  }
}

}  // namespace lim

extern "C" lim_i32 lim_key_gates(const lim_key_gates_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::check(args->kv, args->batch, args->kv.kv_heads)) return e;
  if (!args->kv.gates || args->positions < args->batch.max_len) return LIM_E_SHAPE;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.rows == 0) return LIM_OK;
  return lim::with_type(args->kv, [&](auto type, auto dim) {
    return lim::launch_keys<decltype(type), decltype(dim)::value>(m, *args, stream);
  });
}

extern "C" lim_u64 lim_gate_score_scratch(const lim_gate_score_args *args) {
  return 4ull * args->batch.seqs * args->kv.kv_heads * args->kv.head_dim;
}

extern "C" lim_i32 lim_gate_score(const lim_gate_score_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::check(args->kv, args->batch, args->heads)) return e;
  if (!args->kv.gates || args->positions < args->batch.max_len || args->budget < 0) return LIM_E_SHAPE;
  if (args->batch.rows != args->batch.seqs || args->batch.seqs > 65535) return LIM_E_SHAPE;
  if (args->scores.stride < lim::ceil_div(args->batch.max_len, args->kv.page_size)) return LIM_E_SHAPE;
  if (args->q_stride < args->heads * args->kv.head_dim || args->q_stride % 8) return LIM_E_SHAPE;
  if (args->scratch_bytes < lim_gate_score_scratch(args)) return LIM_E_SCRATCH;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.seqs == 0) return LIM_OK;
  return lim::with_type(args->kv, [&](auto type, auto dim) {
    return lim::launch_score<decltype(type), decltype(dim)::value>(m, *args, stream);
  });
}
