// linear.cu's product for chips with bulk copies (sm_90 on): the weights stream through shared memory.
//
// Mapping: one block per multiprocessor, persistent over units of NT * 8 output rows (SwiGLU: half of them gate rows,
// half up rows). One warp asks for the weights, a ring of stages ahead: a stage is the unit's rows by `kc` columns, one
// bulk copy a row. Eight warps split the columns of a stage between them and feed the tensor cores as in linear.cu;
// at the end of a unit their sums meet in shared memory and are added in a fixed order.
// Rows lie 64 bytes apart from a multiple of 128 in shared memory, so that 16-byte reads hit every bank once.
//
// The ring is filled before the wait for the previous kernel. One row of x stays in shared memory. More stay in
// registers, so that nothing is missing in the ring: a warp holds its columns of up to 4096. A longer x stays in shared
// memory while the ring has room beside it; else its columns travel with the weights of their stage, or, where more than
// 8 rows are added to y, registers take it in passes.
//
// Bytes: out * in elements once.
#include "linear.cuh"

namespace lim {

constexpr int kConsumers = 8;                   // warps at the tensor cores
constexpr int kStreamThreads = (kConsumers + 1) * WARP;
constexpr int kStageBytes = 32 * 1024;          // of weights, without the gaps: copies of 4 KB and more run fastest
constexpr int kWideStageBytes = 64 * 1024;      // where x travels along
constexpr int kGap = 64;                        // bytes between rows
constexpr int kHeld = 2;                        // pieces whose x fits a warp's registers
constexpr int kResidentX = 64 * 1024;           // largest x that stays in shared memory: more, and the ring is too short
constexpr int kStatic = 2 * 1024;               // at least the shared memory that is not dynamic

template <typename T, int NT>
constexpr int kStageColumns = (NT == 1 ? kStageBytes : kWideStageBytes) / (NT * 8 * sizeof(T));

// Where x is while the weights stream.
enum class Rows { SHARED, REGISTERS, TRAVELLING };

struct StreamParams {
  lim_linear_args a;
  int stages;
  int pitch;  // bytes between rows of an x in shared memory
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

// A block's way through the weights: pass by pass, unit by unit, piece by piece of a pass's columns.
struct Walk {
  int units, pieces, per_pass;  // of the product; columns come in `pieces` pieces, `per_pass` of them in a pass
  int pass = 0, unit = blockIdx.x, piece = 0;

