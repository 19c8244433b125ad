//! Head geometry and the page layout of the KV cache.

use crate::{DType, Error, Result};

/// Head counts of a grouped-query attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

impl Heads {
    /// `query` query heads share `kv` KV heads of `dim` elements each.
    ///
    /// # Errors
    /// When a count is zero, `query` is not a multiple of `kv`, or `dim` is odd.
    pub fn new(query: usize, kv: usize, dim: usize) -> Result<Self> {
        let range =
            |what, got: usize, must: String| Error::Range { op: "heads", what, got: got as u64, must };
        if kv == 0 {
            return Err(range("kv heads", kv, "at least 1".into()));
        }
        if query == 0 || !query.is_multiple_of(kv) {
            return Err(range("query heads", query, format!("a positive multiple of the {kv} kv heads")));
        }
        if dim == 0 || !dim.is_multiple_of(2) {
            return Err(range("head_dim", dim, "even and positive".into()));
        }
        Ok(Heads { query, kv, dim })
    }

    /// Query heads, H.
    pub fn query(self) -> usize {
        self.query
    }

    /// KV heads.
    pub fn kv(self) -> usize {
        self.kv
    }

    /// Elements of one head.
    pub fn dim(self) -> usize {
        self.dim
    }

    /// Query heads per KV head.
    pub fn group(self) -> usize {
        self.query / self.kv
    }

    /// Width of a fused `[q | k | v]` row.
    pub fn qkv_width(self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }
}

/// Tokens per page: a power of two from 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u32);

impl PageSize {
    /// The most tokens a page may have.
    pub const MAX: usize = 256;

    /// # Errors
    /// When `tokens` is not a power of two from 1 to 256.
    pub fn new(tokens: usize) -> Result<Self> {
        if tokens.is_power_of_two() && tokens <= Self::MAX {
            return Ok(PageSize(tokens as u32));
        }
        Err(Error::Range {
            op: "page size",
            what: "tokens per page",
            got: tokens as u64,
            must: "a power of two from 1 to 256".into(),
        })
    }

    /// Tokens per page.
    pub fn tokens(self) -> usize {
        self.0 as usize
    }

    /// Pages that `tokens` tokens occupy.
    pub fn pages_for(self, tokens: usize) -> usize {
        tokens.div_ceil(self.tokens())
    }
}

impl Default for PageSize {
    fn default() -> Self {
        PageSize(16)
    }
}

/// What is kept of every page beside its keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageExtras {
    /// Quest's bounds, `[page][min|max][kv_head][head_dim]` over the page's keys, in their type.
    pub bounds: bool,
    /// SeerAttention's key gates, `[page][kv_head][head_dim]` in the keys' type: see [`KeyGates`](crate::KeyGates).
    pub gates: bool,
}

impl PageExtras {
    /// What either asks for.
    #[must_use]
    pub fn and(self, other: PageExtras) -> PageExtras {
        PageExtras { bounds: self.bounds || other.bounds, gates: self.gates || other.gates }
    }

    /// Whether all that `other` asks for is kept.
    pub fn cover(self, other: PageExtras) -> bool {
        self.and(other) == self
    }

    /// Elements of one page in one layer.
    pub fn page_elements(self, layout: KvLayout) -> usize {
        (2 * usize::from(self.bounds) + usize::from(self.gates)) * layout.token_width()
    }
}

/// Layout of one layer's pages: `[page][K|V][slot in page][kv_head][head_dim]`.
///
/// One token's keys for all heads are contiguous, so gathering a token costs two contiguous reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Head geometry.
    pub heads: Heads,
    /// Tokens per page.
    pub page_size: PageSize,
    /// Element type of keys and values.
    pub dtype: DType,
}

impl KvLayout {
    /// Elements of one token's keys (or values): kv_heads * head_dim.
    pub fn token_width(self) -> usize {
        self.heads.kv() * self.heads.dim()
    }

    /// Elements of one page, K and V.
    pub fn page_elements(self) -> usize {
        2 * self.page_size.tokens() * self.token_width()
    }

    /// Element offset of a token's keys: page `page`, slot `slot`. Its values lie `value_offset` further.
    pub fn key_offset(self, page: usize, slot: usize) -> usize {
        page * self.page_elements() + slot * self.token_width()
    }

    /// Distance in elements from a token's keys to its values.
    pub fn value_offset(self) -> usize {
        self.page_size.tokens() * self.token_width()
    }

    /// Bytes that one cached token takes in one layer, K and V.
    pub fn token_bytes(self) -> usize {
        2 * self.token_width() * self.dtype.bytes()
    }
}
