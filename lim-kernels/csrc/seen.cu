// Counts the tokens of a row's prompt and output, for penalties: seen[row][token] = times generated, with
// LIM_SEEN_IN_PROMPT set where the prompt has it.
//
// Mapping: one block a row. Bytes: rows * vocab * 4, and the tokens.
#include "device.cuh"

namespace lim {

constexpr int kSeenThreads = 1024;

__global__ void __launch_bounds__(kSeenThreads) seen_kernel(const __grid_constant__ lim_seen_args a) {
  await_dependencies();
  allow_dependents();
  lim_u32 *seen = a.seen + static_cast<size_t>(blockIdx.x) * a.vocab;
  const int begin = a.first[blockIdx.x], end = a.first[blockIdx.x + 1], generated = begin + a.prompts[blockIdx.x];
  for (int i = threadIdx.x; i < a.vocab; i += kSeenThreads) seen[i] = 0;
  __syncthreads();
  for (int i = begin + threadIdx.x; i < end; i += kSeenThreads) {
    if (i < generated) {
      atomicOr(seen + a.tokens[i], LIM_SEEN_IN_PROMPT);
    } else {
      atomicAdd(seen + a.tokens[i], 1u);
    }
  }
}

}  // namespace lim

extern "C" lim_i32 lim_seen(const lim_seen_args *args, void *stream) {
  if (args->rows < 1 || args->vocab < 1) return LIM_E_SHAPE;
  lim::Machine m;
  if (const lim_i32 status = lim::machine(&m)) return status;
  return lim::launch(m, lim::seen_kernel, dim3(args->rows), lim::kSeenThreads, 0, stream, *args);
}
