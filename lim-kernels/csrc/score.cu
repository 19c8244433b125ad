// Scores without attention, float32, of sequence s, query head h of KV head j:
//   tokens: score[s][h][t] = q_h . k_t
//   pages (Quest):  score[s][h][p] = sum_i max(q_i min_i, q_i max_i) = q- . min_p + q+ . max_p,  q- = min(q, 0),
//           q+ = max(q, 0): two dot products, so that pages go through the same tensor-core path as tokens.
// Sequences with n <= budget are attended densely and not scored.
//
// Layouts: q [seqs][q_stride], scores [seqs][heads][stride].
// Grid: as many blocks as run at once, walking through units (sequence x KV head x run of tokens or pages); a warp
// takes tiles of 16. Bytes moved: kv_heads * head_dim * size for each token, twice that for each page, and the scores.
#include "attend_warp.cuh"

namespace lim {

constexpr int SCORE_WARPS = 4, SCORE_BLOCKS = 2;  // blocks of an SM

// 16-bit elements: two half-width "parts" ride in the place of keys and values of WarpAttention's queue.
template <class T, int D, int NT> struct WarpScore {
  static constexpr int STAGES = D == 256 ? 1 : 3;
  using Warp = WarpAttention<T, D, NT, STAGES>;
  static constexpr int SHARED = Warp::QUEUE;

  // Keeps the elements of one sign; the other becomes 0.
  __device__ static uint32_t keep(uint32_t x, bool negative) {
    uint32_t low = (x & 0x8000u) != 0 == negative ? x & 0xffffu : 0;
    uint32_t high = (x & 0x80000000u) != 0 == negative ? x & 0xffff0000u : 0;
    return low | high;
  }

  // rows(i): row of list entry i, counted in width elements from `base`; `second` elements further lies the other part.
  template <class Rows>
  __device__ static void run(char *shared, const T *q, int heads, const T *base, int width, long long second,
                             bool pages, Rows rows, int begin, int end, float *out, long long stride) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % TILE;
    Warp lower(shared), upper(shared);
    lower.load_queries(q, heads);
    upper.load_queries(q, heads);
    if (pages) {
#pragma unroll
      for (int t = 0; t < NT; t++)
#pragma unroll
        for (int k = 0; k < Warp::STEPS; k++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            lower.q[t][k][i] = keep(lower.q[t][k][i], true);
            upper.q[t][k][i] = keep(upper.q[t][k][i], false);
          }
    }
    Source<T> from = {};
    from.width = width;
    from.scores = out;
    from.score_stride = stride;
    // What is asked for behind a copy comes back behind it: a row is looked up a turn before its copy.
    auto row_of = [&](int tile) { return rows(min(begin + tile * TILE + lane, end - 1)); };
    // Stage j holds tile j's first part in its lower half, the second part in the upper one.
    auto copy = [&](int tile, int row, int stage) {
      if (begin + tile * TILE < end) {
        from.keys = base;
        lower.copy_keys(from, row, stage);
        if (pages) {
          from.keys = base + second;
          upper.queue = lower.queue + Warp::HALF;
          upper.copy_keys(from, row, stage);
        }
      }
      commit_copies();
    };
    if (begin >= end) return;
    int ahead[STAGES + 1];
#pragma unroll
    for (int i = 0; i <= STAGES; i++) ahead[i] = row_of(warp + i * SCORE_WARPS);
#pragma unroll
    for (int i = 0; i < STAGES; i++) copy(warp + i * SCORE_WARPS, ahead[i], i);
    int stage = 0, row = ahead[STAGES];
    for (int tile = warp; begin + tile * TILE < end; tile += SCORE_WARPS) {
      float s[NT][4] = {};
      int next = row_of(tile + (STAGES + 1) * SCORE_WARPS);
      Warp::template arrive<STAGES - 1>();
      lower.dot(s, stage);
      if (pages) upper.dot(s, stage);
      copy(tile + STAGES * SCORE_WARPS, row, stage);
      row = next;
      int start = begin + tile * TILE;
      lower.write_scores(from, s, start, min(TILE, end - start), heads);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    await_copies<0>();
  }
};

template <int D, int NT> struct WarpScore<float, D, NT> {
  static constexpr int SHARED = 0;
  template <class Rows>
  __device__ static void run(char *, const float *q, int heads, const float *base, int width, long long second,
                             bool pages, Rows rows, int begin, int end, float *out, long long stride) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int i = begin + warp; i < end; i += SCORE_WARPS) {
      const float *row = base + static_cast<long long>(rows(i)) * width;
      for (int h = 0; h < heads; h++) {
        float s = 0;
        for (int d = lane; d < D; d += WARP) {
          float x = q[h * D + d];
          s = __fmaf_rn(x, row[d + (pages && x > 0 ? second : 0)], s);
        }
        for (int d = 1; d < WARP; d *= 2) s += __shfl_xor_sync(FULL, s, d);
        if (lane == 0) out[h * stride + i] = s;
      }
    }
  }
};

