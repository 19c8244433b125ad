// The row-wise steps around a matrix product where the fused forms of linear.cu do not apply (RMSNorm from 2 rows on,
// SwiGLU and bias around cublasLt), and embedding lookup.
//
// Mapping: one block a row, 16-byte accesses where the width allows. Bytes: each input once, each output once.
#include "device.cuh"

namespace lim {

template <typename T> struct alignas(16) Pack {
  static constexpr int N = 16 / sizeof(T);
  T x[N];
};

// x[r] = table[token[r]] as float32. A step begins with this: a row comes in one trip to memory.
template <typename T> __global__ void embed_kernel(const __grid_constant__ lim_embed_args a) {
  constexpr int N = Pack<T>::N;
  allow_dependents();
  await_dependencies();
  const int token = a.tokens[blockIdx.x];
  const bool known = token >= 0 && token < a.vocabulary;
  const T *src = static_cast<const T *>(a.table) + static_cast<size_t>(known ? token : 0) * a.width;
  float *dst = a.x + static_cast<size_t>(blockIdx.x) * a.width;
  const int packed = a.width % N ? 0 : a.width;  // rows of other widths are not aligned
  for (int i = threadIdx.x * N; i < packed; i += blockDim.x * N) {
    const Pack<T> v = *reinterpret_cast<const Pack<T> *>(src + i);
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      const float4 out = {to_float(v.x[j]), to_float(v.x[j + 1]), to_float(v.x[j + 2]), to_float(v.x[j + 3])};
      *reinterpret_cast<float4 *>(dst + i + j) = known ? out : make_float4(NAN, NAN, NAN, NAN);
    }
  }
  for (int i = packed + threadIdx.x; i < a.width; i += blockDim.x) dst[i] = known ? to_float(src[i]) : NAN;
}

// y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * norm. Decoding waits for this kernel between two products, so a row is read
// once, all of it at a time: a thread holds up to kHeld quads of x, and its weights come before the wait.
constexpr int kHeld = 4;

template <typename T> __global__ void rms_norm_kernel(const __grid_constant__ lim_rms_norm_args a) {
  allow_dependents();
  __shared__ float sums[32];
  const bool held = a.width % 4 == 0 && a.width <= static_cast<int>(blockDim.x) * 4 * kHeld;
  auto inside = [&](int j) { return held && (threadIdx.x + j * blockDim.x) * 4 < a.width; };
  float4 v[kHeld] = {}, w[kHeld];
#pragma unroll
  for (int j = 0; j < kHeld; j++)
    if (inside(j)) w[j] = reinterpret_cast<const float4 *>(a.norm)[threadIdx.x + j * blockDim.x];
  await_dependencies();
  const float *x = a.x + static_cast<size_t>(a.row_ids ? a.row_ids[blockIdx.x] : blockIdx.x) * a.width;
  T *y = static_cast<T *>(a.y) + static_cast<size_t>(blockIdx.x) * a.width;
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kHeld; j++)
    if (inside(j)) v[j] = reinterpret_cast<const float4 *>(x)[threadIdx.x + j * blockDim.x];
#pragma unroll
  for (int j = 0; j < kHeld; j++) sum += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
  for (int i = threadIdx.x; !held && i < a.width; i += blockDim.x) sum += x[i] * x[i];
#pragma unroll
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0.0f;
  for (int i = 0; i < static_cast<int>(blockDim.x) / 32; i++) sum += sums[i];
  const float scale = rsqrtf(sum / a.width + a.eps);
