//! The runner's JSON: machine, rows, failures.

use serde::{Deserialize, Serialize};

use crate::goals::{goal_us, has_goals};

/// Where and how a report was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Device as the backend names it.
    pub gpu: String,
    /// Driver version, where `nvidia-smi` tells it.
    pub driver: Option<String>,
    /// Commit that was built, where the caller tells it.
    pub commit: Option<String>,
    /// Command line.
    pub command: Vec<String>,
    /// Device-to-device copy by the driver in the same run, bytes read plus written, in GB/s: the rate behind
    /// `limit_us`. Reading alone may run a few percent faster.
    pub copy_gb_per_s: Option<f64>,
    /// Cold bytes behind every row that reads the KV cache or weights.
    pub cold_bytes: u64,
    /// Replays behind every median.
    pub replays: usize,
}

/// How a row was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Events around a replayed graph of many calls, over the number of calls.
    Graph,
    /// Host clock around one call that waits for its result.
    Host,
}

/// One measured operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Operation; `peers.py` uses the same names.
    pub op: String,
    /// Sequences of the step (rows, for matrix products).
    pub batch: usize,
    /// Tokens of the operation: cached, selected (`gather`) or entering (`prefill`); none for matrix products.
    pub n: Option<usize>,
    /// What else the row depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Median microseconds of one call.
    pub us: f64,
    /// How it was timed.
    pub timing: Timing,
    /// Fewest bytes that device memory must move.
    pub bytes: u64,
    /// Bytes over time.
    pub gb_per_s: f64,
    /// Floating-point operations, where they and not bytes are the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    /// Microseconds of `bytes` at the copy rate of the run.
    pub limit_us: Option<f64>,
    /// `limit_us / us`.
    pub share: Option<f64>,
    /// Aimed for; see [`goal_us`].
    pub goal_us: Option<f64>,
    /// `us <= goal_us`.
    pub goal_met: Option<bool>,
}

impl Row {
    /// A row timed by graph replay, not judged yet.
    pub fn graph(op: &str, batch: usize, n: Option<usize>, us: f64, bytes: u64) -> Self {
        Row {
            op: op.into(),
            batch,
            n,
            note: None,
            us,
            timing: Timing::Graph,
            bytes,
            gb_per_s: bytes as f64 / us / 1e3,
            flops: None,
            limit_us: None,
            share: None,
            goal_us: None,
            goal_met: None,
        }
    }
}

/// A row that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Operation and shape.
    pub row: String,
    /// Why.
    pub error: String,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What was not.
    pub failed: Vec<Failure>,
}

impl Report {
    /// No rows yet.
    pub fn new(machine: Machine) -> Self {
        Report { machine, rows: Vec::new(), failed: Vec::new() }
    }

    /// Fills in limits and goals. A row with operations instead of bytes as its limit gets no limit here.
    pub fn judged(mut self) -> Self {
        let dense: Vec<_> =
            self.rows.iter().filter(|r| r.op == "dense").map(|r| (r.batch, r.n, r.us)).collect();
        for row in &mut self.rows {
            let bound_by_bytes = row.flops.is_none();
            row.limit_us = self
                .machine
                .copy_gb_per_s
                .filter(|_| bound_by_bytes)
                .map(|rate| row.bytes as f64 / rate / 1e3);
            row.share = row.limit_us.map(|limit| limit / row.us);
            let same = dense.iter().find(|(batch, n, _)| (*batch, *n) == (row.batch, row.n));
            // Matrix products have no n; their goals are listed under 0.
            row.goal_us = goal_us(&row.op, row.batch, row.n.or(Some(0)), same.map(|d| d.2))
                .filter(|_| has_goals(&self.machine.gpu));
            row.goal_met = row.goal_us.map(|goal| row.us <= goal);
        }
        self
    }
}

/// What `peers.py` writes; fields it adds are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Peers {
    /// Device as torch names it.
    pub gpu: String,
    /// What was measured.
    pub rows: Vec<PeerRow>,
}

/// One peer's row. The shape is left out where there is only one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PeerRow {
    /// Operation, as in [`Row`].
    pub op: String,
    /// Whose kernel.
    pub peer: String,
    /// Sequences or rows; 1 where absent.
    #[serde(default = "one")]
    pub batch: usize,
    /// Tokens.
    pub n: Option<usize>,
    /// Median microseconds of one call.
    pub us: f64,
}

fn one() -> usize {
    1
}
