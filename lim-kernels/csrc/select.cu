// Selection: which tokens later attentions read.
//
// Per row of scores, the M best of up to a million candidates; for LessIsMore, where rows are heads, their ranks and the
// union of the heads' lists, rank-major, cut at M. Kernels, chained by programmatic dependent launch where the device has it:
//   top, total [slice, head, seq]  where lists end at a share of the softmax: of every head (mass.cuh)
//   few    [slice, head, seq]  LessIsMore: the first ranks of every head
//   cut    [slice, part, seq]  LessIsMore: the union, from these or from M ranks of every head, and the ids; right behind `few`
//                              it starts to count when the last head has, not when `few` has ended
//   rows   [slice, row, seq]   a row's M best in order; for rules with a set a row, the ids
//   share  [head, seq]         where lists end at a share of the softmax: where
//   union  [seq]               the union of such lists, and the ids of rules that rank nothing
#include "device.cuh"
#include "select_cut.cuh"
#include "select_few.cuh"
#include "select_rows.cuh"
#include "select_share.cuh"
#include "select_union.cuh"

using namespace lim_select_;

// Blocks that share a row: more while a block has more than `tiles` tiles and `spare` times as many fit the multiprocessors.
// H200, us with 1, 2, 4 blocks of `rows`: 32 rows of 32k 26.7, 25.1, 31.1; of 131k 43.6, 35.2, 41.8; 256 rows of 32k 43, 61, 96;
// 8 rows of 1M 216, 157, 131 (8 blocks: 118).
static int blocks_per_row(const Plan &p, const lim::Machine &m, int tile, int tiles, int spare) {
  const lim_u64 rows = (lim_u64)p.a.rows * p.a.batch.seqs;
  int blocks = 1;
  while (m.overlap && blocks < kFewBlocks && rows * blocks * spare <= (lim_u64)m.sms &&
         blocks * tile * (blocks == 1 ? 1 : tiles) < p.max_items) {
    blocks *= 2;
  }
  return blocks;
}

extern "C" lim_u64 lim_select_scratch(const lim_select_args *args) {
  return check(*args) == LIM_OK ? plan(*args).bytes : 0;
}

// The plan for these arguments, and the machine.
static lim_i32 prepare(const lim_select_args &a, Plan *p, lim::Machine *m) {
  const lim_i32 refused = check(a);
  if (refused != LIM_OK) return refused;
  *p = plan(a);
  return a.scratch_bytes < p->bytes ? LIM_E_SCRATCH : lim::machine(m);
}

static lim_i32 launch_few(const lim::Machine &m, Plan p, void *stream) {
  const lim_select_args &a = p.a;
  // Very long rows: two blocks a multiprocessor.
  const bool very_long = p.max_items > 64 * kFewTile;
  const int blocks = a.beside && !very_long ? 1 : blocks_per_row(p, m, kFewTile, 3, very_long ? 1 : 2);
  while (1 << p.few_split < blocks) ++p.few_split;
  return lim::launch_clusters(m, blocks, few_kernel, dim3(blocks, a.rows, a.batch.seqs), kFewThreads, sizeof(FewShared), stream,
                              p);
}

extern "C" lim_i32 lim_select_begin(const lim_select_args *args, void *stream) {
  Plan p;
  lim::Machine m;
  if (args->rule != LIM_PICK_UNION) return LIM_E_SHAPE;
  const lim_i32 status = prepare(*args, &p, &m);
  return status == LIM_OK && p.few > 0 ? launch_few(m, p, stream) : status;
}

extern "C" lim_i32 lim_select(const lim_select_args *args, void *stream) {
  const lim_select_args &a = *args;
  Plan p;
  lim::Machine m;
  lim_i32 status = prepare(a, &p, &m);
  if (status != LIM_OK) return status;
  const bool shares = a.rule == LIM_PICK_MASS && p.ranked;
  const size_t bits = p.bits_shared ? 4ull * p.bit_words : 0;
  if (shares) status = lim_mass_::launch_masses(m, p.masses, a.batch.seqs, stream);
  if (status == LIM_OK && p.few > 0 && !a.begun) status = launch_few(m, p, stream);
  if (status == LIM_OK && p.ranked) {
    // Where ranks were found first, one block of `cut` mostly does all.
    const bool parts = a.rule == LIM_PICK_UNION && p.few > 0;
    const int blocks = parts ? 1 : blocks_per_row(p, m, kTile<kRowThreads>, 1, 4);
    const dim3 grid(blocks, parts && a.rows > kCutParts ? kCutParts : a.rows, a.batch.seqs);
    const size_t lists = p.lists_shared ? 16ull * p.list_cap : sizeof(float) * kMostSamples;
    if (a.rule == LIM_PICK_UNION) {
      status = lim::launch_clusters(m, blocks, cut_kernel, grid, kUnionThreads, lists > bits ? lists : bits, stream, p);
    } else {
      status = lim::launch_clusters(m, blocks, rows_kernel, grid, kRowThreads, lists, stream, p);
    }
  }
  if (status == LIM_OK && shares) {
    status = lim::launch(m, share_kernel, dim3(a.rows, a.batch.seqs), kShareThreads, 0, stream, p);
  }
  if (status == LIM_OK && (shares || !p.ranked)) {
    status = lim::launch(m, union_kernel, dim3(a.batch.seqs), kUnionThreads, bits, stream, p);
  }
  return status;
}
