//! candle's qwen3 on a checkpoint directory: seconds for a prefill and for decoding at a depth.
//!
//!     RAYON_NUM_THREADS=2 cargo run --release -- DIR bf16|f16|f32 PROMPT DEPTH STEPS

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::qwen3::{Config, ModelForCausalLM};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn ids(count: usize) -> Result<Tensor> {
    let ids: Vec<u32> = (0..count as u32).map(|i| (i * 7919) % 150_000).collect();
    Ok(Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, dtype, prompt, depth, steps] = &args[..] else {
        return Err("usage: lim-peer-candle DIR bf16|f16|f32 PROMPT DEPTH STEPS".into());
    };
    let dtype = match dtype.as_str() {
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        "f32" => DType::F32,
        other => return Err(format!("unknown type {other}").into()),
    };
    let (prompt, depth, steps): (usize, usize, usize) = (prompt.parse()?, depth.parse()?, steps.parse()?);
    let config: Config = serde_json::from_slice(&std::fs::read(format!("{dir}/config.json"))?)?;
    // SAFETY: the file is not written while it is mapped.
    let vb = unsafe {
        VarBuilder::from_mmaped_safetensors(&[format!("{dir}/model.safetensors")], dtype, &Device::Cpu)?
    };
    let mut model = ModelForCausalLM::new(&config, vb)?;

    if prompt > 0 {
        model.forward(&ids(8)?, 0)?;
        model.clear_kv_cache();
        let start = Instant::now();
        model.forward(&ids(prompt)?, 0)?;
        println!("{{\"test\":\"pp{prompt}\",\"tokens_per_s\":{:.3}}}", prompt as f64 / start.elapsed().as_secs_f64());
        model.clear_kv_cache();
    }
    // The cache is filled by prefill, in chunks so that the attention matrix stays small.
    let mut at = 0;
    while at < depth {
        let chunk = (depth - at).min(512);
        model.forward(&ids(chunk)?, at)?;
        at += chunk;
    }
    if steps > 0 {
        model.forward(&ids(1)?, at)?;
        let start = Instant::now();
        for i in 0..steps {
            model.forward(&ids(1)?, at + 1 + i)?;
        }
        println!("{{\"test\":\"tg{steps}@d{depth}\",\"tokens_per_s\":{:.3}}}", steps as f64 / start.elapsed().as_secs_f64());
    }
    Ok(())
}
