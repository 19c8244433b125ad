// Decode attention over pages: out[s][h] = sum_t softmax_t(scale * q_h . k_t) v_t, t over all cached tokens of sequence
// s or over its selected ones. One kernel serves both: only where a list entry's position comes from differs.
//
// Layouts: q [seqs][q_stride], out [seqs][heads][head_dim], pages and selection as in lim_kernels.h.
// Grid: as many blocks as run at once, walking through the units of paged.cuh (sequence x KV head x chunk of its
// tokens). A block's warps take tiles of 16 tokens in turn, merge through shared memory, and write the result or, where
// a lane has several chunks, a partial state (sums, maximum, weight) to scratch. The block that finishes a lane last
// combines its chunks in order, so the order of arrival does not show in the result.
// Bytes moved: tokens read * 2 * kv_heads * head_dim * size; a partial state is 4 * (head_dim + 2) bytes a query head.
#include "attend_warp.cuh"

namespace lim {

struct AttendPlan {
  Cut cut;
  LaneCounts lanes;
  int chunks;      // most chunks a lane can have
  int shift;       // log2 of the page size
  float *sums;     // [seqs][heads][chunks][D]
  float *states;   // [seqs][heads][chunks][m, l]
  int *finished;   // [seqs][heads]: blocks that have written their chunk of the lane that starts with this head
};

// Adds one to *count, after everything the block wrote before its last barrier, and tells what was there; what other
// blocks wrote before their addition can be read from here on.
__device__ inline int add_in_order(int *count) {
  int held;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;" : "=r"(held) : "l"(count) : "memory");
  return held;
}

// Two elements of a head's output from the partial states of its chunks, in order. sums: the elements in the first
// chunk's sums, `stride` from one chunk to the next. Sums and states of a batch are asked for together: what the last
// block waits for is one trip to the L2 cache.
__device__ inline float2 merge_chunks(const float *sums, int stride, const float2 *states, int chunks) {
  constexpr int BATCH = 16;
  float top = NEG_INF, l = 0, x = 0, y = 0;
  for (int first = 0; first < chunks; first += BATCH) {
    float2 state[BATCH], sum[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      bool there = first + i < chunks;
      state[i] = there ? __ldcg(states + first + i) : make_float2(NEG_INF, 0);
      sum[i] = there ? __ldcg(reinterpret_cast<const float2 *>(sums + static_cast<long long>(first + i) * stride)) : float2{};
    }
    float next = top;
#pragma unroll
    for (int i = 0; i < BATCH; i++) next = fmaxf(next, state[i].x);
    float shrink = top == NEG_INF ? 0 : exp2f(top - next);
    l *= shrink, x *= shrink, y *= shrink;
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      float w = state[i].x == NEG_INF ? 0 : exp2f(state[i].x - next);
      l = __fmaf_rn(w, state[i].y, l), x = __fmaf_rn(w, sum[i].x, x), y = __fmaf_rn(w, sum[i].y, y);
    }
    top = next;
  }
  return l == 0 ? float2{} : make_float2(x / l, y / l);
}

template <class T, int D, int NT, int WARPS, int STAGES> struct AttendShape {
  using Warp = WarpAttention<T, D, NT, STAGES>;
  static constexpr int OWN = NT * 8 * PITCH<D> * 4;  // bytes of a warp's state
  static constexpr int PER_WARP = Warp::QUEUE > OWN ? Warp::QUEUE : OWN;
  static constexpr int SHARED = WARPS * PER_WARP;
};

// So few registers that a block of the product behind finds room beside one of attention's, and so many that no second one
// of attention's does: blocks start as multiprocessors become free, and two on one would leave another without.
template <class T, int D, int NT> constexpr int REGISTERS = sizeof(T) == 2 && D <= 128 && NT == 1 ? 136 : 255;

