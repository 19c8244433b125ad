// prefill.cu's attention on Hopper's warpgroup products, after FlashAttention-3 (Shah et al. 2024): 16-bit elements,
// head_dim 64, 128 and 256.
//
// A block takes 128 query rows of one KV head, the heads that share it side by side, with three warpgroups. One copies
// tiles of keys and values token by token through the page table, in the order of their use, K0, K1, V0, K2, V1, ...,
// to a ring of slots in shared memory. The other two take 64 query rows each: Q K_{j+1} and P_j V_j go out together,
// so the softmax of tile j + 1 runs beside the second of them and beside the other warpgroup's.
// Grid (KV heads, tiles of query rows): blocks that run together read the same tokens, out of L2; longest tiles first.
// A row's sums have the same order wherever its tile begins.
#include "prefill.cuh"
#include "wgmma.cuh"

namespace lim {

template <class T, int D> struct Hopper {
  static constexpr int ROWS = 128, GROUPS = 2, GROUP_ROWS = ROWS / GROUPS;
  static constexpr int KEYS = D == 256 ? 64 : 128;  // tokens of a tile
  // Bytes of a tile of keys or of values, and of one warpgroup's queries.
  static constexpr int PANELS = D / 64, PANEL = KEYS * 128, ITEM = PANELS * PANEL;
  static constexpr int Q_PANEL = GROUP_ROWS * 128, Q_BYTES = PANELS * Q_PANEL;
  static constexpr int SLOTS = D == 256 ? 4 : 6;
  static constexpr int THREADS = (GROUPS + 1) * WARPGROUP;
  // Registers a thread: together what a launch of so many threads has, 3 * 168.
  static constexpr int COPY_REGISTERS = 56, PRODUCT_REGISTERS = 224;
  static constexpr int SLOTS_AT = GROUPS * Q_BYTES, BARRIERS_AT = SLOTS_AT + SLOTS * ITEM;
  static constexpr int SHARED = BARRIERS_AT + 2 * SLOTS * 8;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A walk through the ring of slots: an item fills a slot, `parity` is that of its round.
template <int SLOTS> struct Ring {
  int slot = 0, parity = 0;
  __device__ void next() {
    if (++slot == SLOTS) slot = 0, parity ^= 1;
  }
};

// Where things lie in shared memory: queries, items, barriers.
template <class Shape> struct Place {
  uint32_t base;
  __device__ uint32_t queries(int group) const { return base + group * Shape::Q_BYTES; }
  __device__ uint32_t item(int slot) const { return base + Shape::SLOTS_AT + slot * Shape::ITEM; }
  __device__ uint32_t full(int slot) const { return base + Shape::BARRIERS_AT + slot * 8; }
  __device__ uint32_t empty(int slot) const { return full(slot) + Shape::SLOTS * 8; }
};

// Copies keys and values up to position `limit` to the ring. The first two items, which others wait for, are copied by
// all four warps, then each warp takes every fourth: it waits for its own copies and publishes them while the other
// three are at the next items. (A fence waits for all copies of its warp, so a warp with later ones under way would
// wait for these too.)
template <class T, int D>
__device__ inline void copy_tiles(const lim_prefill_args &a, int seq, int kv_head, int limit, int shift,
                                  Place<Hopper<T, D>> place) {
  using Shape = Hopper<T, D>;
  constexpr int KEYS = Shape::KEYS, CHUNKS = D / 8, PASS = WARP / CHUNKS;  // rows that a warp copies at once
  constexpr int WARPS = WARPGROUP / WARP, BLOCK = KEYS / WARPS;            // rows of a warp's part
  int warp = __shfl_sync(FULL, threadIdx.x % WARPGROUP / WARP, 0);  // uniform to the compiler
  int lane = threadIdx.x % WARP, chunk = lane % CHUNKS, first = lane / CHUNKS;
  int tiles = ceil_div(limit, KEYS), items = 2 * tiles;
  uint32_t width = a.kv.kv_heads * D * sizeof(T);  // bytes of a token's row
  const char *keys = static_cast<const char *>(a.kv.pages) + (kv_head * D + chunk * 8) * sizeof(T);
  const char *values = keys + static_cast<uint64_t>(a.kv.page_size) * width;
  Tokens tokens = {nullptr, a.batch.table + static_cast<long long>(seq) * a.batch.table_stride, limit, shift};
  // Items in order: K0, K1, V0, K2, V1, ..., and at last V.
  auto of_values = [&](int n) { return n == items - 1 || (n > 0 && n % 2 == 0); };
  auto tile_of = [&](int n) { return n == items - 1 ? tiles - 1 : n % 2 ? (n + 1) / 2 : max(n / 2 - 1, 0); };
  // Each lane looks one row of a block up.
  auto look_up = [&](int n, int block) {
    return tokens.row(tokens.position(tile_of(n) * KEYS + block * BLOCK + lane % BLOCK));
  };
  auto copy_block = [&](int n, int slot, int block, int rows) {
    const char *from = of_values(n) ? values : keys;
    asm("" : "+l"(from));  // one number, whose parts the compiler would add for every copy
    uint32_t to = place.item(slot) + chunk / 8 * Shape::PANEL + (block * BLOCK + first) * 128;
#pragma unroll
    for (int i = 0; i < BLOCK; i += PASS) {
      uint32_t row = __shfl_sync(FULL, rows, i + first);
      copy_async(to + i * 128 + ((chunk ^ (first + i)) % 8) * 16, from + static_cast<uint64_t>(row) * width);
    }
  };
  auto publish = [&](int slot, int arrivals) {
    publish_shared();
    __syncwarp();
    if (lane == 0) barrier_arrive(place.full(slot), arrivals);
  };

  copy_block(0, 0, warp, look_up(0, warp));
  commit_copies();
  copy_block(1, 1, warp, look_up(1, warp));
  commit_copies();
  Ring<Shape::SLOTS> ring;
  int n = warp < 2 ? warp + WARPS : warp;
  for (int i = 0; i < n; i++) ring.next();
  int next[WARPS];  // rows of the next item's blocks, looked up an item ahead
#pragma unroll
  for (int x = 0; x < WARPS; x++) next[x] = look_up(min(n, items - 1), x);
  await_copies<1>();
  publish(0, 1);
  await_copies<0>();
  publish(1, 1);
  // Faster as measured (H200): 551 against 488 TFLOP/s at 128, but 355 against 379 at 64.
  constexpr int UNROLLED = D == 64 ? 1 : WARPS;
  for (; n < items; n += WARPS) {
    int held[WARPS];
#pragma unroll
    for (int x = 0; x < WARPS; x++) {
      held[x] = next[x];
      next[x] = look_up(min(n + WARPS, items - 1), x);
    }
    barrier_await(place.empty(ring.slot), ring.parity ^ 1);
#pragma unroll UNROLLED
    for (int block = 0; block < WARPS; block++) {
      int rows = held[0];
#pragma unroll
      for (int x = 1; x < WARPS; x++) rows = block == x ? held[x] : rows;
      copy_block(n, ring.slot, block, rows);
    }
    commit_copies();
    await_copies<0>();
    publish(ring.slot, WARPS);
#pragma unroll
    for (int i = 0; i < WARPS; i++) ring.next();
  }
}

// Attention of one warpgroup's query rows over `tiles` tiles of tokens.
template <class T, int D>
__device__ inline void attend_rows(const lim_prefill_args &a, const RowTile &tile, int kv_head, int group, int tiles,
                                   Place<Hopper<T, D>> place) {
  using Shape = Hopper<T, D>;
  constexpr int KEYS = Shape::KEYS, CHUNKS = D / 8, OUT = D < 128 ? D : 128, PARTS = D / OUT;
  int thread = threadIdx.x % WARPGROUP, warp = thread / WARP, lane = thread % WARP, g = lane / 4, c = lane % 4;
  int heads = a.heads / a.kv.kv_heads, rows = tile.rows - group * Shape::GROUP_ROWS;  // this warpgroup's; may exceed 64
  int begin = tile.begin + group * Shape::GROUP_ROWS;  // the first of them
  uint32_t queries = place.queries(group);

#pragma unroll
  for (int x = 0; x < Shape::GROUP_ROWS * CHUNKS / WARPGROUP; x++) {
    int i = thread + x * WARPGROUP, row = i / CHUNKS, chunk = i % CHUNKS, of = begin + min(row, rows - 1);
    const T *q = static_cast<const T *>(a.q) + static_cast<long long>(tile.first + of / heads) * a.q_stride;
    copy_async(queries + chunk / 8 * Shape::Q_PANEL + row * 128 + ((chunk ^ row) % 8) * 16,
               q + (kv_head * heads + of % heads) * D + chunk * 8);
  }
  commit_copies();
  await_copies<0>();
  publish_shared();
  warps_sync(1 + group, WARPGROUP);

  float s[KEYS / 2], o[PARTS][OUT / 2] = {}, m[2] = {NEG_INF, NEG_INF}, l[2] = {0, 0}, shrink[2];
  uint32_t p[KEYS / 4];
  float scale = a.scale * 1.4426950408889634f;
  int pos0 = tile.pos + begin / heads;  // of the first row, then of rows g and g + 8
  int pos[2] = {tile.pos + (begin + warp * 16 + g) / heads, tile.pos + (begin + warp * 16 + g + 8) / heads};

  auto multiply_keys = [&](int slot) {
    uint64_t x = matrix_at(queries), y = matrix_at(place.item(slot));
    products_begin();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
      wgmma<T, KEYS>(s, advance(x, k / 4 * Shape::Q_PANEL + k % 4 * 32), advance(y, k / 4 * Shape::PANEL + k % 4 * 32),
                     k > 0);
    products_commit();
  };
  auto multiply_values = [&](int slot) {
    uint64_t y = matrix_at(place.item(slot), Shape::PANEL);
    products_begin();
#pragma unroll
    for (int t = 0; t < KEYS / 16; t++)
#pragma unroll
      for (int part = 0; part < PARTS; part++)
        wgmma<T, OUT>(o[part], p[t * 4], p[t * 4 + 1], p[t * 4 + 2], p[t * 4 + 3],
                      advance(y, t * 2048 + part * 2 * Shape::PANEL));
    products_commit();
  };
  auto release = [&](int slot) {
    if (lane == 0) barrier_arrive(place.empty(slot), 1);
  };
  // Scores of tile j become weights; `shrink` is what older weights are worth now.
  auto softmax = [&](int j) {
    if ((j + 1) * KEYS > pos0 + 1) {
#pragma unroll
      for (int i = 0; i < KEYS / 2; i++)
        if (j * KEYS + i / 4 * 8 + 2 * c + i % 2 > pos[i / 2 % 2]) s[i] = NEG_INF;
    }
    float top[2] = {m[0], m[1]};
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(FULL, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(FULL, top[i], 2));
      shrink[i] = exp2_fast((m[i] - top[i]) * scale);
      m[i] = top[i];
      top[i] *= scale;
      l[i] *= shrink[i];
    }
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
      s[i] = exp2_fast(s[i] * scale - top[i / 2 % 2]);
      l[i / 2 % 2] += s[i];
    }
  };
  auto weights = [&] {
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) p[i] = pack<T>(s[2 * i], s[2 * i + 1]);
  };

  Ring<Shape::SLOTS> ring;
  auto await_item = [&] { barrier_await(place.full(ring.slot), ring.parity); };
  await_item();
  multiply_keys(ring.slot);
  products_await<0>();
  settle(s);
  release(ring.slot);
  ring.next();
  softmax(0);
  weights();
  await_item();
  for (int j = 1; j < tiles; j++) {
    int of_keys = ring.slot;
    multiply_keys(of_keys);
    ring.next();
    int of_values = ring.slot;
    await_item();
    multiply_values(of_values);
    ring.next();
    products_await<1>();
    settle(s);
    release(of_keys);
    softmax(j);
    settle(s);
    // Here rather than where the item is used: without a branch in between, ptxas moves the softmax below the await of
    // the products, which then would not overlap.
    await_item();
    products_await<0>();
#pragma unroll
    for (int part = 0; part < PARTS; part++) settle(o[part]);
    release(of_values);
    weights();
#pragma unroll
    for (int part = 0; part < PARTS; part++)
#pragma unroll
      for (int i = 0; i < OUT / 2; i++) o[part][i] *= shrink[i / 2 % 2];
  }
  multiply_values(ring.slot);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    l[i] += __shfl_xor_sync(FULL, l[i], 1);
    l[i] += __shfl_xor_sync(FULL, l[i], 2);
    l[i] = 1 / l[i];
  }
  products_await<0>();
