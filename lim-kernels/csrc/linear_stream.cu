// linear.cu's product for chips with bulk copies (sm_90 on): the weights stream through shared memory.
//
// Mapping: one block per multiprocessor, persistent over units of NT * 8 output rows (SwiGLU: half of them gate rows,
// half up rows). One warp asks for the weights, a ring of stages ahead: a stage is the unit's rows by `kc` columns, one
// bulk copy a row. Eight warps split the columns of a stage between them and feed the tensor cores as in linear.cu;
// at the end of a unit their sums meet in shared memory and are added in a fixed order.
// Rows lie 64 bytes apart from a multiple of 128 in shared memory, so that 16-byte reads hit every bank once.
//
// The ring is filled before the wait for the previous kernel. Where x is too large to stay in shared memory, its columns
// travel with the weights of their stage.
//
// Bytes: out * in elements once.
#include "linear.cuh"

namespace lim {

constexpr int kConsumers = 8;                   // warps at the tensor cores
constexpr int kStreamThreads = (kConsumers + 1) * WARP;
constexpr int kStageBytes = 32 * 1024;          // of weights, without the gaps: copies of 4 KB and more run fastest
constexpr int kWideStageBytes = 64 * 1024;      // where x travels along
constexpr int kGap = 64;                        // bytes between rows
constexpr int kStatic = 2 * 1024;               // at least the shared memory that is not dynamic
constexpr int kResidentX = 144 * 1024;          // largest x that stays in shared memory

template <typename T, int NT>
constexpr int kStageColumns = (NT == 1 ? kStageBytes : kWideStageBytes) / (NT * 8 * sizeof(T));

struct StreamParams {
  lim_linear_args a;
  int stages;
  int resident;  // whether x stays in shared memory for the whole kernel
  int pitch;     // bytes between rows of a resident x
};

__device__ __forceinline__ void barrier_init(uint32_t bar, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t bar, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(bar),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void bulk_copy(uint32_t shared, const void *global, int bytes, uint32_t bar) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(bar)
      : "memory");
}
__device__ __forceinline__ void bulk_copy(uint32_t shared, const void *global, int bytes, uint32_t bar, lim_u64 policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
          shared),
      "l"(global), "r"(bytes), "r"(bar), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(kConsumers * WARP) : "memory"); }

