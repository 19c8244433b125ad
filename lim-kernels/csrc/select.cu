// Selection: which tokens later attentions read.
//
// Per head, the M best of up to a million candidates and their ranks; for LessIsMore the union of the heads' lists,
// rank-major, cut at M. Up to four kernels, chained by programmatic dependent launch where the device has it:
//   estimate  [head, seq]        a lower bound for the M-th best key from a sample of the scores
//   filter    [tile, head, seq]  the one pass over all scores: keys above the bound go to the head's list
//   rank      [head, seq]        exact ranks of the listed keys; per-head rules write their ids here
//   emit      [seq]              LessIsMore: cuts the union and writes the ids
// The bound only saves work: where it let through too few keys, or more than the list holds, `rank` goes over the
// head's whole row instead. Rows no longer than a list skip the first two.
//
// The union: rank writes key(t) = min over h of rank * H + h by atomicMin into least[t], and toggles the bit of a key
// in `flags` when the key becomes or stops being its token's least; toggles commute, so at the end exactly the least
// keys are set. The M-th set bit is the cut, and `order[h][rank]` names each bit's token.
#include "device.cuh"
#include "select.cuh"
#include "select_plan.cuh"

using namespace lim_select_;

namespace {

constexpr int kTileThreads = 512;
constexpr int kSamples = 4096, kManySamples = 8192;
constexpr int kManySamplesFrom = 1 << 16;  // candidates from which on kManySamples are drawn
// One sequence's candidates: positions (or pages) lo .. lo + count, of which `want` are chosen.
struct Candidates {
  int lo, count, want;
  bool dense;
};

__device__ inline Candidates candidates(const Plan &p, int n) {
  const lim_select_args &a = p.a;
  Candidates c{a.sinks, n - a.window - a.sinks, a.history, n <= a.sinks + a.history + a.window};
  if (a.rule == LIM_PICK_PAGES) {
    c.lo = 0;
    c.count = (n + a.page_size - 1) / a.page_size - 1;
    c.want = pages_wanted(a);
  }
  return c;
}

// Position of sample i of `samples`: anywhere in the i-th of as many equal strata, by a fixed hash.
__device__ inline int sample_position(int i, int samples, int count) {
  const lim_u32 start = (lim_u32)((lim_u64)i * count / samples);
  const lim_u32 next = (lim_u32)((lim_u64)(i + 1) * count / samples);
  return start + (lim_u32)(((lim_u64)(i * 2654435761u) * (next - start)) >> 32);
}

__global__ void __launch_bounds__(kThreads) estimate_kernel(const __grid_constant__ Plan p) {
  __shared__ lim_u32 orders[kManySamples];
  __shared__ lim_u32 hist[kBuckets];
  __shared__ BlockShared sh;
  lim::await_dependencies();
  lim::allow_dependents();
  const int head = blockIdx.x, heads = gridDim.x, seq = blockIdx.y, tid = threadIdx.x;
  const Candidates c = candidates(p, p.a.batch.len[seq]);
  if (c.dense || c.want == 0) return;
  if (p.a.rule == LIM_PICK_UNION) {
    const int worker = head * kThreads + tid, workers = heads * kThreads;
    lim_u32 *least = p.least + (lim_i64)seq * p.max_items + c.lo;
    for (int i = worker; i < c.count; i += workers) least[i] = ~0u;
    lim_u32 *flags = p.flags + (lim_i64)seq * p.flag_words;
    for (int i = worker; i < p.flag_words; i += workers) flags[i] = 0;
  }
  if (c.count <= p.list_cap) return;
  const int samples = c.count < kManySamplesFrom ? kSamples : kManySamples;
  const float *row = p.a.scores.data + ((lim_i64)seq * heads + head) * p.a.scores.stride + c.lo;
#pragma unroll 4
  for (int i = tid; i < samples; i += kThreads) {
    orders[i] = score_order(row[sample_position(i, samples, c.count)]);
  }
  __syncthreads();
  const auto key_at = [&](int i) {
    return (lim_u64)orders[i] << 32 | (lim_u32)~(c.lo + sample_position(i, samples, c.count));
  };
  // Sampled keys above the M-th best: `mean` on average. Five standard deviations more, so that too few keys pass
  // about once in a million rows.
  const float mean = (float)c.want * samples / c.count;
  const lim_u32 want = min((lim_u32)samples, (lim_u32)(mean + 5.0f * sqrtf(mean) + 4.0f));
  // One round of narrowing usually does if half as many again may pass; a list has room for that unless rows are huge.
  const lim_u32 room = (lim_u32)(0.75f * p.list_cap * samples / c.count);
  const lim_u32 most = max(want + want / 8, min(want + want / 2, room));
  const lim_u64 limit = lower_bound_of(key_at, samples, want, most, hist, sh);
  if (tid == 0) {
    p.limit[seq * heads + head] = limit;
    p.listed[seq * heads + head] = 0;
  }
}

// A block takes kTileThreads * 4 * Quads positions.
template <int Quads>
__global__ void __launch_bounds__(kTileThreads) filter_kernel(const __grid_constant__ Plan p) {
  __shared__ lim_u32 warp_sums[kTileThreads / 32];
  __shared__ lim_u32 base;
  lim::allow_dependents();
  const int head = blockIdx.y, seq = blockIdx.z, heads = gridDim.y;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int first = blockIdx.x * (kTileThreads * 4 * Quads) + 4 * tid;
  const Candidates c = candidates(p, p.a.batch.len[seq]);
  const int end = c.lo + c.count;
  const bool idle = c.dense || c.want == 0 || c.count <= p.list_cap ||
                    (int)(blockIdx.x * (kTileThreads * 4 * Quads)) >= end;
  float4 scores[Quads];
  const float *row = p.a.scores.data + ((lim_i64)seq * heads + head) * p.a.scores.stride;
#pragma unroll
  for (int q = 0; q < Quads; ++q) {
    const int at = first + q * kTileThreads * 4;
    if (!idle && at < end) scores[q] = *reinterpret_cast<const float4 *>(row + at);
  }
  lim::await_dependencies();
  if (idle) return;
  const lim_u64 limit = p.limit[seq * heads + head];
  lim_u32 passed = 0;  // bit 4 * q + j
#pragma unroll
  for (int q = 0; q < Quads; ++q) {
    const float quad[4] = {scores[q].x, scores[q].y, scores[q].z, scores[q].w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = first + q * kTileThreads * 4 + j;
      const bool pass = at >= c.lo && at < end && make_key(quad[j], at) >= limit;
      passed |= (lim_u32)pass << (4 * q + j);
    }
  }
  // Place of the thread's keys in the list: one addition to the head's count per block.
  const lim_u32 mine = __popc(passed);
  lim_u32 sum = mine;
  for (int step = 1; step < 32; step *= 2) {
    const lim_u32 other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    const lim_u32 value = lane < kTileThreads / 32 ? warp_sums[lane] : 0;
    lim_u32 warps = value;
    for (int step = 1; step < 32; step *= 2) {
      const lim_u32 other = __shfl_up_sync(~0u, warps, step);
      if (lane >= step) warps += other;
    }
    if (lane < kTileThreads / 32) warp_sums[lane] = warps - value;
    if (lane == 31) base = warps == 0 ? 0 : atomicAdd(&p.listed[seq * heads + head], warps);
  }
  __syncthreads();
  lim_u32 place = base + warp_sums[warp] + sum - mine;
  lim_u64 *list = p.list + (lim_i64)(seq * heads + head) * p.list_cap;
#pragma unroll
  for (int q = 0; q < Quads; ++q) {
    const float quad[4] = {scores[q].x, scores[q].y, scores[q].z, scores[q].w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (!(passed >> (4 * q + j) & 1)) continue;
      if (place < (lim_u32)p.list_cap) list[place] = make_key(quad[j], first + q * kTileThreads * 4 + j);
      ++place;
    }
  }
}

// A head's keys: those in its list, or all of its row.
struct Keys {
  const lim_u64 *list;  // null: the row
  const float *row;
  int lo;
  __device__ lim_u64 operator()(int i) const { return list ? list[i] : make_key(row[i], lo + i); }
};

// Sinks and window around the history of a set, and its count.
__device__ void write_frame(const lim_select_args &a, int n, int set) {
  lim_i32 *ids = a.out.ids + (lim_i64)set * a.out.capacity;
  for (int i = threadIdx.x; i < a.sinks; i += kThreads) ids[i] = i;
  const int window_at = a.sinks + (a.rule == LIM_PICK_NOTHING ? 0 : a.history);
  for (int i = threadIdx.x; i < a.window; i += kThreads) ids[window_at + i] = n - a.window + i;
  if (threadIdx.x == 0) a.out.count[set] = window_at + a.window;
}

// The ids of the pages set in `bits`, then the last page's.
__device__ void write_pages(const Plan &p, const Candidates &c, const lim_u32 *bits, int n, int set,
                            BlockShared &sh) {
  const lim_select_args &a = p.a;
  lim_i32 *ids = a.out.ids + (lim_i64)set * a.out.capacity;
  emit_bits(bits, (c.count + 31) / 32, sh, [&](lim_u32 index, int page) {
    for (int slot = 0; slot < a.page_size; ++slot) ids[index * a.page_size + slot] = page * a.page_size + slot;
  });
  const int last = c.count * a.page_size, before = c.want * a.page_size;
  for (int i = threadIdx.x; i < n - last; i += kThreads) ids[before + i] = last + i;
  if (threadIdx.x == 0) a.out.count[set] = before + n - last;
}

__global__ void __launch_bounds__(kThreads) rank_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ lim_u32 start[kBuckets], end[kBuckets];
  __shared__ BlockShared sh;
  lim::allow_dependents();
  const int head = blockIdx.x, heads = gridDim.x, seq = blockIdx.y, set = seq * heads + head, tid = threadIdx.x;
  const lim_select_args &a = p.a;
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  const bool is_union = a.rule == LIM_PICK_UNION;
  lim_u64 *sorted = p.sorted_shared ? (lim_u64 *)shared : p.sorted + (lim_i64)set * p.list_cap;
  lim_u32 *bits = p.bits_shared ? (lim_u32 *)(shared + (p.sorted_shared ? 8 * (lim_i64)p.list_cap : 0))
                                : p.bits + (lim_i64)set * p.bit_words;
  if (!is_union && !c.dense) {
    for (int i = tid; i < (c.count + 31) / 32; i += kThreads) bits[i] = 0;
  }
  lim::await_dependencies();
  if (c.dense) {
    if (!is_union && tid == 0) a.out.count[set] = LIM_DENSE;
    return;
  }
  if (c.want > 0) {
    Keys keys{nullptr, a.scores.data + (lim_i64)set * a.scores.stride + c.lo, c.lo};
    int count = c.count;
    lim_u64 limit = 0;
    const lim_u32 listed = c.count > p.list_cap ? p.listed[set] : 0;
    if (listed >= (lim_u32)c.want && listed <= (lim_u32)p.list_cap) {
      keys.list = p.list + (lim_i64)set * p.list_cap;
      count = (int)listed;
    } else {
      // Little more than the wanted keys: their scores lie close, so that few share a bucket below.
      const lim_u32 most = c.want + c.want / 4 + 32;
      if ((lim_u32)count > most) limit = lower_bound_of(keys, count, c.want, most, start, sh);
    }
    __syncthreads();
    if (is_union) {
      lim_u32 *least = p.least + (lim_i64)seq * p.max_items;
      lim_u32 *flags = p.flags + (lim_i64)seq * p.flag_words;
      lim_i32 *order = p.order + (lim_i64)set * a.history;
      rank_keys(keys, count, limit, c.want, start, end, sorted, sh, [&](lim_u32 rank, lim_u64 key) {
        const int position = key_position(key);
        const lim_u32 mine = rank * heads + head;
        order[rank] = position;
        const lim_u32 held = atomicMin(&least[position], mine);
        if (mine > held) return;
        atomicXor(&flags[mine / 32], 1u << mine % 32);
        if (held != ~0u) atomicXor(&flags[held / 32], 1u << held % 32);
      });
      return;
    }
    rank_keys(keys, count, limit, c.want, start, end, sorted, sh, [&](lim_u32, lim_u64 key) {
      const int bit = key_position(key) - c.lo;
      atomicOr(&bits[bit / 32], 1u << bit % 32);
    });
  }
  __syncthreads();
  if (a.rule == LIM_PICK_PAGES) {
    write_pages(p, c, bits, n, set, sh);
  } else {
    lim_i32 *ids = a.out.ids + (lim_i64)set * a.out.capacity + a.sinks;
    if (c.want > 0) {
      emit_bits(bits, (c.count + 31) / 32, sh, [&](lim_u32 index, int bit) { ids[index] = c.lo + bit; });
    }
    write_frame(a, n, set);
  }
  if (head == 0 && tid == 0) atomicAdd(&a.counters[2], 1ull);
}

