// LessIsMore's tokens, from the ranks that the heads' best have and how many tokens have their first place at each.
//
// The M chosen candidates are those whose first place, rank * H + head, comes earliest. The counts say at which rank they
// become M: all places of better ranks count, and of that rank's own the first ones whose tokens are new. Where lists end at a
// share of the softmax, fewer than M tokens may be found.
#pragma once
#include "device.cuh"
#include "select_first.cuh"
#include "select_ids.cuh"

namespace lim_select_ {

constexpr int kUnionThreads = 1024;
constexpr int kPage = 4096, kAhead = kPage / kUnionThreads;  // places read at once, and a thread's
constexpr int kPages = 2;                                    // pages on the way at once, behind the first

struct UnionShared {
  lim_u32 sums[2][kUnionThreads / 32];
  lim_i32 last[128];  // candidates at the rank of the cut, by head; -1: none that is new
  lim_u32 heads[4];   // of a short row: whether a head has a new one there, a bit each
  alignas(16) lim_u32 words[kPage / 32];  // of a short row's chosen candidates, a bit each
  lim_i32 rank;       // of the cut
  lim_u32 before;     // tokens of better ranks
};

// Clears the bits of a union's tokens where they lie in shared memory.
__device__ inline void clear_bits(const Plan &p, unsigned char *shared) {
  if (!p.bits_shared) return;
  for (int i = threadIdx.x; i < p.bit_words; i += kUnionThreads) ((lim_u32 *)shared)[i] = 0;
}

// Where a sequence's union is cut, and the first page of the places it is made from: so many ranks, a power of two, of every
// head. Lanes hold consecutive ranks of one head: distinct tokens.
struct Cut {
  Firsts firsts;
  const lim_i32 *order, *reach;  // [heads][history], -1 where another head's place is known to be earlier; [heads] or null
  int heads, history, shift;
  lim_u64 done, begun;
  uint2 lacks, counts;   // of both turns; counts of rank threadIdx.x
  lim_i32 held[kAhead];  // positions; -1: none. Or, where candidates are few, the low half of their words
  lim_u32 high[kAhead];  // and the high one
  lim_u64 turn;
  lim_u32 count;
  int few;        // ranks that every head has
  lim_u32 found;  // tokens of the ranks looked at, up to the cut

  __device__ Cut(const Plan &p, int seq) : firsts(p, seq) {
    heads = p.a.rows, history = p.a.history;
    order = p.order + (lim_i64)seq * heads * history;
    reach = p.reach ? p.reach + (lim_i64)seq * heads : nullptr;
    shift = __clz(heads - 1) - 20;
  }
  static_assert(kPage == 1 << 12, "shift");
  __device__ int ranks() const { return 1 << shift; }
  __device__ int head(int j) const { return (j * kUnionThreads + (int)threadIdx.x) >> shift; }
  __device__ int rank(int j) const { return (j * kUnionThreads + (int)threadIdx.x) & (ranks() - 1); }
  // The page from rank `first` on, up to rank `end`.
  __device__ void load_page(int first, int end, lim_i32 (&held)[kAhead]) const {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const bool any = head(j) < heads && first + rank(j) < end;
      held[j] = any ? __ldcg(order + head(j) * history + first + rank(j)) : -1;
    }
    if (!reach) return;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (head(j) < heads && first + rank(j) >= __ldcg(reach + head(j))) held[j] = -1;
    }
  }
  // Waits until `few` has counted every head. That ends: all blocks of `few` run when this kernel starts. By the block that
  // counts the selections made, before it does.
  __device__ void await_few(const Plan &p, int seq) {
    if (threadIdx.x == 0 && !candidates(p, __ldcg(p.a.batch.len + seq)).dense) {
      const int at = Firsts::ready_at(__ldcg(firsts.done) + 1);
      lim_u32 seen;
      do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(firsts.heads) : "memory");
      } while ((seen >> at & 0xff) != heads);
    }
    __syncthreads();
  }
  // Starts to read everything at once; with `page`, the first page too.
  __device__ void load(const Plan &p, bool page) {
    done = __ldcg(firsts.done), begun = __ldcg(firsts.begun);
    lacks = __ldcg((const uint2 *)firsts.lacks);
    const int rank = min((int)threadIdx.x, history - 1);
    counts = {__ldcg(firsts.counts + rank), __ldcg(firsts.counts + firsts.capacity + rank)};
    if (page) load_page(0, history, held);
  }
  // Starts to read the candidates' words, for the block that makes the union, where there are so few that it goes by these.
  __device__ void look(const Candidates &c, bool makes) {
    if (!makes || c.count > kPage) return;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = j * kUnionThreads + threadIdx.x;
      const lim_u32 *word = (const lim_u32 *)(firsts.places + c.lo + i);
      held[j] = i < c.count ? __ldcg(word) : 0;
      high[j] = i < c.count ? __ldcg(word + 1) : 0;
    }
  }
  // Which of both turns it is.
  __device__ void choose(const Plan &p) {
    turn = p.few > 0 ? begun >> kFewBits : done + 1;
    count = turn & 1 ? counts.y : counts.x;
    few = p.few > 0 ? (int)(begun & ((1 << kFewBits) - 1)) - (int)(turn & 1 ? lacks.y : lacks.x) : 0;
    found = 0;
  }
  // Looks for the rank at which the tokens become `want`, among the first `ranks`: in sh, once the block is in step. If there
  // are fewer, that is behind the last rank that has any.
  __device__ void find(int ranks, lim_u32 want, UnionShared &sh) {
    lim_u32 held_here;
    int last = -1;
    found = 0;
    for (int first = 0, side = 0; first < ranks && found < want; first += kUnionThreads, side ^= 1) {
      const int rank = first + threadIdx.x;
      lim_u32 here = first == 0 ? count : rank < history ? __ldcg(firsts.counts_of(turn) + rank) : 0;
      if (rank >= ranks) here = 0;
      if (here != 0) last = rank;
      const lim_u32 above = found + block_scan<kUnionThreads>(here, sh.sums[side], &held_here, (rank & ~31) < ranks);
      if (above < want && above + here >= want) sh.rank = rank, sh.before = above;
      found += held_here;
    }
    if (found >= want) return;
    __syncthreads();
    if (threadIdx.x == 0) sh.rank = 0;
    __syncthreads();
    atomicMax(&sh.rank, last + 1);
  }
};