// NT: groups of 8 weight rows in a unit; MT: groups of 8 input rows.
template <typename T, int NT, int MT, bool SWIGLU>
__global__ void __launch_bounds__(kStreamThreads, 1) linear_stream_kernel(const __grid_constant__ StreamParams p) {
#if __CUDA_ARCH__ >= 900
  constexpr int kRows = NT * 8, kc = kStageColumns<T, NT>;
  constexpr int kWPitch = kc * sizeof(T) + kGap, kXRows = MT * 8;
  constexpr int kOutRows = SWIGLU ? kRows / 2 : kRows;  // outputs of a unit
  constexpr int kCells = kXRows * kRows;
  constexpr int kPerWarp = kc / kConsumers;  // columns of a stage per warp
  static_assert(kPerWarp % 32 == 0);
  extern __shared__ __align__(128) unsigned char smem[];
  __shared__ __align__(8) unsigned long long full[16], empty[16];
  __shared__ float warp_sums[16 * kConsumers];
  const lim_linear_args &a = p.a;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int units = (a.out + kOutRows - 1) / kOutRows, pieces = (a.in + kc - 1) / kc;
  const int stage_bytes = kRows * kWPitch + (p.resident ? 0 : kXRows * kWPitch);
  float *partials = reinterpret_cast<float *>(smem + p.stages * stage_bytes);  // [2][kConsumers][kCells]
  unsigned char *xs = reinterpret_cast<unsigned char *>(partials + 2 * kConsumers * kCells);
  const uint32_t ring = shared_address(smem), full0 = shared_address(full), empty0 = shared_address(empty);

  if (threadIdx.x == 0) {
    for (int s = 0; s < p.stages; s++) {
      barrier_init(full0 + 8 * s, 1);
      barrier_init(empty0 + 8 * s, kConsumers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  allow_dependents();

  if (warp == kConsumers) {
    // The producer: lane r copies row r of each stage, and row r of x where x travels along.
    const T *weights = static_cast<const T *>(a.w), *x = static_cast<const T *>(a.x);
    const int mine = units > static_cast<int>(blockIdx.x) ? (units - blockIdx.x + gridDim.x - 1) / gridDim.x : 0;
    const int total = mine * pieces;
    const lim_u64 once = read_once();
    auto stage_at = [&](int i) { return ring + (i % p.stages) * stage_bytes; };
    auto bytes_at = [&](int i) { return min(kc, a.in - i % pieces * kc) * static_cast<int>(sizeof(T)); };
    auto ask_weights = [&](int i) {
      const int unit = blockIdx.x + i / pieces * gridDim.x, bytes = bytes_at(i);
      const uint32_t bar = full0 + 8 * (i % p.stages);
      if (lane == 0) barrier_expect(bar, (kRows + (p.resident ? 0 : a.rows)) * bytes);
      __syncwarp();
      if (lane < kRows) {
        // Rows past the end repeat the last one; their sums are not stored.
        int row = unit * kOutRows + lane % kOutRows;
        row = min(row, a.out - 1) + (SWIGLU && lane >= kOutRows ? a.out : 0);
        bulk_copy(stage_at(i) + lane * kWPitch, weights + static_cast<size_t>(row) * a.in + i % pieces * kc, bytes, bar,
                  once);
      }
    };
    auto ask_x = [&](int i) {
      if (p.resident || lane >= a.rows) return;
      const size_t row = a.row_ids ? a.row_ids[lane] : lane;
      bulk_copy(stage_at(i) + (kRows + lane) * kWPitch, x + row * a.in + i % pieces * kc, bytes_at(i), full0 + 8 * (i % p.stages));
    };
    const int ahead = min(total, p.stages);
    for (int i = 0; i < ahead; i++) ask_weights(i);
    await_dependencies();
    for (int i = 0; i < ahead; i++) ask_x(i);
    for (int i = ahead; i < total; i++) {
      barrier_wait(empty0 + 8 * (i % p.stages), (i / p.stages - 1) & 1);
      ask_weights(i);
      ask_x(i);
    }
    return;
  }

  await_dependencies();
  if (p.resident) stage_x<T, kConsumers>(a, reinterpret_cast<T *>(xs), p.pitch / sizeof(T), warp_sums, sync_consumers);
  sync_consumers();

  const int g = lane / 4, t = lane % 4;
  int i = 0;
  for (int unit = blockIdx.x, pass = 0; unit < units; unit += gridDim.x, pass++) {
    float acc[NT][4] = {};
    for (int piece = 0; piece < pieces; piece++, i++) {
      const int stage = i % p.stages;
      const unsigned char *w = smem + stage * stage_bytes + g * kWPitch;
      const unsigned char *x = p.resident ? xs + g * p.pitch + piece * kc * sizeof(T)
                                          : smem + stage * stage_bytes + (kRows + g) * kWPitch;
      const int pitch = p.resident ? p.pitch : kWPitch;
      barrier_wait(full0 + 8 * stage, i / p.stages & 1);
#pragma unroll
      for (int s = 0; s < kPerWarp / 32; s++) {
        const int k = warp * kPerWarp + s * 32 + t * 8;
        const bool inside = piece * kc + k < a.in;
        uint4 lo = make_uint4(0, 0, 0, 0), hi = lo;
        if (inside && g < a.rows) lo = *reinterpret_cast<const uint4 *>(x + k * sizeof(T));
        if (MT == 2 && inside && g + 8 < a.rows) hi = *reinterpret_cast<const uint4 *>(x + 8 * pitch + k * sizeof(T));
#pragma unroll
        for (int n = 0; n < NT; n++) {
          uint4 v = make_uint4(0, 0, 0, 0);
          if (inside) v = *reinterpret_cast<const uint4 *>(w + n * 8 * kWPitch + k * sizeof(T));
          mma<T>(acc[n], lo.x, hi.x, lo.y, hi.y, v.x, v.y);
          mma<T>(acc[n], lo.z, hi.z, lo.w, hi.w, v.z, v.w);
        }
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(empty0 + 8 * stage);
    }
    // Partials: [warp][input row][weight row]. Two buffers, so one barrier a unit is enough.
    float *buffer = partials + (pass & 1) * kConsumers * kCells, *tile = buffer + warp * kCells;
#pragma unroll
    for (int n = 0; n < NT; n++) {
      *reinterpret_cast<float2 *>(tile + g * kRows + n * 8 + 2 * t) = make_float2(acc[n][0], acc[n][1]);
      if (MT == 2) *reinterpret_cast<float2 *>(tile + (g + 8) * kRows + n * 8 + 2 * t) = make_float2(acc[n][2], acc[n][3]);
    }
    sync_consumers();
    for (int c = threadIdx.x; c < a.rows * kOutRows; c += kConsumers * WARP) {
      const int m = c / kOutRows, r = c % kOutRows, row = unit * kOutRows + r;
      if (row >= a.out) continue;
      float sum[SWIGLU ? 2 : 1];
#pragma unroll
      for (int h = 0; h < (SWIGLU ? 2 : 1); h++) {
        sum[h] = a.bias ? a.bias[h * a.out + row] : 0.0f;
#pragma unroll
        for (int v = 0; v < kConsumers; v++) sum[h] += buffer[v * kCells + m * kRows + h * kOutRows + r];
      }
      store<T, SWIGLU>(a, static_cast<size_t>(m) * a.out + row, sum);
    }
  }
#endif
}

static int x_pitch(int in, size_t element) { return (in * static_cast<int>(element) + 127) / 128 * 128 + kGap; }

template <typename T, int NT, int MT, bool SWIGLU>
static lim_i32 launch_unit(const Machine &m, const lim_linear_args &a, void *stream) {
  constexpr int kRows = NT * 8, kc = kStageColumns<T, NT>, kWPitch = kc * sizeof(T) + kGap;
  constexpr int kOutRows = SWIGLU ? kRows / 2 : kRows;
  StreamParams p = {a, 0, 0, 0};
  p.pitch = x_pitch(a.in, sizeof(T));
  const int x_bytes = a.rows * p.pitch;
  p.resident = NT == 1;
  const int partials = 2 * kConsumers * MT * 8 * kRows * sizeof(float);
  const int fixed = partials + (p.resident ? x_bytes : 0);
  const int stage = kRows * kWPitch + (p.resident ? 0 : MT * 8 * kWPitch);
  p.stages = min((m.shared - kStatic - fixed) / stage, 16);
  if (p.stages < 2) return LIM_E_SHAPE;
  const int units = (a.out + kOutRows - 1) / kOutRows;
  return launch(m, linear_stream_kernel<T, NT, MT, SWIGLU>, dim3(min(units, m.sms)), kStreamThreads,
                static_cast<size_t>(p.stages) * stage + fixed, stream, p);
}

// Units of 8 rows while x stays in shared memory; wide ones where it does not, so that it travels less often.
template <typename T, int MT> static lim_i32 launch_stream(const Machine &m, const lim_linear_args &a, void *stream) {
  const bool resident = a.norm || a.rows * x_pitch(a.in, sizeof(T)) <= kResidentX;
  if (a.epilogue == LIM_SWIGLU)
    return resident ? launch_unit<T, 1, MT, true>(m, a, stream) : launch_unit<T, 4, MT, true>(m, a, stream);
  return resident ? launch_unit<T, 1, MT, false>(m, a, stream) : launch_unit<T, 4, MT, false>(m, a, stream);
}

// Whether this binary holds the kernel's body for this device: machine code or PTX of sm_90 or later.
static bool has_stream() {
  cudaFuncAttributes f;
  return cudaFuncGetAttributes(&f, linear_stream_kernel<__nv_bfloat16, 1, 1, false>) == cudaSuccess && f.ptxVersion >= 90;
}

lim_i32 linear_stream(const Machine &m, const lim_linear_args &a, void *stream) {
  static const bool available = has_stream();
  if (!available || a.in % 8 != 0) return LIM_E_SHAPE;
  const bool two = a.rows > 8;
  if (a.dtype == LIM_BF16)
    return two ? launch_stream<__nv_bfloat16, 2>(m, a, stream) : launch_stream<__nv_bfloat16, 1>(m, a, stream);
  return two ? launch_stream<__half, 2>(m, a, stream) : launch_stream<__half, 1>(m, a, stream);
}

}  // namespace lim
