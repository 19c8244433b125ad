// Causal attention of a prefill step: row r of sequence s stands at position t = len - m + (r - first[s]), m the
// sequence's rows in this step, and attends to positions 0..t, all of which lie in pages already:
//   out[r][h] = sum_{i <= t} softmax_i(scale * q_h . k_i) v_i
//
// Layouts: q [rows][q_stride], out [rows][heads][head_dim]. What prefill_wgmma.cu takes runs there, the rest here.
// 16-bit elements: grid (tiles of 64 rows of one sequence, query heads), the longest tiles first; four warps of 16 rows
// share key and value tiles in shared memory, two tiles deep, rows padded by 16 bytes against bank conflicts; online
// softmax (FlashAttention-2's loop) on 16x8x16 products. float32: a warp per (row, head), plain loops.
// Bytes moved: q and out once; each tile of 64 rows reads its KV head up to its last position, mostly out of L2.
#include "attend_warp.cuh"
#include "prefill.cuh"

namespace lim {

constexpr int PREFILL_ROWS = 64, PREFILL_WARPS = 4;

template <bool TRANSPOSED> __device__ inline void load_matrices(uint32_t (&x)[4], uint32_t address) {
  if constexpr (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
}

template <class T, int D> struct PrefillShape {
  static constexpr int KEYS = D == 256 ? 32 : 64;                 // tokens of a tile
  static constexpr int PITCH = D * 2 + 16;                        // bytes of a row in shared memory
  static constexpr int HALF = KEYS * PITCH, STAGE = 2 * HALF;     // keys, then values
  static constexpr bool HOLD_Q = D <= 128;                        // queries stay in registers
  static constexpr int Q_AT = HOLD_Q ? 0 : 2 * STAGE;             // and then share the first stage's place
  static constexpr int SHARED = HOLD_Q ? 2 * STAGE : 2 * STAGE + PREFILL_ROWS * PITCH;
};

template <class T, int D>
__global__ void __launch_bounds__(PREFILL_WARPS *WARP, D == 256 ? 1 : 3)
    prefill_kernel(const __grid_constant__ lim_prefill_args a, int shift) {
  using Shape = PrefillShape<T, D>;
  constexpr int KEYS = Shape::KEYS, PITCH = Shape::PITCH, STEPS = D / 16, CHUNKS = D / 8, NTILES = KEYS / 8;
  constexpr int THREADS = PREFILL_WARPS * WARP;
  extern __shared__ __align__(16) char shared[];
  await_dependencies();
  allow_dependents();
  RowTile tile;
  if (!find_tile(a.batch, blockIdx.x, PREFILL_ROWS, 1, tile)) return;
  int row0 = tile.first + tile.begin, pos0 = tile.pos + tile.begin;  // of the tile's first row
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, c = lane % 4;
  int head = blockIdx.y, kv_head = head / (a.heads / a.kv.kv_heads);
  long long width = a.kv.kv_heads * D;
  const T *keys = static_cast<const T *>(a.kv.pages) + kv_head * D, *values = keys + a.kv.page_size * width;
  int limit = pos0 + tile.rows;  // keys that the last row sees
  Tokens tokens = {nullptr, a.batch.table + static_cast<long long>(tile.seq) * a.batch.table_stride, limit, shift};
  uint32_t base = shared_address(shared);

  for (int i = threadIdx.x; i < PREFILL_ROWS * CHUNKS; i += THREADS) {
    int row = i / CHUNKS, chunk = i % CHUNKS;
    const T *q = static_cast<const T *>(a.q) + static_cast<long long>(row0 + min(row, tile.rows - 1)) * a.q_stride;
    copy_async(base + Shape::Q_AT + row * PITCH + chunk * 16, q + head * D + chunk * 8);
  }
  commit_copies();
  uint32_t q_address = base + Shape::Q_AT + (warp * 16 + lane % 16) * PITCH + lane / 16 * 16;
  uint32_t q[Shape::HOLD_Q ? STEPS : 1][4];
  await_copies<0>();
  __syncthreads();
  if constexpr (Shape::HOLD_Q) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) load_matrices<false>(q[k], q_address + k * 32);
    __syncthreads();
  }

