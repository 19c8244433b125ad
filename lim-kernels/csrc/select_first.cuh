// How many tokens have their first place at each rank, counted as the heads' ranks are found.
//
// A place is a rank and a head, the rank first. Every token has a word that holds the earliest place seen so far, tagged by
// the number of the selection, so that words of earlier selections count as empty and nothing has to be cleared. Whoever
// brings an earlier place moves the token's count to its rank. Integer atomics on one word a token: the counts do not depend
// on the order.
#pragma once
#include "select.cuh"
#include "select_plan.cuh"

namespace lim_select_ {

// One sequence's part of lim_select_args::firsts. Of what comes in two, selections use one each in turn and clear the other,
// since blocks that start late still read when the last step of a selection ends.
struct Firsts {
  lim_u64 *done;     // selections made so far
  lim_u64 *begun;    // and begun, where few ranks are found first
  lim_u32 *lacks;    // [2] ranks of the few that some head could not fill
  lim_u32 *arrived;  // heads that have counted all their ranks; zero between selections
  lim_u32 *counts;   // [2][capacity] by rank
  lim_u64 *places;   // [tokens]
  int capacity;

  __device__ Firsts(const Plan &p, int seq) {
    done = p.a.firsts + (lim_i64)seq * p.a.firsts_stride;
    begun = done + 1;
    lacks = (lim_u32 *)(done + 2);
    arrived = (lim_u32 *)(done + 3);
    counts = (lim_u32 *)(done + 4);
    capacity = p.a.out.capacity;
    places = done + 4 + capacity;
  }
  // The lacks and counts of a selection.
  __device__ lim_u32 *lacks_of(lim_u64 turn) const { return lacks + (turn & 1); }
  __device__ lim_u32 *counts_of(lim_u64 turn) const { return counts + (turn & 1) * capacity; }
};

constexpr int kHeadBits = 7, kPlaceBits = 16 + kHeadBits;  // a place: rank, head

// Counts `token` at `rank` of `head`; turn: of this selection, from 1.
__device__ inline void count_place(const Firsts &f, lim_u64 turn, int rank, int head, int token) {
  constexpr lim_u64 kMost = (1ull << kPlaceBits) - 1;
  const lim_u64 mine = turn << kPlaceBits | (kMost - (lim_u32)(rank << kHeadBits | head));
  const lim_u64 before = atomicMax(f.places + token, mine);
  if (before >= mine) return;
  lim_u32 *counts = f.counts_of(turn);
  atomicAdd(counts + rank, 1u);
  if (before >> kPlaceBits == turn) atomicSub(counts + ((lim_u32)(kMost - (before & kMost)) >> kHeadBits), 1u);
}

}  // namespace lim_select_
