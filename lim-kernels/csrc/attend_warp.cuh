// One warp's online-softmax attention over tiles of 16 tokens of one KV head, for up to 8 * NT query heads.
//
// 16-bit elements: S^T = K Q^T and O^T = V^T P^T on tensor cores, tokens (then dims) as the 16 rows and query heads as
// the 8 columns, so that a group of 4 wastes half a product and not three quarters. Every warp has a queue of STAGES
// tiles in shared memory that no other warp touches: warps run on their own, without block barriers. Lanes next to each
// other copy pieces next to each other: quarters of a warp that ask for less than 128 contiguous bytes cost a third of
// the bandwidth (H200: 2.4 against 3.6 TB/s). A dot product may take its dims in any order and an output row may be any
// dim; both orders are chosen so that every thread's share of a K or V row is read in 16-byte pieces:
//   K piece of (row g or g + 8, pair of k-steps p): dims 32 p + 8 c ..+8    g = lane / 4, c = lane % 4
//   V piece of (token 2c, 2c+1, 2c+8, 2c+9; block b): dims 64 b + 8 g ..+8; even dims are product rows g, odd g + 8
// head_dim 80, 96 and 32 end in shorter pieces. float32: plain loops, a warp per token, lanes across dims.
#pragma once
#include "paged.cuh"

namespace lim {

// What a warp reads: a token list, where keys of its KV head start (values lie a page of rows further), and where raw
// scores go (or null).
template <class T> struct Source {
  Tokens tokens;
  const T *keys;           // of row 0
  int width;               // elements of a row, kv_heads * head_dim
  float *scores;           // of the first query head, position 0
  int score_stride;
  int begin, end;          // list entries of the chunk
};

// Softmax state as other warps see it in shared memory: [head][PITCH], D sums as pairs of neighbouring dims in the order
// of WarpAttention::dim, then m (in units of log 2), then l. A pitch of 4 floats more puts the pairs that half a warp
// stores at a time, four of each of four heads, into different banks.
template <int D> constexpr int PITCH = D + 4;

template <class T, int D, int NT, int STAGES> struct WarpAttention {
  static constexpr int HALF = TILE * D * 2;  // bytes of a tile's keys, or of its values
  static constexpr int QUEUE = STAGES * 2 * HALF;
  static constexpr int KP = D / 32, KTAIL = D % 32 / 4;             // whole K pieces; elements of the short one
  static constexpr int VB = D / 64, VTAIL = D % 64 / 8;             // the same for V
  static constexpr int STEPS = D / 16;
  static constexpr int AHEAD = STAGES + 2;  // tiles whose positions are at hand

  float acc[NT][STEPS][4] = {};
  float m[NT][2], l[NT][2];
  uint32_t q[NT][STEPS][2];
  uint32_t queue;  // shared address of this warp's queue
  lim_u64 once;    // see read_once

  __device__ WarpAttention(char *shared) : queue(shared_address(shared)), once(read_once()) {
#pragma unroll
    for (int t = 0; t < NT; t++) {
      m[t][0] = m[t][1] = NEG_INF;
      l[t][0] = l[t][1] = 0;
    }
  }

  // q_rows: the first query head, [heads][D].
  __device__ void load_queries(const T *q_rows, int heads) {
    int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int t = 0; t < NT; t++) {
      bool there = t * 8 + g < heads;
      const T *row = q_rows + (t * 8 + g) * D;
#pragma unroll
      for (int p = 0; p < KP; p++) {
        uint4 x = there ? *reinterpret_cast<const uint4 *>(row + p * 32 + c * 8) : uint4{};
        q[t][2 * p][0] = x.x, q[t][2 * p][1] = x.y, q[t][2 * p + 1][0] = x.z, q[t][2 * p + 1][1] = x.w;
      }
      if constexpr (KTAIL) {
        uint2 x = there ? *reinterpret_cast<const uint2 *>(row + KP * 32 + c * 4) : uint2{};
        q[t][2 * KP][0] = x.x, q[t][2 * KP][1] = x.y;
      }
    }
  }

  // Shared bytes from the start of a tile half to 16-byte chunk `chunk` of row `row`. The rows that one quarter of a
  // warp reads together lie in different banks: g and g + 1 of the keys, 2c for all c of the values.
  static constexpr unsigned CHUNKS = D / 8;
  static constexpr bool SWIZZLED = CHUNKS % 8 == 0;
  struct Keys {
    __device__ static unsigned turn(unsigned row) { return SWIZZLED ? row % 2 * 4 : 0; }
  };
  struct Values {
    __device__ static unsigned turn(unsigned row) { return SWIZZLED ? row / 2 % 4 * 2 : 0; }
  };
  template <class Half> __device__ static unsigned at(unsigned row, unsigned chunk) {
    return (row * CHUNKS + (chunk ^ Half::turn(row))) * 16;
  }