  auto copy_tile = [&](int j, int stage) {
    uint32_t to = base + stage * Shape::STAGE;
#pragma unroll 4
    for (int x = 0; x < KEYS * CHUNKS / THREADS; x++) {
      int i = threadIdx.x + x * THREADS, key = i / CHUNKS, chunk = i % CHUNKS;
      long long at = tokens.row(tokens.position(j * KEYS + key)) * width + chunk * 8;
      copy_async(to + key * PITCH + chunk * 16, keys + at);
      copy_async(to + Shape::HALF + key * PITCH + chunk * 16, values + at);
    }
  };

  float acc[D / 8][4] = {}, m[2] = {NEG_INF, NEG_INF}, l[2] = {0, 0};
  float scale = a.scale * 1.4426950408889634f;
  int row_pos = pos0 + warp * 16 + g;  // of rows g and, 8 further, g + 8
  int tiles = ceil_div(limit, KEYS);
  copy_tile(0, 0);
  commit_copies();
  for (int j = 0; j < tiles; j++) {
    if (j + 1 < tiles) copy_tile(j + 1, (j + 1) % 2);
    commit_copies();
    await_copies<1>();
    __syncthreads();
    uint32_t stage = base + j % 2 * Shape::STAGE;

    float s[NTILES][4] = {};
    uint32_t key_address = stage + (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      uint32_t reload[4];
      if constexpr (!Shape::HOLD_Q) load_matrices<false>(reload, q_address + k * 32);
      uint32_t(&x)[4] = Shape::HOLD_Q ? q[Shape::HOLD_Q ? k : 0] : reload;
#pragma unroll
      for (int t = 0; t < NTILES; t += 2) {
        uint32_t b[4];
        load_matrices<false>(b, key_address + t * 8 * PITCH + k * 32);
        mma<T>(s[t], x[0], x[1], x[2], x[3], b[0], b[1]);
        mma<T>(s[t + 1], x[0], x[1], x[2], x[3], b[2], b[3]);
      }
    }

    bool masked = (j + 1) * KEYS > pos0 + warp * 16 + 1;
    float top[2] = {m[0], m[1]}, shrink[2];
#pragma unroll
    for (int t = 0; t < NTILES; t++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[t][i] *= scale;
        if (masked && j * KEYS + t * 8 + 2 * c + i % 2 > row_pos + i / 2 * 8) s[t][i] = NEG_INF;
        top[i / 2] = fmaxf(top[i / 2], s[t][i]);
      }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(FULL, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(FULL, top[i], 2));
      shrink[i] = exp2_fast(m[i] - top[i]);
      m[i] = top[i];
      l[i] *= shrink[i];
    }
#pragma unroll
    for (int t = 0; t < NTILES; t++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[t][i] = exp2_fast(s[t][i] - top[i / 2]);
        l[i / 2] += s[t][i];
      }
#pragma unroll
    for (int k = 0; k < D / 8; k++)
#pragma unroll
      for (int i = 0; i < 4; i++) acc[k][i] *= shrink[i / 2];