template <class T, int D, int NT>
__global__ void __launch_bounds__(SCORE_WARPS *WARP)
    score_kernel(const __grid_constant__ lim_score_args a, const __grid_constant__ Cut cut,
                 const __grid_constant__ LaneCounts lanes, int shift) {
  extern __shared__ __align__(128) char shared[];
  await_dependencies();
  allow_dependents();
  using Scorer = WarpScore<T, D, NT>;
  bool pages = a.of == LIM_SCORE_PAGES;
  int group = lanes.group.d, width = a.kv.kv_heads * D;
  // Units are cut by tokens for both kinds: a run of tokens, or the pages that start in it.
  lim_selection all = {};
  Schedule schedule(a.batch, all, cut, lanes, a.budget);
  Unit u;
  for (int index = blockIdx.x; schedule.find(index, u); index += gridDim.x) {
    int begin = u.chunk * u.length, end = min(begin + u.length, u.n), head = u.lane * group;
    const lim_i32 *table = a.batch.table + static_cast<long long>(u.seq) * a.batch.table_stride;
    const T *q = static_cast<const T *>(a.q) + static_cast<long long>(u.seq) * a.q_stride + head * D;
    float *out = a.scores.data + (static_cast<long long>(u.seq) * a.heads + head) * a.scores.stride;
    char *mine = shared + threadIdx.x / WARP * Scorer::SHARED;
    if (pages) {
      const T *base = static_cast<const T *>(a.kv.bounds) + u.lane * D;
      auto rows = [&](int p) { return table[p] * 2; };
      int size = 1 << shift;
      Scorer::run(mine, q, group, base, width, width, true, rows, ceil_div(begin, size), ceil_div(end, size), out,
                  a.scores.stride);
    } else {
      Tokens tokens = {nullptr, table, u.n, shift};
      const T *base = static_cast<const T *>(a.kv.pages) + u.lane * D;
      auto rows = [&](int i) { return tokens.row(i); };
      Scorer::run(mine, q, group, base, width, 0, false, rows, begin, end, out, a.scores.stride);
    }
    if (a.counters && u.chunk == 0 && threadIdx.x == 0) {
      unsigned long long read = pages ? 2ull * ceil_div(u.n, 1 << shift) : u.n;
      atomicAdd(a.counters + 3, read * (D * sizeof(T)));
    }
  }
}

template <class T, int D> lim_i32 score_group(const Machine &m, const lim_score_args &a, void *stream) {
  int blocks = m.sms * SCORE_BLOCKS, lanes = a.batch.seqs * a.kv.kv_heads;
  Cut cut = {divisor(lanes < blocks ? blocks / lanes : 1), 0, log2_of(SCORE_WARPS * TILE), 12};
  LaneCounts heads = lane_counts(a.heads, a.kv.kv_heads);
  auto run = [&](auto kernel, int shared) {
    return launch(m, kernel, dim3(blocks), SCORE_WARPS * WARP, shared, stream, a, cut, heads, log2_of(a.kv.page_size));
  };
  if (a.heads > 8 * a.kv.kv_heads) return run(score_kernel<T, D, 2>, SCORE_WARPS * WarpScore<T, D, 2>::SHARED);
  return run(score_kernel<T, D, 1>, SCORE_WARPS * WarpScore<T, D, 1>::SHARED);
}

template <class T> lim_i32 score_dim(const Machine &m, const lim_score_args &a, void *stream) {
  switch (a.kv.head_dim) {
    case 32: return score_group<T, 32>(m, a, stream);
    case 64: return score_group<T, 64>(m, a, stream);
    case 80: return score_group<T, 80>(m, a, stream);
    case 96: return score_group<T, 96>(m, a, stream);
    case 128: return score_group<T, 128>(m, a, stream);
    case 256: return score_group<T, 256>(m, a, stream);
  }
  return LIM_E_HEAD_DIM;
}

}  // namespace lim

extern "C" lim_i32 lim_score(const lim_score_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::check(args->kv, args->batch, args->heads)) return e;
  bool pages = args->of == LIM_SCORE_PAGES;
  if (args->of != LIM_SCORE_TOKENS && !(pages && args->kv.bounds)) return LIM_E_SHAPE;
  int columns = pages ? lim::ceil_div(args->batch.max_len, args->kv.page_size) : args->batch.max_len;
  if (args->scores.stride < columns) return LIM_E_SHAPE;
  if (args->q_stride < args->heads * args->kv.head_dim || args->q_stride % 8) return LIM_E_SHAPE;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.seqs == 0) return LIM_OK;
  switch (args->kv.dtype) {
    case LIM_F32: return lim::score_dim<float>(m, *args, stream);
    case LIM_F16: return lim::score_dim<__half>(m, *args, stream);
    default: return lim::score_dim<__nv_bfloat16>(m, *args, stream);
  }
}
