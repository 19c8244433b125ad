//! A backend whose pages hold one `u32` stamp per slot, and whose copies can be made to fail. Nothing else of the seam
//! is there: other verbs return an error.

use lim_kernels::*;

pub(crate) struct Fake {
    /// Copies that still succeed; the next one fails once. `None`: all succeed.
    pub(crate) copies_left: Option<usize>,
}

/// `[page][slot]`.
pub(crate) type Stamps = Vec<Vec<u32>>;

fn absent<T>() -> Result<T> {
    Err(Error::Device { device: "fake".into(), reason: "this verb is not part of the test".into() })
}

impl Backend for Fake {
    type Linear = ();
    type Vector = ();
    type Rope = ();
    type Rows = ();
    type Batch = ();
    type Kv = Stamps;
    type Scores = ();
    type Selection = ();
    type Counters = ();
    type Draws = ();
    type Recording = ();

    fn kv(&mut self, layout: KvLayout, pages: usize, _: PageExtras) -> Result<Stamps> {
        Ok(vec![vec![0; layout.page_size.tokens()]; pages])
    }

    fn copy_page(&mut self, kv: &mut Stamps, from: u32, to: u32) -> Result<()> {
        if self.copies_left == Some(0) {
            self.copies_left = None;
            return Err(Error::Device { device: "fake".into(), reason: "told to fail".into() });
        }
        self.copies_left = self.copies_left.map(|n| n - 1);
        kv[to as usize] = kv[from as usize].clone();
        Ok(())
    }

    fn device(&self) -> String {
        "fake".into()
    }
    fn linear(&mut self, _: &[(HostTensor<2>, Option<HostTensor<1>>)]) -> Result<()> {
        absent()
    }
    fn vector(&mut self, _: &HostTensor<1>) -> Result<()> {
        absent()
    }
    fn rope(&mut self, _: &[f32], _: &[f32], _: usize) -> Result<()> {
        absent()
    }
    fn rows(&mut self, _: RowsKind, _: [usize; 2]) -> Result<Tensor<(), 2>> {
        absent()
    }
    fn batch(&mut self, _: Capacity, _: PageSize) -> Result<()> {
        absent()
    }
    fn scores(&mut self, _: Capacity, _: Heads) -> Result<()> {
        absent()
    }
    fn pooled(&mut self, _: Capacity, _: usize) -> Result<()> {
        absent()
    }
    fn selection(&mut self, _: Capacity, _: Heads, _: Sets, _: usize) -> Result<()> {
        absent()
    }
    fn counters(&mut self, _: usize) -> Result<()> {
        absent()
    }
    fn draws(&mut self, _: usize, _: usize) -> Result<()> {
        absent()
    }
    fn start_draws(&mut self, _: &[Draw<'_>], _: &mut ()) -> Result<()> {
        absent()
    }
    fn force_draws(&mut self, _: &[Option<u32>], _: &mut ()) -> Result<()> {
        absent()
    }
    fn post_draws(&mut self, _: &mut ()) -> Result<()> {
        absent()
    }
    fn read_draws(&mut self, _: &mut (), _: &mut [Sampled]) -> Result<()> {
        absent()
    }
    fn upload(&mut self, _: &Step, _: &mut ()) -> Result<()> {
        absent()
    }
    fn read_rows(&mut self, _: &Tensor<(), 2>, _: &mut [f32]) -> Result<()> {
        absent()
    }
    fn write_rows(&mut self, _: &[f32], _: &mut Tensor<(), 2>) -> Result<()> {
        absent()
    }
    fn write_scores(&mut self, _: usize, _: &[f32], _: &mut ()) -> Result<()> {
        absent()
    }
    fn read_scores(&mut self, _: usize, _: usize, _: &()) -> Result<Vec<f32>> {
        absent()
    }
    fn read_selection(&mut self, _: usize, _: &()) -> Result<Option<Vec<Vec<u32>>>> {
        absent()
    }
    fn read_counters(&mut self, _: &()) -> Result<Vec<LayerCount>> {
        absent()
    }
    fn record<E: From<Error>>(
        &mut self,
        _: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Option<()>, E> {
        Ok(absent()?)
    }
    fn replay(&mut self, _: &()) -> Result<()> {
        absent()
    }
    fn embed(&mut self, _: Embed<'_, Self>) -> Result<()> {
        absent()
    }
    fn norm_linear(&mut self, _: NormLinear<'_, Self>) -> Result<()> {
        absent()
    }
    fn linear_add(&mut self, _: LinearAdd<'_, Self>) -> Result<()> {
        absent()
    }
    fn norm_gate_up(&mut self, _: NormGateUp<'_, Self>) -> Result<()> {
        absent()
    }
    fn append(&mut self, _: Append<'_, Self>) -> Result<()> {
        absent()
    }
    fn key_gates(&mut self, _: KeyGates<'_, Self>) -> Result<()> {
        absent()
    }
    fn attend(&mut self, _: Attend<'_, Self>) -> Result<()> {
        absent()
    }
    fn score(&mut self, _: Score<'_, Self>) -> Result<()> {
        absent()
    }
    fn gate_score(&mut self, _: GateScore<'_, Self>) -> Result<()> {
        absent()
    }
    fn pool(&mut self, _: Pool<'_, Self>) -> Result<()> {
        absent()
    }
    fn select(&mut self, _: Select<'_, Self>) -> Result<()> {
        absent()
    }
    fn logits(&mut self, _: Logits<'_, Self>) -> Result<()> {
        absent()
    }
    fn sample(&mut self, _: Sample<'_, Self>) -> Result<()> {
        absent()
    }
}