#pragma unroll
  for (int part = 0; part < PARTS; part++) settle(o[part]);

  // Through the place of the queries, whose last product is done in all warps, to write 16 bytes at a time.
  warps_sync(1 + group, WARPGROUP);
#pragma unroll
  for (int i = 0; i < D / 4; i++) {  // register pairs: row i % 2, 16-byte chunk i / 2
    int row = warp * 16 + g + i % 2 * 8, chunk = i / 2;
    int part = chunk / (OUT / 8), at = chunk % (OUT / 8) * 4 + i % 2 * 2;
    uint32_t to = queries + chunk / 8 * Shape::Q_PANEL + row * 128 + ((chunk ^ row) % 8) * 16 + c * 4;
    store_shared(to, pack<T>(o[part][at] * l[i % 2], o[part][at + 1] * l[i % 2]));
  }
  __syncwarp();
#pragma unroll
  for (int x = 0; x < 16 * CHUNKS / WARP; x++) {
    int i = lane + x * WARP, row = warp * 16 + i / CHUNKS, chunk = i % CHUNKS;
    if (row >= rows) continue;
    int of = begin + row;
    T *out = static_cast<T *>(a.out) +
             (static_cast<long long>(tile.first + of / heads) * a.heads + kv_head * heads + of % heads) * D;
    *reinterpret_cast<uint4 *>(out + chunk * 8) =
        load_shared(queries + chunk / 8 * Shape::Q_PANEL + row * 128 + ((chunk ^ row) % 8) * 16);
  }
}