  // rows: lane i < 16 holds the row of the tile's token i. Lanes next to each other copy pieces next to each other:
  // a quarter of a warp asks for 128 contiguous bytes at a time. from: row 0; pitch: bytes of a row.
  template <class Half> __device__ void copy(uint32_t to, const T *from, int rows, unsigned pitch) {
    unsigned lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (unsigned x = 0; x < TILE * CHUNKS / WARP; x++) {
      unsigned row, chunk, offset;
      if constexpr (WARP % CHUNKS == 0) {  // what differs between turns is a constant: few addresses to keep
        row = x * (WARP / CHUNKS) + lane / CHUNKS, chunk = lane % CHUNKS;
        offset = (lane / CHUNKS * CHUNKS + (chunk ^ Half::turn(row))) * 16 + x * WARP * 16;
      } else {
        row = (x * WARP + lane) / CHUNKS, chunk = (x * WARP + lane) % CHUNKS;
        offset = at<Half>(row, chunk);
      }
      lim_u64 start = static_cast<lim_u64>(static_cast<unsigned>(__shfl_sync(FULL, rows, row))) * pitch;
      copy_async(to + offset, reinterpret_cast<const char *>(from + chunk * 8) + start, once);
    }
  }
  __device__ void copy_keys(const Source<T> &from, int rows, int stage) {
    copy<Keys>(queue + stage * 2 * HALF, from.keys, rows, from.width * 2);
  }
  __device__ void copy_values(const Source<T> &from, int rows, int stage) {
    copy<Values>(queue + stage * 2 * HALF + HALF, from.keys, rows + (1 << from.tokens.shift), from.width * 2);
  }
  // Waits for all but the latest N groups of this warp.
  template <int N> __device__ static void arrive() {
    await_copies<N>();
    __syncwarp();
  }

