// Decode attention over pages: out[s][h] = sum_t softmax_t(scale * q_h . k_t) v_t, t over all cached tokens of sequence
// s or over its selected ones. One kernel serves both: only where a list entry's position comes from differs.
//
// Layouts: q [seqs][q_stride], out [seqs][heads][head_dim], pages and selection as in lim_kernels.h.
// Grid: a block a multiprocessor, of one or two teams of warps. A team starts with a unit of its own of paged.cuh
// (sequence x KV head x chunk of its tokens), then draws the next one that nobody has taken, so that all end at about
// the same time though some get more of the memory than others. Its warps take tiles of 16 tokens in turn, merge
// through shared memory, and write the result or, where a lane has several chunks, a partial state (sums, maximum,
// weight) to scratch. The team that finishes a lane last combines its chunks in a fixed order, so neither who took a
// unit nor the order of arrival shows in the result.
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
  int *finished;   // [seqs][heads]: teams that have written their chunk of the lane that starts with this head
  int *drawn;      // units drawn, which are those beyond every team's first
};

// Adds one to *count, after everything the team wrote before its last barrier, and tells what was there; what other
// teams wrote before their addition can be read from here on.
__device__ inline int add_in_order(int *count) {
  int held;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;" : "=r"(held) : "l"(count) : "memory");
  return held;
}

// 2^(m - top) for m <= top; 0 where m is -inf, as that of a state without tokens.
__device__ inline float weight_at(float m, float top) { return exp2_fast(m - (top == NEG_INF ? 0 : top)); }

// Softmax state of four neighbouring elements of a head: relative to 2^top, their sums and the weight behind them.
struct Part {
  float top = NEG_INF, l = 0;
  float4 sum = {};

  // Makes the state relative to `next`, which is not below top.
  __device__ void lift(float next) {
    float w = weight_at(top, next);
    top = next, l *= w, sum.x *= w, sum.y *= w, sum.z *= w, sum.w *= w;
  }
  __device__ void add(float w, float weight, float4 x) {
    l = __fmaf_rn(w, weight, l);
    sum.x = __fmaf_rn(w, x.x, sum.x), sum.y = __fmaf_rn(w, x.y, sum.y);
    sum.z = __fmaf_rn(w, x.z, sum.z), sum.w = __fmaf_rn(w, x.w, sum.w);
  }
};

// Chunks first, first + step, ... of one head, in order. sums: the elements in the first chunk's sums, `stride` from one
// chunk to the next. Sums and states of a batch are asked for together, without branches: what the last team waits for
// is one trip to the L2 cache.
__device__ inline Part merge_chunks(const float *sums, int stride, const float2 *states, int chunks, int first, int step) {
  constexpr int BATCH = 8;
  Part part;
  for (; first < chunks; first += BATCH * step) {
    float2 state[BATCH];
    float4 sum[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      int chunk = min(first + i * step, chunks - 1);
      state[i] = __ldcg(states + chunk);
      sum[i] = __ldcg(reinterpret_cast<const float4 *>(sums + static_cast<long long>(chunk) * stride));
    }
    float top = part.top;
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      if (first + i * step >= chunks) state[i].x = NEG_INF;
      top = fmaxf(top, state[i].x);
    }
    part.lift(top);
#pragma unroll
    for (int i = 0; i < BATCH; i++) part.add(weight_at(state[i].x, top), state[i].y, sum[i]);
  }
  return part;
}

__device__ inline void put_kept(float *to, float2 x) {
  asm volatile("st.global.L2::cache_hint.v2.f32 [%0], {%1, %2}, %3;" ::"l"(to), "f"(x.x), "f"(x.y), "l"(keep())
               : "memory");
}

template <class T> __device__ inline void put_pair(T *to, float x, float y) {
  *reinterpret_cast<uint32_t *>(to) = pack<T>(x, y);
}
template <> __device__ inline void put_pair(float *to, float x, float y) { *reinterpret_cast<float2 *>(to) = make_float2(x, y); }

