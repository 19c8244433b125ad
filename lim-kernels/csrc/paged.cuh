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

// How long chunks are; made on the host from capacities. A lane is cut into `target` chunks or, where these would be too
// long, twice as many, three times, ...: so units of sequences alike fill whole rounds of the blocks, and no chunk is left
// with the few tokens that are too many.
struct Cut {
  int target;
  int least;     // tokens of a chunk at least, a multiple of TILE
  int most_log;  // log2 of the tokens of a chunk at most; an eighth more is let pass
};

__host__ __device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// `target` times this many chunks, each of `each` tokens before it.
__host__ __device__ inline int chunk_factor(Cut cut, int each) {
  int factor = (each - 1 + (7 << cut.most_log >> 3)) >> cut.most_log;
  return factor < 1 ? 1 : factor;
}

__host__ __device__ inline int chunk_tokens(Cut cut, int tokens) {
  int each = ceil_div(tokens, cut.target), factor = chunk_factor(cut, each);
  int c = ceil_div(factor == 1 ? each : ceil_div(each, factor), TILE) * TILE;
  return c < cut.least ? cut.least : c;
}

// Most chunks of a lane of up to `tokens` tokens.
inline int most_chunks(Cut cut, int tokens) {
  return cut.target * chunk_factor(cut, ceil_div(tokens, cut.target));
}

struct Unit {
  int seq;
  int n;       // cached tokens of the sequence
  int lane;    // KV head or query head
  int lanes;   // of the sequence
  int chunk;   // index of the chunk
  int chunks;  // of the lane
  int length;  // tokens of a full chunk
  bool dense;
};

// Walks through the units u = block, block + blocks, ... Each warp keeps 32 sequences in its lanes' registers; all
// warps of a block see the same units. Chunks come before lanes: neighbouring blocks read the same tokens' heads.
struct Schedule {
  const lim_batch &batch;
  const lim_selection &selection;
  Cut cut;
  int kv_heads, heads;
  int above;                           // sequences with n <= above have no units
  int seq0 = 0, before = 0;            // sequences and units before the 32 in hand
  int n, tokens, lanes, chunks, upto;  // of this thread's sequence; upto: units of the 32 up to and with it
  bool dense;

  __device__ Schedule(const lim_batch &batch, const lim_selection &selection, Cut cut, int kv_heads, int heads,
                      int above)
      : batch(batch), selection(selection), cut(cut), kv_heads(kv_heads), heads(heads), above(above) {
    take();
  }

  __device__ void take() {
    int s = seq0 + threadIdx.x % WARP;
    bool there = s < batch.seqs;
    n = there ? batch.len[s] : 0;
    int count = there && selection.ids ? selection.count[s * selection.sets] : LIM_DENSE;
    dense = count < 0;
    // Sets of one sequence may differ in size, so their common cut is that of the largest possible.
    tokens = dense ? n : selection.kind == LIM_SHARED ? count : min(n, selection.capacity);
    if (n <= above) tokens = 0;
    lanes = !dense && selection.kind == LIM_PER_QUERY_HEAD ? heads : kv_heads;
    chunks = tokens ? ceil_div(tokens, chunk_tokens(cut, tokens)) : 0;
    upto = lanes * chunks;
    for (int d = 1; d < WARP; d *= 2) {
      int x = __shfl_up_sync(FULL, upto, d);
      if (threadIdx.x % WARP >= d) upto += x;
    }
  }

  // The unit numbered u; false when there are no more. Calls go up in u.
  __device__ bool find(int u, Unit &unit) {
    int total;
    while (u - before >= (total = __shfl_sync(FULL, upto, WARP - 1))) {
      before += total;
      seq0 += WARP;
      if (seq0 >= batch.seqs) return false;
      take();
    }
    int i = __popc(__ballot_sync(FULL, upto <= u - before));
    unit.seq = seq0 + i;
    unit.n = __shfl_sync(FULL, n, i);
    unit.lanes = __shfl_sync(FULL, lanes, i);
    unit.chunks = __shfl_sync(FULL, chunks, i);
    unit.length = chunk_tokens(cut, __shfl_sync(FULL, tokens, i));
    unit.dense = __shfl_sync(FULL, dense, i);
    int rest = u - before - (__shfl_sync(FULL, upto, i) - unit.lanes * unit.chunks);
    unit.chunk = rest / unit.lanes;
    unit.lane = rest % unit.lanes;
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
  __device__ int row(int position) const {
    return (table[position >> shift] << (shift + 1)) + (position & ((1 << shift) - 1));
  }
};

inline int log2_of(int power) {
  int shift = 0;
  while ((1 << shift) < power) shift++;
  return shift;
}

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
