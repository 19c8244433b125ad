// y = f(x) W^T for 1 to 16 rows: decoding reads every weight once, so this runs at the speed of memory or not at all.
//
//   x [rows][in], W [out][in] row-major. Prologue: none, or RMSNorm of the float32 residual stream. Epilogue: store
//   (with bias), store float32, add to the float32 residual stream, or SwiGLU over stacked gate and up halves.
//
// Mapping (f16, bf16): 16 warps a block, two blocks a multiprocessor, blocks persistent over units of 8 output rows.
// The warps of a unit split `in` between them; a warp reads 16 bytes a lane straight to registers, one batch ahead of
// the tensor cores: lane 4g+t holds 8 consecutive k of weight row g. The order of k inside a dot product is free, so
// these 8 serve as the B fragments of two m16n8k16 products whose A fragments are the same 8 k of the input rows.
// Partial sums of the warps meet in shared memory and are added in a fixed order: deterministic.
// The first batches are requested before the wait for the previous kernel, since weights never change.
//
// Bytes: out * in elements once; x and y are negligible. float32 has a plain kernel, for correctness.
#include "linear.cuh"

namespace lim {

constexpr int kWarps = 16;
constexpr int kUnit = 8;     // output rows of a unit
constexpr int kLoads = 4;    // 16-byte loads a lane has per batch; two batches are in flight
constexpr size_t kMaxX = 200 * 1024;

// Weights are read once per step: keep them out of L1.
__device__ __forceinline__ uint4 load_stream(const void *p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

struct LinearParams {
  lim_linear_args a;
  int warps_per_unit;  // warps that split `in`
  int units_per_pass;  // units a block works on at once
  int pitch;           // elements between rows of x in shared memory, 0: x stays in global memory
};

// Elements between rows so that the two rows of a quarter warp fall in different halves of the 128-byte bank line.
static int x_pitch(int in) { return (in + 63) / 64 * 64 + 32; }

template <typename T, int GROUPS, int MT>
__device__ __forceinline__ void finish(const lim_linear_args &a, const float *part, int warps_per_unit, int unit0,
                                       int units_per_pass) {
  constexpr int kTile = MT * 8 * kUnit;
  const int units = (a.out + kUnit - 1) / kUnit;
  for (int i = threadIdx.x; i < units_per_pass * kTile; i += blockDim.x) {
    const int slot = i / kTile, cell = i % kTile, m = cell / kUnit, row = (unit0 + slot) * kUnit + cell % kUnit;
    if (unit0 + slot >= units || m >= a.rows || row >= a.out) continue;
    float sum[GROUPS];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      const float *p = part + (slot * warps_per_unit * GROUPS + g) * kTile + cell;
      sum[g] = 0.0f;
      for (int w = 0; w < warps_per_unit; w++) sum[g] += p[w * GROUPS * kTile];
      if (a.bias) sum[g] += a.bias[g * a.out + row];
    }
    store<T, GROUPS == 2>(a, static_cast<size_t>(m) * a.out + row, sum);
  }
}

// GROUPS = 2: the gate row and the up row of each output. MT: groups of 8 input rows.
template <typename T, int GROUPS, int MT>
__global__ void __launch_bounds__(kWarps * 32, 2) linear_kernel(const __grid_constant__ LinearParams p) {
  constexpr int kSteps = kLoads / GROUPS;  // 32-wide steps of k in a batch
  constexpr int kTile = MT * 8 * kUnit;
  extern __shared__ __align__(16) unsigned char smem[];
  __shared__ float warp_sums[16 * kWarps];
  const lim_linear_args &a = p.a;
  float *part = reinterpret_cast<float *>(smem);  // [2][warps][GROUPS][kTile]
  T *xs = reinterpret_cast<T *>(smem + 2 * kWarps * GROUPS * kTile * sizeof(float));

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int slot = warp / p.warps_per_unit, split = warp % p.warps_per_unit;
  const bool active = slot < p.units_per_pass;
  const int units = (a.out + kUnit - 1) / kUnit;
  const int batches = (a.in + kSteps * 32 - 1) / (kSteps * 32);
  const int per_warp = (batches + p.warps_per_unit - 1) / p.warps_per_unit;
  const int first = blockIdx.x * p.units_per_pass, stride = gridDim.x * p.units_per_pass;
  const T *weights = static_cast<const T *>(a.w);

  auto fetch = [&](int unit, int batch, uint4(&w)[kLoads]) {
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int k = (batch * kSteps + s) * 32 + t * 8, row = unit * kUnit + g;
      const bool inside = active && unit < units && row < a.out && k < a.in && batch < batches;
#pragma unroll
      for (int h = 0; h < GROUPS; h++) {
        w[s * GROUPS + h] = inside ? load_stream(weights + (static_cast<size_t>(h) * a.out + row) * a.in + k)
                                   : make_uint4(0, 0, 0, 0);
      }
    }
  };

