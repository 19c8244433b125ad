//! The demo model, inside the executable: a small reasoning model trained from scratch (see lim-bench/train).

/// A file of the model with the alignment that mapped files have: weights are used where they lie.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/lim-demo/model.safetensors"));

static GATES: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/lim-demo/seer.safetensors"));

/// Name in reports.
pub(crate) const NAME: &str = "lim-demo";

/// The files by name, as they would lie in a directory.
pub(crate) const FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../assets/lim-demo/config.json")),
    ("model.safetensors", &WEIGHTS.0),
    ("tokenizer.json", include_bytes!("../assets/lim-demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../assets/lim-demo/tokenizer_config.json")),
    ("generation_config.json", include_bytes!("../assets/lim-demo/generation_config.json")),
    ("lim.json", include_bytes!("../assets/lim-demo/lim.json")),
    ("seer.safetensors", &GATES.0),
];