  __device__ Walk(int units, int pieces, int per_pass) : units(units), pieces(pieces), per_pass(per_pass) {}
  __device__ bool more() const { return unit < units && pass * per_pass < pieces; }
  __device__ int pieces_here() const { return min(per_pass, pieces - pass * per_pass); }
  __device__ int column_piece() const { return pass * per_pass + piece; }
  __device__ void next() {
    if (++piece < pieces_here()) return;
    piece = 0;
    if ((unit += gridDim.x) < units) return;
    unit = blockIdx.x, pass++;
  }
};

// NT: groups of 8 weight rows in a unit; MT: groups of 8 input rows.
template <typename T, int NT, int MT, bool SWIGLU, Rows X>
__device__ __forceinline__ void stream_weights(const StreamParams &p) {
#if __CUDA_ARCH__ >= 900
  constexpr int kRows = NT * 8, kc = kStageColumns<T, NT>;
  constexpr int kWPitch = kc * sizeof(T) + kGap, kXRows = MT * 8;
  constexpr int kOutRows = SWIGLU ? kRows / 2 : kRows;  // outputs of a unit
  constexpr int kCells = kXRows * kRows;
  constexpr int kPerWarp = kc / kConsumers;  // columns of a stage per warp
  constexpr int kHalves = SWIGLU ? 2 : 1;
  constexpr int kOutputs = (kXRows * kOutRows + kConsumers * WARP - 1) / (kConsumers * WARP);  // a thread's, of a unit
  // Sums that a product may add to: one alone would make every product wait for the one before it.
  constexpr int kChains = NT > 1 ? 1 : MT > 1 ? 2 : 4;
  static_assert(kPerWarp % 32 == 0);
  extern __shared__ __align__(128) unsigned char smem[];
  __shared__ __align__(8) unsigned long long full[16], empty[16];
  __shared__ float warp_sums[16 * kConsumers];
  const lim_linear_args &a = p.a;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  constexpr bool kTravels = X == Rows::TRAVELLING;
  const int units = (a.out + kOutRows - 1) / kOutRows, pieces = (a.in + kc - 1) / kc;
  const int per_pass = X == Rows::REGISTERS ? kHeld : pieces;
  constexpr int stage_bytes = kRows * kWPitch + (kTravels ? kXRows * kWPitch : 0);
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
  if (!a.late) allow_dependents();

  if (warp == kConsumers) {
    // The producer: lane r copies row r of each stage, and row r of x where x travels along.
    const T *weights = static_cast<const T *>(a.w), *x = static_cast<const T *>(a.x);
    const lim_u64 once = read_once();
    auto stage_at = [&](int i) { return ring + (i % p.stages) * stage_bytes; };
    auto bytes_of = [&](const Walk &at) {
      return min(kc, a.in - at.column_piece() * kc) * static_cast<int>(sizeof(T));
    };
    auto ask_weights = [&](const Walk &at, int i) {
      const int bytes = bytes_of(at);
      const uint32_t bar = full0 + 8 * (i % p.stages);
      if (lane == 0) barrier_expect(bar, (kRows + (kTravels ? a.rows : 0)) * bytes);
      __syncwarp();
      if (lane < kRows) {
        // Rows past the end repeat the last one; their sums are not stored.
        int row = at.unit * kOutRows + lane % kOutRows;
        row = min(row, a.out - 1) + (SWIGLU && lane >= kOutRows ? a.out : 0);
        const T *from = weights + static_cast<size_t>(row) * a.in + at.column_piece() * kc;
        bulk_copy(stage_at(i) + lane * kWPitch, from, bytes, bar, once);
      }
    };
    auto ask_x = [&](const Walk &at, int i) {
      if (!kTravels || lane >= a.rows) return;
      const T *from = x + static_cast<size_t>(a.row_ids ? a.row_ids[lane] : lane) * a.in + at.column_piece() * kc;
      bulk_copy(stage_at(i) + (kRows + lane) * kWPitch, from, bytes_of(at), full0 + 8 * (i % p.stages));
    };
    int i = 0;
    const Walk start(units, pieces, per_pass);
    Walk at = start;
    for (; i < p.stages && at.more(); i++, at.next()) ask_weights(at, i);
    await_dependencies();
    if (a.late) allow_dependents();
    if (kTravels) {
      Walk again = start;
      for (int j = 0; j < i; j++, again.next()) ask_x(again, j);
    }
    for (; at.more(); i++, at.next()) {
      barrier_wait(empty0 + 8 * (i % p.stages), (i / p.stages - 1) & 1);
      ask_weights(at, i);
      ask_x(at, i);
    }
    return;
  }

  if constexpr (X == Rows::SHARED) {
    T *to = reinterpret_cast<T *>(xs);
    if (NormedRow<T, kConsumers>::fits(a)) {
      const NormedRow<T, kConsumers> row(a);
      await_dependencies();
      row.stage(a, to, warp_sums, sync_consumers);
    } else {
      await_dependencies();
      stage_x<T, kConsumers>(a, to, p.pitch / sizeof(T), warp_sums, sync_consumers);
    }
    sync_consumers();
  } else {
    await_dependencies();
  }

  const int g = lane / 4, t = lane % 4;
  constexpr int kSteps = kPerWarp / 32;
  uint4 lo[kHeld][kSteps], hi[kHeld][kSteps];  // rows g and g + 8 of x, of this warp's columns of a pass
  auto hold_x = [&](int pass) {
    const T *x = static_cast<const T *>(a.x);
    const bool has_low = g < a.rows, has_high = MT == 2 && g + 8 < a.rows;
    const T *low = x + static_cast<size_t>(a.row_ids && has_low ? a.row_ids[g] : g) * a.in;
    const T *high = x + static_cast<size_t>(a.row_ids && has_high ? a.row_ids[g + 8] : g + 8) * a.in;
#pragma unroll
    for (int h = 0; h < kHeld; h++)
#pragma unroll
      for (int s = 0; s < kSteps; s++) {
        const int k = (pass * kHeld + h) * kc + warp * kPerWarp + s * 32 + t * 8;
        lo[h][s] = hi[h][s] = make_uint4(0, 0, 0, 0);
        if (k < a.in && has_low) lo[h][s] = __ldcg(reinterpret_cast<const uint4 *>(low + k));
        if (k < a.in && has_high) hi[h][s] = __ldcg(reinterpret_cast<const uint4 *>(high + k));
      }
  };
  int i = 0, turn = 0;
  float acc[kChains][NT][4] = {};
  auto take = [&](int piece, int h) {
    const int stage = i % p.stages;
    const unsigned char *w = smem + stage * stage_bytes + g * kWPitch;
    const unsigned char *x = kTravels ? w + kRows * kWPitch : xs + g * p.pitch + piece * kc * sizeof(T);
    const int pitch = kTravels ? kWPitch : p.pitch;
    barrier_wait(full0 + 8 * stage, i / p.stages & 1);
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int k = warp * kPerWarp + s * 32 + t * 8;
      const bool inside = piece * kc + k < a.in;
      uint4 low = make_uint4(0, 0, 0, 0), high = low;
      if (X == Rows::REGISTERS) {
        low = lo[h][s], high = hi[h][s];
      } else {
        if (inside && g < a.rows) low = *reinterpret_cast<const uint4 *>(x + k * sizeof(T));
        if (MT == 2 && inside && g + 8 < a.rows) high = *reinterpret_cast<const uint4 *>(x + 8 * pitch + k * sizeof(T));
      }
#pragma unroll
      for (int n = 0; n < NT; n++) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (inside) v = *reinterpret_cast<const uint4 *>(w + n * 8 * kWPitch + k * sizeof(T));
        mma<T>(acc[2 * s % kChains][n], low.x, high.x, low.y, high.y, v.x, v.y);
        mma<T>(acc[(2 * s + 1) % kChains][n], low.z, high.z, low.w, high.w, v.z, v.w);
      }
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(empty0 + 8 * stage);
    i++;
  };
  // What a unit's sums are added to is asked for while its weights arrive: a trip to the L2 cache behind every unit would hold
  // up the warp that makes it.
  float old[kOutputs];
  auto each_output = [&](int unit, auto &&visit) {
#pragma unroll
    for (int j = 0; j < kOutputs; j++) {
      const int c = threadIdx.x + j * kConsumers * WARP, m = c / kOutRows, row = unit * kOutRows + c % kOutRows;
      if (m < a.rows && row < a.out) visit(j, m, row, static_cast<size_t>(m) * a.out + row);
    }
  };
  const bool adds = !SWIGLU && a.epilogue == LIM_ADD_F32;
  for (int pass = 0; pass * per_pass < pieces; pass++) {
    if (X == Rows::REGISTERS) hold_x(pass);
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x, turn ^= 1) {
      if (adds) each_output(unit, [&](int j, int, int, size_t at) { old[j] = __ldcg(static_cast<float *>(a.y) + at); });
#pragma unroll
      for (int i = 0; i < kChains * NT * 4; i++) acc[i / (NT * 4)][i / 4 % NT][i % 4] = 0.0f;
      if constexpr (X == Rows::REGISTERS) {
#pragma unroll
        for (int h = 0; h < kHeld; h++)
          if (pass * kHeld + h < pieces) take(pass * kHeld + h, h);
      } else {
        for (int piece = 0; piece < pieces; piece++) take(piece, 0);
      }
#pragma unroll
      for (int i = NT * 4; i < kChains * NT * 4; i++) acc[0][i / 4 % NT][i % 4] += acc[i / (NT * 4)][i / 4 % NT][i % 4];
      // Partials: [warp][input row][weight row]. Two buffers, so one barrier a unit is enough.
      float *buffer = partials + turn * kConsumers * kCells, *tile = buffer + warp * kCells;
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const float(&sums)[4] = acc[0][n];
        *reinterpret_cast<float2 *>(tile + g * kRows + n * 8 + 2 * t) = make_float2(sums[0], sums[1]);
        if (MT == 2)
          *reinterpret_cast<float2 *>(tile + (g + 8) * kRows + n * 8 + 2 * t) = make_float2(sums[2], sums[3]);
      }
      sync_consumers();
      each_output(unit, [&](int j, int m, int row, size_t at) {
        float sum[kHalves];
#pragma unroll
        for (int h = 0; h < kHalves; h++) {
          const float *cell = buffer + m * kRows + h * kOutRows + row % kOutRows;
          sum[h] = a.bias && pass == 0 ? a.bias[h * a.out + row] : 0.0f;
#pragma unroll
          for (int v = 0; v < kConsumers; v++) sum[h] += cell[v * kCells];
        }
        if (adds) {
          static_cast<float *>(a.y)[at] = old[j] + sum[0];
        } else {
          store<T, SWIGLU>(a, at, sum);
        }
      });
    }
  }