// A block is TEAMS teams of WARPS warps; a team takes units of its own. Two small teams overlap one's merge and start with
// the other's loads; one large team has fewer chunks to merge and takes half as long for one. ALONE: for one sequence.
template <class T, int D, int NT, int WARPS, int TEAMS, int STAGES, bool ALONE> struct AttendShape {
  using Warp = WarpAttention<T, D, NT, STAGES>;
  static constexpr int OWN = NT * 8 * PITCH<D> * 4;  // bytes of a warp's state
  static constexpr int PER_WARP = Warp::QUEUE > OWN ? Warp::QUEUE : OWN;
  static constexpr int SHARED = TEAMS * WARPS * PER_WARP;
  static constexpr int THREADS = TEAMS * WARPS * WARP;
  // So few that a block of the product behind finds room beside one of attention's, and so many that no second one of
  // attention's does: blocks start as multiprocessors become free, and two on one would leave another without. Behind
  // several sequences, products of several rows follow, which do not start that early.
  static constexpr int REGISTERS = ALONE ? 136 : THREADS <= 256 ? 255 : 168;

  // Whether the schedule lies in shared memory during a unit. Elsewhere it stays in registers: with 64 dims so few would
  // be in use without it that a second block fits, with 96 more of the others would spill.
  static constexpr bool HOLDS = D >= 128;

  // Of a team.
  __device__ static void barrier(int team) {
    if (TEAMS == 1)
      __syncthreads();
    else if (team == 0)
      asm volatile("bar.sync 1, %0;" ::"n"(WARPS * WARP) : "memory");
    else
      asm volatile("bar.sync 2, %0;" ::"n"(WARPS * WARP) : "memory");
  }
};

// With static shared memory and what a block takes by itself.
static_assert(AttendShape<__nv_bfloat16, 128, 1, 8, 1, 1, true>::SHARED + 2048 <= LIM_ATTEND_ROOM, "room");

