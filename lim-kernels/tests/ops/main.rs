//! Every op against float64, one generic body for all backends.

mod append;
mod attend;
mod errors;
mod fixture;
mod kernels_page;
mod linear;
mod prefill;
mod reference;
mod sample;
mod select;
mod threads;

use fixture::Subject;
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
            linear { embed, norm_linear, linear_add, norm_gate_up, logits }
            append { norm_and_rotation, rounding, page_bounds, copied_page }
            attend { dense, dense_scored, selected, within_budget_is_dense, alone_or_in_a_batch }
            prefill { causal }
            select { goldens, token_rules, page_rule }
            sample { greedy_and_logprob, frequencies, truncation, penalties, repeatable, refusals }
            errors { weights, steps, pages, selections }
        }
    };
}

/// The CPU with two threads, by instruction set.
fn cpus() -> Vec<Subject<Cpu>> {
    let cpus = Cpu::each_isa(Some(2)).unwrap();
    cpus.into_iter().map(|b| Subject { b, rounding: |_| 0.0 }).collect()
}

all_ops!(cpu, cpus);
