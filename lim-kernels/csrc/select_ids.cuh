// What the kernels of the selection share: a sequence's candidates, and writing the ids of the chosen ones.
#pragma once
#include "select.cuh"
#include "select_plan.cuh"

namespace lim_select_ {

// Reads all of the arguments, which a kernel would else wait for at the first use of each part, one after the other; for the
// time before the kernel before has ended.
__device__ inline void fetch(const Plan &p) {
  constexpr int kWords = sizeof(Plan) / 4, kStep = 8;
  int all = 0;
#pragma unroll
  for (int i = 0; i < kWords; i += kStep) all ^= reinterpret_cast<const int *>(&p)[i];
  asm volatile("" ::"r"(all));
}

// One sequence's candidates: positions (or pages) lo .. lo + count, of which `want` are chosen.
struct Candidates {
  int lo, count, want;
  bool dense;
};

__device__ inline Candidates candidates(const Plan &p, int n) {
  const lim_select_args &a = p.a;
  Candidates c{a.sinks, n - a.window - a.sinks, a.history, n <= a.sinks + a.history + a.window};
  if (a.rule == LIM_PICK_PAGES) {
    const int recent = pages_recent(a);
    c.lo = 0;
    c.count = (n + a.page_size - 1) / a.page_size - recent;
    c.want = pages_wanted(a) + 1 - recent;
  }
  return c;
}

// Sinks and window around the `history` chosen tokens of a set, and its count.
template <int Threads> __device__ void write_frame(const lim_select_args &a, int n, int set, int history) {
  lim_i32 *ids = a.out.ids + (lim_i64)set * a.out.capacity;
  for (int i = threadIdx.x; i < a.sinks; i += Threads) ids[i] = i;
  const int window_at = a.sinks + history;
  for (int i = threadIdx.x; i < a.window; i += Threads) ids[window_at + i] = n - a.window + i;
  if (threadIdx.x == 0) a.out.count[set] = window_at + a.window;
}

// Ids of the chosen tokens or pages, whose bits are set.
template <int Threads>
__device__ void write_ids(const Plan &p, const Candidates &c, const lim_u32 *bits, int n, int set, lim_u32 *sums) {
  const lim_select_args &a = p.a;
  lim_i32 *ids = a.out.ids + (lim_i64)set * a.out.capacity;
  const int words = c.want > 0 ? (c.count + 31) / 32 : 0;
  if (a.rule != LIM_PICK_PAGES) {
    emit_bits<Threads>(bits, words, sums, [&](lim_u32 index, int bit) { ids[a.sinks + index] = c.lo + bit; });
    return;
  }
  emit_bits<Threads>(bits, words, sums, [&](lim_u32 index, int page) {
    for (int slot = 0; slot < a.page_size; ++slot) ids[index * a.page_size + slot] = page * a.page_size + slot;
  });
  const int last = c.count * a.page_size, before = c.want * a.page_size;
  for (int i = threadIdx.x; i < n - last; i += Threads) ids[before + i] = last + i;
  if (threadIdx.x == 0) a.out.count[set] = before + n - last;
}

}  // namespace lim_select_
