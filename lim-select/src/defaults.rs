//! Select layers of known models (LessIsMore, arXiv 2508.07101), and a rule for the others.

use crate::{Layers, Own, Result};

/// What the choice of default layers looks at.
#[derive(Clone, Copy, Debug)]
pub struct ModelHint<'a> {
    /// `model_type` of config.json, such as `qwen3`.
    pub model_type: &'a str,
    /// Name or directory of the checkpoint. R1-Distill-Llama-8B and Llama-3.1-8B have the same shape: only their
    /// names tell them apart. May be empty.
    pub name: &'a str,
    /// Number of layers.
    pub layers: usize,
    /// Hidden size.
    pub hidden: usize,
}

/// Dense 0-1, select 2 and one layer in the middle: the paper's for its models, otherwise round(L/3).
///
/// A model of fewer than 8 layers selects once, at layer 2 or, with fewer than 3 layers, at its last.
///
/// # Errors
/// When the model has no layer.
pub fn default_layers(hint: &ModelHint<'_>) -> Result<Layers> {
    let distill = hint.name.to_ascii_lowercase().contains("r1-distill");
    let second = match (hint.model_type, hint.layers, hint.hidden) {
        ("qwen3", 36, 4096) => 12, // Qwen3-8B
        ("qwen3", 40, 5120) => 12, // Qwen3-14B
        ("qwen3", 36, 2560) => 20, // Qwen3-4B
        ("llama", 32, 4096) if distill => 12,
        ("llama", 32, 4096) => 13, // Llama-3-8B, Llama-3.1-8B
        (_, layers, _) => (2 * layers + 3) / 6,
    };
    let first = 2.min(hint.layers.saturating_sub(1));
    let select = [first, second].into_iter().take(if second > first { 2 } else { 1 });
    let layers = Layers::new(0..first, select.map(|layer| (layer, Own::Dense)))?;
    crate::Plan::new(&layers, hint.layers)?;
    Ok(layers)
}

/// Dense 0-1, every later layer selects for itself; fewer dense ones in a model of fewer than 3 layers.
pub(crate) fn later_layers(count: usize) -> Result<Layers> {
    let first = 2.min(count.saturating_sub(1));
    Layers::new(0..first, (first..count).map(|layer| (layer, Own::Sparse)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(model_type: &str, name: &str, layers: usize, hidden: usize) -> String {
        default_layers(&ModelHint { model_type, name, layers, hidden }).expect("has layers").to_string()
    }

    #[test]
    fn models_of_the_paper() {
        assert_eq!(layers("qwen3", "Qwen3-8B", 36, 4096), "dense=0-1,select=2,12");
        assert_eq!(layers("qwen3", "", 40, 5120), "dense=0-1,select=2,12");
        assert_eq!(layers("qwen3", "", 36, 2560), "dense=0-1,select=2,20");
        assert_eq!(layers("llama", "Llama-3.1-8B-Instruct", 32, 4096), "dense=0-1,select=2,13");
        assert_eq!(layers("llama", "DeepSeek-R1-Distill-Llama-8B", 32, 4096), "dense=0-1,select=2,12");
    }

    #[test]
    fn other_models() {
        assert_eq!(layers("qwen2", "", 28, 3584), "dense=0-1,select=2,9");
        assert_eq!(layers("mistral", "", 32, 4096), "dense=0-1,select=2,11");
        assert_eq!(layers("qwen3", "", 64, 5120), "dense=0-1,select=2,21");
        assert_eq!(layers("qwen3", "", 8, 64), "dense=0-1,select=2-3");
    }

    #[test]
    fn tiny_models() {
        assert_eq!(layers("qwen3", "", 7, 64), "dense=0-1,select=2");
        assert_eq!(layers("qwen3", "", 3, 64), "dense=0-1,select=2");
        assert_eq!(layers("qwen3", "", 2, 64), "dense=0,select=1");
        assert_eq!(layers("qwen3", "", 1, 64), "select=0");
        default_layers(&ModelHint { model_type: "qwen3", name: "", layers: 0, hidden: 64 })
            .expect_err("nothing to select in");
    }
}
