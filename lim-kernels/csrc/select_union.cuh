// union [seq]: LessIsMore's tokens from the heads' ordered lists, and the ids of rules that rank nothing.
//
// The lists' places are numbered rank-major: rank * H + head. The M chosen candidates are those whose first place comes
// earliest. One block marks tokens in a bitmap, a page of ranks at a time, and counts how many are new. Up to the last
// page only that count matters; of the page in which they become too many, a table finds the first place of every new
// token, and a scan over the bits of first places says which is the last that still counts. Where lists end at a share of
// the softmax, places behind their ends are empty, and fewer than M tokens may be found.
#pragma once
#include "device.cuh"
#include "select_ids.cuh"

namespace lim_select_ {

constexpr int kUnionThreads = 1024;
constexpr int kPlaces = kPage / kUnionThreads;  // of a page, per thread

struct UnionShared {
  lim_u32 sums[2][kUnionThreads / 32];
  __align__(16) lim_u32 firsts[kPage / 32];  // a bit per place of the last page: some token's first
};

// The want-th set bit of words[kPage / 32], counted from 1. By a full warp; there are as many.
__device__ inline int nth_bit(const lim_u32 *words, lim_u32 want) {
  static_assert(kPage == 32 * 128, "a lane holds four words");
  const int lane = threadIdx.x & 31;
  const uint4 quad = reinterpret_cast<const uint4 *>(words)[lane];
  const lim_u32 held[4] = {quad.x, quad.y, quad.z, quad.w};
  const lim_u32 count = __popc(quad.x) + __popc(quad.y) + __popc(quad.z) + __popc(quad.w);
  lim_u32 through = count;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const lim_u32 other = __shfl_up_sync(~0u, through, step);
    if (lane >= step) through += other;
  }
  lim_u32 left = want - (through - count), word = held[0];
  int base = lane * 128;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (left > __popc(held[i]) && base == lane * 128 + 32 * i) left -= __popc(held[i]), word = held[i + 1], base += 32;
  }
  const int owner = __ffs(__ballot_sync(~0u, through >= want)) - 1;
  left = __shfl_sync(~0u, left, owner);
  word = __shfl_sync(~0u, word, owner);
  base = __shfl_sync(~0u, base, owner);
  const bool here = (word >> lane & 1) != 0 && __popc(word & (~0u >> (31 - lane))) == left;
  return base + __ffs(__ballot_sync(~0u, here)) - 1;
}

__global__ void __launch_bounds__(kUnionThreads, 1) union_kernel(const __grid_constant__ Plan p) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ UnionShared sh;
  constexpr lim_u32 kFree = ~0u;
  lim_u32 *table = (lim_u32 *)shared;            // [kTable] the first place so far of some token
  lim_i32 *tokens = (lim_i32 *)shared + kTable;  // [kPage] by place
  const int seq = blockIdx.x, tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, heads = p.a.rows;
  const lim_select_args &a = p.a;
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) {
    if (tid == 0) a.out.count[seq] = LIM_DENSE;
    lim::await_dependencies();
    lim::allow_dependents();
    return;
  }
  const bool shares = a.rule == LIM_PICK_MASS;  // the number of tokens is found out below
  if (!shares || c.want == 0) write_frame<kUnionThreads>(a, n, seq, a.rule == LIM_PICK_NOTHING ? 0 : c.want);
  if (tid == 0) atomicAdd(&a.counters[2], 1ull);
  lim_u32 *bits = p.bits_shared ? (lim_u32 *)(tokens + kPage) : p.bits + (lim_i64)seq * p.bit_words;
  const bool chosen = c.want > 0 && a.rule != LIM_PICK_NOTHING;
  if (chosen) {
    for (int i = tid; i < (c.count + 31) / 32; i += kUnionThreads) bits[i] = 0;
    for (int i = tid; i < kTable; i += kUnionThreads) table[i] = kFree;
    if (tid < kPage / 32) sh.firsts[tid] = 0;
  }
  lim::await_dependencies();
  lim::allow_dependents();
  if (!chosen) return;
  // A page is `ranks` ranks of every head, a power of two. Lanes hold consecutive ranks of one head: distinct tokens.
  const int head_bits = 32 - __clz(heads - 1), shift = 12 - head_bits, ranks = 1 << shift;
  static_assert(kPage == 1 << 12, "shift");
  const lim_i32 *order = p.order + (lim_i64)seq * heads * a.history;
  lim_i32 reach[kPlaces];  // ranks of the place's head
