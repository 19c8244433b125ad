// Where cached tokens lie, and how a decode step's attention is cut into units of work.
//
// A unit is (sequence, lane, chunk): a lane is a KV head with the query heads that share it, or one query head where
// every query head has a set of its own; a chunk is a run of the lane's token list. The length of a chunk follows from
// the number of tokens of that sequence, the number of sequences and capacities. It does not depend on the other
// sequences' lengths or on where the tokens come from, so a sequence's result is the same, bit for bit, whatever else
// the step holds, and whether n <= K tokens are read as "all" or as a selection marked LIM_DENSE.
#pragma once
#include "device.cuh"

namespace lim {

constexpr int TILE = 16;  // tokens a warp takes at a time: the rows of one matrix product

__host__ __device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

inline int log2_of(int power) {
  int shift = 0;
  while ((1 << shift) < power) shift++;
  return shift;
}

// Division by a number that the host knows: x / d for 0 <= x < 2^31 as a product and a shift. A division proper is 35
// instructions one after the other, and a kernel's first read would wait for several.
struct Divisor {
  int d;
  unsigned multiplier;
  int shift;

  __host__ __device__ int divide(int x) const {
    return static_cast<int>(static_cast<lim_u64>(static_cast<unsigned>(x)) * multiplier >> shift);
  }
};
inline Divisor divisor(int d) {
  int log = log2_of(d);  // rounded up
  return {d, static_cast<unsigned>((1ull << (31 + log)) / d + 1), 31 + log};
}

// The lanes of a sequence, made on the host.
struct LaneCounts {
  Divisor kv, query;  // heads
  Divisor group;      // query heads that share a KV head
};
inline LaneCounts lane_counts(int heads, int kv_heads) {
  return {divisor(kv_heads), divisor(heads), divisor(heads / kv_heads)};
}

// How long chunks are; made on the host from capacities. A lane is cut into `target` chunks, or twice as many, four
// times, ... until they are about 1 << most_log tokens or shorter, and doubled `fill` times at least where that leaves
// long chunks: units of lanes alike then fill whole rounds of the blocks, and no chunk is left with the few tokens that
// are too many.
struct Cut {
  Divisor target;           // chunks a lane is cut into
  int fill;                 // doublings after which a tenth of the blocks' rounds is idle at most, or 3
  int least_log, most_log;  // log2 of the tokens of a chunk at least, and at most, give or take a sixth

  __host__ __device__ int each(int tokens) const { return target.divide(tokens + target.d - 1); }
  // Bits of this number: how often `target` is doubled for chunks of `each` tokens. An eighth is overlooked, so that
  // the first tokens beyond a round number do not double anything.
  __host__ __device__ int excess(int each) const { return each - each / 8 - 1 >> most_log; }
  __host__ __device__ bool fills(int each) const { return each >> fill >= 1 << most_log - 2; }
};
// Blocks that run at once take lanes * target units, or a power of two as many, in rounds.
inline Cut cut_for(int slots, int lanes, int target, int least, int most) {
  Cut cut = {divisor(target), 0, log2_of(least), log2_of(most)};
  auto idle = [&](int doubled) {  // share of the blocks' rounds
    long long units = static_cast<long long>(lanes) * target << doubled, rounds = (units + slots - 1) / slots;
    return 1 - static_cast<double>(units) / (rounds * slots);
  };
  while (cut.fill < 3 && lanes && idle(cut.fill) > 0.1) cut.fill++;
  return cut;
}

struct Pieces {
  int length;  // tokens of a full chunk
  int chunks;  // the last may be empty
};
__device__ inline Pieces pieces(const Cut &cut, int tokens) {
  int each = cut.each(tokens), doubled = 32 - __clz(max(cut.excess(each), 0));
  if (cut.fills(each)) doubled = max(doubled, cut.fill);
  int length = ((each + (1 << doubled) - 1 >> doubled) + TILE - 1) / TILE * TILE;
  int least = 1 << cut.least_log;
  if (length <= least) return {least, tokens + least - 1 >> cut.least_log};
  return {length, cut.target.d << doubled};
}
// The most chunks of a lane of up to so many tokens.
inline int most_chunks(const Cut &cut, int tokens) {
  int each = cut.each(tokens), doubled = 0;
  for (int x = cut.excess(each); x > 0; x >>= 1) doubled++;
  return cut.target.d << (cut.fills(each) && cut.fill > doubled ? cut.fill : doubled);
}

struct Unit {
  int seq;
  int n;       // cached tokens of the sequence
  int lane;    // KV head or query head
  int chunk;   // index of the chunk
  int chunks;  // of the lane
  int length;  // tokens of a full chunk
  int tokens;  // of the lane's list; where sets of a sequence may differ in size, of the largest possible
  bool dense;
  bool per_head;  // lanes are query heads, with sets of their own
};

// Finds units by their number, from the first on. Each warp keeps 32 sequences in its lanes' registers. Chunks come
// before lanes: neighbouring blocks read the same tokens' heads.
struct Schedule {
  const lim_batch &batch;
  const lim_selection &selection;
  const Cut &cut;
  const LaneCounts &heads;
  int above;                   // sequences with n <= above have no units
  int seq0 = -WARP;            // first of the 32 sequences in hand
  int before = 0, all = 0;     // units before them, and theirs
  int n, tokens, units, upto;  // of this thread's sequence; upto: units of the 32 up to and with it
  Pieces cuts;
  bool dense;

  __device__ Schedule(const lim_batch &batch, const lim_selection &selection, const Cut &cut, const LaneCounts &heads,
                      int above)
      : batch(batch), selection(selection), cut(cut), heads(heads), above(above) {}