template <class T, int D, int NT, int WARPS, int TEAMS, int STAGES, bool ALONE>
__global__ void __maxnreg__((AttendShape<T, D, NT, WARPS, TEAMS, STAGES, ALONE>::REGISTERS))
    attend_kernel(const __grid_constant__ lim_attend_args a, const __grid_constant__ AttendPlan plan) {
  using Shape = AttendShape<T, D, NT, WARPS, TEAMS, STAGES, ALONE>;
  constexpr int TEAM = WARPS * WARP;  // threads
  // At 16 bytes past a multiple of 128 every 128-byte line that is copied here would be asked for twice.
  extern __shared__ __align__(128) char all_shared[];
  __shared__ bool lasts[TEAMS];
  __shared__ int nexts[TEAMS];
  __shared__ int held[Shape::HOLDS ? TEAMS : 1][Schedule::HELD][WARP];
  allow_dependents();
  Gate gate;
  if (!a.early) gate.open();
  int team = threadIdx.x / TEAM, thread = threadIdx.x % TEAM, warp = thread / WARP, group = plan.lanes.group.d;
  bool &last = lasts[team];
  int &next = nexts[team];
  char *shared = all_shared + team * WARPS * Shape::PER_WARP, *mine = shared + warp * Shape::PER_WARP;
  const float *states = reinterpret_cast<const float *>(shared);  // [warp][head][PITCH], warps PER_WARP bytes apart
  constexpr int WARP_PITCH = Shape::PER_WARP / 4;
  Schedule schedule(a.batch, a.selection, plan.cut, plan.lanes, 0);
  const int teams = gridDim.x * TEAMS;
  int index = blockIdx.x + team * gridDim.x, ticket = 0;
  bool draws = false;
  Unit u;
  for (; schedule.find(index, u); index = draws ? next : index + teams) {
    // Where every unit is some team's first, none waits for an answer.
    draws = !ALONE && schedule.total() > teams;
    // Registers are short until the end of the unit.
    if constexpr (Shape::HOLDS) schedule.put(held[team]);
    int set = u.seq * a.selection.sets + (a.selection.kind == LIM_SHARED ? 0 : u.lane);
    Source<T> from;
    from.tokens.ids = u.dense ? nullptr : a.selection.ids + static_cast<long long>(set) * a.selection.capacity;
    from.tokens.count = u.dense || a.selection.kind == LIM_SHARED ? u.tokens : a.selection.count[set];
    from.begin = u.chunk * u.length;
    from.end = min(from.begin + u.length, from.tokens.count);
    // Asked for before the other addresses are worked out.
    int positions[Shape::Warp::AHEAD];
#pragma unroll
    for (int i = 0; i < Shape::Warp::AHEAD; i++)
      positions[i] = from.tokens.position_now(from.begin + (warp + i * WARPS) * TILE + thread % TILE);
    from.tokens.table = a.batch.table + static_cast<long long>(u.seq) * a.batch.table_stride;
    from.tokens.shift = plan.shift;
    int kv_head = u.per_head ? plan.lanes.group.divide(u.lane) : u.lane;
    int head = u.per_head ? u.lane : u.lane * group, heads = u.per_head ? 1 : group;
    from.width = a.kv.kv_heads * D;
    from.keys = static_cast<const T *>(a.kv.pages) + kv_head * D;
    from.score_stride = a.scores.stride;
    from.scores = a.scores.data && u.dense
                      ? a.scores.data + (static_cast<long long>(u.seq) * a.heads + head) * a.scores.stride
                      : nullptr;

    const T *q = static_cast<const T *>(a.q) + static_cast<long long>(u.seq) * a.q_stride + head * D;
    {
      typename Shape::Warp attention(mine);
      attention.run(from, positions, q, heads, a.scale * 1.4426950408889634f, warp, WARPS, gate);
      // The answer comes while the warps merge. Any earlier, a team would keep a unit that another could start with.
      if (draws && thread == 0) ticket = atomicAdd(plan.drawn, 1);
      attention.store(reinterpret_cast<float *>(mine), heads);
    }
    if (a.counters && u.chunk == 0 && thread == 0) {
      unsigned long long *c = a.counters;
      atomicAdd(c + 0, static_cast<unsigned long long>(from.tokens.count) * heads);
      atomicAdd(c + 1, static_cast<unsigned long long>(u.n) * heads);
      atomicAdd(c + 3, static_cast<unsigned long long>(from.tokens.count) * (2 * D * sizeof(T)));
    }
    Shape::barrier(team);

    // Merge the warps, in order, a pair of elements a thread.
    T *out = static_cast<T *>(a.out) + (static_cast<long long>(u.seq) * a.heads + head) * D;
    long long slot = (static_cast<long long>(u.seq) * a.heads + head) * plan.chunks + u.chunk;
    for (int e = thread; e < heads * (D / 2); e += TEAM) {
      int h = e / (D / 2), pair = e % (D / 2), d = Shape::Warp::dim(pair);
      float2 state[WARPS], own[WARPS];
#pragma unroll
      for (int w = 0; w < WARPS; w++) {
        const float2 *from = reinterpret_cast<const float2 *>(states + w * WARP_PITCH + h * PITCH<D>);
        state[w] = from[D / 2], own[w] = from[pair];
      }
      float top = NEG_INF, l = 0, x = 0, y = 0;
#pragma unroll
      for (int w = 0; w < WARPS; w++) top = fmaxf(top, state[w].x);
#pragma unroll
      for (int w = 0; w < WARPS; w++) {
        float weight = weight_at(state[w].x, top);
        l = __fmaf_rn(weight, state[w].y, l), x = __fmaf_rn(weight, own[w].x, x), y = __fmaf_rn(weight, own[w].y, y);
      }
      if (u.chunks == 1) {
        float r = __frcp_rn(l == 0 ? 1 : l);
        put_pair(out + h * D + d, x * r, y * r);
      } else {
        long long part = slot + static_cast<long long>(h) * plan.chunks;
        put_kept(plan.sums + part * D + d, make_float2(x, y));
        if (pair == 0) __stcg(reinterpret_cast<float2 *>(plan.states) + part, make_float2(top, l));
      }
    }
    if (u.chunks > 1) {
      int *finished = plan.finished + u.seq * a.heads + head;
      Shape::barrier(team);
      if (thread == 0) last = add_in_order(finished) == u.chunks - 1;
      Shape::barrier(team);
      if (last) {
        // The two halves of a warp merge every other chunk each, a lane four elements.
        constexpr int ABREAST = WARP / 2;
        int lane = thread % WARP;
        slot -= u.chunk;
        for (int base = warp * ABREAST; base < heads * (D / 4); base += WARPS * ABREAST) {
          int e = base + lane % ABREAST, h = e / (D / 4), d = e % (D / 4) * 4;
          bool there = h < heads;
          long long part = slot + static_cast<long long>(h) * plan.chunks;
          Part x = merge_chunks(plan.sums + part * D + d, D, reinterpret_cast<const float2 *>(plan.states) + part,
                                there ? u.chunks : 0, lane / ABREAST, 2);
          Part y;
          y.top = __shfl_xor_sync(FULL, x.top, ABREAST), y.l = __shfl_xor_sync(FULL, x.l, ABREAST);
          y.sum.x = __shfl_xor_sync(FULL, x.sum.x, ABREAST), y.sum.y = __shfl_xor_sync(FULL, x.sum.y, ABREAST);
          y.sum.z = __shfl_xor_sync(FULL, x.sum.z, ABREAST), y.sum.w = __shfl_xor_sync(FULL, x.sum.w, ABREAST);
          float top = fmaxf(x.top, y.top);
          x.lift(top), y.lift(top);
          x.add(1, y.l, y.sum);
          if (there && lane < ABREAST) {
            T *to = out + h * D + d;
            float r = __frcp_rn(x.l == 0 ? 1 : x.l);
            put_pair(to, x.sum.x * r, x.sum.y * r), put_pair(to + 2, x.sum.z * r, x.sum.w * r);
          }
        }
        if (thread == 0) *finished = 0;
      }
    }
    if (draws && thread == 0) next = teams + ticket;
    if constexpr (Shape::HOLDS) schedule.take_back(held[team]);
    Shape::barrier(team);
  }
  // Every unit is followed by a draw, so this was the last one.
  if (draws && thread == 0 && index == teams + schedule.before - 1) *plan.drawn = 0;
  gate.open();
}