#endif

// Tiles have up to `rows` query rows, 64 or 128.
template <class T, int D>
__global__ void __launch_bounds__(Hopper<T, D>::THREADS, 1)
    prefill_wgmma_kernel(const __grid_constant__ lim_prefill_args a, int shift, int rows) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shape = Hopper<T, D>;
  extern __shared__ __align__(1024) char ring[];
  await_dependencies();
  allow_dependents();
  RowTile tile;
  int heads = a.heads / a.kv.kv_heads;
  if (!find_tile(a.batch, blockIdx.y, rows, heads, tile)) return;
  Place<Shape> place = {shared_address(ring)};
  int groups = tile.rows > Shape::GROUP_ROWS ? 2 : 1;  // warpgroups that have rows
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < Shape::SLOTS; slot++) {
      barrier_init(place.full(slot), WARPGROUP / WARP);
      barrier_init(place.empty(slot), groups * (WARPGROUP / WARP));
    }
  }
  __syncthreads();
  int group = __shfl_sync(FULL, threadIdx.x / WARPGROUP, 0);
  int limit = tile.pos + (tile.begin + tile.rows - 1) / heads + 1;  // tokens that the last row sees
  if (group == Shape::GROUPS) {
    give_registers<Shape::COPY_REGISTERS>();
    copy_tiles<T, D>(a, tile.seq, blockIdx.x, limit, shift, place);
  } else {
    take_registers<Shape::PRODUCT_REGISTERS>();
    if (group < groups) attend_rows<T, D>(a, tile, blockIdx.x, group, ceil_div(limit, Shape::KEYS), place);
  }
