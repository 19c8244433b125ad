// share [head, seq]: where a head's list of ranked keys ends at a share of the softmax: the shortest beginning that with
// sinks and window holds ceil(share * total) of fixed weights, at most M. What it holds is counted.
#pragma once
#include "mass.cuh"
#include "select_first.cuh"
#include "select_ids.cuh"

namespace lim_select_ {

constexpr int kShareThreads = 512;

struct ShareShared {
  lim_mass_::Softmax softmax;
  lim_u64 sums[kShareThreads / 32];
};

// Sum of the lower threads' values; *total gets the sum of all. No thread may use `sums` any more when one calls this.
__device__ inline lim_u64 wide_scan(lim_u64 value, lim_u64 *sums, lim_u64 *total) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const lim_u64 sum = warp_scan(value);
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  const lim_u64 of_warp = lane < kShareThreads / 32 ? sums[lane] : 0;
  const lim_u64 before = lim_mass_::warp_sum(lane < warp ? of_warp : 0);
  *total = lim_mass_::warp_sum(of_warp);
  __syncthreads();
  return before + sum - value;
}

// ceil(total * share / 2^32)
__device__ inline lim_u64 share_of(lim_u64 total, lim_u64 share) {
  const lim_u64 low = total * share, high = __umul64hi(total, share);
  return (high << 32 | low >> 32) + ((low & 0xffffffffu) != 0);
}

__global__ void __launch_bounds__(kShareThreads) share_kernel(const __grid_constant__ Plan p) {
  __shared__ ShareShared sh;
  const lim_select_args &a = p.a;
  const int head = blockIdx.x, seq = blockIdx.y, row = seq * a.rows + head, tid = threadIdx.x;
  fetch(p);
  lim::await_dependencies();
  lim::allow_dependents();
  const int n = a.batch.len[seq];
  const Candidates c = candidates(p, n);
  if (c.dense) return;
  if (tid < 32) {
    const lim_mass_::Softmax s = lim_mass_::softmax_of(p.masses, row);
    if (tid == 0) sh.softmax = s;
  }
  __syncthreads();
  const lim_mass_::Softmax softmax = sh.softmax;
  const float *scores = a.scores.data + (lim_i64)row * a.scores.stride;
  lim_u64 kept = 0, held;
  for (int i = tid; i < a.sinks; i += kShareThreads) kept += softmax.fixed(scores[i]);
  for (int i = n - a.window + tid; i < n; i += kShareThreads) kept += softmax.fixed(scores[i]);
  wide_scan(kept, sh.sums, &held);
  const lim_u64 wanted = share_of(softmax.total, a.share);
  const Firsts f(p, seq);
  const lim_u64 turn = __ldcg(f.done) + 1;
  const lim_i32 *order = p.order + (lim_i64)row * a.history;
  int count = 0;
  for (int first = 0; first < a.history; first += kShareThreads) {
    const int rank = first + tid;
    const bool ranked = rank < a.history;
    const lim_i32 position = ranked ? __ldcg(order + rank) : 0;
    lim_u64 of_all;
    const lim_u64 before = held + wide_scan(ranked ? softmax.fixed(scores[position]) : 0, sh.sums, &of_all);
    const bool within = ranked && before < wanted;
    if (within) count_place(f, turn, rank, head, position);
    const int here = __syncthreads_count(within);
    count += here;
    held += of_all;
    if (here < kShareThreads) break;
  }
  if (tid == 0) p.reach[row] = count;
}

}  // namespace lim_select_
