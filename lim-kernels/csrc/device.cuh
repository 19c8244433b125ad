// Small device vocabulary of the kernels: element types, asynchronous copies, 16x8x16 matrix products, dependent
// launches. Everything works from sm_80 on; what newer chips add is used where the target has it.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "lim_kernels.h"

namespace lim {

constexpr int WARP = 32;
constexpr unsigned FULL = 0xffffffffu;
constexpr float NEG_INF = -__builtin_huge_valf();

template <class T> __device__ inline float to_float(T x);
template <> __device__ inline float to_float(float x) { return x; }
template <> __device__ inline float to_float(__half x) { return __half2float(x); }
template <> __device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float(float x) { return x; }
template <> __device__ inline __half from_float(float x) { return __float2half_rn(x); }
template <> __device__ inline __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }

// Two elements in one register, the first in the low half.
template <class T> __device__ inline uint32_t pack(float lo, float hi);
template <> __device__ inline uint32_t pack<__half>(float lo, float hi) {
  __half2 v = __floats2half2_rn(lo, hi);
  return *reinterpret_cast<uint32_t *>(&v);
}
template <> __device__ inline uint32_t pack<__nv_bfloat16>(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<uint32_t *>(&v);
}

// d += A B with A 16x16 (a0: row g, a1: row g + 8, a2 and a3: the same rows, columns + 8), B 16x8 (b0, b1: rows + 8),
// g = lane / 4. d[0..1]: row g, columns 2 * (lane % 4) and the next; d[2..3]: row g + 8.
template <class T>
__device__ inline void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                           uint32_t b1);
template <>
__device__ inline void mma<__half>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                   uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ inline void mma<__nv_bfloat16>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                          uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Transposes the 8x8 matrix whose row lane / 4 holds columns 2 * (lane % 4) and the next in x.
__device__ inline uint32_t transpose8x8(uint32_t x) {
  uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float silu(float x) { return x / (1.0f + __expf(-x)); }

__device__ inline uint32_t shared_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// The L2 cache policy of what is read once: it leaves first. Weights and cached tokens are, in a decode step; all that the
// step reads again stays (H100: all weights of Qwen3-8B 2% faster, eight gathers of 2048 tokens 4%).
__device__ inline lim_u64 read_once() {
  lim_u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// That of what is read soon and only once, and written again by the next launch: it need never leave.
__device__ inline lim_u64 keep() {
  lim_u64 policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Starts a copy of 16 bytes from global to shared memory.
__device__ inline void copy_async(uint32_t shared, const void *global, lim_u64 policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "l"(policy)
               : "memory");
}
// The same, to be kept in the caches.
__device__ inline void copy_async(uint32_t shared, const void *global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}
// Closes a group of copies; await_copies<N> returns once all but this thread's N latest groups have arrived.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ inline void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Waits until the grid before this one in the stream is complete and its writes visible. Every kernel started with `launch`
// calls this, so that grid's predecessors are complete too. What a kernel touches before depends on those before it: a grid
// that calls allow_dependents behind its wait starts its successor when all before itself is complete; one that calls it at
// once promises less, and its successor, as the header says of each, touches only what no kernel writes.
__device__ inline void await_dependencies() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next grid of the stream start its prologue.
__device__ inline void allow_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Clusters of blocks. Without the hardware a block is a cluster of its own, and the barrier is none.
__device__ inline int cluster_rank() {
  int rank = 0;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}
__device__ inline int cluster_size() {
  int size = 1;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
#endif
  return size;
}
// The counterpart of a shared object in another block of the cluster.
template <class T> __device__ inline T *in_block(T *object, int rank) {
#if __CUDA_ARCH__ >= 900
  T *there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(object), "r"(rank));
  return there;
#else
  return object;
#endif
}
// A barrier of the cluster in two halves; what a thread wrote before it arrives is seen by those that have waited.
__device__ inline void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}
__device__ inline void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}

// The point before which a kernel may not touch what the kernel before it writes.
struct Gate {
  bool closed = true;
  __device__ void open() {
    if (!closed) return;
    await_dependencies();
    closed = false;
  }
};

// What the host side of a launcher needs to know of the current device.
struct Machine {
  int sms;           // streaming multiprocessors
  int shared;        // bytes of shared memory a block may ask for
  bool overlap;      // dependent launches (sm_90 on)
  bool warpgroups;   // warpgroup products, in the hardware and in this build (sm_90a)
};

inline lim_i32 machine(Machine *m) {
  int device = 0, major = 0, minor = 0;
  cudaError_t e = cudaGetDevice(&device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&m->sms, cudaDevAttrMultiProcessorCount, device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&m->shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  m->overlap = major >= 9;
#ifdef LIM_SM_90A
  m->warpgroups = major == 9 && minor == 0;
#else
  m->warpgroups = false;
#endif
  return e;
}

// Launches a kernel that calls await_dependencies: its start may overlap the end of the kernel before it. `cluster`
// consecutive blocks along x form a cluster (sm_90 on; 1 elsewhere).
template <class... P, class... A>
inline lim_i32 launch_clusters(const Machine &m, int cluster, void (*kernel)(P...), dim3 grid, int threads,
                               size_t shared, void *stream, const A &...args) {
  if (shared > 24 * 1024) {  // without this, 48 KiB together with the kernel's static shared memory
    // All that a block may have, not what this launch needs: the limit is the kernel's, and its launches of another size, by
    // other threads or in graphs that a profiler takes apart, must stay within it.
    cudaFuncAttributes held = {};
    cudaError_t e = cudaFuncGetAttributes(&held, kernel);
    const int most = m.shared - static_cast<int>(held.sharedSizeBytes);
    if (e == cudaSuccess && held.maxDynamicSharedSizeBytes != most)
      e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (e != cudaSuccess) return e;
  }
  // One split of L1 and shared memory for all kernels: a change of it drains the multiprocessor, which cost about 5 us at
  // every boundary between two kernels that differed (H200).
  cudaError_t split = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                           cudaSharedmemCarveoutMaxShared);
  if (split != cudaSuccess) return split;
  cudaLaunchAttribute attributes[2] = {};
  int count = 0;
  if (m.overlap) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

template <class... P, class... A>
inline lim_i32 launch(const Machine &m, void (*kernel)(P...), dim3 grid, int threads, size_t shared, void *stream,
                      const A &...args) {
  return launch_clusters(m, 1, kernel, grid, threads, shared, stream, args...);
}

}  // namespace lim