  template <int WORDS> __device__ static void read(uint32_t (&x)[WORDS], uint32_t from) {
    if constexpr (WORDS == 4)
      asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                   : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                   : "r"(from)
                   : "memory");
    else if constexpr (WORDS == 2)
      asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];" : "=r"(x[0]), "=r"(x[1]) : "r"(from) : "memory");
    else
      asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x[0]) : "r"(from) : "memory");
  }

  // s[t][..]: raw scores of tokens g (0, 1) and g + 8 (2, 3), heads 8 t + 2 c and the next.
  __device__ void dot(float (&s)[NT][4], int stage) {
    int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
    uint32_t from = queue + stage * 2 * HALF;
    float odd[NT][4] = {};  // a second chain halves the latency
    // Two addresses; the others are constants further, as few registers are left.
    uint32_t piece[2] = {from + at<Keys>(g, c), from + at<Keys>(g, 4 + c)};
#pragma unroll
    for (int p = 0; p < KP; p++) {
      uint32_t a[4], b[4];
      read(a, piece[p % 2] + p / 2 * 128);
      read(b, piece[p % 2] + p / 2 * 128 + 8 * CHUNKS * 16);
#pragma unroll
      for (int t = 0; t < NT; t++) {
        mma<T>(s[t], a[0], b[0], a[1], b[1], q[t][2 * p][0], q[t][2 * p][1]);
        mma<T>(odd[t], a[2], b[2], a[3], b[3], q[t][2 * p + 1][0], q[t][2 * p + 1][1]);
      }
    }
    if constexpr (KTAIL) {
      uint32_t a[2], b[2];
      read(a, from + at<Keys>(g, KP * 4) + c * 8);
      read(b, from + at<Keys>(g, KP * 4) + c * 8 + 8 * CHUNKS * 16);
#pragma unroll
      for (int t = 0; t < NT; t++) mma<T>(s[t], a[0], b[0], a[1], b[1], q[t][2 * KP][0], q[t][2 * KP][1]);
    }
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[t][i] += odd[t][i];
  }

  // Scores become probabilities relative to the new maximum; sums so far are scaled to it. valid: tokens in the tile.
  __device__ void soften(float (&s)[NT][4], float scale, int valid) {
    int g = threadIdx.x % WARP / 4;
#pragma unroll
    for (int t = 0; t < NT; t++) {
      float shrink[2];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float a = g < valid ? s[t][i] * scale : NEG_INF, b = g + 8 < valid ? s[t][i + 2] * scale : NEG_INF;
        float top = fmaxf(a, b);
#pragma unroll
        for (int x = 4; x < WARP; x *= 2) top = fmaxf(top, __shfl_xor_sync(FULL, top, x));
        top = fmaxf(top, m[t][i]);
        shrink[i] = exp2_fast(m[t][i] - top);
        m[t][i] = top;
        s[t][i] = exp2_fast(a - top), s[t][i + 2] = exp2_fast(b - top);
        l[t][i] = __fmaf_rn(l[t][i], shrink[i], s[t][i] + s[t][i + 2]);
      }
      if (__any_sync(FULL, shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
        for (int k = 0; k < STEPS; k++)
#pragma unroll
          for (int i = 0; i < 4; i++) acc[t][k][i] *= shrink[i % 2];
      }
    }
  }

  // from: values of the tile; chunk: where this thread's dims lie in a row, `skip` bytes further.
  template <int WORDS>
  __device__ void add(uint32_t from, int chunk, int skip, int step, const uint32_t (&p)[NT][2]) {
    uint32_t v[4][WORDS];
#pragma unroll
    for (int r = 0; r < 4; r++)
      read(v[r], from + at<Values>(threadIdx.x % 4 * 2, chunk) + skip + (r % 2 + r / 2 * 8) * CHUNKS * 16);
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
      uint32_t a0 = __byte_perm(v[0][w], v[1][w], 0x5410), a1 = __byte_perm(v[0][w], v[1][w], 0x7632);
      uint32_t a2 = __byte_perm(v[2][w], v[3][w], 0x5410), a3 = __byte_perm(v[2][w], v[3][w], 0x7632);
#pragma unroll
      for (int t = 0; t < NT; t++) mma<T>(acc[t][step + w], a0, a1, a2, a3, p[t][0], p[t][1]);
    }
  }
  __device__ void weigh(const float (&s)[NT][4], int stage) {
    int g = threadIdx.x % WARP / 4;
    uint32_t p[NT][2], from = queue + stage * 2 * HALF + HALF;
#pragma unroll
    for (int t = 0; t < NT; t++) {
      p[t][0] = transpose8x8(pack<T>(s[t][0], s[t][1]));
      p[t][1] = transpose8x8(pack<T>(s[t][2], s[t][3]));
    }
#pragma unroll
    for (int b = 0; b < VB; b++) add<4>(from, g, b * 128, b * 4, p);
    if constexpr (VTAIL) add<VTAIL / 2>(from, VB * 8 + g * VTAIL / 8, g * VTAIL % 8 * 2, VB * 4, p);
  }

  __device__ void write_scores(const Source<T> &from, const float (&s)[NT][4], int first, int valid, int heads) {
    int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int head = t * 8 + 2 * c + i % 2, token = g + i / 2 * 8;
        if (head < heads && token < valid)
          from.scores[static_cast<long long>(head) * from.score_stride + first + token] = s[t][i];
      }
  }

  // Takes tiles first, first + step, ... of the chunk. Tiles that cannot hold the newest token, the last of its list, are
  // under way before the gate opens. positions: of this lane's token in the first of them.
  __device__ void run(const Source<T> &from, const int (&positions)[AHEAD], const T *q_rows, int heads, float scale,
                      int first, int step, Gate &gate) {
    int lane = threadIdx.x % TILE;
    int tiles = max(0, ceil_div(ceil_div(from.end - from.begin, TILE) - first, step));
    if (tiles == 0) return gate.open();
    auto at = [&](int i) { return from.begin + (first + i * step) * TILE; };
    // What is asked for behind a copy comes back behind it: look-ups go first.
    int pages[STAGES + 1];
#pragma unroll
    for (int i = 0; i <= STAGES; i++) pages[i] = from.tokens.page(positions[i]);
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
      int row = from.tokens.row(pages[i], positions[i]);
      if (at(i) + TILE >= from.tokens.count) gate.open();
      if (i == 0 || i < tiles) copy_keys(from, row, i);
      commit_copies();
      if (i == 0 || i < tiles) copy_values(from, row, i);
      commit_copies();
    }
    gate.open();
    load_queries(q_rows, heads);
    // The next tile to copy; its page is looked up one turn ahead, its position two turns ahead. A turn asks before it
    // waits for its keys, and never for what it needs itself.
    int page = pages[STAGES], position = positions[STAGES], later = positions[STAGES + 1];
    for (int i = 0, stage = 0; i < tiles; i++, stage = stage + 1 == STAGES ? 0 : stage + 1) {
      int start = at(i), valid = min(TILE, from.end - start);
      bool more = i + STAGES < tiles;
      float s[NT][4] = {};
      int row = from.tokens.row(page, position);
      page = from.tokens.page(later), position = later;
      later = from.tokens.position(at(i + STAGES + 2) + lane);
      arrive<2 * STAGES - 1>();
      dot(s, stage);
      if (more) copy_keys(from, row, stage);
      commit_copies();
      if (from.scores) write_scores(from, s, start, valid, heads);
      soften(s, scale, valid);
      arrive<2 * STAGES - 1>();
      weigh(s, stage);
      if (more) copy_values(from, row, stage);
      commit_copies();
    }
    await_copies<0>();
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int x = 4; x < WARP; x *= 2) l[t][i] += __shfl_xor_sync(FULL, l[t][i], x);
  }

  // The first dim of a pair of a stored state: pair k * 8 + g is what lane row g holds of product k.
  __device__ static int dim(int pair) {
    int k = pair / 8, g = pair % 8;
    return k < VB * 4 ? k / 4 * 64 + g * 8 + k % 4 * 2 : VB * 64 + g * VTAIL + (k - VB * 4) * 2;
  }

  // Puts the state of the heads that there are into `own`, which may overlap the queue.
  __device__ void store(float *own, int heads) {
    __syncwarp();
    int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if (t * 8 + 2 * c + i >= heads) continue;
        float2 *head = reinterpret_cast<float2 *>(own + (t * 8 + 2 * c + i) * PITCH<D>);
#pragma unroll
        for (int k = 0; k < STEPS; k++) head[k * 8 + g] = make_float2(acc[t][k][i], acc[t][k][i + 2]);
        if (g == 0) head[D / 2] = make_float2(m[t][i], l[t][i]);
      }
  }
};