#pragma unroll
  for (int j = 0; j < kPlaces; ++j) {
    const int head = (j * kUnionThreads + tid) >> shift;
    reach[j] = head >= heads ? 0 : shares ? __ldcg(p.reach + seq * heads + head) : a.history;
  }
  lim_i32 next[kPlaces];  // candidates, -1: none
  const auto load = [&](int page) {
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      const int slot = j * kUnionThreads + tid, head = slot >> shift, rank = page + (slot & (ranks - 1));
      next[j] = rank < reach[j] ? __ldcg(order + (lim_i64)head * a.history + rank) - c.lo : -1;
    }
  };
  load(0);
  __syncthreads();
  lim_i32 entries[kPlaces];
  lim_u32 marked = 0;  // bit j: this thread set the bit of entries[j]
  int found = 0, turn = 0;
  bool over = false;
  for (int page = 0; found < c.want && page < a.history; page += ranks, turn ^= 1) {
    marked = 0;
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) entries[j] = next[j];
    load(page + ranks);
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      const lim_u32 bit = 1u << (entries[j] & 31);
      if (entries[j] >= 0 && (atomicOr(&bits[entries[j] / 32], bit) & bit) == 0) marked |= 1u << j;
    }
    const lim_u32 of_warp = __reduce_add_sync(~0u, __popc(marked));
    if (lane == 0) sh.sums[turn][warp] = of_warp;
    __syncthreads();
    const int sum = __reduce_add_sync(~0u, sh.sums[turn][lane]);
    if (found + sum > c.want) {
      over = true;
      break;
    }
    found += sum;
  }
  if (over) {
    // Only the tokens of earlier pages keep their bits, which tells the new ones apart.
    lim_u32 places[kPlaces], slots[kPlaces];
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      const int slot = j * kUnionThreads + tid;
      places[j] = (slot & (ranks - 1)) << head_bits | slot >> shift;
      tokens[places[j]] = entries[j];
      if (marked >> j & 1) atomicAnd(&bits[entries[j] / 32], ~(1u << entries[j] % 32));
    }
    __syncthreads();
    lim_u32 fresh = 0;
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      if (entries[j] >= 0 && (bits[entries[j] / 32] >> entries[j] % 32 & 1) == 0) fresh |= 1u << j;
    }
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      if (!(fresh >> j & 1)) continue;
      // A slot changes hands only among places of one token, so that any of them says whose it is.
      lim_u32 slot = (lim_u32)entries[j] * 2654435761u / ((1ull << 32) / kTable);
      while (true) {
        const lim_u32 held = atomicCAS(&table[slot], kFree, places[j]);
        if (held == kFree) break;
        if (tokens[held] == entries[j]) {
          atomicMin(&table[slot], places[j]);
          break;
        }
        slot = (slot + 1) % kTable;
      }
      slots[j] = slot;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      if (!(fresh >> j & 1)) continue;
      if (table[slots[j]] == places[j]) {
        atomicOr(&sh.firsts[places[j] / 32], 1u << places[j] % 32);
      } else {
        fresh &= ~(1u << j);
      }
    }
    __syncthreads();
    const lim_u32 last = nth_bit(sh.firsts, c.want - found);
#pragma unroll
    for (int j = 0; j < kPlaces; ++j) {
      if ((fresh >> j & 1) && places[j] <= last) atomicOr(&bits[entries[j] / 32], 1u << entries[j] % 32);
    }
  }
  __syncthreads();
  write_ids<kUnionThreads>(p, c, bits, n, seq, sh.sums[0]);
  if (shares) write_frame<kUnionThreads>(a, n, seq, over ? c.want : found);
}

}  // namespace lim_select_
