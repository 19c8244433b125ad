// What the prefill kernels share.
#pragma once
#include "paged.cuh"

namespace lim {

// A tile of query rows of one sequence. With `heads` query heads side by side, query row i is row i / heads, head
// i % heads.
struct RowTile {
  int seq;
  int first, pos;   // the sequence's first row in the step, and that row's position
  int begin, rows;  // the tile's first query row, counted from there, and their number
};

// The tile numbered `tile` when every sequence's query rows are cut into tiles of `size`, its last rows first. Called
// by whole warps.
__device__ inline bool find_tile(const lim_batch &batch, int tile, int size, int heads, RowTile &found) {
  int lane = threadIdx.x % WARP;
  for (int seq0 = 0; seq0 < batch.seqs; seq0 += WARP) {
    int s = min(seq0 + lane, batch.seqs - 1);
    int len = batch.len[s], first = batch.first[s], rows = batch.first[s + 1] - first;  // read at once
    if (len == 0 || seq0 + lane >= batch.seqs) rows = 0;
    int upto = ceil_div(rows * heads, size);  // tiles up to and with this lane's sequence
    for (int d = 1; d < WARP; d *= 2) {
      int x = __shfl_up_sync(FULL, upto, d);
      if (lane >= d) upto += x;
    }
    int i = __popc(__ballot_sync(FULL, upto <= tile));
    if (i < WARP) {
      rows = __shfl_sync(FULL, rows, i);
      int begin = (__shfl_sync(FULL, upto, i) - 1 - tile) * size;
      found = RowTile{seq0 + i, __shfl_sync(FULL, first, i), __shfl_sync(FULL, len, i) - rows, begin,
                      min(size, rows * heads - begin)};
      return true;
    }
    tile -= __shfl_sync(FULL, upto, WARP - 1);
  }
  return false;
}

// Whether prefill_wgmma.cu has a kernel for these arguments on this machine, and its launch.
bool prefill_wgmma_takes(const Machine &m, const lim_prefill_args &a);
lim_i32 prefill_wgmma(const Machine &m, const lim_prefill_args &a, void *stream);

}  // namespace lim