struct AttendSize {
  AttendPlan plan;
  int teams;  // of a block
  long long bytes;
};

constexpr int LEAST_CHUNK = 128;
// Counters stand at the start of the scratch whatever the shapes, so that launches of any shapes may share it: those of
// heads, and a line for that of draws.
constexpr int COUNTERS = 1 << 16, COUNTER_BYTES = COUNTERS * 4 + 128;

// Tokens of a chunk at most, about. Sequences may differ in length, and where lanes are few, long chunks of one then
// leave most teams idle; short ones cost what a team waits for at the end of each. Of two teams, one reads on.
inline int most_chunk(const lim_attend_args &a, int lanes, int slots, int teams) {
  if (teams == 2) return a.kv.head_dim > 64 ? 2048 : 4096;
  return a.splits || a.batch.seqs == 1 || lanes > slots ? 8192 : 4096;
}

inline AttendSize attend_size(const lim_attend_args &a, const Machine &m) {
  AttendSize size = {};
  int lanes = a.batch.seqs * a.kv.kv_heads;
  bool narrow = a.kv.dtype != LIM_F32 && a.heads <= 8 * a.kv.kv_heads;
  size.teams = !a.splits && narrow && lanes > m.sms ? 2 : 1;
  int slots = m.sms * size.teams;
  int target = a.splits ? a.splits : lanes >= slots ? 1 : slots / (lanes ? lanes : 1);
  size.plan.cut = cut_for(slots, lanes, target, LEAST_CHUNK, most_chunk(a, lanes, slots, size.teams));
  if (a.splits) size.plan.cut.fill = 0;  // nothing may follow from the number of sequences
  size.plan.lanes = lane_counts(a.heads, a.kv.kv_heads);
  size.plan.chunks = most_chunks(size.plan.cut, a.batch.max_len);
  size.plan.shift = log2_of(a.kv.page_size);
  long long parts = static_cast<long long>(a.batch.seqs) * a.heads * size.plan.chunks;
  char *at = static_cast<char *>(a.scratch);
  size.plan.finished = reinterpret_cast<int *>(at);
  size.plan.drawn = size.plan.finished + COUNTERS;
  at += COUNTER_BYTES;
  size.plan.sums = reinterpret_cast<float *>(at);
  at += parts * a.kv.head_dim * 4;
  size.plan.states = reinterpret_cast<float *>(at);
  size.bytes = COUNTER_BYTES + parts * (a.kv.head_dim + 2) * 4;
  return size;
}

