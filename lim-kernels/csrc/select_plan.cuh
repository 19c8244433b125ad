// What a selection needs: checks of its arguments, and the sizes and places of everything in its scratch.
#pragma once
#include <math.h>

#include "mass.cuh"

namespace lim_select_ {

// Scores of a row that are sampled: a power of two between these, by the row's length.
constexpr int kFewSamples = 1024, kMostSamples = 8192;

// Dynamic shared memory of a block: what every supported architecture grants, 96 KiB, less the kernels' static part.
constexpr lim_u64 kRowsRoom = (96 - 19) * 1024;

// Ranks of a head that are found first, at most: at all, and before it is known how many a sequence needs.
constexpr int kMostFew = 2032, kMostFirstFew = 512;

struct Plan {
  lim_select_args a;
  lim_i32 max_items;   // tokens or pages a row may have
  lim_i32 list_cap;    // keys a head's list holds
  lim_i32 stratum;     // candidates from which one sample is drawn, at most, where kMostSamples suffice
  lim_i32 bit_words;   // words of a bitmap over a row
  bool ranked;         // whether any head ranks its keys
  bool lists_shared;   // whether `list` and `sorted` lie in shared memory
  bool bits_shared;    // whether `bits` does, for per-head rules in the place of `list`
  lim_u64 *list;       // [seqs][rows][list_cap], unless in shared memory
  lim_u64 *sorted;     // [seqs][rows][list_cap], unless in shared memory
  lim_i32 *order;      // [seqs][heads][history] union and mass: each head's best positions, best first
  lim_i32 *reach;      // [seqs][heads] mass: how many of them count; else null
  lim_i32 few;         // ranks of every head that are found first, before it is known how many are needed; 0: all at once
  lim_i32 few_most;    // and at most
  lim_i32 few_split;   // log2 of the blocks that share a row then
  lim_mass_::Masses masses;  // mass: of every head
  lim_u32 *bits;       // [seqs][sets][bit_words], unless in shared memory
  lim_u64 bytes;       // of all of them
};

// Sampled scores that shall reach the bound where `mean` of the wanted ones are expected in the sample: four standard
// deviations more, so that too few keys pass about once in 30,000 rows.
__host__ __device__ inline float samples_passing(float mean) { return mean + 4.0f * sqrtf(mean) + 4.0f; }

// Keys that pass such a bound, hardly ever more, where one in `stratum` candidates is sampled.
inline float keys_passing(int want, int stratum) {
  const float samples = samples_passing((float)want / stratum);
  return (samples + 5.0f * sqrtf(samples)) * stratum;
}

__host__ __device__ inline int pages_wanted(const lim_select_args &a) {
  const int pages = (a.sinks + a.history + a.window) / a.page_size;
  return pages < 1 ? 0 : pages - 1;
}

// Of those the last ones, always kept.
__host__ __device__ inline int pages_recent(const lim_select_args &a) {
  const int recent = a.window / a.page_size, wanted = pages_wanted(a) + 1;
  return recent < 1 ? 1 : recent < wanted ? recent : wanted;
}

// Whether the rule makes one set of its heads' ordered lists.
__host__ __device__ inline bool merges(lim_i32 rule) { return rule == LIM_PICK_UNION || rule == LIM_PICK_MASS; }

inline lim_i32 check(const lim_select_args &a) {
  if (a.rule < LIM_PICK_UNION || a.rule > LIM_PICK_MASS) return LIM_E_SHAPE;
  if (a.rows < 1 || a.rows > 128) return LIM_E_HEADS;
  if (a.sinks < 0 || a.history < 0 || a.window < 0) return LIM_E_SHAPE;
  const lim_i64 budget = (lim_i64)a.sinks + a.history + a.window;
  if (budget < 1 || budget > 1 << 16 || a.batch.seqs < 1 || a.batch.seqs > 65535) return LIM_E_SHAPE;
  if (a.batch.max_len < 1 || a.batch.max_len > 1 << 24) return LIM_E_SHAPE;
  const bool one = merges(a.rule) || a.rule == LIM_PICK_NOTHING;
  if (a.out.sets != (one ? 1 : a.rows) || (a.out.sets > 1 && a.out.kind == LIM_SHARED)) return LIM_E_SHAPE;
  if (a.rule == LIM_PICK_MASS && (!(a.scale_log2 > 0) || a.share < 1 || a.share > 1ull << 32)) return LIM_E_SHAPE;
  if (a.out.capacity < budget) return LIM_E_SHAPE;
  lim_i64 items = a.rule == LIM_PICK_NOTHING ? 0 : a.batch.max_len;
  if (a.rule == LIM_PICK_PAGES) {
    const lim_i32 size = a.page_size;
    if (size < 1 || size > 256 || (size & (size - 1)) != 0 || a.out.capacity < size) return LIM_E_SHAPE;
    items = (items + size - 1) / size;
  }
  if (merges(a.rule) && a.firsts_stride < 4ll + a.out.capacity + a.batch.max_len) return LIM_E_SHAPE;
  if (a.scores.stride % 4 != 0 || a.scores.stride < items) return LIM_E_SHAPE;
  return LIM_OK;
}

// Sizes and places of everything in scratch.
inline Plan plan(const lim_select_args &a) {
  Plan p{};
  p.a = a;
  const bool is_union = merges(a.rule);
  p.ranked = a.rule != LIM_PICK_NOTHING && (!is_union || a.history > 0);
  // Independent heads need history / heads ranks, heads whose scores correlate by 0.9 about eight times as many.
  const int fewest = (a.history + a.rows - 1) / a.rows, most = 8 * fewest < kMostFirstFew ? 8 * fewest : kMostFirstFew;
  p.few_most = a.history < kMostFew ? a.history : kMostFew;
  if (a.rule == LIM_PICK_UNION && p.ranked && (3 * fewest <= kMostFew || p.few_most == a.history)) {
    p.few = most > 3 * fewest ? most : 3 * fewest;
    if (p.few > p.few_most) p.few = p.few_most;
  }
  p.max_items = a.batch.max_len;
  int want = a.history;
  if (a.rule == LIM_PICK_PAGES) {
    p.max_items = (a.batch.max_len + a.page_size - 1) / a.page_size;
    want = pages_wanted(a);
  }
  // Lists hold what passes the bound from the row's largest sample, and what the way out sorts (rank_any).
  const int coarsest = (p.max_items + kMostSamples - 1) / kMostSamples;
  const int passing = (int)keys_passing(want, coarsest), sorting = want + want / 4 + 32;
  const int shared_cap = kRowsRoom / 16, needed = passing > sorting ? passing : sorting;
  p.list_cap = needed <= shared_cap ? shared_cap : (needed > 2 * want ? needed : 2 * want) + 1024;
  p.stratum = 1;
  while (p.stratum < p.max_items && keys_passing(want, 2 * p.stratum) <= p.list_cap) p.stratum *= 2;
  p.bit_words = (p.max_items + 31) / 32;
  const lim_u64 list_bytes = 8ull * p.list_cap, bits_bytes = 4ull * p.bit_words;
  p.lists_shared = 2 * list_bytes <= kRowsRoom;
  p.bits_shared = bits_bytes <= (is_union || !p.ranked ? kRowsRoom : p.lists_shared ? list_bytes : 0);
  unsigned char *at = (unsigned char *)a.scratch;
  const auto take = [&](lim_u64 count, lim_u64 size) {
    unsigned char *here = at + p.bytes;
    p.bytes += (count * size + 255) / 256 * 256;
    return (void *)here;
  };
  const lim_u64 rows = (lim_u64)a.batch.seqs * a.rows;
  if (p.ranked && !p.lists_shared) {
    p.list = (lim_u64 *)take(rows * p.list_cap, 8);
    p.sorted = (lim_u64 *)take(rows * p.list_cap, 8);
  }
  if (is_union && p.ranked) p.order = (lim_i32 *)take(rows * a.history, 4);
  if (a.rule == LIM_PICK_MASS && p.ranked) {
    const int slices = lim_mass_::slices_for(a.batch.max_len);
    const lim_i32 budget = a.sinks + a.history + a.window;
    p.reach = (lim_i32 *)take(rows, 4);
    p.masses = {a.scores, a.batch.len, nullptr, nullptr, a.scale_log2, a.rows, slices, budget};
    p.masses.top = (float *)take(rows * slices, 4);
    p.masses.total = (lim_u64 *)take(rows * slices, 8);
  }
  if (!p.bits_shared) p.bits = (lim_u32 *)take((lim_u64)a.batch.seqs * a.out.sets * p.bit_words, 4);
  return p;
}

}  // namespace lim_select_
