// Hopper's warpgroup products (wgmma, sm_90a): 64 rows times N columns, 16 deep, operands in shared memory in panels of
// 64 elements (128 bytes) a row whose 16-byte chunks are swizzled: chunk c of row r lies at place c ^ (r % 8). And the
// barriers that hand shared memory from warps that fill it to warps that multiply.
#pragma once
#include "device.cuh"

namespace lim {

constexpr int WARPGROUP = 4 * WARP;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Descriptor of a matrix from a panel at `address`, a multiple of 1024 bytes. Groups of eight panel rows are 1024 bytes
// apart. `panels`: bytes from one panel to the next, for a matrix that is wider than a panel along its columns.
__device__ inline uint64_t matrix_at(uint32_t address, int panels = 16) {
  return static_cast<uint64_t>(address >> 4 & 0x3fff) | static_cast<uint64_t>(panels >> 4) << 16 | 64ull << 32 |
         1ull << 62;
}
// The matrix `bytes` further on.
__device__ inline uint64_t advance(uint64_t matrix, int bytes) { return matrix + (bytes >> 4); }

// d (+)= A B^T, A 64x16 and B Nx16, both with 16 contiguous elements a row; the old d counts where `add`.
// d[4 i], d[4 i + 1]: row 16 w + g, columns 8 i + 2 c and the next; d[4 i + 2], d[4 i + 3]: row 16 w + g + 8; for warp
// w of the group and g = lane / 4, c = lane % 4.
template <class T, int N> __device__ inline void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool add);

// d += A B, A 64x16 in registers (a0: row g, a1: row g + 8, columns 2 c and the next; a2 and a3: columns + 8), B 16xN
// with N contiguous elements a row.
template <class T, int N>
__device__ inline void wgmma(float (&d)[N / 2], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b);

#define LIM_SUMS8(d, i)                                                                                               \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),         \
      "+f"(d[i + 7])
#define LIM_SUMS32(d, i) LIM_SUMS8(d, i), LIM_SUMS8(d, i + 8), LIM_SUMS8(d, i + 16), LIM_SUMS8(d, i + 24)
#define LIM_SUMS64(d, i) LIM_SUMS32(d, i), LIM_SUMS32(d, i + 32)
#define LIM_NAMES32                                                                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "    \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define LIM_NAMES64                                                                                                   \
  LIM_NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
          "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// x0..x5: the operands after the accumulators.
#define LIM_WGMMA(T, type, N, regs, list, x0, x1, x2, x3, x4, x5)                                                     \
  template <> __device__ inline void wgmma<T, N>(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {               \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " x2 ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type      \
                 "." type " {" regs "}, " x0 ", " x1 ", p, 1, 1, 0, 0;}"                                              \
                 : list(d, 0) : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                          \
  }                                                                                                                   \
  template <>                                                                                                         \
  __device__ inline void wgmma<T, N>(float (&d)[N / 2], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,           \
                                     uint64_t b) {                                                                    \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " x5 ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type      \
                 "." type " {" regs "}, {" x0 ", " x1 ", " x2 ", " x3 "}, " x4 ", p, 1, 1, 1;}"                       \
                 : list(d, 0) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "n"(1));                                  \
  }
LIM_WGMMA(__nv_bfloat16, "bf16", 64, LIM_NAMES32, LIM_SUMS32, "%32", "%33", "%34", "%35", "%36", "%37")
LIM_WGMMA(__nv_bfloat16, "bf16", 128, LIM_NAMES64, LIM_SUMS64, "%64", "%65", "%66", "%67", "%68", "%69")
LIM_WGMMA(__half, "f16", 64, LIM_NAMES32, LIM_SUMS32, "%32", "%33", "%34", "%35", "%36", "%37")
LIM_WGMMA(__half, "f16", 128, LIM_NAMES64, LIM_SUMS64, "%64", "%65", "%66", "%67", "%68", "%69")
#undef LIM_WGMMA
#undef LIM_NAMES64
#undef LIM_NAMES32
#undef LIM_SUMS64
#undef LIM_SUMS32
#undef LIM_SUMS8

// Before the first product and after any other use of its registers.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Returns once all but the N latest groups of products are complete. Their registers must then go through `settle`.
template <int N> __device__ inline void products_await() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Keeps the compiler from using registers before the await above it.
template <int N> __device__ inline void settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// Registers of every thread of this warpgroup from here on, of what the block was launched with.
template <int N> __device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// Makes this thread's writes to shared memory visible to wgmma.
__device__ inline void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A barrier in shared memory that completes a phase at every `count` arrivals.
__device__ inline void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier, int arrivals) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0], %1;}" ::"r"(barrier), "r"(arrivals)
               : "memory");
}
// Returns once a phase of this parity (0, 1, 0, ...) has completed; 1 at first returns at once.
__device__ inline void barrier_await(uint32_t barrier, int parity) {
  asm volatile(
      "{.reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @done bra.uni over; bra.uni "
      "again; over:}" ::"r"(barrier), "r"(parity) : "memory");
}

__device__ inline void store_shared(uint32_t address, uint32_t x) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}
__device__ inline uint4 load_shared(uint32_t address) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(address) : "memory");
  return x;
}

// One of the block's barriers 1..15 among `threads` threads, whole warps.
__device__ inline void warps_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

#endif

}  // namespace lim