// Adds the first `want` new tokens of a rank, by head. By a full warp.
__device__ inline void add_new(const lim_i32 *tokens, int heads, lim_u32 want, lim_u32 *bits) {
  const int lane = threadIdx.x & 31;
#pragma unroll 1
  for (int first = 0; first < heads && want > 0; first += 32) {
    const lim_i32 token = first + lane < heads ? tokens[first + lane] : -1;
    const lim_u32 bit = 1u << (token & 31);
    const lim_u32 same = __match_any_sync(~0u, token);
    const bool fresh = token >= 0 && __ffs(same) - 1 == lane && (atomicOr(&bits[(lim_u32)token / 32], 0u) & bit) == 0;
    const lim_u32 all = __ballot_sync(~0u, fresh);
    if (fresh && __popc(all & ((1u << lane) - 1)) < want) atomicOr(&bits[(lim_u32)token / 32], bit);
    want -= min(want, (lim_u32)__popc(all));
    __syncwarp();
  }
}

// What goes beside the tokens, and everything but `done` fit for the next selection.
__device__ inline void tidy(const Plan &p, int n, int seq, const Cut &cut, lim_u32 want, const UnionShared &sh) {
  const lim_select_args &a = p.a;
  const lim_u32 needs = threadIdx.x == 0 ? __ldcg(cut.firsts.needs) : 0;
  write_frame<kUnionThreads>(a, n, seq, min(want, cut.found));
  lim_u32 *unused = cut.firsts.counts_of(cut.turn + 1);
  for (int rank = threadIdx.x; rank < a.out.capacity; rank += kUnionThreads) unused[rank] = 0;
  __syncthreads();  // for sh.rank
  if (threadIdx.x != 0) return;
  if (p.few > 0) *cut.firsts.needs = needs_after(needs, sh.rank);
  *cut.firsts.lacks_of(cut.turn + 1) = 0;
  atomicAnd(cut.firsts.heads, ~(0xffu << Firsts::ready_at(cut.turn + 1)));
  atomicAdd(&a.counters[2], 1ull);
}

// The way to a union where every rank that counts is there: finds the cut and tidies up behind it.
__device__ __forceinline__ void cut_all(const Plan &p, const Candidates &c, int n, int seq, Cut &cut, UnionShared &sh) {
  cut.load(p, true);
  cut.look(c, true);
  cut.choose(p);
  cut.find(p.a.history, c.want, sh);
  tidy(p, n, seq, cut, c.want, sh);
  if (threadIdx.x == 0) *cut.firsts.done = cut.turn;
}

// Whether the head is among the first `want` that have a new token at the rank of the cut.
__device__ inline bool within(const UnionShared &sh, int head, lim_u32 want) {
  lim_u32 before = 0;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const lim_u32 lower = 32 * w + 31 < head ? ~0u : 32 * w > head ? 0 : (1u << head % 32) - 1;
    before += __popc(sh.heads[w] & lower);
  }
  return before < want;
}

