// QK-norm, rotary embedding and append: for each row r of the fused [q | k | v] rows, at position t of sequence s,
//   q_h = rope(norm(q_h)) in place;  page(s, t).K = rope(norm(k_h));  page(s, t).V = v_h
//   norm(x) = x / sqrt(mean(x^2) + eps) * w (where the model has it), over one head
//   rope(x)[i] = x[i] cos[t][i] - x[i + d/2] sin[t][i];  rope(x)[i + d/2] = x[i + d/2] cos[t][i] + x[i] sin[t][i]
// in float32, rounded once at the end. Where pages have bounds, they become the min and max over the page's keys as
// stored, up to this step's last row in it: by the warp of the first row of this step in the page, which goes over the
// keys before it and the step's other rows there. No two warps touch one page's bounds, and nothing is left of tokens
// that a sequence had there before it was cut back.
//
// Grid: one warp per (row, head of q, k and v). Rows of sequences with len 0 are skipped.
// Bytes moved: rows * (2 heads + 4 kv_heads) * head_dim * size, the tables' rows, and for bounds a page's keys each.
#include "paged.cuh"

namespace lim {

constexpr int APPEND_WARPS = 4;

template <class T, int D> struct HeadRow {
  static constexpr int HALF = D / 2, PART = (HALF + WARP - 1) / WARP;
  float lo[PART], hi[PART];  // dims i = lane + 32 x and i + D / 2

  // What a row's dims are multiplied by: the norm's weights, and the rotation of its position.
  struct Factors {
    float lo[PART], hi[PART], cos[PART], sin[PART];
    __device__ Factors(const lim_append_args &a, const float *norm, int pos) {
      const long long at = pos * static_cast<long long>(HALF);
#pragma unroll
      for (int x = 0; x < PART; x++) {
        if (!holds(x)) continue;
        lo[x] = norm ? norm[dim(x)] : 0, hi[x] = norm ? norm[dim(x) + HALF] : 0;
        cos[x] = a.cos[at + dim(x)], sin[x] = a.sin[at + dim(x)];
      }
    }
  };

  __device__ static bool holds(int x) { return HALF % WARP == 0 || threadIdx.x % WARP + x * WARP < HALF; }
  __device__ static int dim(int x) { return threadIdx.x % WARP + x * WARP; }

  __device__ void load(const T *from) {
#pragma unroll
    for (int x = 0; x < PART; x++) {
      lo[x] = holds(x) ? to_float(from[dim(x)]) : 0;
      hi[x] = holds(x) ? to_float(from[dim(x) + HALF]) : 0;
    }
  }
  __device__ void norm(const Factors &f, float eps) {
    float sum = 0;
#pragma unroll
    for (int x = 0; x < PART; x++) sum += lo[x] * lo[x] + hi[x] * hi[x];
    for (int d = 1; d < WARP; d *= 2) sum += __shfl_xor_sync(FULL, sum, d);
    float scale = rsqrtf(sum / D + eps);
#pragma unroll
    for (int x = 0; x < PART; x++)
      if (holds(x)) lo[x] *= scale * f.lo[x], hi[x] *= scale * f.hi[x];
  }
  __device__ void rotate(const Factors &f) {
#pragma unroll
    for (int x = 0; x < PART; x++)
      if (holds(x)) {
        float c = f.cos[x], s = f.sin[x], a = lo[x], b = hi[x];
        lo[x] = a * c - b * s, hi[x] = b * c + a * s;
      }
  }
  __device__ void round() {
#pragma unroll
    for (int x = 0; x < PART; x++) lo[x] = to_float(from_float<T>(lo[x])), hi[x] = to_float(from_float<T>(hi[x]));
  }
  __device__ void store(T *to) const {
#pragma unroll
    for (int x = 0; x < PART; x++)
      if (holds(x)) to[dim(x)] = from_float<T>(lo[x]), to[dim(x) + HALF] = from_float<T>(hi[x]);
  }
};

template <class T, int D>
__device__ inline HeadRow<T, D> key_of(const lim_append_args &a, int row, int kv_head,
                                       const typename HeadRow<T, D>::Factors &f) {
  HeadRow<T, D> k;
  long long width = (a.heads + 2 * a.kv.kv_heads) * D;
  k.load(static_cast<const T *>(a.qkv) + row * width + (a.heads + kv_head) * D);
  if (a.k_norm) k.norm(f, a.eps);
  k.rotate(f);
  return k;
}

// Min and max of the keys in the page of `row`, the first of this step there; `low` is its key, `keys` slot 0's.
template <class T, int D>
__device__ inline void update_bounds(const lim_append_args &a, HeadRow<T, D> low, int row, int kv_head, int seq,
                                     int page, const T *keys) {
  int size = a.kv.page_size, slot = a.batch.pos[row] % size, width = a.kv.kv_heads * D;
  low.round();
  HeadRow<T, D> high = low;
  auto take = [&](const HeadRow<T, D> &k) {
#pragma unroll
    for (int x = 0; x < low.PART; x++) {
      low.lo[x] = fminf(low.lo[x], k.lo[x]), low.hi[x] = fminf(low.hi[x], k.hi[x]);
      high.lo[x] = fmaxf(high.lo[x], k.lo[x]), high.hi[x] = fmaxf(high.hi[x], k.hi[x]);
    }
  };
#pragma unroll 4
  for (int i = 0; i < slot; i++) {
    HeadRow<T, D> k;
    k.load(keys + i * width + kv_head * D);
    take(k);
  }
  int end = min(a.batch.first[seq + 1], row + size - slot);
  for (int r = row + 1; r < end; r++) {
    HeadRow<T, D> k = key_of<T, D>(a, r, kv_head, {a, a.k_norm, a.batch.pos[r]});
    k.round();
    take(k);
  }
  T *bounds = static_cast<T *>(a.kv.bounds) + (static_cast<long long>(page) * 2 * a.kv.kv_heads + kv_head) * D;
  low.store(bounds);
  high.store(bounds + width);
}

template <class T, int D>
__global__ void __launch_bounds__(APPEND_WARPS *WARP) append_kernel(const __grid_constant__ lim_append_args a) {
  // A decode step waits for this kernel: where the row goes and what it is multiplied by are there before the row is, and
  // attention's blocks start as soon as the kernel before leaves room for them.
  if (!a.early) await_dependencies();
  allow_dependents();
  int row = blockIdx.x, head = blockIdx.y * APPEND_WARPS + threadIdx.x / WARP, kv_heads = a.kv.kv_heads;
  if (head >= a.heads + 2 * kv_heads) return;
  int seq = a.batch.seq[row], size = a.kv.page_size;
  bool empty = a.batch.len[seq] == 0;
  int pos = empty ? 0 : a.batch.pos[row];
  int page = empty ? 0 : a.batch.table[static_cast<long long>(seq) * a.batch.table_stride + pos / size];
  typename HeadRow<T, D>::Factors factors(a, head < a.heads ? a.q_norm : a.k_norm, pos);
  await_dependencies();
  if (empty) return;
  T *at = static_cast<T *>(a.qkv) + static_cast<long long>(row) * (a.heads + 2 * kv_heads) * D + head * D;
  if (head < a.heads) {
    HeadRow<T, D> q;
    q.load(at);
    if (a.q_norm) q.norm(factors, a.eps);
    q.rotate(factors);
    q.store(at);
    return;
  }
  T *first = static_cast<T *>(a.kv.pages) + static_cast<long long>(page) * 2 * size * kv_heads * D;
  T *keys = first + pos % size * kv_heads * D;
  int kv_head = (head - a.heads) % kv_heads;
  if (head >= a.heads + kv_heads) {
    HeadRow<T, D> v;
    v.load(at);
    v.store(keys + (static_cast<long long>(size) * kv_heads + kv_head) * D);
    return;
  }
  HeadRow<T, D> k = key_of<T, D>(a, row, kv_head, factors);
  k.store(keys + kv_head * D);
  bool leads = row == a.batch.first[seq] || pos % size == 0;
  if (a.kv.bounds && leads) update_bounds<T, D>(a, k, row, kv_head, seq, page, first);
}

template <class T> lim_i32 append_dim(const Machine &m, const lim_append_args &a, void *stream) {
  dim3 grid(a.batch.rows, ceil_div(a.heads + 2 * a.kv.kv_heads, APPEND_WARPS));
  switch (a.kv.head_dim) {
    case 32: return launch(m, append_kernel<T, 32>, grid, APPEND_WARPS * WARP, 0, stream, a);
    case 64: return launch(m, append_kernel<T, 64>, grid, APPEND_WARPS * WARP, 0, stream, a);
    case 80: return launch(m, append_kernel<T, 80>, grid, APPEND_WARPS * WARP, 0, stream, a);
    case 96: return launch(m, append_kernel<T, 96>, grid, APPEND_WARPS * WARP, 0, stream, a);
    case 128: return launch(m, append_kernel<T, 128>, grid, APPEND_WARPS * WARP, 0, stream, a);
    case 256: return launch(m, append_kernel<T, 256>, grid, APPEND_WARPS * WARP, 0, stream, a);
  }
  return LIM_E_HEAD_DIM;
}

}  // namespace lim

extern "C" lim_i32 lim_append(const lim_append_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::check(args->kv, args->batch, args->heads)) return e;
  if (args->positions < args->batch.max_len || !args->q_norm != !args->k_norm) return LIM_E_SHAPE;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.rows == 0) return LIM_OK;
  switch (args->kv.dtype) {
    case LIM_F32: return lim::append_dim<float>(m, *args, stream);
    case LIM_F16: return lim::append_dim<__half>(m, *args, stream);
    default: return lim::append_dim<__nv_bfloat16>(m, *args, stream);
  }
}
