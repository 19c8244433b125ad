// Made by scripts/bindgen.sh from csrc/lim_kernels.h; CI checks that it is current.

pub const LIM_F32: i32 = 0;
pub const LIM_F16: i32 = 1;
pub const LIM_BF16: i32 = 2;
pub const LIM_OK: i32 = 0;
pub const LIM_E_DTYPE: i32 = -1;
pub const LIM_E_HEAD_DIM: i32 = -2;
pub const LIM_E_HEADS: i32 = -3;
pub const LIM_E_SHAPE: i32 = -4;
pub const LIM_E_SCRATCH: i32 = -5;
pub const LIM_SHARED: i32 = 0;
pub const LIM_PER_KV_HEAD: i32 = 1;
pub const LIM_PER_QUERY_HEAD: i32 = 2;
pub const LIM_DENSE: i32 = -1;
pub const LIM_COUNTERS: i32 = 4;
pub const LIM_LINEAR_MAX_ROWS: i32 = 16;
pub const LIM_STORE: i32 = 0;
pub const LIM_STORE_F32: i32 = 1;
pub const LIM_ADD_F32: i32 = 2;
pub const LIM_SWIGLU: i32 = 3;
pub const LIM_SEEN_IN_PROMPT: i64 = 2147483648;
pub const LIM_STOP_TOKENS: i32 = 16;
pub const LIM_DRAW_SLOTS: i32 = 2;
pub const LIM_ATTEND_ROOM: i32 = 69632;
pub const LIM_SCORE_TOKENS: i32 = 0;
pub const LIM_SCORE_PAGES: i32 = 1;
pub const LIM_POOL_GROUPS: i32 = 0;
pub const LIM_POOL_PEAK: i32 = 1;
pub const LIM_POOL_PAGE_PEAK: i32 = 2;
pub const LIM_PICK_UNION: i32 = 0;
pub const LIM_PICK_ROWS: i32 = 1;
pub const LIM_PICK_PAGES: i32 = 2;
pub const LIM_PICK_NOTHING: i32 = 3;
pub const LIM_PICK_MASS: i32 = 4;
pub const LIM_SELECT_ROOM: i32 = 81920;
pub type lim_i32 = ::core::ffi::c_int;
pub type lim_u32 = ::core::ffi::c_uint;
pub type lim_i64 = ::core::ffi::c_longlong;
pub type lim_u64 = ::core::ffi::c_ulonglong;
#[doc = " One layer's pages: [page][K|V][slot in page][kv_head][head_dim], elements of `dtype`."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_kv {
    pub pages: *mut ::core::ffi::c_void,
    #[doc = " Quest: [page][min|max][kv_head][head_dim] of `dtype` over the page's keys; null where unused"]
    pub bounds: *mut ::core::ffi::c_void,
    #[doc = " SeerAttention: [page][kv_head][head_dim] of `dtype`; null where unused"]
    pub gates: *mut ::core::ffi::c_void,
    pub dtype: lim_i32,
    #[doc = " power of two, 1..256"]
    pub page_size: lim_i32,
    pub kv_heads: lim_i32,
    pub head_dim: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_kv"][::core::mem::size_of::<lim_kv>() - 40usize];
    ["Alignment of lim_kv"][::core::mem::align_of::<lim_kv>() - 8usize];
    ["Offset of field: lim_kv::pages"][::core::mem::offset_of!(lim_kv, pages) - 0usize];
    ["Offset of field: lim_kv::bounds"][::core::mem::offset_of!(lim_kv, bounds) - 8usize];
    ["Offset of field: lim_kv::gates"][::core::mem::offset_of!(lim_kv, gates) - 16usize];
    ["Offset of field: lim_kv::dtype"][::core::mem::offset_of!(lim_kv, dtype) - 24usize];
    ["Offset of field: lim_kv::page_size"][::core::mem::offset_of!(lim_kv, page_size) - 28usize];
    ["Offset of field: lim_kv::kv_heads"][::core::mem::offset_of!(lim_kv, kv_heads) - 32usize];
    ["Offset of field: lim_kv::head_dim"][::core::mem::offset_of!(lim_kv, head_dim) - 36usize];
};
#[doc = " The sequences of a step. A decode step has one row per sequence."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_batch {
    #[doc = " [rows] token ids"]
    pub tokens: *const lim_i32,
    #[doc = " [rows] position of each row in its sequence"]
    pub pos: *const lim_i32,
    #[doc = " [rows] sequence of each row"]
    pub seq: *const lim_i32,
    #[doc = " [seqs] n: cached tokens including this step's rows; 0 marks an unused slot"]
    pub len: *const lim_i32,
    #[doc = " [seqs + 1] first row of each sequence"]
    pub first: *const lim_i32,
    #[doc = " [seqs][table_stride] physical pages"]
    pub table: *const lim_i32,
    pub rows: lim_i32,
    pub seqs: lim_i32,
    #[doc = " pages a sequence may have"]
    pub table_stride: lim_i32,
    #[doc = " capacity in tokens: bounds every len"]
    pub max_len: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_batch"][::core::mem::size_of::<lim_batch>() - 64usize];
    ["Alignment of lim_batch"][::core::mem::align_of::<lim_batch>() - 8usize];
    ["Offset of field: lim_batch::tokens"][::core::mem::offset_of!(lim_batch, tokens) - 0usize];
    ["Offset of field: lim_batch::pos"][::core::mem::offset_of!(lim_batch, pos) - 8usize];
    ["Offset of field: lim_batch::seq"][::core::mem::offset_of!(lim_batch, seq) - 16usize];
    ["Offset of field: lim_batch::len"][::core::mem::offset_of!(lim_batch, len) - 24usize];
    ["Offset of field: lim_batch::first"][::core::mem::offset_of!(lim_batch, first) - 32usize];
    ["Offset of field: lim_batch::table"][::core::mem::offset_of!(lim_batch, table) - 40usize];
    ["Offset of field: lim_batch::rows"][::core::mem::offset_of!(lim_batch, rows) - 48usize];
    ["Offset of field: lim_batch::seqs"][::core::mem::offset_of!(lim_batch, seqs) - 52usize];
    ["Offset of field: lim_batch::table_stride"][::core::mem::offset_of!(lim_batch, table_stride) - 56usize];
    ["Offset of field: lim_batch::max_len"][::core::mem::offset_of!(lim_batch, max_len) - 60usize];
};
#[doc = " Raw scores q_h . k_t, float32, before scaling and softmax, or weights pooled over heads. Position t of row h of\n sequence s: s, h, t."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_scores {
    #[doc = " [seqs][rows][stride]; scores have a row a query head"]
    pub data: *mut f32,
    #[doc = " tokens (or pages) per row, a multiple of 4"]
    pub stride: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_scores"][::core::mem::size_of::<lim_scores>() - 16usize];
    ["Alignment of lim_scores"][::core::mem::align_of::<lim_scores>() - 8usize];
    ["Offset of field: lim_scores::data"][::core::mem::offset_of!(lim_scores, data) - 0usize];
    ["Offset of field: lim_scores::stride"][::core::mem::offset_of!(lim_scores, stride) - 8usize];
};
#[doc = " Selected positions, ascending."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_selection {
    #[doc = " [seqs][sets][capacity] logical positions"]
    pub ids: *mut lim_i32,
    #[doc = " [seqs][sets] ids per set, or LIM_DENSE"]
    pub count: *mut lim_i32,
    #[doc = " sets per sequence: 1, kv_heads or query_heads"]
    pub sets: lim_i32,
    #[doc = " LIM_SHARED, LIM_PER_KV_HEAD, LIM_PER_QUERY_HEAD"]
    pub kind: lim_i32,
    #[doc = " ids per set, >= K"]
    pub capacity: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_selection"][::core::mem::size_of::<lim_selection>() - 32usize];
    ["Alignment of lim_selection"][::core::mem::align_of::<lim_selection>() - 8usize];
    ["Offset of field: lim_selection::ids"][::core::mem::offset_of!(lim_selection, ids) - 0usize];
    ["Offset of field: lim_selection::count"][::core::mem::offset_of!(lim_selection, count) - 8usize];
    ["Offset of field: lim_selection::sets"][::core::mem::offset_of!(lim_selection, sets) - 16usize];
    ["Offset of field: lim_selection::kind"][::core::mem::offset_of!(lim_selection, kind) - 20usize];
    ["Offset of field: lim_selection::capacity"][::core::mem::offset_of!(lim_selection, capacity) - 24usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_linear_args {
    #[doc = " [*][in]: `dtype`, or float32 where `norm` is given"]
    pub x: *const ::core::ffi::c_void,
    #[doc = " [rows] rows of x to read; null: 0, 1, ..."]
    pub row_ids: *const lim_i32,
    #[doc = " [in] RMSNorm weight applied to x first; null: none"]
    pub norm: *const f32,
    #[doc = " [out][in] of `dtype`; LIM_SWIGLU: [2 * out][in]"]
    pub w: *const ::core::ffi::c_void,
    #[doc = " [out], LIM_SWIGLU: [2 * out]; null: none"]
    pub bias: *const f32,
    #[doc = " [rows][out]"]
    pub y: *mut ::core::ffi::c_void,
    pub eps: f32,
    #[doc = " 1..LIM_LINEAR_MAX_ROWS"]
    pub rows: lim_i32,
    #[doc = " rows to choose the order of a row's sums by, 0: those there are. With the same number and no\nnorm, a row gets the same bits in any place among any others."]
    pub plan_rows: lim_i32,
    pub in_: lim_i32,
    pub out: lim_i32,
    pub dtype: lim_i32,
    pub epilogue: lim_i32,
    #[doc = " 1: the next kernel starts only behind this one's wait; 0: at once, for a next kernel that reads\nnothing but weights before it waits itself"]
    pub late: lim_i32,
    #[doc = " bytes of every multiprocessor's shared memory left to kernels that run beside this one"]
    pub spare: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_linear_args"][::core::mem::size_of::<lim_linear_args>() - 88usize];
    ["Alignment of lim_linear_args"][::core::mem::align_of::<lim_linear_args>() - 8usize];
    ["Offset of field: lim_linear_args::x"][::core::mem::offset_of!(lim_linear_args, x) - 0usize];
    ["Offset of field: lim_linear_args::row_ids"][::core::mem::offset_of!(lim_linear_args, row_ids) - 8usize];
    ["Offset of field: lim_linear_args::norm"][::core::mem::offset_of!(lim_linear_args, norm) - 16usize];
    ["Offset of field: lim_linear_args::w"][::core::mem::offset_of!(lim_linear_args, w) - 24usize];
    ["Offset of field: lim_linear_args::bias"][::core::mem::offset_of!(lim_linear_args, bias) - 32usize];
    ["Offset of field: lim_linear_args::y"][::core::mem::offset_of!(lim_linear_args, y) - 40usize];
    ["Offset of field: lim_linear_args::eps"][::core::mem::offset_of!(lim_linear_args, eps) - 48usize];
    ["Offset of field: lim_linear_args::rows"][::core::mem::offset_of!(lim_linear_args, rows) - 52usize];
    ["Offset of field: lim_linear_args::plan_rows"]
        [::core::mem::offset_of!(lim_linear_args, plan_rows) - 56usize];
    ["Offset of field: lim_linear_args::in_"][::core::mem::offset_of!(lim_linear_args, in_) - 60usize];
    ["Offset of field: lim_linear_args::out"][::core::mem::offset_of!(lim_linear_args, out) - 64usize];
    ["Offset of field: lim_linear_args::dtype"][::core::mem::offset_of!(lim_linear_args, dtype) - 68usize];
    ["Offset of field: lim_linear_args::epilogue"]
        [::core::mem::offset_of!(lim_linear_args, epilogue) - 72usize];
    ["Offset of field: lim_linear_args::late"][::core::mem::offset_of!(lim_linear_args, late) - 76usize];
    ["Offset of field: lim_linear_args::spare"][::core::mem::offset_of!(lim_linear_args, spare) - 80usize];
};
#[doc = " ---- rows.cu: row-wise steps around large products --------------------------------------------------------------"]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_embed_args {
    #[doc = " [rows]"]
    pub tokens: *const lim_i32,
    #[doc = " [vocabulary][width] of `dtype`"]
    pub table: *const ::core::ffi::c_void,
    #[doc = " [rows][width]; NaN where the token is not in the vocabulary"]
    pub x: *mut f32,
    pub rows: lim_i32,
    pub width: lim_i32,
    pub vocabulary: lim_i32,
    pub dtype: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_embed_args"][::core::mem::size_of::<lim_embed_args>() - 40usize];
    ["Alignment of lim_embed_args"][::core::mem::align_of::<lim_embed_args>() - 8usize];
    ["Offset of field: lim_embed_args::tokens"][::core::mem::offset_of!(lim_embed_args, tokens) - 0usize];
    ["Offset of field: lim_embed_args::table"][::core::mem::offset_of!(lim_embed_args, table) - 8usize];
    ["Offset of field: lim_embed_args::x"][::core::mem::offset_of!(lim_embed_args, x) - 16usize];
    ["Offset of field: lim_embed_args::rows"][::core::mem::offset_of!(lim_embed_args, rows) - 24usize];
    ["Offset of field: lim_embed_args::width"][::core::mem::offset_of!(lim_embed_args, width) - 28usize];
    ["Offset of field: lim_embed_args::vocabulary"]
        [::core::mem::offset_of!(lim_embed_args, vocabulary) - 32usize];
    ["Offset of field: lim_embed_args::dtype"][::core::mem::offset_of!(lim_embed_args, dtype) - 36usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_rms_norm_args {
    #[doc = " [*][width]"]
    pub x: *const f32,
    #[doc = " [rows] rows of x to read; null: 0, 1, ..."]
    pub row_ids: *const lim_i32,
    #[doc = " [width]"]
    pub norm: *const f32,
    #[doc = " [rows][width] of `dtype`"]
    pub y: *mut ::core::ffi::c_void,
    pub eps: f32,
    pub rows: lim_i32,
    pub width: lim_i32,
    pub dtype: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_rms_norm_args"][::core::mem::size_of::<lim_rms_norm_args>() - 48usize];
    ["Alignment of lim_rms_norm_args"][::core::mem::align_of::<lim_rms_norm_args>() - 8usize];
    ["Offset of field: lim_rms_norm_args::x"][::core::mem::offset_of!(lim_rms_norm_args, x) - 0usize];
    ["Offset of field: lim_rms_norm_args::row_ids"]
        [::core::mem::offset_of!(lim_rms_norm_args, row_ids) - 8usize];
    ["Offset of field: lim_rms_norm_args::norm"][::core::mem::offset_of!(lim_rms_norm_args, norm) - 16usize];
    ["Offset of field: lim_rms_norm_args::y"][::core::mem::offset_of!(lim_rms_norm_args, y) - 24usize];
    ["Offset of field: lim_rms_norm_args::eps"][::core::mem::offset_of!(lim_rms_norm_args, eps) - 32usize];
    ["Offset of field: lim_rms_norm_args::rows"][::core::mem::offset_of!(lim_rms_norm_args, rows) - 36usize];
    ["Offset of field: lim_rms_norm_args::width"]
        [::core::mem::offset_of!(lim_rms_norm_args, width) - 40usize];
    ["Offset of field: lim_rms_norm_args::dtype"]
        [::core::mem::offset_of!(lim_rms_norm_args, dtype) - 44usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_swiglu_args {
    #[doc = " [rows][2 * width] of `dtype`"]
    pub gate_up: *const ::core::ffi::c_void,
    #[doc = " [rows][width] of `dtype`"]
    pub y: *mut ::core::ffi::c_void,
    pub rows: lim_i32,
    pub width: lim_i32,
    pub dtype: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_swiglu_args"][::core::mem::size_of::<lim_swiglu_args>() - 32usize];
    ["Alignment of lim_swiglu_args"][::core::mem::align_of::<lim_swiglu_args>() - 8usize];
    ["Offset of field: lim_swiglu_args::gate_up"][::core::mem::offset_of!(lim_swiglu_args, gate_up) - 0usize];
    ["Offset of field: lim_swiglu_args::y"][::core::mem::offset_of!(lim_swiglu_args, y) - 8usize];
    ["Offset of field: lim_swiglu_args::rows"][::core::mem::offset_of!(lim_swiglu_args, rows) - 16usize];
    ["Offset of field: lim_swiglu_args::width"][::core::mem::offset_of!(lim_swiglu_args, width) - 20usize];
    ["Offset of field: lim_swiglu_args::dtype"][::core::mem::offset_of!(lim_swiglu_args, dtype) - 24usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_bias_args {
    #[doc = " [rows][width] of `dtype`, gets the bias added"]
    pub y: *mut ::core::ffi::c_void,
    #[doc = " [width]"]
    pub bias: *const f32,
    pub rows: lim_i32,
    pub width: lim_i32,
    pub dtype: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_bias_args"][::core::mem::size_of::<lim_bias_args>() - 32usize];
    ["Alignment of lim_bias_args"][::core::mem::align_of::<lim_bias_args>() - 8usize];
    ["Offset of field: lim_bias_args::y"][::core::mem::offset_of!(lim_bias_args, y) - 0usize];
    ["Offset of field: lim_bias_args::bias"][::core::mem::offset_of!(lim_bias_args, bias) - 8usize];
    ["Offset of field: lim_bias_args::rows"][::core::mem::offset_of!(lim_bias_args, rows) - 16usize];
    ["Offset of field: lim_bias_args::width"][::core::mem::offset_of!(lim_bias_args, width) - 20usize];
    ["Offset of field: lim_bias_args::dtype"][::core::mem::offset_of!(lim_bias_args, dtype) - 24usize];
};
#[doc = " Counts the tokens that penalties look at."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_seen_args {
    #[doc = " [rows][vocab] times generated, LIM_SEEN_IN_PROMPT set for prompt tokens"]
    pub seen: *mut lim_u32,
    #[doc = " [first[rows]] of each row its prompt, then what was generated; all below vocab"]
    pub tokens: *const lim_i32,
    #[doc = " [rows + 1]"]
    pub first: *const lim_i32,
    #[doc = " [rows] tokens of each row's prompt"]
    pub prompts: *const lim_i32,
    pub rows: lim_i32,
    pub vocab: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_seen_args"][::core::mem::size_of::<lim_seen_args>() - 40usize];
    ["Alignment of lim_seen_args"][::core::mem::align_of::<lim_seen_args>() - 8usize];
    ["Offset of field: lim_seen_args::seen"][::core::mem::offset_of!(lim_seen_args, seen) - 0usize];
    ["Offset of field: lim_seen_args::tokens"][::core::mem::offset_of!(lim_seen_args, tokens) - 8usize];
    ["Offset of field: lim_seen_args::first"][::core::mem::offset_of!(lim_seen_args, first) - 16usize];
    ["Offset of field: lim_seen_args::prompts"][::core::mem::offset_of!(lim_seen_args, prompts) - 24usize];
    ["Offset of field: lim_seen_args::rows"][::core::mem::offset_of!(lim_seen_args, rows) - 32usize];
    ["Offset of field: lim_seen_args::vocab"][::core::mem::offset_of!(lim_seen_args, vocab) - 36usize];
};
#[doc = " How a row is drawn for."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_draw {
    #[doc = " 0: greedy"]
    pub temperature: f32,
    #[doc = " 1: off"]
    pub top_p: f32,
    #[doc = " 0: off"]
    pub min_p: f32,
    #[doc = " 1: off"]
    pub repetition_penalty: f32,
    #[doc = " 0: off"]
    pub presence_penalty: f32,
    #[doc = " 0: off"]
    pub frequency_penalty: f32,
    #[doc = " 0: off"]
    pub top_k: lim_i32,
    #[doc = " tokens drawn before: with the seed, it picks the random number"]
    pub draw: lim_u32,
    pub seed: lim_u64,
    #[doc = " tokens that end the sequence, -1 in unused places"]
    pub stop: [lim_i32; 16usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_draw"][::core::mem::size_of::<lim_draw>() - 104usize];
    ["Alignment of lim_draw"][::core::mem::align_of::<lim_draw>() - 8usize];
    ["Offset of field: lim_draw::temperature"][::core::mem::offset_of!(lim_draw, temperature) - 0usize];
    ["Offset of field: lim_draw::top_p"][::core::mem::offset_of!(lim_draw, top_p) - 4usize];
    ["Offset of field: lim_draw::min_p"][::core::mem::offset_of!(lim_draw, min_p) - 8usize];
    ["Offset of field: lim_draw::repetition_penalty"]
        [::core::mem::offset_of!(lim_draw, repetition_penalty) - 12usize];
    ["Offset of field: lim_draw::presence_penalty"]
        [::core::mem::offset_of!(lim_draw, presence_penalty) - 16usize];
    ["Offset of field: lim_draw::frequency_penalty"]
        [::core::mem::offset_of!(lim_draw, frequency_penalty) - 20usize];
    ["Offset of field: lim_draw::top_k"][::core::mem::offset_of!(lim_draw, top_k) - 24usize];
    ["Offset of field: lim_draw::draw"][::core::mem::offset_of!(lim_draw, draw) - 28usize];
    ["Offset of field: lim_draw::seed"][::core::mem::offset_of!(lim_draw, seed) - 32usize];
    ["Offset of field: lim_draw::stop"][::core::mem::offset_of!(lim_draw, stop) - 40usize];
};
#[doc = " Every row moves one token on: its `draw` and the count of its token go up, forced becomes -1."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_sample_args {
    #[doc = " [rows][vocab]"]
    pub logits: *const f32,
    #[doc = " [rows]"]
    pub draws: *mut lim_draw,
    #[doc = " [rows] token to take instead of a draw, -1: draw"]
    pub forced: *mut lim_i32,
    #[doc = " [rows][vocab], of rows with a penalty: as lim_seen leaves it"]
    pub seen: *mut lim_u32,
    #[doc = " [1] calls so far, goes up by one; its remainder by LIM_DRAW_SLOTS is the results' slot"]
    pub turn: *mut lim_u32,
    #[doc = " [LIM_DRAW_SLOTS][stride], may be host memory; where none can be drawn, -1 minus the index of\nthe first logit that is NaN or +inf, -1 where every logit is -inf"]
    pub token: *mut lim_i32,
    #[doc = " [LIM_DRAW_SLOTS][stride], may be host memory; that logit where no token can be drawn"]
    pub logprob: *mut f32,
    #[doc = " [rows]"]
    pub next_token: *mut lim_i32,
    #[doc = " [rows]"]
    pub next_pos: *mut lim_i32,
    #[doc = " [rows]"]
    pub next_len: *mut lim_i32,
    pub scratch: *mut ::core::ffi::c_void,
    pub scratch_bytes: lim_u64,
    #[doc = " >= rows"]
    pub stride: lim_i32,
    pub rows: lim_i32,
    pub vocab: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_sample_args"][::core::mem::size_of::<lim_sample_args>() - 112usize];
    ["Alignment of lim_sample_args"][::core::mem::align_of::<lim_sample_args>() - 8usize];
    ["Offset of field: lim_sample_args::logits"][::core::mem::offset_of!(lim_sample_args, logits) - 0usize];
    ["Offset of field: lim_sample_args::draws"][::core::mem::offset_of!(lim_sample_args, draws) - 8usize];
    ["Offset of field: lim_sample_args::forced"][::core::mem::offset_of!(lim_sample_args, forced) - 16usize];
    ["Offset of field: lim_sample_args::seen"][::core::mem::offset_of!(lim_sample_args, seen) - 24usize];
    ["Offset of field: lim_sample_args::turn"][::core::mem::offset_of!(lim_sample_args, turn) - 32usize];
    ["Offset of field: lim_sample_args::token"][::core::mem::offset_of!(lim_sample_args, token) - 40usize];
    ["Offset of field: lim_sample_args::logprob"]
        [::core::mem::offset_of!(lim_sample_args, logprob) - 48usize];
    ["Offset of field: lim_sample_args::next_token"]
        [::core::mem::offset_of!(lim_sample_args, next_token) - 56usize];
    ["Offset of field: lim_sample_args::next_pos"]
        [::core::mem::offset_of!(lim_sample_args, next_pos) - 64usize];
    ["Offset of field: lim_sample_args::next_len"]
        [::core::mem::offset_of!(lim_sample_args, next_len) - 72usize];
    ["Offset of field: lim_sample_args::scratch"]
        [::core::mem::offset_of!(lim_sample_args, scratch) - 80usize];
    ["Offset of field: lim_sample_args::scratch_bytes"]
        [::core::mem::offset_of!(lim_sample_args, scratch_bytes) - 88usize];
    ["Offset of field: lim_sample_args::stride"][::core::mem::offset_of!(lim_sample_args, stride) - 96usize];
    ["Offset of field: lim_sample_args::rows"][::core::mem::offset_of!(lim_sample_args, rows) - 100usize];
    ["Offset of field: lim_sample_args::vocab"][::core::mem::offset_of!(lim_sample_args, vocab) - 104usize];
};
#[doc = " QK-norm, rope and the write of keys and values to their pages; see append.cu."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_append_args {
    pub kv: lim_kv,
    pub batch: lim_batch,
    #[doc = " [rows][(heads + 2 * kv_heads) * head_dim]; the q part is normed and rotated in place"]
    pub qkv: *mut ::core::ffi::c_void,
    #[doc = " [head_dim], or null where the model has no QK-norm"]
    pub q_norm: *const f32,
    #[doc = " [head_dim], or null; null exactly where q_norm is"]
    pub k_norm: *const f32,
    #[doc = " [positions][head_dim / 2]"]
    pub cos: *const f32,
    #[doc = " [positions][head_dim / 2]"]
    pub sin: *const f32,
    #[doc = " >= batch.max_len"]
    pub positions: lim_i32,
    pub heads: lim_i32,
    #[doc = " 1: an earlier lim_append came after whatever wrote the batch, and the kernel before this one lets\nothers start only behind its own wait: the batch is read before the wait, and what follows may\nstart at once"]
    pub early: lim_i32,
    #[doc = " of the norms"]
    pub eps: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_append_args"][::core::mem::size_of::<lim_append_args>() - 160usize];
    ["Alignment of lim_append_args"][::core::mem::align_of::<lim_append_args>() - 8usize];
    ["Offset of field: lim_append_args::kv"][::core::mem::offset_of!(lim_append_args, kv) - 0usize];
    ["Offset of field: lim_append_args::batch"][::core::mem::offset_of!(lim_append_args, batch) - 40usize];
    ["Offset of field: lim_append_args::qkv"][::core::mem::offset_of!(lim_append_args, qkv) - 104usize];
    ["Offset of field: lim_append_args::q_norm"][::core::mem::offset_of!(lim_append_args, q_norm) - 112usize];
    ["Offset of field: lim_append_args::k_norm"][::core::mem::offset_of!(lim_append_args, k_norm) - 120usize];
    ["Offset of field: lim_append_args::cos"][::core::mem::offset_of!(lim_append_args, cos) - 128usize];
    ["Offset of field: lim_append_args::sin"][::core::mem::offset_of!(lim_append_args, sin) - 136usize];
    ["Offset of field: lim_append_args::positions"]
        [::core::mem::offset_of!(lim_append_args, positions) - 144usize];
    ["Offset of field: lim_append_args::heads"][::core::mem::offset_of!(lim_append_args, heads) - 148usize];
    ["Offset of field: lim_append_args::early"][::core::mem::offset_of!(lim_append_args, early) - 152usize];
    ["Offset of field: lim_append_args::eps"][::core::mem::offset_of!(lim_append_args, eps) - 156usize];
};
#[doc = " One decode step's attention, dense or over a selection; see attend.cu."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_attend_args {
    pub kv: lim_kv,
    pub batch: lim_batch,
    #[doc = " [rows][q_stride], the first heads * head_dim elements of a row"]
    pub q: *const ::core::ffi::c_void,
    #[doc = " [rows][heads * head_dim]"]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " raw token scores of a dense attention; data null where unwanted"]
    pub scores: lim_scores,
    #[doc = " ids null: dense"]
    pub selection: lim_selection,
    #[doc = " [LIM_COUNTERS] of this layer"]
    pub counters: *mut lim_u64,
    #[doc = " zeroed before its first use; every launch leaves it fit for the next"]
    pub scratch: *mut ::core::ffi::c_void,
    #[doc = " >= lim_attend_scratch(args)"]
    pub scratch_bytes: lim_i64,
    pub heads: lim_i32,
    #[doc = " a multiple of 8"]
    pub q_stride: lim_i32,
    #[doc = " chunks that a sequence's tokens are cut into while those are shorter than the longest; 0: by\nthe number of sequences"]
    pub splits: lim_i32,
    #[doc = " 1: the kernel before this one in the stream is lim_append and nothing else came between,\nso all but q and each sequence's newest token may be read before it has finished"]
    pub early: lim_i32,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_attend_args"][::core::mem::size_of::<lim_attend_args>() - 216usize];
    ["Alignment of lim_attend_args"][::core::mem::align_of::<lim_attend_args>() - 8usize];
    ["Offset of field: lim_attend_args::kv"][::core::mem::offset_of!(lim_attend_args, kv) - 0usize];
    ["Offset of field: lim_attend_args::batch"][::core::mem::offset_of!(lim_attend_args, batch) - 40usize];
    ["Offset of field: lim_attend_args::q"][::core::mem::offset_of!(lim_attend_args, q) - 104usize];
    ["Offset of field: lim_attend_args::out"][::core::mem::offset_of!(lim_attend_args, out) - 112usize];
    ["Offset of field: lim_attend_args::scores"][::core::mem::offset_of!(lim_attend_args, scores) - 120usize];
    ["Offset of field: lim_attend_args::selection"]
        [::core::mem::offset_of!(lim_attend_args, selection) - 136usize];
    ["Offset of field: lim_attend_args::counters"]
        [::core::mem::offset_of!(lim_attend_args, counters) - 168usize];
    ["Offset of field: lim_attend_args::scratch"]
        [::core::mem::offset_of!(lim_attend_args, scratch) - 176usize];
    ["Offset of field: lim_attend_args::scratch_bytes"]
        [::core::mem::offset_of!(lim_attend_args, scratch_bytes) - 184usize];
    ["Offset of field: lim_attend_args::heads"][::core::mem::offset_of!(lim_attend_args, heads) - 192usize];
    ["Offset of field: lim_attend_args::q_stride"]
        [::core::mem::offset_of!(lim_attend_args, q_stride) - 196usize];
    ["Offset of field: lim_attend_args::splits"][::core::mem::offset_of!(lim_attend_args, splits) - 200usize];
    ["Offset of field: lim_attend_args::early"][::core::mem::offset_of!(lim_attend_args, early) - 204usize];
    ["Offset of field: lim_attend_args::scale"][::core::mem::offset_of!(lim_attend_args, scale) - 208usize];
};
#[doc = " Scores of every cached token, or Quest's upper bound for every page; see score.cu."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_score_args {
    pub kv: lim_kv,
    pub batch: lim_batch,
    #[doc = " [rows][q_stride]"]
    pub q: *const ::core::ffi::c_void,
    pub scores: lim_scores,
    #[doc = " [LIM_COUNTERS] of this layer"]
    pub counters: *mut lim_u64,
    pub heads: lim_i32,
    #[doc = " a multiple of 8"]
    pub q_stride: lim_i32,
    #[doc = " LIM_SCORE_TOKENS or LIM_SCORE_PAGES"]
    pub of: lim_i32,
    #[doc = " K: sequences with n <= K are not scored"]
    pub budget: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_score_args"][::core::mem::size_of::<lim_score_args>() - 152usize];
    ["Alignment of lim_score_args"][::core::mem::align_of::<lim_score_args>() - 8usize];
    ["Offset of field: lim_score_args::kv"][::core::mem::offset_of!(lim_score_args, kv) - 0usize];
    ["Offset of field: lim_score_args::batch"][::core::mem::offset_of!(lim_score_args, batch) - 40usize];
    ["Offset of field: lim_score_args::q"][::core::mem::offset_of!(lim_score_args, q) - 104usize];
    ["Offset of field: lim_score_args::scores"][::core::mem::offset_of!(lim_score_args, scores) - 112usize];
    ["Offset of field: lim_score_args::counters"]
        [::core::mem::offset_of!(lim_score_args, counters) - 128usize];
    ["Offset of field: lim_score_args::heads"][::core::mem::offset_of!(lim_score_args, heads) - 136usize];
    ["Offset of field: lim_score_args::q_stride"]
        [::core::mem::offset_of!(lim_score_args, q_stride) - 140usize];
    ["Offset of field: lim_score_args::of"][::core::mem::offset_of!(lim_score_args, of) - 144usize];
    ["Offset of field: lim_score_args::budget"][::core::mem::offset_of!(lim_score_args, budget) - 148usize];
};
#[doc = " Key gates of the pages that the step's rows have filled, prefill or decode; see gates.cu."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_key_gates_args {
    #[doc = " with gates"]
    pub kv: lim_kv,
    pub batch: lim_batch,
    #[doc = " [kv_heads * head_dim][3 * head_dim] of kv.dtype"]
    pub w: *const ::core::ffi::c_void,
    #[doc = " [positions][head_dim / 2]"]
    pub cos: *const f32,
    #[doc = " [positions][head_dim / 2]"]
    pub sin: *const f32,
    #[doc = " >= batch.max_len"]
    pub positions: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_key_gates_args"][::core::mem::size_of::<lim_key_gates_args>() - 136usize];
    ["Alignment of lim_key_gates_args"][::core::mem::align_of::<lim_key_gates_args>() - 8usize];
    ["Offset of field: lim_key_gates_args::kv"][::core::mem::offset_of!(lim_key_gates_args, kv) - 0usize];
    ["Offset of field: lim_key_gates_args::batch"]
        [::core::mem::offset_of!(lim_key_gates_args, batch) - 40usize];
    ["Offset of field: lim_key_gates_args::w"][::core::mem::offset_of!(lim_key_gates_args, w) - 104usize];
    ["Offset of field: lim_key_gates_args::cos"][::core::mem::offset_of!(lim_key_gates_args, cos) - 112usize];
    ["Offset of field: lim_key_gates_args::sin"][::core::mem::offset_of!(lim_key_gates_args, sin) - 120usize];
    ["Offset of field: lim_key_gates_args::positions"]
        [::core::mem::offset_of!(lim_key_gates_args, positions) - 128usize];
};
#[doc = " Scores of pages by their gates, a row a KV head; see gates.cu."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_gate_score_args {
    #[doc = " with gates"]
    pub kv: lim_kv,
    #[doc = " one row per sequence"]
    pub batch: lim_batch,
    #[doc = " [rows][q_stride], after lim_append"]
    pub q: *const ::core::ffi::c_void,
    #[doc = " [kv_heads * head_dim][heads / kv_heads * head_dim] of kv.dtype"]
    pub w: *const ::core::ffi::c_void,
    #[doc = " [positions][head_dim / 2]"]
    pub cos: *const f32,
    #[doc = " [positions][head_dim / 2]"]
    pub sin: *const f32,
    #[doc = " [seqs][kv_heads][stride]"]
    pub scores: lim_scores,
    #[doc = " [LIM_COUNTERS] of this layer: adds the bytes of gates read"]
    pub counters: *mut lim_u64,
    #[doc = " scratch_bytes bytes, any contents"]
    pub scratch: *mut ::core::ffi::c_void,
    pub scratch_bytes: lim_u64,
    #[doc = " >= batch.max_len"]
    pub positions: lim_i32,
    pub heads: lim_i32,
    #[doc = " a multiple of 8"]
    pub q_stride: lim_i32,
    #[doc = " K: sequences with n <= K are not scored"]
    pub budget: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_gate_score_args"][::core::mem::size_of::<lim_gate_score_args>() - 192usize];
    ["Alignment of lim_gate_score_args"][::core::mem::align_of::<lim_gate_score_args>() - 8usize];
    ["Offset of field: lim_gate_score_args::kv"][::core::mem::offset_of!(lim_gate_score_args, kv) - 0usize];
    ["Offset of field: lim_gate_score_args::batch"]
        [::core::mem::offset_of!(lim_gate_score_args, batch) - 40usize];
    ["Offset of field: lim_gate_score_args::q"][::core::mem::offset_of!(lim_gate_score_args, q) - 104usize];
    ["Offset of field: lim_gate_score_args::w"][::core::mem::offset_of!(lim_gate_score_args, w) - 112usize];
    ["Offset of field: lim_gate_score_args::cos"]
        [::core::mem::offset_of!(lim_gate_score_args, cos) - 120usize];
    ["Offset of field: lim_gate_score_args::sin"]
        [::core::mem::offset_of!(lim_gate_score_args, sin) - 128usize];
    ["Offset of field: lim_gate_score_args::scores"]
        [::core::mem::offset_of!(lim_gate_score_args, scores) - 136usize];
    ["Offset of field: lim_gate_score_args::counters"]
        [::core::mem::offset_of!(lim_gate_score_args, counters) - 152usize];
    ["Offset of field: lim_gate_score_args::scratch"]
        [::core::mem::offset_of!(lim_gate_score_args, scratch) - 160usize];
    ["Offset of field: lim_gate_score_args::scratch_bytes"]
        [::core::mem::offset_of!(lim_gate_score_args, scratch_bytes) - 168usize];
    ["Offset of field: lim_gate_score_args::positions"]
        [::core::mem::offset_of!(lim_gate_score_args, positions) - 176usize];
    ["Offset of field: lim_gate_score_args::heads"]
        [::core::mem::offset_of!(lim_gate_score_args, heads) - 180usize];
    ["Offset of field: lim_gate_score_args::q_stride"]
        [::core::mem::offset_of!(lim_gate_score_args, q_stride) - 184usize];
    ["Offset of field: lim_gate_score_args::budget"]
        [::core::mem::offset_of!(lim_gate_score_args, budget) - 188usize];
};
#[doc = " Causal attention of the rows of a prefill step over their sequences' pages; see prefill.cu."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_prefill_args {
    pub kv: lim_kv,
    #[doc = " the m rows of a sequence are its last m positions"]
    pub batch: lim_batch,
    #[doc = " [rows][q_stride]"]
    pub q: *const ::core::ffi::c_void,
    #[doc = " [rows][heads * head_dim]"]
    pub out: *mut ::core::ffi::c_void,
    pub heads: lim_i32,
    #[doc = " a multiple of 8"]
    pub q_stride: lim_i32,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_prefill_args"][::core::mem::size_of::<lim_prefill_args>() - 136usize];
    ["Alignment of lim_prefill_args"][::core::mem::align_of::<lim_prefill_args>() - 8usize];
    ["Offset of field: lim_prefill_args::kv"][::core::mem::offset_of!(lim_prefill_args, kv) - 0usize];
    ["Offset of field: lim_prefill_args::batch"][::core::mem::offset_of!(lim_prefill_args, batch) - 40usize];
    ["Offset of field: lim_prefill_args::q"][::core::mem::offset_of!(lim_prefill_args, q) - 104usize];
    ["Offset of field: lim_prefill_args::out"][::core::mem::offset_of!(lim_prefill_args, out) - 112usize];
    ["Offset of field: lim_prefill_args::heads"][::core::mem::offset_of!(lim_prefill_args, heads) - 120usize];
    ["Offset of field: lim_prefill_args::q_stride"]
        [::core::mem::offset_of!(lim_prefill_args, q_stride) - 124usize];
    ["Offset of field: lim_prefill_args::scale"][::core::mem::offset_of!(lim_prefill_args, scale) - 128usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_pool_args {
    #[doc = " [seqs][heads][stride] raw token scores"]
    pub scores: lim_scores,
    #[doc = " one row per sequence: len, seqs and max_len are read"]
    pub batch: lim_batch,
    #[doc = " [seqs][rows][stride]"]
    pub out: lim_scores,
    #[doc = " scratch_bytes bytes, any contents"]
    pub scratch: *mut ::core::ffi::c_void,
    pub scratch_bytes: lim_u64,
    #[doc = " softmax scale times log2(e), above 0"]
    pub scale_log2: f32,
    #[doc = " LIM_POOL_*"]
    pub by: lim_i32,
    #[doc = " H, 1..128"]
    pub heads: lim_i32,
    pub kv_heads: lim_i32,
    #[doc = " power of two, 1..256"]
    pub page_size: lim_i32,
    #[doc = " K: nothing is pooled for sequences with n <= K"]
    pub budget: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_pool_args"][::core::mem::size_of::<lim_pool_args>() - 136usize];
    ["Alignment of lim_pool_args"][::core::mem::align_of::<lim_pool_args>() - 8usize];
    ["Offset of field: lim_pool_args::scores"][::core::mem::offset_of!(lim_pool_args, scores) - 0usize];
    ["Offset of field: lim_pool_args::batch"][::core::mem::offset_of!(lim_pool_args, batch) - 16usize];
    ["Offset of field: lim_pool_args::out"][::core::mem::offset_of!(lim_pool_args, out) - 80usize];
    ["Offset of field: lim_pool_args::scratch"][::core::mem::offset_of!(lim_pool_args, scratch) - 96usize];
    ["Offset of field: lim_pool_args::scratch_bytes"]
        [::core::mem::offset_of!(lim_pool_args, scratch_bytes) - 104usize];
    ["Offset of field: lim_pool_args::scale_log2"]
        [::core::mem::offset_of!(lim_pool_args, scale_log2) - 112usize];
    ["Offset of field: lim_pool_args::by"][::core::mem::offset_of!(lim_pool_args, by) - 116usize];
    ["Offset of field: lim_pool_args::heads"][::core::mem::offset_of!(lim_pool_args, heads) - 120usize];
    ["Offset of field: lim_pool_args::kv_heads"][::core::mem::offset_of!(lim_pool_args, kv_heads) - 124usize];
    ["Offset of field: lim_pool_args::page_size"]
        [::core::mem::offset_of!(lim_pool_args, page_size) - 128usize];
    ["Offset of field: lim_pool_args::budget"][::core::mem::offset_of!(lim_pool_args, budget) - 132usize];
};
#[doc = " K = sinks + history + window. Sequences with len <= K get count LIM_DENSE and no ids. Otherwise candidates are the\n positions [sinks, len - window), ranked per row by score, highest first, ties by the lower position, -0 as +0, NaN\n as -inf. PICK_PAGES takes page scores, looks at K and the window and writes every position below len of the chosen pages."]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct lim_select_args {
    #[doc = " [seqs][rows][stride], of tokens or of pages; data may be null for PICK_NOTHING"]
    pub scores: lim_scores,
    #[doc = " one row per sequence: len, seqs and max_len are read"]
    pub batch: lim_batch,
    #[doc = " one set for PICK_UNION, PICK_MASS and PICK_NOTHING, else one a row; capacity at least K,\n for PICK_PAGES also at least page_size"]
    pub out: lim_selection,
    #[doc = " [LIM_COUNTERS] of this layer: adds the selections made"]
    pub counters: *mut lim_u64,
    #[doc = " [seqs][firsts_stride] PICK_UNION and PICK_MASS: zeroed when `out` was made and used with it alone;\n every launch leaves it fit for the next, whose time, not result, depends on what it notes here"]
    pub firsts: *mut lim_u64,
    #[doc = " scratch_bytes bytes, any contents"]
    pub scratch: *mut ::core::ffi::c_void,
    pub scratch_bytes: lim_u64,
    #[doc = " PICK_MASS: in units of 2^-32, 1..2^32"]
    pub share: lim_u64,
    #[doc = " words a sequence: >= 4 + out.capacity + max_len"]
    pub firsts_stride: lim_i64,
    #[doc = " PICK_MASS: softmax scale times log2(e), above 0"]
    pub scale_log2: f32,
    #[doc = " LIM_PICK_*"]
    pub rule: lim_i32,
    #[doc = " rows of scores, 1..128: H for PICK_UNION and PICK_MASS"]
    pub rows: lim_i32,
    #[doc = " S"]
    pub sinks: lim_i32,
    #[doc = " M"]
    pub history: lim_i32,
    #[doc = " W"]
    pub window: lim_i32,
    #[doc = " power of two, 1..256; read for PICK_PAGES"]
    pub page_size: lim_i32,
    #[doc = " 1: the kernel before this one lets others start only behind its own wait and has no part in\n these arguments: the first ranks are found before the wait, all if `begun`"]
    pub early: lim_i32,
    #[doc = " 1: the kernel before this one is a product that leaves LIM_SELECT_ROOM. Clusters of blocks would\n wait for multiprocessors beside each other: one block ranks a row, unless it may be very long."]
    pub beside: lim_i32,
    #[doc = " 1: lim_select_begin was called for this selection. If `early` too, the next kernel may start at\n once."]
    pub begun: lim_i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lim_select_args"][::core::mem::size_of::<lim_select_args>() - 200usize];
    ["Alignment of lim_select_args"][::core::mem::align_of::<lim_select_args>() - 8usize];
    ["Offset of field: lim_select_args::scores"][::core::mem::offset_of!(lim_select_args, scores) - 0usize];
    ["Offset of field: lim_select_args::batch"][::core::mem::offset_of!(lim_select_args, batch) - 16usize];
    ["Offset of field: lim_select_args::out"][::core::mem::offset_of!(lim_select_args, out) - 80usize];
    ["Offset of field: lim_select_args::counters"]
        [::core::mem::offset_of!(lim_select_args, counters) - 112usize];
    ["Offset of field: lim_select_args::firsts"][::core::mem::offset_of!(lim_select_args, firsts) - 120usize];
    ["Offset of field: lim_select_args::scratch"]
        [::core::mem::offset_of!(lim_select_args, scratch) - 128usize];
    ["Offset of field: lim_select_args::scratch_bytes"]
        [::core::mem::offset_of!(lim_select_args, scratch_bytes) - 136usize];
    ["Offset of field: lim_select_args::share"][::core::mem::offset_of!(lim_select_args, share) - 144usize];
    ["Offset of field: lim_select_args::firsts_stride"]
        [::core::mem::offset_of!(lim_select_args, firsts_stride) - 152usize];
    ["Offset of field: lim_select_args::scale_log2"]
        [::core::mem::offset_of!(lim_select_args, scale_log2) - 160usize];
    ["Offset of field: lim_select_args::rule"][::core::mem::offset_of!(lim_select_args, rule) - 164usize];
    ["Offset of field: lim_select_args::rows"][::core::mem::offset_of!(lim_select_args, rows) - 168usize];
    ["Offset of field: lim_select_args::sinks"][::core::mem::offset_of!(lim_select_args, sinks) - 172usize];
    ["Offset of field: lim_select_args::history"]
        [::core::mem::offset_of!(lim_select_args, history) - 176usize];
    ["Offset of field: lim_select_args::window"][::core::mem::offset_of!(lim_select_args, window) - 180usize];
    ["Offset of field: lim_select_args::page_size"]
        [::core::mem::offset_of!(lim_select_args, page_size) - 184usize];
    ["Offset of field: lim_select_args::early"][::core::mem::offset_of!(lim_select_args, early) - 188usize];
    ["Offset of field: lim_select_args::beside"][::core::mem::offset_of!(lim_select_args, beside) - 192usize];
    ["Offset of field: lim_select_args::begun"][::core::mem::offset_of!(lim_select_args, begun) - 196usize];
};
unsafe extern "C" {
    pub fn lim_linear(args: *const lim_linear_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_embed(args: *const lim_embed_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_rms_norm(args: *const lim_rms_norm_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_swiglu(args: *const lim_swiglu_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_bias(args: *const lim_bias_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_seen(args: *const lim_seen_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_sample(args: *const lim_sample_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_sample_scratch(rows: lim_i32) -> lim_u64;
    pub fn lim_append(args: *const lim_append_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    #[doc = " Bytes of scratch for these capacities (shapes and extents are read, pointers are not), or a negative LIM_E_* code."]
    pub fn lim_attend_scratch(args: *const lim_attend_args) -> lim_i64;
    pub fn lim_attend(args: *const lim_attend_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_score(args: *const lim_score_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_key_gates(args: *const lim_key_gates_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    #[doc = " Bytes of scratch that lim_gate_score wants for these arguments (pointers are not read)."]
    pub fn lim_gate_score_scratch(args: *const lim_gate_score_args) -> lim_u64;
    pub fn lim_gate_score(args: *const lim_gate_score_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    pub fn lim_prefill(args: *const lim_prefill_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    #[doc = " Bytes of scratch that lim_pool wants for these arguments (pointers are not read)."]
    pub fn lim_pool_scratch(args: *const lim_pool_args) -> lim_u64;
    pub fn lim_pool(args: *const lim_pool_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    #[doc = " Bytes of scratch that lim_select wants for these arguments (pointers are not read)."]
    pub fn lim_select_scratch(args: *const lim_select_args) -> lim_u64;
    pub fn lim_select(args: *const lim_select_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
    #[doc = " For PICK_UNION: finds the first ranks for the next lim_select to this `out`, which has to come, with the same arguments but\n `early` and `begun`. Kernels that have no part in these may come in between. The next kernel may start at once."]
    pub fn lim_select_begin(args: *const lim_select_args, stream: *mut ::core::ffi::c_void) -> lim_i32;
}