#else
  __trap();
#endif
}

template <class T, int D> lim_i32 prefill_wgmma_run(const Machine &m, const lim_prefill_args &a, void *stream) {
  using Shape = Hopper<T, D>;
  long long queries = static_cast<long long>(a.batch.rows) * (a.heads / a.kv.kv_heads);
  // Each sequence may end in a tile that is not full.
  auto tiles = [&](int rows) { return queries / rows + a.batch.seqs; };
  // Tiles of half the rows, for one warpgroup, where every one can have a multiprocessor.
  int rows = tiles(Shape::GROUP_ROWS) * a.kv.kv_heads <= m.sms ? Shape::GROUP_ROWS : Shape::ROWS;
  dim3 grid(a.kv.kv_heads, tiles(rows));
  return launch(m, prefill_wgmma_kernel<T, D>, grid, Shape::THREADS, Shape::SHARED, stream, a, log2_of(a.kv.page_size),
                rows);
}

template <class T> lim_i32 prefill_wgmma_dim(const Machine &m, const lim_prefill_args &a, void *stream) {
  switch (a.kv.head_dim) {
    case 64: return prefill_wgmma_run<T, 64>(m, a, stream);
    case 128: return prefill_wgmma_run<T, 128>(m, a, stream);
    case 256: return prefill_wgmma_run<T, 256>(m, a, stream);
  }
  return LIM_E_HEAD_DIM;
}

bool prefill_wgmma_takes(const Machine &m, const lim_prefill_args &a) {
  int d = a.kv.head_dim;
  // The largest score is looked for before scaling.
  return m.warpgroups && a.kv.dtype != LIM_F32 && (d == 64 || d == 128 || d == 256) && a.scale > 0;
}

lim_i32 prefill_wgmma(const Machine &m, const lim_prefill_args &a, void *stream) {
  return a.kv.dtype == LIM_F16 ? prefill_wgmma_dim<__half>(m, a, stream)
                               : prefill_wgmma_dim<__nv_bfloat16>(m, a, stream);
}

}  // namespace lim
