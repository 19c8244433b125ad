// What the two skinny products share: bringing x in, and what becomes of a sum.
#pragma once
#include "device.cuh"

namespace lim {

// Four elements of a row behind its norm.
template <typename T> __device__ __forceinline__ uint2 normed(float4 v, float scale, float4 weight) {
  uint2 out;
  out.x = pack<T>(v.x * scale * weight.x, v.y * scale * weight.y);
  out.y = pack<T>(v.z * scale * weight.z, v.w * scale * weight.w);
  return out;
}

__device__ __forceinline__ float sum_of_squares(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }

// Brings x to shared memory, normalised where a norm is given; row r of the product is row `row_ids[r]` of x. Called by
// the first WARPS warps of a block; `sync` is their barrier. `pitch` is in elements.
template <typename T, int WARPS, typename Sync>
__device__ __forceinline__ void stage_x(const lim_linear_args &a, T *xs, int pitch, float *warp_sums, Sync sync) {
  constexpr int kThreads = WARPS * WARP;
  if (!a.norm) {
    // Eight loads in flight a thread: x comes from the L2 cache, and its latency would add up row by row.
    constexpr int kBatch = 8;
    const int width = a.in / 8, total = a.rows * width;
    for (int base = threadIdx.x; base < total; base += kBatch * kThreads) {
      uint4 v[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; j++) {
        const int i = base + j * kThreads, m = i / width;
        if (i >= total) continue;
        const size_t src = static_cast<size_t>(a.row_ids ? a.row_ids[m] : m) * width + i % width;
        v[j] = static_cast<const uint4 *>(a.x)[src];
      }
#pragma unroll
      for (int j = 0; j < kBatch; j++) {
        const int i = base + j * kThreads;
        if (i < total) reinterpret_cast<uint4 *>(xs + i / width * pitch)[i % width] = v[j];
      }
    }
    return;
  }
  for (int m = 0; m < a.rows; m++) {
    const size_t src = static_cast<size_t>(a.row_ids ? a.row_ids[m] : m) * a.in;
    const float4 *x = reinterpret_cast<const float4 *>(static_cast<const float *>(a.x) + src);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < a.in / 4; i += kThreads) {
      sum += sum_of_squares(x[i]);
    }
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) sum += __shfl_xor_sync(FULL, sum, d);
    if (threadIdx.x % WARP == 0) warp_sums[m * WARPS + threadIdx.x / WARP] = sum;
  }
  sync();
  for (int m = 0; m < a.rows; m++) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += warp_sums[m * WARPS + w];
    const float scale = rsqrtf(sum / a.in + a.eps);
    const size_t src = static_cast<size_t>(a.row_ids ? a.row_ids[m] : m) * a.in;
    const float4 *x = reinterpret_cast<const float4 *>(static_cast<const float *>(a.x) + src);
    const float4 *norm = reinterpret_cast<const float4 *>(a.norm);
    for (int i = threadIdx.x; i < a.in / 4; i += kThreads) {
      reinterpret_cast<uint2 *>(xs + m * pitch)[i] = normed<T>(x[i], scale, norm[i]);
    }
  }
}

// The same for one row with a norm, which every block repeats: the norm's weight, which lies in memory and not in a cache, is
// asked for before the wait for the row, and the row is read once.
template <typename T, int WARPS> struct NormedRow {
  static constexpr int kThreads = WARPS * WARP, kQuads = 8;
  float4 weight[kQuads];

  __device__ static bool fits(const lim_linear_args &a) {
    return a.norm && a.rows == 1 && a.in % 4 == 0 && a.in <= 4 * kQuads * kThreads;
  }
  __device__ static bool inside(const lim_linear_args &a, int quad) {
    return static_cast<int>(threadIdx.x) + quad * kThreads < a.in / 4;
  }
  __device__ explicit NormedRow(const lim_linear_args &a) {
#pragma unroll
    for (int j = 0; j < kQuads; j++)
      if (inside(a, j)) weight[j] = reinterpret_cast<const float4 *>(a.norm)[threadIdx.x + j * kThreads];
  }

  template <typename Sync> __device__ void stage(const lim_linear_args &a, T *xs, float *warp_sums, Sync sync) const {
    const size_t row = a.row_ids ? a.row_ids[0] : 0;
    const float4 *x = reinterpret_cast<const float4 *>(static_cast<const float *>(a.x) + row * a.in);
    float4 v[kQuads] = {};
#pragma unroll
    for (int j = 0; j < kQuads; j++)
      if (inside(a, j)) v[j] = x[threadIdx.x + j * kThreads];
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kQuads; j++) sum += sum_of_squares(v[j]);
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) sum += __shfl_xor_sync(FULL, sum, d);
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = sum;
    sync();
    sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += warp_sums[w];
    const float scale = rsqrtf(sum / a.in + a.eps);
#pragma unroll
    for (int j = 0; j < kQuads; j++) {
      if (inside(a, j)) reinterpret_cast<uint2 *>(xs)[threadIdx.x + j * kThreads] = normed<T>(v[j], scale, weight[j]);
    }
  }
};

// Puts the sums of output element `at` (SwiGLU: of its gate and its up row) where the epilogue says.
template <typename T, bool SWIGLU> __device__ __forceinline__ void store(const lim_linear_args &a, size_t at, const float *sum) {
  if constexpr (SWIGLU) {
    static_cast<T *>(a.y)[at] = from_float<T>(silu(sum[0]) * sum[1]);
  } else if (a.epilogue == LIM_ADD_F32) {
    static_cast<float *>(a.y)[at] += sum[0];
  } else if (a.epilogue == LIM_STORE_F32) {
    static_cast<float *>(a.y)[at] = sum[0];
  } else {
    static_cast<T *>(a.y)[at] = from_float<T>(sum[0]);
  }
}

// linear_stream.cu: the product on sm_90 and later. LIM_E_SHAPE where it does not apply.
lim_i32 linear_stream(const Machine &m, const lim_linear_args &a, void *stream);

}  // namespace lim