// Writes the chosen ones of at most kPage candidates, by every candidate's first place.
__device__ __forceinline__ void finish_short(const Plan &p, const Candidates &c, int seq, const Cut &cut, UnionShared &sh) {
  constexpr int kHead = (1 << kHeadBits) - 1;
  const int tid = threadIdx.x, lane = tid & 31;
  if (tid < 4) sh.heads[tid] = 0;
  __syncthreads();
  const int end = sh.rank;
  int places[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    places[j] = place_of((lim_u64)cut.high[j] << 32 | (lim_u32)cut.held[j], cut.turn);
    const int head = places[j] & kHead;
    if (places[j] >> kHeadBits == end) atomicOr(&sh.heads[head / 32], 1u << head % 32);
  }
  __syncthreads();
  lim_u32 chosen[kAhead];  // of a warp's candidates, a bit each
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    const int rank = places[j] >> kHeadBits;
    chosen[j] = __ballot_sync(~0u, rank < end || (rank == end && within(sh, places[j] & kHead, c.want - sh.before)));
    if (lane == 0) sh.words[(j * kUnionThreads + tid) / 32] = chosen[j];
  }
  __syncthreads();
  // Every warp counts what is chosen before each of the words, four a lane.
  const uint4 words = reinterpret_cast<const uint4 *>(sh.words)[lane];
  const lim_u32 mine = __popc(words.x) + __popc(words.y) + __popc(words.z) + __popc(words.w);
  const lim_u32 sum = warp_scan(mine);
  lim_i32 *ids = p.a.out.ids + (lim_i64)seq * p.a.out.capacity + p.a.sinks;
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    const int word = (j * kUnionThreads + tid) / 32;
    lim_u32 before = __shfl_sync(~0u, sum - mine, word / 4);
    for (int w = word / 4 * 4; w < word; ++w) before += __popc(sh.words[w]);
    before += __popc(chosen[j] & ((1u << lane) - 1));
    if (chosen[j] >> lane & 1) ids[before] = c.lo + j * kUnionThreads + tid;
  }
}

template <bool Shared>
__device__ __forceinline__ void finish_in(const Plan &p, const Candidates &c, int n, int seq, Cut &cut, lim_u32 *bits,
                                          UnionShared &sh) {
  const int tid = threadIdx.x;
  if (!Shared) {
    for (int i = tid; i < (c.count + 31) / 32; i += kUnionThreads) bits[i] = 0;
  }
  __syncthreads();
  const int end = sh.rank;
  const auto mark = [&](int first, const lim_i32 (&held)[kAhead]) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int rank = first + cut.rank(j);
      if (rank > end) continue;
      if (rank == end) {
        if (cut.head(j) < cut.heads) sh.last[cut.head(j)] = held[j] < 0 ? -1 : held[j] - c.lo;
      } else if (held[j] >= 0) {
        const lim_u32 token = held[j] - c.lo;
        atomicOr(&bits[token / 32], 1u << token % 32);
      }
    }
  };
  mark(0, cut.held);
  const int ranks = cut.ranks(), ends = min(end + 1, cut.history);
#pragma unroll 1
  for (int first = ranks; first < ends; first += kPages * ranks) {
    lim_i32 held[kPages][kAhead];
#pragma unroll
    for (int page = 0; page < kPages; ++page) cut.load_page(first + page * ranks, ends, held[page]);
#pragma unroll
    for (int page = 0; page < kPages; ++page) mark(first + page * ranks, held[page]);
  }
  __syncthreads();
  if (cut.found >= c.want && tid < 32) add_new(sh.last, cut.heads, c.want - sh.before, bits);
  __syncthreads();
  write_ids<kUnionThreads>(p, c, bits, n, seq, sh.sums[0]);
}

// Makes the union of a cut that was found. By all threads.
__device__ __forceinline__ void finish(const Plan &p, const Candidates &c, int n, int seq, Cut &cut, unsigned char *shared,
                                       UnionShared &sh) {
  if (c.count <= kPage) {
    finish_short(p, c, seq, cut, sh);
  } else if (p.bits_shared) {
    finish_in<true>(p, c, n, seq, cut, (lim_u32 *)shared, sh);
  } else {
    finish_in<false>(p, c, n, seq, cut, p.bits + (lim_i64)seq * p.bit_words, sh);
  }
}

// union [seq]: the union where lists end at a share of the softmax, and the ids of rules that rank nothing.
__global__ void __launch_bounds__(kUnionThreads) union_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ UnionShared sh;
  const int seq = blockIdx.x, tid = threadIdx.x;
  const lim_select_args &a = p.a;
  fetch(p);
  if (p.ranked) clear_bits(p, shared);
  lim::await_dependencies();
  lim::allow_dependents();
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) {
    if (tid == 0) a.out.count[seq] = LIM_DENSE;
    return;
  }
  if (!p.ranked) {
    write_frame<kUnionThreads>(a, n, seq, 0);
    if (tid == 0) atomicAdd(&a.counters[2], 1ull);
    return;
  }
  Cut cut(p, seq);
  cut_all(p, c, n, seq, cut, sh);
  finish(p, c, n, seq, cut, shared, sh);
}

}  // namespace lim_select_