#pragma unroll
  for (int j = 0; j < kHeld; j++) {
    if (!inside(j)) continue;
    const float out[4] = {v[j].x * scale * w[j].x, v[j].y * scale * w[j].y, v[j].z * scale * w[j].z,
                          v[j].w * scale * w[j].w};
    T *at = y + (threadIdx.x + j * blockDim.x) * 4;
    if constexpr (sizeof(T) == 2) {
      *reinterpret_cast<uint2 *>(at) = make_uint2(pack<T>(out[0], out[1]), pack<T>(out[2], out[3]));
    } else {
      *reinterpret_cast<float4 *>(at) = make_float4(out[0], out[1], out[2], out[3]);
    }
  }
  for (int i = threadIdx.x; !held && i < a.width; i += blockDim.x) y[i] = from_float<T>(x[i] * scale * a.norm[i]);
}

// y[r][i] = silu(gate_up[r][i]) * gate_up[r][width + i]
template <typename T> __global__ void swiglu_kernel(const __grid_constant__ lim_swiglu_args a) {
  constexpr int N = Pack<T>::N;
  allow_dependents();
  await_dependencies();
  const T *gate = static_cast<const T *>(a.gate_up) + 2 * static_cast<size_t>(blockIdx.x) * a.width;
  T *y = static_cast<T *>(a.y) + static_cast<size_t>(blockIdx.x) * a.width;
  const int packed = a.width % N ? 0 : a.width;  // rows of other widths are not aligned
  for (int i = threadIdx.x * N; i < packed; i += blockDim.x * N) {
    Pack<T> g = *reinterpret_cast<const Pack<T> *>(gate + i);
    const Pack<T> up = *reinterpret_cast<const Pack<T> *>(gate + a.width + i);
#pragma unroll
    for (int j = 0; j < N; j++) g.x[j] = from_float<T>(silu(to_float(g.x[j])) * to_float(up.x[j]));
    *reinterpret_cast<Pack<T> *>(y + i) = g;
  }
  for (int i = packed + threadIdx.x; i < a.width; i += blockDim.x)
    y[i] = from_float<T>(silu(to_float(gate[i])) * to_float(gate[a.width + i]));
}

// y[r] += bias
template <typename T> __global__ void bias_kernel(const __grid_constant__ lim_bias_args a) {
  await_dependencies();
  allow_dependents();
  T *y = static_cast<T *>(a.y) + static_cast<size_t>(blockIdx.x) * a.width;
  for (int i = threadIdx.x; i < a.width; i += blockDim.x) y[i] = from_float<T>(to_float(y[i]) + a.bias[i]);
}

static int threads_for(int width) { return width >= 2048 ? 512 : width >= 512 ? 256 : 128; }

// One block of KERNEL<T> for each of `rows` rows, T by the element type.
#define LIM_BY_ROW(KERNEL)                                                                  \
  if (args->rows < 1 || args->width < 1) return LIM_E_SHAPE;                                \
  lim::Machine m;                                                                           \
  if (const lim_i32 status = lim::machine(&m)) return status;                               \
  const dim3 grid(args->rows);                                                              \
  const int threads = lim::threads_for(args->width);                                        \
  switch (args->dtype) {                                                                    \
    case LIM_F32: return lim::launch(m, lim::KERNEL<float>, grid, threads, 0, stream, *args);         \
    case LIM_F16: return lim::launch(m, lim::KERNEL<__half>, grid, threads, 0, stream, *args);        \
    case LIM_BF16: return lim::launch(m, lim::KERNEL<__nv_bfloat16>, grid, threads, 0, stream, *args); \
  }                                                                                         \
  return LIM_E_DTYPE

}  // namespace lim

extern "C" lim_i32 lim_embed(const lim_embed_args *args, void *stream) { LIM_BY_ROW(embed_kernel); }
extern "C" lim_i32 lim_rms_norm(const lim_rms_norm_args *args, void *stream) { LIM_BY_ROW(rms_norm_kernel); }
extern "C" lim_i32 lim_swiglu(const lim_swiglu_args *args, void *stream) { LIM_BY_ROW(swiglu_kernel); }
extern "C" lim_i32 lim_bias(const lim_bias_args *args, void *stream) { LIM_BY_ROW(bias_kernel); }