#endif
}

template <typename T, int NT, int MT, bool SWIGLU, Rows X>
__global__ void __launch_bounds__(kStreamThreads, 1) linear_stream_kernel(const __grid_constant__ StreamParams p) {
  stream_weights<T, NT, MT, SWIGLU, X>(p);
}

// For a place beside selection's blocks: each of a multiprocessor's four schedulers has 16,384 registers, and the one that has
// three of the nine warps shall have room for four of selection's with 64 each. That makes 80, as if two blocks of twelve warps
// were to fit. Not for other products: steps took 1 to 2% longer (H200, docs/benchmarks.md).
template <typename T, int NT, int MT, bool SWIGLU, Rows X>
__global__ void __launch_bounds__(12 * WARP, 2) linear_beside_kernel(const __grid_constant__ StreamParams p) {
  stream_weights<T, NT, MT, SWIGLU, X>(p);
}

static int x_pitch(int in, size_t element) { return (in * static_cast<int>(element) + 127) / 128 * 128 + kGap; }

template <typename T, int NT, int MT, bool SWIGLU, Rows X>
static lim_i32 launch_unit(const Machine &m, const lim_linear_args &a, void *stream) {
  constexpr int kRows = NT * 8, kc = kStageColumns<T, NT>, kWPitch = kc * sizeof(T) + kGap;
  constexpr int kOutRows = SWIGLU ? kRows / 2 : kRows;
  StreamParams p = {a, 0, x_pitch(a.in, sizeof(T))};
  const int partials = 2 * kConsumers * MT * 8 * kRows * sizeof(float);
  const int fixed = partials + (X == Rows::SHARED ? a.rows * p.pitch : 0);
  const int stage = kRows * kWPitch + (X == Rows::TRAVELLING ? MT * 8 * kWPitch : 0);
  auto fitting = [&](int spare) { return min((m.shared - kStatic - fixed - spare) / stage, 16); };
  p.stages = fitting(a.spare);
  if (p.stages < 3) p.stages = fitting(0);  // rather a ring that serves than a place beside others
  if (p.stages < 2) return LIM_E_SHAPE;
  const int units = (a.out + kOutRows - 1) / kOutRows;
  void (*kernel)(StreamParams) = linear_stream_kernel<T, NT, MT, SWIGLU, X>;
  if constexpr (X == Rows::SHARED && NT == 1 && MT == 1 && !SWIGLU) {
    if (a.spare >= LIM_SELECT_ROOM) kernel = linear_beside_kernel<T, NT, MT, SWIGLU, X>;
  }
  return launch(m, kernel, dim3(min(units, m.sms)), kStreamThreads, static_cast<size_t>(p.stages) * stage + fixed, stream, p);
}