    uint32_t value_address = stage + Shape::HALF + lane % 16 * PITCH + lane / 16 * 16;
#pragma unroll
    for (int t = 0; t < NTILES; t += 2) {
      uint32_t p0 = pack<T>(s[t][0], s[t][1]), p1 = pack<T>(s[t][2], s[t][3]);
      uint32_t p2 = pack<T>(s[t + 1][0], s[t + 1][1]), p3 = pack<T>(s[t + 1][2], s[t + 1][3]);
#pragma unroll
      for (int k = 0; k < D / 8; k += 2) {
        uint32_t b[4];
        load_matrices<true>(b, value_address + t * 8 * PITCH + k * 16);
        mma<T>(acc[k], p0, p1, p2, p3, b[0], b[1]);
        mma<T>(acc[k + 1], p0, p1, p2, p3, b[2], b[3]);
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < 2; i++) {
    l[i] += __shfl_xor_sync(FULL, l[i], 1);
    l[i] += __shfl_xor_sync(FULL, l[i], 2);
    int row = warp * 16 + g + i * 8;
    if (row >= tile.rows) continue;
    T *out = static_cast<T *>(a.out) + (static_cast<long long>(row0 + row) * a.heads + head) * D;
    float inverse = 1 / l[i];
#pragma unroll
    for (int k = 0; k < D / 8; k++)
      *reinterpret_cast<uint32_t *>(out + k * 8 + c * 2) =
          pack<T>(acc[k][i * 2] * inverse, acc[k][i * 2 + 1] * inverse);
  }
}

template <int D>
__global__ void __launch_bounds__(PREFILL_WARPS *WARP)
    prefill_f32_kernel(const __grid_constant__ lim_prefill_args a, int shift) {
  Gate gate;
  gate.open();
  allow_dependents();
  int row = blockIdx.x, head = blockIdx.y * PREFILL_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int seq = a.batch.seq[row], pos = a.batch.pos[row];
  if (head >= a.heads || a.batch.len[seq] == 0) return;
  Source<float> from = {};
  from.tokens = Tokens{nullptr, a.batch.table + static_cast<long long>(seq) * a.batch.table_stride, pos + 1, shift};
  from.width = a.kv.kv_heads * D;
  from.keys = static_cast<const float *>(a.kv.pages) + head / (a.heads / a.kv.kv_heads) * D;
  from.end = pos + 1;
  const float *q = static_cast<const float *>(a.q) + static_cast<long long>(row) * a.q_stride + head * D;
  WarpAttention<float, D, 1, 1> attention(nullptr);
  attention.run(from, {0}, q, 1, a.scale * 1.4426950408889634f, 0, 1, gate);
  float *out = static_cast<float *>(a.out) + (static_cast<long long>(row) * a.heads + head) * D;
#pragma unroll
  for (int x = 0; x < attention.PART; x++)
    if (lane + x * WARP < D) out[lane + x * WARP] = attention.acc[0][x] / attention.l[0];
}

template <class T, int D> lim_i32 prefill_run(const Machine &m, const lim_prefill_args &a, void *stream) {
  int shift = log2_of(a.kv.page_size);
  if constexpr (sizeof(T) == 4) {
    dim3 grid(a.batch.rows, ceil_div(a.heads, PREFILL_WARPS));
    return launch(m, prefill_f32_kernel<D>, grid, PREFILL_WARPS * WARP, 0, stream, a, shift);
  } else {
    // Each sequence may end in a tile that is not full.
    dim3 grid(a.batch.rows / PREFILL_ROWS + a.batch.seqs, a.heads);
    return launch(m, prefill_kernel<T, D>, grid, PREFILL_WARPS * WARP, PrefillShape<T, D>::SHARED, stream, a, shift);
  }
}

template <class T> lim_i32 prefill_dim(const Machine &m, const lim_prefill_args &a, void *stream) {
  switch (a.kv.head_dim) {
    case 32: return prefill_run<T, 32>(m, a, stream);
    case 64: return prefill_run<T, 64>(m, a, stream);
    case 80: return prefill_run<T, 80>(m, a, stream);
    case 96: return prefill_run<T, 96>(m, a, stream);
    case 128: return prefill_run<T, 128>(m, a, stream);
    case 256: return prefill_run<T, 256>(m, a, stream);
  }
  return LIM_E_HEAD_DIM;
}

}  // namespace lim

extern "C" lim_i32 lim_prefill(const lim_prefill_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::check(args->kv, args->batch, args->heads)) return e;
  if (args->q_stride < args->heads * args->kv.head_dim || args->q_stride % 8) return LIM_E_SHAPE;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.rows == 0) return LIM_OK;
  if (lim::prefill_wgmma_takes(m, *args)) return lim::prefill_wgmma(m, *args, stream);
  switch (args->kv.dtype) {
    case LIM_F32: return lim::prefill_dim<float>(m, *args, stream);
    case LIM_F16: return lim::prefill_dim<__half>(m, *args, stream);
    default: return lim::prefill_dim<__nv_bfloat16>(m, *args, stream);
  }
}