template <int D, int NT, int STAGES> struct WarpAttention<float, D, NT, STAGES> {
  static constexpr int QUEUE = 0, AHEAD = 1;
  static constexpr int PART = (D + WARP - 1) / WARP;  // dims of a lane: lane, lane + 32, ...
  float acc[NT * 8][PART] = {};
  float m[NT * 8], l[NT * 8];

  __device__ WarpAttention(char *) {
    for (int h = 0; h < NT * 8; h++) m[h] = NEG_INF, l[h] = 0;
  }

  __device__ void run(const Source<float> &from, const int (&)[AHEAD], const float *q, int heads, float scale,
                      int first, int step, Gate &gate) {
    gate.open();
    int lane = threadIdx.x % WARP;
    for (int tile = from.begin + first * TILE; tile < from.end; tile += step * TILE) {
      for (int i = tile; i < min(tile + TILE, from.end); i++) {
        long long row = static_cast<long long>(from.tokens.row(from.tokens.position(i))) * from.width;
        const float *values = from.keys + (static_cast<long long>(from.width) << from.tokens.shift);
        float k[PART], v[PART];
#pragma unroll
        for (int x = 0; x < PART; x++) {
          int dim = lane + x * WARP;
          k[x] = dim < D ? from.keys[row + dim] : 0.0f;
          v[x] = dim < D ? values[row + dim] : 0.0f;
        }
#pragma unroll
        for (int h = 0; h < NT * 8; h++) {
          if (h >= heads) break;
          float s = 0;
#pragma unroll
          for (int x = 0; x < PART; x++)
            if (lane + x * WARP < D) s = __fmaf_rn(q[h * D + lane + x * WARP], k[x], s);
          for (int d = 1; d < WARP; d *= 2) s += __shfl_xor_sync(FULL, s, d);
          if (from.scores && lane == 0) from.scores[static_cast<long long>(h) * from.score_stride + i] = s;
          float top = fmaxf(m[h], s * scale);
          float shrink = exp2f(m[h] - top), p = exp2f(s * scale - top);
          m[h] = top;
          l[h] = __fmaf_rn(l[h], shrink, p);
#pragma unroll
          for (int x = 0; x < PART; x++) acc[h][x] = __fmaf_rn(p, v[x], acc[h][x] * shrink);
        }
      }
    }
  }

  __device__ static int dim(int pair) { return pair * 2; }

  __device__ void store(float *own, int heads) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int h = 0; h < NT * 8; h++) {
      if (h >= heads) break;
#pragma unroll
      for (int x = 0; x < PART; x++)
        if (lane + x * WARP < D) own[h * PITCH<D> + lane + x * WARP] = acc[h][x];
      if (lane == 0) own[h * PITCH<D> + D] = m[h], own[h * PITCH<D> + D + 1] = l[h];
    }
  }
};

}  // namespace lim