// Where x is best kept. Several passes take longer than a smaller ring or, up to 8 rows, an x that travels along (H100,
// 8 rows of 12288: 39 us in passes, 34 travelling); at 16 rows an x that travels is half as long again as the weights.
static Rows rows_for(const lim_linear_args &a, int in_registers, size_t element) {
  const int rows = max(a.rows, a.plan_rows);
  const bool one_pass = a.in <= in_registers, passes = a.epilogue == LIM_ADD_F32 && rows > 8;
  if (!a.norm && rows > 1 && (one_pass || passes)) return Rows::REGISTERS;
  return a.norm || rows * x_pitch(a.in, element) <= kResidentX ? Rows::SHARED : Rows::TRAVELLING;
}

template <typename T, int MT, bool SWIGLU>
static lim_i32 launch_stream(const Machine &m, const lim_linear_args &a, void *stream) {
  switch (rows_for(a, kHeld * kStageColumns<T, 1>, sizeof(T))) {
    case Rows::SHARED: return launch_unit<T, 1, MT, SWIGLU, Rows::SHARED>(m, a, stream);
    case Rows::REGISTERS: return launch_unit<T, 1, MT, SWIGLU, Rows::REGISTERS>(m, a, stream);
    default: return launch_unit<T, 4, MT, SWIGLU, Rows::TRAVELLING>(m, a, stream);
  }
}

template <typename T, bool SWIGLU>
static lim_i32 launch_rows(const Machine &m, const lim_linear_args &a, void *stream) {
  // Of the planned rows, since the two add a row's sums in different orders.
  const bool two = max(a.rows, a.plan_rows) > 8;
  return two ? launch_stream<T, 2, SWIGLU>(m, a, stream) : launch_stream<T, 1, SWIGLU>(m, a, stream);
}

// Whether this binary holds the kernel's body for this device: machine code or PTX of sm_90 or later.
static bool has_stream() {
  cudaFuncAttributes f;
  return cudaFuncGetAttributes(&f, linear_stream_kernel<__nv_bfloat16, 1, 1, false, Rows::SHARED>) == cudaSuccess && f.ptxVersion >= 90;
}

lim_i32 linear_stream(const Machine &m, const lim_linear_args &a, void *stream) {
  static const bool available = has_stream();
  if (!available || a.in % 8 != 0) return LIM_E_SHAPE;
  const bool swiglu = a.epilogue == LIM_SWIGLU;
  if (a.dtype == LIM_BF16)
    return swiglu ? launch_rows<__nv_bfloat16, true>(m, a, stream) : launch_rows<__nv_bfloat16, false>(m, a, stream);
  return swiglu ? launch_rows<__half, true>(m, a, stream) : launch_rows<__half, false>(m, a, stream);
}

}  // namespace lim