template <class T, int D, int NT, int WARPS, int STAGES>
__global__ void __maxnreg__((REGISTERS<T, D, NT>))
    attend_kernel(const __grid_constant__ lim_attend_args a, const __grid_constant__ AttendPlan plan) {
  using Shape = AttendShape<T, D, NT, WARPS, STAGES>;
  // At 16 bytes past a multiple of 128 every 128-byte line that is copied here would be asked for twice.
  extern __shared__ __align__(128) char shared[];
  __shared__ bool last;
  allow_dependents();
  Gate gate;
  if (!a.early) gate.open();
  int warp = threadIdx.x / WARP, group = plan.lanes.group.d;
  char *mine = shared + warp * Shape::PER_WARP;
  const float *states = reinterpret_cast<const float *>(shared);  // [warp][head][PITCH], warps PER_WARP bytes apart
  constexpr int WARP_PITCH = Shape::PER_WARP / 4;
  Schedule schedule(a.batch, a.selection, plan.cut, plan.lanes, 0);
  Unit u;
  for (int index = blockIdx.x; schedule.find(index, u); index += gridDim.x) {
    int kv_head = u.per_head ? plan.lanes.group.divide(u.lane) : u.lane;
    int head = u.per_head ? u.lane : u.lane * group, heads = u.per_head ? 1 : group;
    int set = u.seq * a.selection.sets + (a.selection.kind == LIM_SHARED ? 0 : u.lane);
    Source<T> from;
    from.tokens.ids = u.dense ? nullptr : a.selection.ids + static_cast<long long>(set) * a.selection.capacity;
    from.tokens.table = a.batch.table + static_cast<long long>(u.seq) * a.batch.table_stride;
    from.tokens.count = u.dense ? u.n : a.selection.count[set];
    from.tokens.shift = plan.shift;
    from.width = a.kv.kv_heads * D;
    from.keys = static_cast<const T *>(a.kv.pages) + kv_head * D;
    from.values = from.keys + static_cast<long long>(a.kv.page_size) * from.width;
    from.score_stride = a.scores.stride;
    from.scores = a.scores.data && u.dense
                      ? a.scores.data + (static_cast<long long>(u.seq) * a.heads + head) * a.scores.stride
                      : nullptr;
    from.begin = u.chunk * u.length;
    from.end = min(from.begin + u.length, from.tokens.count);
    from.newest = u.n - 1;

    const T *q = static_cast<const T *>(a.q) + static_cast<long long>(u.seq) * a.q_stride + head * D;
    {
      typename Shape::Warp attention(mine);
      attention.run(from, q, heads, a.scale * 1.4426950408889634f, warp, WARPS, gate);
      attention.store(reinterpret_cast<float *>(mine));
    }
    if (a.counters && u.chunk == 0 && threadIdx.x == 0) {
      unsigned long long *c = a.counters;
      atomicAdd(c + 0, static_cast<unsigned long long>(from.tokens.count) * heads);
      atomicAdd(c + 1, static_cast<unsigned long long>(u.n) * heads);
      atomicAdd(c + 3, static_cast<unsigned long long>(from.tokens.count) * (2 * D * sizeof(T)));
    }
    __syncthreads();

    // Merge the warps: thread by thread, warps in order.
    T *out = static_cast<T *>(a.out) + (static_cast<long long>(u.seq) * a.heads + head) * D;
    long long slot = (static_cast<long long>(u.seq) * a.heads + head) * plan.chunks + u.chunk;
    for (int e = threadIdx.x; e < heads * D; e += WARPS * WARP) {
      int h = e / D, d = e % D;
      const float *state = states + h * PITCH<D>;
      float top = NEG_INF, sum = 0, l = 0;
#pragma unroll
      for (int w = 0; w < WARPS; w++) top = fmaxf(top, state[w * WARP_PITCH + D]);
#pragma unroll
      for (int w = 0; w < WARPS; w++) {
        float m = state[w * WARP_PITCH + D], x = m == NEG_INF ? 0 : exp2f(m - top);
        l = __fmaf_rn(x, state[w * WARP_PITCH + D + 1], l);
        sum = __fmaf_rn(x, state[w * WARP_PITCH + d], sum);
      }
      if (u.chunks == 1) {
        out[e] = from_float<T>(l == 0 ? 0 : sum / l);
      } else {
        long long part = slot + static_cast<long long>(h) * plan.chunks;
        __stcg(plan.sums + part * D + d, sum);
        if (d == 0) __stcg(reinterpret_cast<float2 *>(plan.states) + part, make_float2(top, l));
      }
    }
    if (u.chunks > 1) {
      int *finished = plan.finished + u.seq * a.heads + head;
      __syncthreads();
      if (threadIdx.x == 0) last = add_in_order(finished) == u.chunks - 1;
      __syncthreads();
      if (last) {
        slot -= u.chunk;
        for (int e = threadIdx.x * 2; e < heads * D; e += WARPS * WARP * 2) {
          long long lane = slot + static_cast<long long>(e / D) * plan.chunks;
          float2 sum = merge_chunks(plan.sums + lane * D + e % D, D,
                                    reinterpret_cast<const float2 *>(plan.states) + lane, u.chunks);
          out[e] = from_float<T>(sum.x), out[e + 1] = from_float<T>(sum.y);
        }
        if (threadIdx.x == 0) *finished = 0;
      }
    }
    __syncthreads();
  }
  gate.open();
}

struct AttendSize {
  AttendPlan plan;
  long long bytes;
};

constexpr int LEAST_CHUNK = 128, MOST_CHUNK = 8192;
// Counters stand at the start of the scratch whatever the shapes, so that launches of any shapes may share it.
constexpr int COUNTERS = 1 << 16;

