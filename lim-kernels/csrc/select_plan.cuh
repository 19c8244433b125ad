// What a selection needs: checks of its arguments, and the sizes and places of everything in its scratch.
#pragma once
#include "lim_kernels.h"

namespace lim_select_ {

constexpr lim_u64 kSharedLimit = 96 * 1024;  // what every supported architecture grants a block

struct Plan {
  lim_select_args a;
  lim_i32 max_items;   // tokens or pages a row may have
  lim_i32 list_cap;    // keys a head's list holds
  lim_i32 flag_words;  // words of `flags` per sequence
  lim_i32 bit_words;   // words of a bitmap over a row
  bool ranked;         // whether any head ranks its keys
  bool sorted_shared;  // whether `sorted` lies in shared memory
  bool bits_shared;    // whether `bits` does
  lim_u64 *limit;    // [seqs][heads] keys below do not go to the list
  lim_u32 *listed;   // [seqs][heads] keys that passed, which may exceed list_cap
  lim_u64 *list;     // [seqs][heads][list_cap]
  lim_u64 *sorted;   // [seqs][heads][list_cap], unless in shared memory
  lim_u32 *least;    // [seqs][max_items] union
  lim_u32 *flags;    // [seqs][flag_words] union
  lim_i32 *order;    // [seqs][heads][history] union
  lim_u32 *bits;     // [seqs][sets][bit_words], unless in shared memory
  lim_u64 bytes;     // of all of them
};

__host__ __device__ inline int pages_wanted(const lim_select_args &a) {
  const int pages = (a.sinks + a.history + a.window) / a.page_size;
  return pages < 1 ? 0 : pages - 1;
}

inline lim_i32 check(const lim_select_args &a) {
  if (a.rule < LIM_PICK_UNION || a.rule > LIM_PICK_NOTHING) return LIM_E_SHAPE;
  if (a.heads < 1 || a.heads > 128) return LIM_E_HEADS;
  if (a.sinks < 0 || a.history < 0 || a.window < 0) return LIM_E_SHAPE;
  const lim_i64 budget = (lim_i64)a.sinks + a.history + a.window;
  if (budget < 1 || budget > 1 << 16 || a.batch.seqs < 1 || a.batch.seqs > 65535) return LIM_E_SHAPE;
  if (a.batch.max_len < 1 || a.batch.max_len > 1 << 24) return LIM_E_SHAPE;
  const bool shared = a.rule == LIM_PICK_UNION || a.rule == LIM_PICK_NOTHING;
  if (a.out.kind != (shared ? LIM_SHARED : LIM_PER_QUERY_HEAD) || a.out.sets != (shared ? 1 : a.heads)) {
    return LIM_E_SHAPE;
  }
  if (a.out.capacity < budget) return LIM_E_SHAPE;
  lim_i64 items = a.rule == LIM_PICK_NOTHING ? 0 : a.batch.max_len;
  if (a.rule == LIM_PICK_PAGES) {
    const lim_i32 size = a.page_size;
    if (size < 1 || size > 256 || (size & (size - 1)) != 0 || a.out.capacity < size) return LIM_E_SHAPE;
    items = (items + size - 1) / size;
  }
  if (a.scores.stride % 4 != 0 || a.scores.stride < items) return LIM_E_SHAPE;
  return LIM_OK;
}

// Sizes and places of everything in scratch.
inline Plan plan(const lim_select_args &a) {
  Plan p{};
  p.a = a;
  const bool is_union = a.rule == LIM_PICK_UNION;
  p.ranked = a.rule != LIM_PICK_NOTHING && (!is_union || a.history > 0);
  p.max_items = a.batch.max_len;
  int want = a.history;
  if (a.rule == LIM_PICK_PAGES) {
    p.max_items = (a.batch.max_len + a.page_size - 1) / a.page_size;
    want = pages_wanted(a);
  }
  p.list_cap = 2 * want + 4096;
  p.bit_words = (p.max_items + 31) / 32;
  const lim_u64 sorted_bytes = 8ull * p.list_cap, bits_bytes = 4ull * p.bit_words;
  const lim_u64 room = kSharedLimit - (2 * 4 * kBuckets + 1024);
  p.sorted_shared = sorted_bytes <= room;
  p.bits_shared = bits_bytes + (p.sorted_shared && !is_union ? sorted_bytes : 0) <= room;
  unsigned char *at = (unsigned char *)a.scratch;
  const auto take = [&](lim_u64 count, lim_u64 size) {
    unsigned char *here = at + p.bytes;
    p.bytes += (count * size + 255) / 256 * 256;
    return (void *)here;
  };
  const lim_u64 rows = (lim_u64)a.batch.seqs * a.heads;
  if (p.ranked) {
    if (p.max_items > p.list_cap) {
      p.limit = (lim_u64 *)take(rows, 8);
      p.listed = (lim_u32 *)take(rows, 4);
      p.list = (lim_u64 *)take(rows * p.list_cap, 8);
    }
    if (!p.sorted_shared) p.sorted = (lim_u64 *)take(rows * p.list_cap, 8);
  }
  if (is_union && p.ranked) {
    p.flag_words = (lim_i32)(((lim_u64)a.history * a.heads + 31) / 32);
    p.least = (lim_u32 *)take((lim_u64)a.batch.seqs * p.max_items, 4);
    p.flags = (lim_u32 *)take((lim_u64)a.batch.seqs * p.flag_words, 4);
    p.order = (lim_i32 *)take(rows * a.history, 4);
  }
  if (!p.bits_shared) p.bits = (lim_u32 *)take((lim_u64)a.batch.seqs * a.out.sets * p.bit_words, 4);
  return p;
}

}  // namespace lim_select_
