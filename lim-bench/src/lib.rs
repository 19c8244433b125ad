//! Benchmarks of lim: what is measured, the limits it is measured against, and how results become tables.
//!
//! `gpu` (feature `cuda`) prepares one kernel call per cold copy of its data as a CUDA graph; the runner
//! `src/bin/gpu.rs` and the criterion benches time the same graphs. [`report`] is the JSON that the runner writes,
//! [`goals`] what was aimed for, and [`table`] renders a report beside the peers' (`peers/peers.py`) as Markdown; [`grid`]
//! does so for what `lim-cli eval` wrote:
//!
//! ```
//! use lim_bench::report::{Machine, Report, Row};
//!
//! let mut report = Report::new(Machine { gpu: "NVIDIA H200".into(), copy_gb_per_s: Some(4270.0), ..Machine::default() });
//! report.rows.push(Row::graph("dense", 1, Some(32768), 34.0, 32768 * 4096));
//! let report = report.judged();
//! assert_eq!(report.rows[0].goal_met, Some(true));
//! assert!(lim_bench::table::render(&report, None).contains("| dense | 1 | 32768 | 34.0 |"));
//! ```
//!
//! For the CPU, [`fixture`] makes synthetic layers and filled caches, and [`roofline`] knows what an op must move and
//! measures what the machine gives; `benches/cpu.rs` and `benches/shares.rs` use both.

pub mod fixture;
pub mod goals;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod grid;
pub mod report;
pub mod roofline;
pub mod table;