template <class T, int D, int NT, int WARPS, int TEAMS, int STAGES, bool ALONE>
lim_i32 attend_launch(const Machine &m, const AttendSize &size, const lim_attend_args &a, void *stream) {
  using Shape = AttendShape<T, D, NT, WARPS, TEAMS, STAGES, ALONE>;
  // Where registers would let two blocks share a multiprocessor, shared memory does not: see REGISTERS.
  constexpr bool pairs = D == 32 || Shape::THREADS < 256;
  int shared = pairs && m.overlap ? max(Shape::SHARED, m.shared / 2 + 1024) : Shape::SHARED;
  auto kernel = attend_kernel<T, D, NT, WARPS, TEAMS, STAGES, ALONE>;
  return launch(m, kernel, dim3(m.sms), Shape::THREADS, shared, stream, a, size.plan);
}

// 64 KiB on the way keep memory busy and leave room beside them for the next kernel's blocks. Two teams, which can do
// without that room, have 96: one reads on while the other merges. With 128 a single round of units takes 1% longer
// (H200), as some multiprocessors get still more of the memory than others.
template <class T, int D, int NT>
lim_i32 attend_run(const Machine &m, const lim_attend_args &a, void *stream) {
  constexpr int WARPS = D == 256 ? 4 : 8, STAGES = D == 32 ? 4 : D < 128 ? 2 : 1;
  AttendSize size = attend_size(a, m);
  if constexpr (NT == 1 && sizeof(T) == 2) {
    constexpr int HALF = D > 64 ? WARPS * 3 / 4 : WARPS / 2;  // warps of one of two teams
    if (size.teams == 2) return attend_launch<T, D, NT, HALF, 2, STAGES, false>(m, size, a, stream);
    if constexpr (D <= 128)
      if (a.batch.seqs == 1) return attend_launch<T, D, NT, WARPS, 1, STAGES, true>(m, size, a, stream);
  }
  return attend_launch<T, D, NT, WARPS, 1, STAGES, false>(m, size, a, stream);
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
  return lim::attend_size(*args, m).bytes;
}

extern "C" lim_i32 lim_attend(const lim_attend_args *args, void *stream) {
  lim::Machine m;
  if (lim_i32 e = lim::attend_check(*args)) return e;
  if (lim_i32 e = lim::machine(&m)) return e;
  if (args->batch.seqs == 0) return LIM_OK;
  if (args->scratch_bytes < lim::attend_size(*args, m).bytes) return LIM_E_SCRATCH;
  switch (args->kv.dtype) {
    case LIM_F32: return lim::attend_dim<float>(m, *args, stream);
    case LIM_F16: return lim::attend_dim<__half>(m, *args, stream);
    default: return lim::attend_dim<__nv_bfloat16>(m, *args, stream);
  }
}
