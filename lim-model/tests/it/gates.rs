//! Gate files: what is in them, what is refused, and that a model wants those of its pages.

use std::collections::HashMap;

use lim_kernels::cpu::Cpu;
use lim_kernels::{DType, PageSize};
use lim_model::{Checkpoint, Engine, Gates, Model, ModelDir, Result};
use lim_select::Policy;
use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::tiny::{POSITIONS, alone, attention, config, greedy, options, page_size};

/// A file with gates of `layers` layers that have `inputs` inputs for keys; head_dim is 32, with 2 KV heads of 2.
fn file(layers: usize, inputs: usize, page_size: Option<&str>) -> &'static [u8] {
    let data = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|i| (((i * 37 % 101) as f32 - 50.0) / 400.0).to_le_bytes()).collect()
    };
    let (q, k) = (data(64 * 64), data(64 * inputs));
    let mut tensors = Vec::new();
    for layer in 0..layers {
        for (part, data, inputs) in [("q", &q, 64), ("k", &k, inputs)] {
            let name = format!("model.layers.{layer}.self_attn.seer.{part}_proj.weight");
            tensors.push((name, TensorView::new(Dtype::F32, vec![64, inputs], data).unwrap()));
        }
    }
    let metadata = page_size.map(|size| HashMap::from([("page_size".to_owned(), size.to_owned())]));
    serialize(tensors, metadata).unwrap().leak()
}

fn read(bytes: &'static [u8]) -> Result<Gates> {
    Gates::from_bytes("seer.safetensors", bytes, &config())
}

#[test]
fn a_file_names_the_pages_it_is_for() {
    let gates = read(file(5, 96, Some("4"))).unwrap();
    assert_eq!(gates.page_size().map(PageSize::tokens), Some(4));
    let [q, k] = gates.layer(4).unwrap();
    assert_eq!((q.shape, k.shape), ([64, 64], [64, 96]));
    assert_eq!(&k.bytes.as_slice()[..4], (-0.125f32).to_le_bytes());
    assert!(gates.layer(5).is_err());
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    for (bytes, words) in [
        (file(5, 96, None), "__metadata__.page_size is missing, must be the page size"),
        (file(5, 96, Some("12")), "__metadata__.page_size is 12, must be"),
        (file(4, 96, Some("4")), "model.layers.4.self_attn.seer.q_proj.weight is missing"),
        (file(5, 64, Some("4")), "k_proj.weight has shape [64, 64], the config calls for [64, 96]"),
        (b"nothing", "not a whole safetensors file"),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("seer.safetensors"), "{error}: expected {words}");
    }
    let dir = ModelDir::embedded("tiny", &[]);
    assert_eq!(dir.gates(&config()).unwrap_err().to_string(), "tiny: no seer.safetensors");
}

fn engine(gates: Option<Gates>, policy: Policy) -> Result<Engine<Cpu>> {
    let mut cpu = Cpu::new(Some(1))?;
    let weights = Checkpoint::random(DType::F32, 1).weights(&config(), None)?;
    let mut model = Model::load(&mut cpu, config(), &weights, POSITIONS, |_| ())?;
    if let Some(gates) = gates {
        model.load_gates(&mut cpu, &gates)?;
    }
    Engine::new(cpu, model, attention(policy, 24), options())
}

#[test]
fn gates_must_be_there_and_fit_the_pages() {
    let refused = |gates| engine(gates, Policy::Seer).err().map(|error| error.to_string());
    assert_eq!(refused(Some(read(file(5, 96, Some("4"))).unwrap())), None);
    assert_eq!(refused(None).as_deref(), Some("page gates are to be kept, the model was loaded without"));
    assert_eq!(
        refused(Some(read(file(5, 96, Some("16"))).unwrap())).as_deref(),
        Some("page gates were made for pages of 16 tokens, the cache has pages of 4")
    );
    assert_eq!(page_size().tokens(), 4);
}

/// A model that has gates, and does not use them, is the model.
#[test]
fn other_policies_do_not_look_at_gates() {
    let request = greedy(60, 1, 20);
    let mut bare = engine(None, Policy::Lim).unwrap();
    let ids = bare.add(request.clone()).unwrap();
    let plain = crate::tiny::run(&mut bare, &ids).0;
    assert_eq!(plain, alone(attention(Policy::Lim, 24), request));
}