__global__ void __launch_bounds__(kThreads) emit_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ BlockShared sh;
  const int seq = blockIdx.x, tid = threadIdx.x, heads = p.a.heads;
  const lim_select_args &a = p.a;
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) {
    if (tid == 0) a.out.count[seq] = LIM_DENSE;
    lim::await_dependencies();
    return;
  }
  write_frame(a, n, seq);
  if (tid == 0) atomicAdd(&a.counters[2], 1ull);
  lim_u32 *bits = p.bits_shared ? (lim_u32 *)shared : p.bits + (lim_i64)seq * p.bit_words;
  for (int i = tid; i < (c.count + 31) / 32; i += kThreads) bits[i] = 0;
  lim::await_dependencies();
  lim::allow_dependents();
  if (c.want == 0 || a.rule == LIM_PICK_NOTHING) return;
  // The cut: the key of the M-th set flag.
  const lim_u32 *flags = p.flags + (lim_i64)seq * p.flag_words;
  const int each = (p.flag_words + kThreads - 1) / kThreads;
  const int first = min(p.flag_words, tid * each), last = min(p.flag_words, first + each);
  lim_u32 mine = 0, total;
  for (int w = first; w < last; ++w) mine += __popc(flags[w]);
  lim_u32 left = c.want - block_scan(mine, sh, &total);  // set flags up to the cut, from this thread's first word on
  if ((lim_i32)left > 0 && left <= mine) {
    int w = first;
    for (; left > __popc(flags[w]); ++w) left -= __popc(flags[w]);
    lim_u32 word = flags[w];
    while (--left > 0) word &= word - 1;
    sh.bucket = w * 32 + __ffs(word) - 1;
  }
  __syncthreads();
  const lim_u32 cut = sh.bucket;
  const lim_i32 *order = p.order + (lim_i64)seq * heads * a.history;
