//! A decode step allocates nothing. In a binary of its own, for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lim_kernels::cpu::Cpu;
use lim_kernels::{DType, SampleParams};
use lim_model::{Checkpoint, Config, Engine, EngineOptions, Gates, Model, Request};
use lim_select::{ModelHint, Policy, Settings};

/// Counts the calling thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decode_step_allocates_nothing() {
    let config = Config::preset("qwen3-0.6b").unwrap();
    let config = Config { layers: 3, vocab: 2048, hidden: 128, intermediate: 256, ..config };
    let hint = ModelHint { model_type: "qwen3", name: "", layers: 3, hidden: 128 };
    for policy in Policy::ALL {
        let budget = (policy != Policy::Full).then_some(64);
        let settings = Settings { policy: Some(policy), token_budget: budget, ..Settings::default() };
        // One thread, so that all work is the counted thread's.
        let mut cpu = Cpu::new(Some(1)).unwrap();
        let weights = Checkpoint::random(DType::BF16, 1).weights(&config, None).unwrap();
        let options = EngineOptions::new(3, 256);
        let gates = Gates::random(&config, DType::BF16, 1);
        let mut model = Model::load(&mut cpu, config.clone(), &weights, 512, |_| ()).unwrap();
        model.load_gates(&mut cpu, &gates).unwrap();
        let attention = settings.resolve(&hint, options.page_size).unwrap();
        let mut engine = Engine::new(cpu, model, attention, options).unwrap();
        for (len, temperature) in [(90, 0.0), (100, 0.7), (30, 1.0)] {
            let params = SampleParams { temperature, top_k: 40, top_p: 0.9, ..SampleParams::default() };
            engine.add(Request { params, ..Request::new((0..len).collect(), 80) }).unwrap();
        }
        // Three prefills, then decode steps: in the first ones scratch still grows.
        for _ in 0..5 {
            engine.step().unwrap();
        }
        // Pages fill up, and the shortest sequence outgrows the budget, while this is counted.
        let before = ALLOCATIONS.get();
        for _ in 0..60 {
            assert_eq!(engine.step().unwrap().len(), 3);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{policy}");
    }
}