  __device__ bool per_head(bool dense) const { return !dense && selection.kind == LIM_PER_QUERY_HEAD; }
  __device__ int lanes(bool dense) const { return per_head(dense) ? heads.query.d : heads.kv.d; }

  __device__ void take() {
    int s = seq0 + static_cast<int>(threadIdx.x) % WARP;
    bool there = s < batch.seqs;
    n = there ? batch.len[s] : 0;
    int count = there && selection.ids ? selection.count[s * selection.sets] : LIM_DENSE;
    dense = count < 0;
    // Sets of one sequence may differ in size, so their common cut is that of the largest possible.
    tokens = dense ? n : selection.kind == LIM_SHARED ? count : min(n, selection.capacity);
    if (n <= above) tokens = 0;
    cuts = pieces(cut, tokens);
    units = lanes(dense) * cuts.chunks;
    upto = units;
    for (int d = 1; d < min(batch.seqs - seq0, WARP); d *= 2) {
      int x = __shfl_up_sync(FULL, upto, d);
      if (threadIdx.x % WARP >= d) upto += x;
    }
    all = __shfl_sync(FULL, upto, min(batch.seqs - seq0, WARP) - 1);
  }

  // Behind a first `find`: all units, or with more sequences than 32, which are not counted yet, more than any number.
  __device__ int total() const { return batch.seqs <= WARP ? before + all : 0x7fffffff; }

  // What this thread holds of its sequence, to shared memory and back. Warps that share the place hold the same; they meet
  // at a barrier between `put` and `take_back`, and at another before the next `find`.
  static constexpr int HELD = 5;
  __device__ void put(int (*to)[WARP]) const {
    int lane = threadIdx.x % WARP;
    to[0][lane] = n, to[1][lane] = dense ? ~tokens : tokens, to[2][lane] = cuts.chunks, to[3][lane] = cuts.length;
    to[4][lane] = upto;
  }
  __device__ void take_back(const int (*from)[WARP]) {
    int lane = threadIdx.x % WARP;
    n = from[0][lane], tokens = from[1][lane], cuts = {from[3][lane], from[2][lane]}, upto = from[4][lane];
    dense = tokens < 0;
    if (dense) tokens = ~tokens;
    units = lanes(dense) * cuts.chunks;
  }

  // The unit numbered u; false when there are no more, and `before` is their number. Calls go up in u.
  __device__ bool find(int u, Unit &unit) {
    while (u - before >= all) {
      before += all, all = 0, seq0 += WARP;
      if (seq0 >= batch.seqs) return false;
      take();
    }
    int i = __popc(__ballot_sync(FULL, upto <= u - before) & (2u << min(batch.seqs - seq0, WARP) - 1) - 1);
    unit.seq = seq0 + i;
    unit.n = __shfl_sync(FULL, n, i);
    unit.chunks = __shfl_sync(FULL, cuts.chunks, i);
    unit.length = __shfl_sync(FULL, cuts.length, i);
    unit.tokens = __shfl_sync(FULL, tokens, i);
    unit.dense = __shfl_sync(FULL, dense, i);
    unit.per_head = per_head(unit.dense);
    int rest = u - before - __shfl_sync(FULL, upto - units, i);
    unit.chunk = unit.per_head ? heads.query.divide(rest) : heads.kv.divide(rest);
    unit.lane = rest - unit.chunk * lanes(unit.dense);
    return true;
  }
};

// Token lists and page tables of one sequence. A "row" counts token rows of kv_heads * head_dim elements from the start
// of the pages: keys lie at row(i), values page_size rows further.
struct Tokens {
  const lim_i32 *ids;    // positions, or null: position i is i
  const lim_i32 *table;  // pages of the sequence
  int count;             // positions
  int shift;             // log2 of the page size

  // Position of list entry i; past the end it repeats the last one, which is always safe to read.
  __device__ int position(int i) const {
    i = min(i, count - 1);
    return ids ? ids[i] : i;
  }
  // The same, read where the source says so.
  __device__ int position_now(int i) const {
    i = min(i, count - 1);
    if (ids) asm volatile("ld.global.s32 %0, [%1];" : "=r"(i) : "l"(ids + i) : "memory");
    return i;
  }
  __device__ int page(int position) const { return table[position >> shift]; }
  __device__ int row(int page, int position) const { return (page << (shift + 1)) + (position & ((1 << shift) - 1)); }
  __device__ int row(int position) const { return row(page(position), position); }
};

// Host-side checks shared by the launchers.
inline lim_i32 check(const lim_kv &kv, const lim_batch &batch, int heads) {
  if (kv.dtype != LIM_F32 && kv.dtype != LIM_F16 && kv.dtype != LIM_BF16) return LIM_E_DTYPE;
  int d = kv.head_dim;
  if (d != 32 && d != 64 && d != 80 && d != 96 && d != 128 && d != 256) return LIM_E_HEAD_DIM;
  if (kv.kv_heads < 1 || heads < kv.kv_heads || heads % kv.kv_heads || heads / kv.kv_heads > 16) return LIM_E_HEADS;
  if (kv.page_size < 1 || kv.page_size > 256 || (kv.page_size & (kv.page_size - 1))) return LIM_E_SHAPE;
  if (batch.rows < 0 || batch.seqs < 0 || batch.max_len < 0 || batch.table_stride < 0) return LIM_E_SHAPE;
  if (static_cast<long long>(batch.table_stride) * kv.page_size < batch.max_len) return LIM_E_SHAPE;
  return LIM_OK;
}

}  // namespace lim
