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
  void *gates;       /* SeerAttention: [page][kv_head][head_dim] of `dtype`; null where unused */
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

/* Raw scores q_h . k_t, float32, before scaling and softmax, or weights pooled over heads. Position t of row h of
 * sequence s: s, h, t. */
typedef struct {
  float *data;      /* [seqs][rows][stride]; scores have a row a query head */
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

/* ---- linear.cu: y = f(x) W^T for up to 16 rows ------------------------------------------------------------- */
#define LIM_LINEAR_MAX_ROWS 16

/* What becomes of the sums. */
#define LIM_STORE 0      /* y[r][o] = sum + bias, elements of `dtype` */
#define LIM_STORE_F32 1  /* the same as float32 */
#define LIM_ADD_F32 2    /* y[r][o] += sum + bias, float32 */
#define LIM_SWIGLU 3     /* y[r][o] = silu(gate) * up, elements of `dtype`; W is [2 * out][in], gate rows first */

typedef struct {
  const void *x;          /* [*][in]: `dtype`, or float32 where `norm` is given */
  const lim_i32 *row_ids; /* [rows] rows of x to read; null: 0, 1, ... */
  const float *norm;      /* [in] RMSNorm weight applied to x first; null: none */
  const void *w;          /* [out][in] of `dtype`; LIM_SWIGLU: [2 * out][in] */
  const float *bias;      /* [out], LIM_SWIGLU: [2 * out]; null: none */
  void *y;                /* [rows][out] */
  float eps;
  lim_i32 rows;           /* 1..LIM_LINEAR_MAX_ROWS */
  lim_i32 plan_rows;      /* rows to choose the order of a row's sums by, 0: those there are. With the same number and no
                             norm, a row gets the same bits in any place among any others. */
  lim_i32 in;
  lim_i32 out;
  lim_i32 dtype;
  lim_i32 epilogue;
  lim_i32 late;           /* 1: the next kernel starts only behind this one's wait; 0: at once, for a next kernel that reads
                             nothing but weights before it waits itself */
  lim_i32 spare;          /* bytes of every multiprocessor's shared memory left to kernels that run beside this one */
} lim_linear_args;
lim_i32 lim_linear(const lim_linear_args *args, void *stream);

/* ---- rows.cu: row-wise steps around large products -------------------------------------------------------------- */
typedef struct {
  const lim_i32 *tokens; /* [rows] */
  const void *table;     /* [vocabulary][width] of `dtype` */
  float *x;              /* [rows][width]; NaN where the token is not in the vocabulary */
  lim_i32 rows;
  lim_i32 width;
  lim_i32 vocabulary;
  lim_i32 dtype;
} lim_embed_args;
lim_i32 lim_embed(const lim_embed_args *args, void *stream);

typedef struct {
  const float *x;         /* [*][width] */
  const lim_i32 *row_ids; /* [rows] rows of x to read; null: 0, 1, ... */
  const float *norm;      /* [width] */
  void *y;                /* [rows][width] of `dtype` */
  float eps;
  lim_i32 rows;
  lim_i32 width;
  lim_i32 dtype;
} lim_rms_norm_args;
lim_i32 lim_rms_norm(const lim_rms_norm_args *args, void *stream);

typedef struct {
  const void *gate_up; /* [rows][2 * width] of `dtype` */
  void *y;             /* [rows][width] of `dtype` */
  lim_i32 rows;
  lim_i32 width;
  lim_i32 dtype;
} lim_swiglu_args;
lim_i32 lim_swiglu(const lim_swiglu_args *args, void *stream);

typedef struct {
  void *y;           /* [rows][width] of `dtype`, gets the bias added */
  const float *bias; /* [width] */
  lim_i32 rows;
  lim_i32 width;
  lim_i32 dtype;
} lim_bias_args;
lim_i32 lim_bias(const lim_bias_args *args, void *stream);

/* ---- seen.cu, sample.cu: one token per row of logits ------------------------------------------------------------- */
#define LIM_SEEN_IN_PROMPT 0x80000000u

/* Counts the tokens that penalties look at. */
typedef struct {
  lim_u32 *seen;          /* [rows][vocab] times generated, LIM_SEEN_IN_PROMPT set for prompt tokens */
  const lim_i32 *tokens;  /* [first[rows]] of each row its prompt, then what was generated; all below vocab */
  const lim_i32 *first;   /* [rows + 1] */
  const lim_i32 *prompts; /* [rows] tokens of each row's prompt */
  lim_i32 rows;
  lim_i32 vocab;
} lim_seen_args;
lim_i32 lim_seen(const lim_seen_args *args, void *stream);

#define LIM_STOP_TOKENS 16
#define LIM_DRAW_SLOTS 2

/* How a row is drawn for. */
typedef struct {
  float temperature; /* 0: greedy */
  float top_p;       /* 1: off */
  float min_p;       /* 0: off */
  float repetition_penalty; /* 1: off */
  float presence_penalty;   /* 0: off */
  float frequency_penalty;  /* 0: off */
  lim_i32 top_k;     /* 0: off */
  lim_u32 draw;      /* tokens drawn before: with the seed, it picks the random number */
  lim_u64 seed;
  lim_i32 stop[LIM_STOP_TOKENS]; /* tokens that end the sequence, -1 in unused places */
} lim_draw;

/* Every row moves one token on: its `draw` and the count of its token go up, forced becomes -1. */
typedef struct {
  const float *logits;  /* [rows][vocab] */
  lim_draw *draws;      /* [rows] */
  lim_i32 *forced;      /* [rows] token to take instead of a draw, -1: draw */
  lim_u32 *seen;        /* [rows][vocab], of rows with a penalty: as lim_seen leaves it */
  lim_u32 *turn;        /* [1] calls so far, goes up by one; its remainder by LIM_DRAW_SLOTS is the results' slot */
  lim_i32 *token;       /* [LIM_DRAW_SLOTS][stride], may be host memory; where none can be drawn, -1 minus the index of
                           the first logit that is NaN or +inf, -1 where every logit is -inf */
  float *logprob;       /* [LIM_DRAW_SLOTS][stride], may be host memory; that logit where no token can be drawn */
  /* What a decode step's rows go on with, or null. A row of length 0 is left alone. A row that draws one of its stop tokens
   * gets length 0; the others' positions and lengths go up by one. */
  lim_i32 *next_token;  /* [rows] */
  lim_i32 *next_pos;    /* [rows] */
  lim_i32 *next_len;    /* [rows] */
  void *scratch;
  lim_u64 scratch_bytes;
  lim_i32 stride;       /* >= rows */
  lim_i32 rows;
  lim_i32 vocab;
} lim_sample_args;
lim_i32 lim_sample(const lim_sample_args *args, void *stream);
lim_u64 lim_sample_scratch(lim_i32 rows);
/* ---- attention ----
 * q, qkv and out are rows of kv.dtype. A decode step's row s belongs to sequence s. `counters` may be null. */

/* QK-norm, rope and the write of keys and values to their pages; see append.cu. */
typedef struct {
  lim_kv kv;
  lim_batch batch;
  void *qkv;           /* [rows][(heads + 2 * kv_heads) * head_dim]; the q part is normed and rotated in place */
  const float *q_norm; /* [head_dim], or null where the model has no QK-norm */
  const float *k_norm; /* [head_dim], or null; null exactly where q_norm is */
  const float *cos;    /* [positions][head_dim / 2] */
  const float *sin;    /* [positions][head_dim / 2] */
  lim_i32 positions;   /* >= batch.max_len */
  lim_i32 heads;
  lim_i32 early;       /* 1: an earlier lim_append came after whatever wrote the batch, and the kernel before this one lets
                          others start only behind its own wait: the batch is read before the wait, and what follows may
                          start at once */
  float eps;           /* of the norms */
} lim_append_args;

lim_i32 lim_append(const lim_append_args *args, void *stream);

/* One decode step's attention, dense or over a selection; see attend.cu. */
typedef struct {
  lim_kv kv;
  lim_batch batch;
  const void *q;            /* [rows][q_stride], the first heads * head_dim elements of a row */
  void *out;                /* [rows][heads * head_dim] */
  lim_scores scores;        /* raw token scores of a dense attention; data null where unwanted */
  lim_selection selection;  /* ids null: dense */
  lim_u64 *counters;        /* [LIM_COUNTERS] of this layer */
  void *scratch;            /* zeroed before its first use; every launch leaves it fit for the next */
  lim_i64 scratch_bytes;    /* >= lim_attend_scratch(args) */
  lim_i32 heads;
  lim_i32 q_stride;         /* a multiple of 8 */
  lim_i32 splits;           /* chunks that a sequence's tokens are cut into while those are shorter than the longest; 0: by
                               the number of sequences */
  lim_i32 early;            /* 1: the kernel before this one in the stream is lim_append and nothing else came between,
                               so all but q and each sequence's newest token may be read before it has finished */
  float scale;
} lim_attend_args;

/* Bytes of scratch for these capacities (shapes and extents are read, pointers are not), or a negative LIM_E_* code. */
lim_i64 lim_attend_scratch(const lim_attend_args *args);
/* The next kernel may start at once. What a product behind it best leaves of a multiprocessor's shared memory, so that its
 * block finds room beside attention's. */
#define LIM_ATTEND_ROOM (68 * 1024)
lim_i32 lim_attend(const lim_attend_args *args, void *stream);

#define LIM_SCORE_TOKENS 0
#define LIM_SCORE_PAGES 1

/* Scores of every cached token, or Quest's upper bound for every page; see score.cu. */
typedef struct {
  lim_kv kv;
  lim_batch batch;
  const void *q;       /* [rows][q_stride] */
  lim_scores scores;
  lim_u64 *counters;   /* [LIM_COUNTERS] of this layer */
  lim_i32 heads;
  lim_i32 q_stride;    /* a multiple of 8 */
  lim_i32 of;          /* LIM_SCORE_TOKENS or LIM_SCORE_PAGES */
  lim_i32 budget;      /* K: sequences with n <= K are not scored */
} lim_score_args;

lim_i32 lim_score(const lim_score_args *args, void *stream);

/* Key gates of the pages that the step's rows have filled, prefill or decode; see gates.cu. */
typedef struct {
  lim_kv kv;           /* with gates */
  lim_batch batch;
  const void *w;       /* [kv_heads * head_dim][3 * head_dim] of kv.dtype */
  const float *cos;    /* [positions][head_dim / 2] */
  const float *sin;    /* [positions][head_dim / 2] */
  lim_i32 positions;   /* >= batch.max_len */
} lim_key_gates_args;

lim_i32 lim_key_gates(const lim_key_gates_args *args, void *stream);

/* Scores of pages by their gates, a row a KV head; see gates.cu. */
typedef struct {
  lim_kv kv;           /* with gates */
  lim_batch batch;     /* one row per sequence */
  const void *q;       /* [rows][q_stride], after lim_append */
  const void *w;       /* [kv_heads * head_dim][heads / kv_heads * head_dim] of kv.dtype */
  const float *cos;    /* [positions][head_dim / 2] */
  const float *sin;    /* [positions][head_dim / 2] */
  lim_scores scores;   /* [seqs][kv_heads][stride] */
  lim_u64 *counters;   /* [LIM_COUNTERS] of this layer: adds the bytes of gates read */
  void *scratch;       /* scratch_bytes bytes, any contents */
  lim_u64 scratch_bytes;
  lim_i32 positions;   /* >= batch.max_len */
  lim_i32 heads;
  lim_i32 q_stride;    /* a multiple of 8 */
  lim_i32 budget;      /* K: sequences with n <= K are not scored */
} lim_gate_score_args;

/* Bytes of scratch that lim_gate_score wants for these arguments (pointers are not read). */
lim_u64 lim_gate_score_scratch(const lim_gate_score_args *args);
lim_i32 lim_gate_score(const lim_gate_score_args *args, void *stream);

/* Causal attention of the rows of a prefill step over their sequences' pages; see prefill.cu. */
typedef struct {
  lim_kv kv;
  lim_batch batch;     /* the m rows of a sequence are its last m positions */
  const void *q;       /* [rows][q_stride] */
  void *out;           /* [rows][heads * head_dim] */
  lim_i32 heads;
  lim_i32 q_stride;    /* a multiple of 8 */
  float scale;
} lim_prefill_args;

lim_i32 lim_prefill(const lim_prefill_args *args, void *stream);
/* ---- pool.cu: softmax weights of token scores, pooled over heads --------------------------------------------- */
#define LIM_POOL_GROUPS 0    /* a row a KV head: the sum over its query heads */
#define LIM_POOL_PEAK 1      /* one row: the largest of all heads */
#define LIM_POOL_PAGE_PEAK 2 /* one row: of each page the sum of its tokens' largest */

typedef struct {
  lim_scores scores;       /* [seqs][heads][stride] raw token scores */
  lim_batch batch;         /* one row per sequence: len, seqs and max_len are read */
  lim_scores out;          /* [seqs][rows][stride] */
  void *scratch;           /* scratch_bytes bytes, any contents */
  lim_u64 scratch_bytes;
  float scale_log2;        /* softmax scale times log2(e), above 0 */
  lim_i32 by;              /* LIM_POOL_* */
  lim_i32 heads;           /* H, 1..128 */
  lim_i32 kv_heads;
  lim_i32 page_size;       /* power of two, 1..256 */
  lim_i32 budget;          /* K: nothing is pooled for sequences with n <= K */
} lim_pool_args;

/* Bytes of scratch that lim_pool wants for these arguments (pointers are not read). */
lim_u64 lim_pool_scratch(const lim_pool_args *args);
lim_i32 lim_pool(const lim_pool_args *args, void *stream);
/* ---- select.cu: choice of the tokens that later attentions read ---------------------------------------------- */

/* Rules. */
#define LIM_PICK_UNION 0   /* LessIsMore: the M candidates with the smallest min over h of rank_h(t) * H + h */
#define LIM_PICK_ROWS 1    /* each row's own M best candidates, a set a row (TidalDecode, Kascade, OmniKV) */
#define LIM_PICK_PAGES 2   /* each row's best pages, max(1, K / page_size), a set a row: the last window / page_size,
                            * at least one, and the best others (Quest, DELTA) */
#define LIM_PICK_NOTHING 3 /* StreamingLLM: sinks and window alone */
#define LIM_PICK_MASS 4    /* as UNION from lists that end where they, sinks and window hold `share` of their head's
                            * softmax; M candidates at most */

/* K = sinks + history + window. Sequences with len <= K get count LIM_DENSE and no ids. Otherwise candidates are the
 * positions [sinks, len - window), ranked per row by score, highest first, ties by the lower position, -0 as +0, NaN
 * as -inf. PICK_PAGES takes page scores, looks at K and the window and writes every position below len of the chosen pages. */
typedef struct {
  lim_scores scores;       /* [seqs][rows][stride], of tokens or of pages; data may be null for PICK_NOTHING */
  lim_batch batch;         /* one row per sequence: len, seqs and max_len are read */
  lim_selection out;       /* one set for PICK_UNION, PICK_MASS and PICK_NOTHING, else one a row; capacity at least K,
                            * for PICK_PAGES also at least page_size */
  lim_u64 *counters;       /* [LIM_COUNTERS] of this layer: adds the selections made */
  lim_u64 *firsts;         /* [seqs][firsts_stride] PICK_UNION and PICK_MASS: zeroed when `out` was made and used with it alone;
                            * every launch leaves it fit for the next, whose time, not result, depends on what it notes here */
  void *scratch;           /* scratch_bytes bytes, any contents */
  lim_u64 scratch_bytes;
  lim_u64 share;           /* PICK_MASS: in units of 2^-32, 1..2^32 */
  lim_i64 firsts_stride;   /* words a sequence: >= 4 + out.capacity + max_len */
  float scale_log2;        /* PICK_MASS: softmax scale times log2(e), above 0 */
  lim_i32 rule;            /* LIM_PICK_* */
  lim_i32 rows;            /* rows of scores, 1..128: H for PICK_UNION and PICK_MASS */
  lim_i32 sinks;           /* S */
  lim_i32 history;         /* M */
  lim_i32 window;          /* W */
  lim_i32 page_size;       /* power of two, 1..256; read for PICK_PAGES */
  lim_i32 early;           /* 1: the kernel before this one lets others start only behind its own wait and has no part in
                            * these arguments: the first ranks are found before the wait, all if `begun` */
  lim_i32 beside;          /* 1: the kernel before this one is a product that leaves LIM_SELECT_ROOM. Clusters of blocks would
                            * wait for multiprocessors beside each other: one block ranks a row, unless it may be very long. */
  lim_i32 begun;           /* 1: lim_select_begin was called for this selection. If `early` too, the next kernel may start at
                            * once. */
} lim_select_args;

/* Bytes of scratch that lim_select wants for these arguments (pointers are not read). */
lim_u64 lim_select_scratch(const lim_select_args *args);
/* What a product before it best leaves of a multiprocessor's shared memory, so that the first ranks are found beside it; one that
 * leaves as much takes fewer registers too. */
#define LIM_SELECT_ROOM (80 * 1024)
lim_i32 lim_select(const lim_select_args *args, void *stream);
/* For PICK_UNION: finds the first ranks for the next lim_select to this `out`, which has to come, with the same arguments but
 * `early` and `begun`. Kernels that have no part in these may come in between. The next kernel may start at once. */
lim_i32 lim_select_begin(const lim_select_args *args, void *stream);

#ifdef __cplusplus
}
#endif
#endif
