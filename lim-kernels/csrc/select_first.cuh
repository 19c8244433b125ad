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
  lim_u64 *begun;    // and begun, where few ranks are found first, and how many: begun << kFewBits | few
  lim_u32 *lacks;    // [2] ranks of the few that some head could not fill
  lim_u32 *heads;    // that have counted: all their ranks, in the low byte, zero between selections; the few, in the next two
  lim_u32 *needs;    // ranks that the last four selections needed of every head, the latest in the low byte: in steps of
                     // kNeedStep, rounded up, or the largest that a byte holds; 0: there was none
  lim_u32 *counts;   // [2][capacity] by rank
  lim_u64 *places;   // [tokens]
  int capacity;

  __device__ Firsts(const Plan &p, int seq) {
    done = p.a.firsts + (lim_i64)seq * p.a.firsts_stride;
    begun = done + 1;
    lacks = (lim_u32 *)(done + 2);
    heads = (lim_u32 *)(done + 3);
    needs = heads + 1;
    counts = (lim_u32 *)(done + 4);
    capacity = p.a.out.capacity;
    places = done + 4 + capacity;
  }
  // The lacks and counts of a selection, and where in *heads those lie that have counted its few.
  __device__ lim_u32 *lacks_of(lim_u64 turn) const { return lacks + (turn & 1); }
  __device__ static int ready_at(lim_u64 turn) { return turn & 1 ? 16 : 8; }
  __device__ lim_u32 *counts_of(lim_u64 turn) const { return counts + (turn & 1) * capacity; }
};

constexpr int kFewBits = 16, kNeedStep = 8;
constexpr lim_u32 kMostNeed = 255;

// The needs after a selection whose cut lies at `rank`, from those before.
__device__ inline lim_u32 needs_after(lim_u32 needs, int rank) {
  return needs << 8 | min((lim_u32)rank / kNeedStep + 1, kMostNeed);
}

// Ranks of every head to find first: somewhat more than any of the last four selections needed, since layers may take turns
// and one step differs little from the next; a guess where there was none. None at all where that is more than can be found.
__device__ inline int few_by(const Plan &p, lim_u32 needs) {
  if (needs == 0) return p.few;
  const int most = max(max(needs & 0xff, needs >> 8 & 0xff), max(needs >> 16 & 0xff, needs >> 24)) * kNeedStep;
  return most >= p.few_most + kNeedStep ? 0 : min(most + most / 4 + 2 * kNeedStep, p.few_most);
}

constexpr int kHeadBits = 7, kPlaceBits = 16 + kHeadBits;  // a place: rank, head
constexpr int kNoPlace = 1 << kPlaceBits;

// The word of a token whose earliest place this is; turn: of this selection, from 1.
__device__ inline lim_u64 place_word(lim_u64 turn, int rank, int head) {
  return turn << kPlaceBits | (lim_u32)(kNoPlace - 1 - (rank << kHeadBits | head));
}

// The place that a word holds; kNoPlace where it is of another selection.
__device__ inline int place_of(lim_u64 word, lim_u64 turn) {
  return word >> kPlaceBits == turn ? kNoPlace - 1 - (int)(word & (kNoPlace - 1)) : kNoPlace;
}

// Counts a token at `rank` of `head`, if that is earlier than the place in its word `before`; whether it is.
__device__ inline bool count_earlier(const Firsts &f, lim_u64 turn, int rank, int head, lim_u64 before) {
  if (before >= place_word(turn, rank, head)) return false;
  lim_u32 *counts = f.counts_of(turn);
  atomicAdd(counts + rank, 1u);
  const int place = place_of(before, turn);
  if (place != kNoPlace) atomicSub(counts + (place >> kHeadBits), 1u);
  return true;
}

// Puts down that `token` has this place, and counts it.
__device__ inline void count_place(const Firsts &f, lim_u64 turn, int rank, int head, int token) {
  count_earlier(f, turn, rank, head, atomicMax(f.places + token, place_word(turn, rank, head)));
}

}  // namespace lim_select_
