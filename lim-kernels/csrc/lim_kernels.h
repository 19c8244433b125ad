/* The whole ABI between Rust and the CUDA kernels: plain C, no includes.
 *
 * Rules for every launcher:
 *  - `int32_t lim_NAME(const lim_NAME_args *args, void *stream)`; `stream` is a CUstream. It checks its arguments on
 *    the host, launches, and returns LIM_OK, one of the LIM_E_* codes (negative) or a cudaError_t (positive).
 *  - Nothing is allocated, synchronised or copied to or from the host, so launchers may be captured in a CUDA graph.
 *  - Grid shapes depend on the capacities in the arguments, never on lengths, which lie in device memory.
 *  - All pointers are device pointers, 16-byte aligned; shapes stand beside them, last axis contiguous.
 *  - No launcher reads or writes global state. Scratch is passed in; lim_NAME_scratch(...) says how many bytes.
 */
#ifndef LIM_KERNELS_H
#define LIM_KERNELS_H

typedef signed int lim_i32;
typedef unsigned int lim_u32;
typedef signed long long lim_i64;
typedef unsigned long long lim_u64;

#ifdef __cplusplus
extern "C" {
#endif

/* Element types of weights, activations and the KV cache. */
#define LIM_F32 0
#define LIM_F16 1
#define LIM_BF16 2

/* Status codes. */
#define LIM_OK 0
#define LIM_E_DTYPE (-1)     /* no kernel for this element type */
#define LIM_E_HEAD_DIM (-2)  /* head_dim is not 32, 64, 80, 96, 128 or 256 */
#define LIM_E_HEADS (-3)     /* query heads are no multiple of kv heads, or more than 16 per kv head */
#define LIM_E_SHAPE (-4)     /* an extent is out of the launcher's range */
#define LIM_E_SCRATCH (-5)   /* scratch is too small */

/* Sets of a selection per sequence. */
#define LIM_SHARED 0
#define LIM_PER_KV_HEAD 1
#define LIM_PER_QUERY_HEAD 2

/* count value of a sequence that is attended densely (n <= K) */
#define LIM_DENSE (-1)

/* One layer's pages: [page][K|V][slot in page][kv_head][head_dim], elements of `dtype`. */
typedef struct {
  void *pages;
  void *bounds;      /* Quest: [page][min|max][kv_head][head_dim] of `dtype` over the page's keys; null where unused */
  lim_i32 dtype;
  lim_i32 page_size; /* power of two, 1..256 */
  lim_i32 kv_heads;
  lim_i32 head_dim;
} lim_kv;

/* The sequences of a step. A decode step has one row per sequence. */
typedef struct {
  const lim_i32 *tokens; /* [rows] token ids */
  const lim_i32 *pos;    /* [rows] position of each row in its sequence */
  const lim_i32 *seq;    /* [rows] sequence of each row */
  const lim_i32 *len;    /* [seqs] n: cached tokens including this step's rows; 0 marks an unused slot */
  const lim_i32 *first;  /* [seqs + 1] first row of each sequence */
  const lim_i32 *table;  /* [seqs][table_stride] physical pages */
  lim_i32 rows;
  lim_i32 seqs;
  lim_i32 table_stride;  /* pages a sequence may have */
  lim_i32 max_len;       /* capacity in tokens: bounds every len */
} lim_batch;

/* Raw scores q_h . k_t, float32, before scaling and softmax. Position t of head h of sequence s: s, h, t. */
typedef struct {
  float *data;      /* [seqs][heads][stride] */
  lim_i32 stride;   /* tokens (or pages) per row, a multiple of 4 */
} lim_scores;

/* Selected positions, ascending. */
typedef struct {
  lim_i32 *ids;     /* [seqs][sets][capacity] logical positions */
  lim_i32 *count;   /* [seqs][sets] ids per set, or LIM_DENSE */
  lim_i32 sets;     /* sets per sequence: 1, kv_heads or query_heads */
  lim_i32 kind;     /* LIM_SHARED, LIM_PER_KV_HEAD, LIM_PER_QUERY_HEAD */
  lim_i32 capacity; /* ids per set, >= K */
} lim_selection;

/* Per layer: [attended tokens * heads, context tokens * heads, selections, kv bytes], unsigned 64-bit, added to with
 * integer atomics. */
#define LIM_COUNTERS 4

#ifdef __cplusplus
}
#endif
#endif