// slots: blocks that run at once.
inline AttendSize attend_size(const lim_attend_args &a, int slots) {
  AttendSize size = {};
  int lanes = a.batch.seqs * a.kv.kv_heads;
  int target = a.splits ? a.splits : lanes >= slots ? 1 : slots / (lanes ? lanes : 1);
  size.plan.cut = cut_for(slots, lanes, target, LEAST_CHUNK, MOST_CHUNK);
  if (a.splits) size.plan.cut.fill = 0;  // nothing may follow from the number of sequences
  size.plan.lanes = lane_counts(a.heads, a.kv.kv_heads);
  size.plan.chunks = most_chunks(size.plan.cut, a.batch.max_len);
  size.plan.shift = log2_of(a.kv.page_size);
  long long parts = static_cast<long long>(a.batch.seqs) * a.heads * size.plan.chunks;
  char *at = static_cast<char *>(a.scratch);
  size.plan.finished = reinterpret_cast<int *>(at);
  at += COUNTERS * 4;
  size.plan.sums = reinterpret_cast<float *>(at);
  at += parts * a.kv.head_dim * 4;
  size.plan.states = reinterpret_cast<float *>(at);
  size.bytes = COUNTERS * 4 + parts * (a.kv.head_dim + 2) * 4;
  return size;
}

template <class T, int D, int NT, int WARPS, int STAGES>
lim_i32 attend_launch(const Machine &m, const lim_attend_args &a, void *stream) {
  return launch(m, attend_kernel<T, D, NT, WARPS, STAGES>, dim3(m.sms), WARPS * WARP,
                AttendShape<T, D, NT, WARPS, STAGES>::SHARED, stream, a, attend_size(a, m.sms).plan);
}

// 64 KiB on the way keep memory busy (H200: 128 KiB are 2% slower, and leave no room beside the next kernel's blocks);
// two smaller blocks a multiprocessor take longer for one sequence and win 2% for 32.
template <class T, int D, int NT> lim_i32 attend_run(const Machine &m, const lim_attend_args &a, void *stream) {
  constexpr int WARPS = D == 256 ? 4 : 8, STAGES = D == 32 ? 4 : D < 128 ? 2 : 1;
  return attend_launch<T, D, NT, WARPS, STAGES>(m, a, stream);
}

template <class T, int D> lim_i32 attend_group(const Machine &m, const lim_attend_args &a, void *stream) {
  bool wide = a.heads > 8 * a.kv.kv_heads;
  return wide ? attend_run<T, D, 2>(m, a, stream) : attend_run<T, D, 1>(m, a, stream);
}

template <class T> lim_i32 attend_dim(const Machine &m, const lim_attend_args &a, void *stream) {
  switch (a.kv.head_dim) {
    case 32: return attend_group<T, 32>(m, a, stream);
    case 64: return attend_group<T, 64>(m, a, stream);
    case 80: return attend_group<T, 80>(m, a, stream);
    case 96: return attend_group<T, 96>(m, a, stream);
    case 128: return attend_group<T, 128>(m, a, stream);
    case 256: return attend_group<T, 256>(m, a, stream);
  }
  return LIM_E_HEAD_DIM;
}

inline lim_i32 attend_check(const lim_attend_args &a) {
  if (lim_i32 e = check(a.kv, a.batch, a.heads)) return e;
  if (static_cast<long long>(a.batch.seqs) * a.heads > COUNTERS) return LIM_E_SHAPE;
  if (a.q_stride < a.heads * a.kv.head_dim || a.q_stride % 8) return LIM_E_SHAPE;
  if (a.splits < 0) return LIM_E_SHAPE;
  if (a.scores.data && a.scores.stride < a.batch.max_len) return LIM_E_SHAPE;
  if (a.selection.ids) {
    int sets = a.selection.kind == LIM_SHARED ? 1 : a.selection.kind == LIM_PER_KV_HEAD ? a.kv.kv_heads : a.heads;
    if (a.selection.sets != sets || a.selection.capacity < 1) return LIM_E_SHAPE;
  }
  return LIM_OK;
}

}  // namespace lim

extern "C" lim_i64 lim_attend_scratch(const lim_attend_args *args) {
  lim::Machine m;
  if (lim_i32 e = lim::attend_check(*args)) return e;
  if (lim_i32 e = lim::machine(&m)) return -1000 - e;
  return lim::attend_size(*args, m.sms).bytes;
}

extern "C" lim_i32 lim_attend(const lim_attend_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::attend_check(*args)) return e;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.seqs == 0) return LIM_OK;
  if (args->scratch_bytes < lim::attend_size(*args, m.sms).bytes) return LIM_E_SCRATCH;
  switch (args->kv.dtype) {
    case LIM_F32: return lim::attend_dim<float>(m, *args, stream);
    case LIM_F16: return lim::attend_dim<__half>(m, *args, stream);
    default: return lim::attend_dim<__nv_bfloat16>(m, *args, stream);
  }
}
