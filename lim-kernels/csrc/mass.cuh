// Softmax weights with the same bits as the CPU's: plain products and sums, each rounded to nearest, never fused, and
// totals of integers, which no order changes. See `Pool` in backend.rs.
//
//   top    [slice, head, seq]  each slice's highest score
//   total  [slice, head, seq]  each slice's sum of fixed weights, floor(2^30 e)
// What follows combines a row's slices (softmax_of).
#pragma once
#include "device.cuh"
#include "select.cuh"

namespace lim_mass_ {

constexpr int kMassThreads = 256;
constexpr int kMostSlices = 32;  // a lane each where they are combined
constexpr float kOne = 1073741824.0f;

// What the two kernels need; made on the host from capacities.
struct Masses {
  lim_scores scores;   // [seqs][heads][stride] raw token scores
  const lim_i32 *len;  // [seqs]
  float *top;          // [seqs][heads][slices]
  lim_u64 *total;      // [seqs][heads][slices]
  float c;             // softmax scale times log2(e)
  lim_i32 heads, slices, above;  // sequences with len <= above are left alone
};

inline int slices_for(int max_len) {
  const int slices = (max_len + 4095) / 4096;
  return slices > kMostSlices ? kMostSlices : slices;
}

// 2^x for x <= 0; 0 below -125.
__device__ inline float exp2_exact(float x) {
  // Sums with it have no bits behind the point, and their low bits are the rounded integer.
  constexpr float kShift = 12582912.0f;
  const float shifted = __fadd_rn(x, kShift);
  const float f = __fsub_rn(x, __fsub_rn(shifted, kShift));
  float s = 0.000015252734f;
  s = __fadd_rn(__fmul_rn(s, f), 0.0001540353f);
  s = __fadd_rn(__fmul_rn(s, f), 0.0013333558f);
  s = __fadd_rn(__fmul_rn(s, f), 0.009618129f);
  s = __fadd_rn(__fmul_rn(s, f), 0.05550411f);
  s = __fadd_rn(__fmul_rn(s, f), 0.2402265f);
  s = __fadd_rn(__fmul_rn(s, f), 0.6931472f);
  s = __fadd_rn(__fmul_rn(s, f), 1.0f);
  const lim_u32 exponent = __float_as_uint(shifted) - __float_as_uint(kShift) + 127u;
  return x < -125.0f ? 0.0f : __fmul_rn(s, __uint_as_float(exponent << 23));
}

// One head's softmax.
struct Softmax {
  float c, top;
  lim_u64 total;
  float per;  // 2^30 / total

  // Weight relative to the highest score's; NaN as -inf, infinities of one sign are equal.
  __device__ float relative(float score) const {
    if (score != score) score = lim::NEG_INF;
    const float away = score == top ? 0.0f : __fsub_rn(score, top);
    return exp2_exact(__fmul_rn(c, away));
  }
  __device__ lim_u64 fixed(float score) const { return (lim_u32)__float2int_rz(__fmul_rn(relative(score), kOne)); }
  __device__ float weight(float score) const { return __fmul_rn(relative(score), per); }
};

__device__ inline lim_u64 warp_sum(lim_u64 x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// The row's highest score, by a full warp.
__device__ inline float top_of(const Masses &m, int row) {
  const int lane = threadIdx.x % 32;
  float top = lane < m.slices ? __ldcg(m.top + (lim_i64)row * m.slices + lane) : lim::NEG_INF;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  return top;
}

// The row's softmax, by a full warp.
__device__ inline Softmax softmax_of(const Masses &m, int row) {
  const int lane = threadIdx.x % 32;
  Softmax s{m.c, top_of(m, row), lane < m.slices ? __ldcg(m.total + (lim_i64)row * m.slices + lane) : 0, 0.0f};
  s.total = warp_sum(s.total);
  s.per = __fdiv_rn(kOne, __ull2float_rn(s.total));
  return s;
}

// Calls visit(score) for this thread's scores of a row's slice.
template <class Visit> __device__ inline void each_score(const Masses &m, int row, int slice, int n, Visit visit) {
  const float *scores = m.scores.data + (lim_i64)row * m.scores.stride;
  const int step = m.slices * kMassThreads * 4;
#pragma unroll 4
  for (int i = (slice * kMassThreads + threadIdx.x) * 4; i < n; i += step) {
    const float4 quad = *reinterpret_cast<const float4 *>(scores + i);
    visit(quad.x);
    if (i + 1 < n) visit(quad.y);
    if (i + 2 < n) visit(quad.z);
    if (i + 3 < n) visit(quad.w);
  }
}

static __global__ void __launch_bounds__(kMassThreads) top_kernel(const __grid_constant__ Masses m) {
  __shared__ float tops[kMassThreads / 32];
  const int slice = blockIdx.x, row = blockIdx.z * m.heads + blockIdx.y, lane = threadIdx.x % 32;
  lim::await_dependencies();
  lim::allow_dependents();
  const int n = m.len[blockIdx.z];
  if (n <= m.above) return;
  float top = lim::NEG_INF;
  each_score(m, row, slice, n, [&](float score) { top = fmaxf(top, score); });  // passes NaN over
#pragma unroll
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  if (lane == 0) tops[threadIdx.x / 32] = top;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kMassThreads / 32; ++i) top = fmaxf(top, tops[i]);
    m.top[(lim_i64)row * m.slices + slice] = top;
  }
}

static __global__ void __launch_bounds__(kMassThreads) total_kernel(const __grid_constant__ Masses m) {
  __shared__ lim_u64 sums[kMassThreads / 32];
  const int slice = blockIdx.x, row = blockIdx.z * m.heads + blockIdx.y, lane = threadIdx.x % 32;
  lim::await_dependencies();
  lim::allow_dependents();
  const int n = m.len[blockIdx.z];
  if (n <= m.above) return;
  const Softmax s{m.c, top_of(m, row), 0, 0.0f};
  lim_u64 sum = 0;
  each_score(m, row, slice, n, [&](float score) { sum += s.fixed(score); });
  sum = warp_sum(sum);
  if (lane == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kMassThreads / 32; ++i) sum += sums[i];
    m.total[(lim_i64)row * m.slices + slice] = sum;
  }
}

// Both kernels for every head of `seqs` sequences.
inline lim_i32 launch_masses(const lim::Machine &machine, const Masses &m, int seqs, void *stream) {
  const dim3 grid(m.slices, m.heads, seqs);
  const lim_i32 status = lim::launch(machine, top_kernel, grid, kMassThreads, 0, stream, m);
  return status != LIM_OK ? status : lim::launch(machine, total_kernel, grid, kMassThreads, 0, stream, m);
}

}  // namespace lim_mass_