#pragma unroll 4
  for (lim_u32 key = tid; key <= cut; key += kThreads) {
    if (!(flags[key / 32] >> key % 32 & 1)) continue;
    const int bit = order[(lim_i64)(key % heads) * a.history + key / heads] - c.lo;
    atomicOr(&bits[bit / 32], 1u << bit % 32);
  }
  __syncthreads();
  lim_i32 *ids = a.out.ids + (lim_i64)seq * a.out.capacity + a.sinks;
  emit_bits(bits, (c.count + 31) / 32, sh, [&](lim_u32 index, int bit) { ids[index] = c.lo + bit; });
}

}  // namespace

extern "C" lim_u64 lim_select_scratch(const lim_select_args *args) {
  return check(*args) == LIM_OK ? plan(*args).bytes : 0;
}

extern "C" lim_i32 lim_select(const lim_select_args *args, void *stream) {
  const lim_select_args &a = *args;
  const lim_i32 refused = check(a);
  if (refused != LIM_OK) return refused;
  const Plan p = plan(a);
  if (a.scratch_bytes < p.bytes) return LIM_E_SCRATCH;
  lim::Machine m;
  lim_i32 status = lim::machine(&m);
  const dim3 rows(a.heads, a.batch.seqs);
  const bool is_union = a.rule == LIM_PICK_UNION, long_rows = p.max_items > p.list_cap;
  const bool estimates = p.ranked && (is_union || long_rows);
  // Only `estimate` waits before it lets its successor start, so that whatever wrote the scores is done by then. Where
  // the chain starts with another kernel, that one may not start early.
  const bool overlap = m.overlap;
  m.overlap = overlap && estimates;
  const auto then = [&](void (*kernel)(Plan), dim3 grid, int threads, lim_u64 shared) {
    if (status == LIM_OK) status = lim::launch(m, kernel, grid, threads, shared, stream, p);
    m.overlap = overlap;
  };
  if (estimates) then(estimate_kernel, rows, kThreads, 0);
  if (p.ranked && long_rows) {
    const int quads = p.max_items > 1 << 16 ? 8 : 4;
    const int tile = kTileThreads * 4 * quads;
    const dim3 grid((p.max_items + tile - 1) / tile, a.heads, a.batch.seqs);
    then(quads == 8 ? filter_kernel<8> : filter_kernel<4>, grid, kTileThreads, 0);
  }
  if (p.ranked) {
    const lim_u64 sorted = p.sorted_shared ? 8ull * p.list_cap : 0;
    const lim_u64 bits = p.bits_shared && !is_union ? 4ull * p.bit_words : 0;
    then(rank_kernel, rows, kThreads, sorted + bits);
  }
  if (is_union || !p.ranked) {
    then(emit_kernel, dim3(a.batch.seqs), kThreads, p.bits_shared ? 4ull * p.bit_words : 0);
  }
  return status;
}