  uint4 now[kLoads], next[kLoads];
  fetch(first + slot, split, now);
  if (!a.late) allow_dependents();
  await_dependencies();
  if (a.late) allow_dependents();
  if (p.pitch) stage_x<T, kWarps>(a, xs, p.pitch, warp_sums, [] { __syncthreads(); });
  __syncthreads();

  auto x_at = [&](int m, int k) {
    if (m >= a.rows || k >= a.in) return make_uint4(0, 0, 0, 0);
    if (p.pitch) return *reinterpret_cast<const uint4 *>(xs + m * p.pitch + k);
    const size_t row = a.row_ids ? a.row_ids[m] : m;
    return *reinterpret_cast<const uint4 *>(static_cast<const T *>(a.x) + row * a.in + k);
  };

  int buffer = 0;
  for (int unit0 = first; unit0 < units; unit0 += stride, buffer ^= 1) {
    float acc[GROUPS][4] = {};
    for (int i = 0; i < per_warp; i++) {
      const bool last = i + 1 == per_warp;
      const int batch = split + i * p.warps_per_unit;
      fetch(unit0 + slot + (last ? stride : 0), last ? split : batch + p.warps_per_unit, next);
#pragma unroll
      for (int s = 0; s < kSteps; s++) {
        const int k = (batch * kSteps + s) * 32 + t * 8;
        const uint4 lo = x_at(g, k), hi = MT == 2 ? x_at(g + 8, k) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int h = 0; h < GROUPS; h++) {
          const uint4 w = now[s * GROUPS + h];
          mma<T>(acc[h], lo.x, hi.x, lo.y, hi.y, w.x, w.y);
          mma<T>(acc[h], lo.z, hi.z, lo.w, hi.w, w.z, w.w);
        }
      }
#pragma unroll
      for (int j = 0; j < kLoads; j++) now[j] = next[j];
    }
    float *mine = part + buffer * kWarps * GROUPS * kTile;
    if (active) {
#pragma unroll
      for (int h = 0; h < GROUPS; h++) {
        float *tile = mine + (warp * GROUPS + h) * kTile;
        *reinterpret_cast<float2 *>(tile + g * kUnit + 2 * t) = make_float2(acc[h][0], acc[h][1]);
        if constexpr (MT == 2)
          *reinterpret_cast<float2 *>(tile + (g + 8) * kUnit + 2 * t) = make_float2(acc[h][2], acc[h][3]);
      }
    }
    // One barrier a pass is enough: a buffer is written again only two passes later.
    __syncthreads();
    finish<T, GROUPS, MT>(a, mine, p.warps_per_unit, unit0, p.units_per_pass);
  }
}

// One warp per output element: the float32 path, and any `in` that is no multiple of 8.
template <typename T>
__global__ void linear_plain_kernel(const __grid_constant__ lim_linear_args a) {
  await_dependencies();
  allow_dependents();
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= a.out) return;
  const bool swiglu = a.epilogue == LIM_SWIGLU;
  for (int m = 0; m < a.rows; m++) {
    const size_t src = static_cast<size_t>(a.row_ids ? a.row_ids[m] : m) * a.in;
    float scale = 1.0f;
    if (a.norm) {
      float sum = 0.0f;
      for (int k = lane; k < a.in; k += 32) {
        const float v = static_cast<const float *>(a.x)[src + k];
        sum += v * v;
      }
#pragma unroll
      for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
      scale = rsqrtf(sum / a.in + a.eps);
    }
    float sum[2] = {};
    for (int k = lane; k < a.in; k += 32) {
      const float x = a.norm ? static_cast<const float *>(a.x)[src + k] * scale * a.norm[k]
                             : to_float(static_cast<const T *>(a.x)[src + k]);
      const T *w = static_cast<const T *>(a.w) + k;
      sum[0] += to_float(w[static_cast<size_t>(row) * a.in]) * x;
      if (swiglu) sum[1] += to_float(w[static_cast<size_t>(a.out + row) * a.in]) * x;
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
      sum[0] += __shfl_xor_sync(~0u, sum[0], d);
      sum[1] += __shfl_xor_sync(~0u, sum[1], d);
    }
    if (lane) continue;
    if (a.bias) sum[0] += a.bias[row];
    if (a.bias && swiglu) sum[1] += a.bias[a.out + row];
    const size_t at = static_cast<size_t>(m) * a.out + row;
    switch (a.epilogue) {
      case LIM_SWIGLU: static_cast<T *>(a.y)[at] = from_float<T>(sum[0] / (1.0f + expf(-sum[0])) * sum[1]); break;
      case LIM_ADD_F32: static_cast<float *>(a.y)[at] += sum[0]; break;
      case LIM_STORE_F32: static_cast<float *>(a.y)[at] = sum[0]; break;
      default: static_cast<T *>(a.y)[at] = from_float<T>(sum[0]);
    }
  }
}

