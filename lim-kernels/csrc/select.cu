// Selection: which tokens later attentions read.
//
// Per row of scores, the M best of up to a million candidates; for LessIsMore, where rows are heads, their ranks and the
// union of the heads' lists, rank-major, cut at M. Kernels, chained by programmatic dependent launch where the device has it:
//   top, total [slice, head, seq]  where lists end at a share of the softmax: of every head (mass.cuh)
//   rows   [slice, row, seq]   a row's M best, ranked; rules with a set a row write their ids here
//   share  [head, seq]         where lists end at a share of the softmax
//   union  [seq]               LessIsMore: cuts the union and writes the ids
#include "device.cuh"
#include "select_rows.cuh"
#include "select_share.cuh"
#include "select_union.cuh"

using namespace lim_select_;

// Blocks a row: more only while half the multiprocessors stay free. H200, us with 1, 2, 4 blocks: 32 rows of 32k 26.7, 25.1,
// 31.1; of 131k 43.6, 35.2, 41.8; 256 rows of 32k 43, 61, 96; 8 rows of 1M 216, 157, 131 (8 blocks: 118).
static int blocks_per_row(const Plan &p, const lim::Machine &m) {
  const lim_u64 rows = (lim_u64)p.a.rows * p.a.batch.seqs;
  int blocks = 1;
  while (m.overlap && blocks < 8 && blocks * kTile < p.max_items && rows * blocks * 4 <= (lim_u64)m.sms) blocks *= 2;
  return blocks;
}

extern "C" lim_u64 lim_select_scratch(const lim_select_args *args) {
  return check(*args) == LIM_OK ? plan(*args).bytes : 0;
}

extern "C" lim_i32 lim_select(const lim_select_args *args, void *stream) {
  const lim_select_args &a = *args;
  const lim_i32 refused = check(a);
  if (refused != LIM_OK) return refused;
  const Plan p = plan(a);
  if (a.scratch_bytes < p.bytes) return LIM_E_SCRATCH;
  lim::Machine m;
  lim_i32 status = lim::machine(&m);
  const bool shares = a.rule == LIM_PICK_MASS && p.ranked;
  if (status == LIM_OK && shares) status = lim_mass_::launch_masses(m, p.masses, a.batch.seqs, stream);
  if (status == LIM_OK && p.ranked) {
    const int blocks = blocks_per_row(p, m);
    const size_t shared = p.lists_shared ? 16ull * p.list_cap : sizeof(float) * kMostSamples;
    status = lim::launch_clusters(m, blocks, rows_kernel, dim3(blocks, a.rows, a.batch.seqs), kRowThreads, shared,
                                  stream, p);
  }
  if (status == LIM_OK && shares) {
    status = lim::launch(m, share_kernel, dim3(a.rows, a.batch.seqs), kShareThreads, 0, stream, p);
  }
  if (status == LIM_OK && (merges(a.rule) || !p.ranked)) {
    // Only `rows` and `share` wait before they let their successor start, so that whatever came before it is done by then.
    m.overlap = m.overlap && p.ranked;
    const size_t shared = kTables + (p.bits_shared ? 4ull * p.bit_words : 0);
    status = lim::launch(m, union_kernel, dim3(a.batch.seqs), kUnionThreads, shared, stream, p);
  }
  return status;
}
