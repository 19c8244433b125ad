//! Every op against float64, one generic body for all backends.

mod append;
mod attend;
#[cfg(feature = "cuda")]
mod batch_invariant;
#[cfg(feature = "cuda")]
mod captures;
mod errors;
mod fixture;
mod gates;
mod kernels_page;
mod linear;
mod pool;
mod prefill;
mod reference;
mod sample;
mod select;
mod threads;

use fixture::Subject;
use lim_kernels::DType;
use lim_kernels::cpu::Cpu;

/// One test per body, run by `$each` with every subject of a device.
macro_rules! suite {
    ($device:ident, $each:ident: $($module:ident { $($body:ident),* $(,)? })*) => {
        mod $device {
            $(mod $module {
                $(#[test]
                fn $body() {
                    for mut subject in crate::$each() {
                        crate::$module::$body(&mut subject);
                    }
                })*
            })*
        }
    };
}

/// The bodies, in one list for every device.
macro_rules! all_ops {
    ($device:ident, $each:ident) => {
        suite! { $device, $each:
            linear { embed, large_weights, norm_linear, linear_add, norm_gate_up, logits }
            append { norm_and_rotation, rounding, page_bounds, copied_page }
            attend { dense, long_context, dense_scored, selected, within_budget_is_dense, alone_or_in_a_batch }
            prefill { causal, long_context, chunks }
            gates { scores, decode, refusals }
            pool { weights, refusals }
            select { goldens, token_rules, steps_through_one, beside_gate_up, page_rule }
            sample {
                greedy_and_logprob, frequencies, truncation, penalties, repeatable, refusals, going_on, read_behind,
                what_a_step_goes_on_with,
            }
            errors { weights, steps, pages, selections }
        }
    };
}

/// The CPU with two threads, by instruction set.
fn cpus() -> Vec<Subject<Cpu>> {
    let cpus = Cpu::each_isa(Some(2)).unwrap();
    let dtypes = &[DType::F32, DType::F16, DType::BF16];
    cpus.into_iter().map(|b| Subject { b, rounding: |_| 0.0, dtypes, has_head_dim: |_| true }).collect()
}

all_ops!(cpu, cpus);

/// The first GPU, once for each type that it can compute in.
#[cfg(feature = "cuda")]
fn gpus() -> Vec<Subject<lim_kernels::cuda::Cuda>> {
    let dtypes: [&'static [DType]; 3] = [&[DType::F32], &[DType::F16], &[DType::BF16]];
    let rounding = |dtype| match dtype {
        DType::F32 => 0.0,
        DType::F16 => 1.0 / 2048.0,
        DType::BF16 => 1.0 / 256.0,
    };
    let gpu = |dtype| {
        lim_kernels::cuda::Cuda::new(0, dtype).expect("feature `cuda` is tested on a machine with a GPU")
    };
    let has_head_dim = |dim| [32, 64, 80, 96, 128, 256].contains(&dim);
    dtypes.map(|dtypes| Subject { b: gpu(dtypes[0]), rounding, dtypes, has_head_dim }).into()
}

#[cfg(feature = "cuda")]
all_ops!(cuda, gpus);