template <typename T, int GROUPS, int MT>
static lim_i32 launch_tensor_cores(const Machine &m, const lim_linear_args &a, void *stream) {
  LinearParams p = {a, 0, 0, 0};
  const int batches = (a.in + 32 * kLoads / GROUPS - 1) / (32 * kLoads / GROUPS);
  // The split of `in` that leaves the fewest warp slots idle; ties go to more units at once, which need fewer passes.
  float best = 0.0f;
  for (int w = 1; w <= kWarps; w++) {
    const int per_warp = (batches + w - 1) / w;
    const float busy = static_cast<float>(batches) / per_warp * (kWarps / w) / kWarps;
    if (busy > best + 1e-3f) {
      best = busy;
      p.warps_per_unit = w;
      p.units_per_pass = kWarps / w;
    }
  }
  // Fewer, longer units would leave multiprocessors idle: split `in` as far as the blocks can be filled.
  const int units = (a.out + kUnit - 1) / kUnit, blocks = 2 * m.sms;
  while (p.units_per_pass > 1 && p.warps_per_unit * 2 <= kWarps && units < blocks * p.units_per_pass &&
         p.warps_per_unit * 2 <= batches) {
    p.warps_per_unit *= 2;
    p.units_per_pass = kWarps / p.warps_per_unit;
  }
  const size_t partials = 2ull * kWarps * GROUPS * MT * 8 * kUnit * sizeof(float);
  const size_t x_bytes = static_cast<size_t>(a.rows) * x_pitch(a.in) * sizeof(T);
  if (x_bytes <= kMaxX) p.pitch = x_pitch(a.in);
  if (!p.pitch && a.norm) return LIM_E_SHAPE;
  const size_t shared = partials + (p.pitch ? x_bytes : 0);
  const int passes = (units + p.units_per_pass - 1) / p.units_per_pass;
  return lim::launch(m, linear_kernel<T, GROUPS, MT>, dim3(min(passes, blocks)), kWarps * 32, shared, stream, p);
}

template <typename T> static lim_i32 launch_linear(const Machine &m, const lim_linear_args &a, void *stream) {
  if constexpr (sizeof(T) == 2) {
    if (a.in % 8 == 0) {
      if (const lim_i32 status = linear_stream(m, a, stream); status != LIM_E_SHAPE) return status;
      const bool two = a.rows > 8;
      if (a.epilogue == LIM_SWIGLU)
        return two ? launch_tensor_cores<T, 2, 2>(m, a, stream) : launch_tensor_cores<T, 2, 1>(m, a, stream);
      return two ? launch_tensor_cores<T, 1, 2>(m, a, stream) : launch_tensor_cores<T, 1, 1>(m, a, stream);
    }
  }
  return launch(m, linear_plain_kernel<T>, dim3((a.out + 7) / 8), 256, 0, stream, a);
}

}  // namespace lim

extern "C" lim_i32 lim_linear(const lim_linear_args *args, void *stream) {
  const lim_linear_args &a = *args;
  if (a.rows < 1 || max(a.rows, a.plan_rows) > LIM_LINEAR_MAX_ROWS || a.in < 1 || a.out < 1) return LIM_E_SHAPE;
  if (a.epilogue < LIM_STORE || a.epilogue > LIM_SWIGLU) return LIM_E_SHAPE;
  lim::Machine m;
  if (const lim_i32 status = lim::machine(&m)) return status;
  switch (a.dtype) {
    case LIM_F32: return lim::launch_linear<float>(m, a, stream);
    case LIM_F16: return lim::launch_linear<__half>(m, a, stream);
    case LIM_BF16: return lim::launch_linear<__nv_bfloat16>(m, a, stream);
  }
  return LIM_E_DTYPE;
}
