//! Results as a Markdown table: ours, the fastest peer, the byte limit, the goal.

use std::fmt::Write;

use crate::report::{PeerRow, Peers, Report, Row, Timing};

/// First line of the part of a document that is generated from the folder `results/{name}`.
pub fn begin(name: &str) -> String {
    format!("<!-- results of {name}: begin (cargo run -p lim-bench --bin results -- --help) -->")
}

/// Last line of a generated part.
pub const END: &str = "<!-- results: end -->";

/// The table, with a line above that says where and how. Ends in a newline.
pub fn render(ours: &Report, peers: Option<&Peers>) -> String {
    let machine = &ours.machine;
    let mut out = String::new();
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    let rate = machine.copy_gb_per_s.map_or("not measured".into(), |r| format!("{:.2} TB/s", r / 1e3));
    let lines = [
        format!("{}, driver {}, commit {}.", machine.gpu, known(&machine.driver), known(&machine.commit)),
        format!("Microseconds of one call, median of {} graph replays;", machine.replays),
        format!("KV and weights cold (copies of at least {} MB in turn).", machine.cold_bytes >> 20),
        format!("Limit: bytes at {rate}, a device-to-device copy in the same run (read + written);"),
        "reading alone may run a few percent faster.".into(),
    ];
    let _ = writeln!(out, "{}\n", lines.join(" "));
    let _ = writeln!(out, "| op | batch | n | lim | fastest peer | limit | share of limit | goal | met |");
    let _ = writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in &ours.rows {
        let _ = writeln!(out, "{}", line(row, peers));
    }
    for failure in &ours.failed {
        let _ = writeln!(
            out,
            "| {} | | | failed: {} | | | | | no |",
            failure.row,
            failure.error.replace('|', "/")
        );
    }
    out
}

fn line(row: &Row, peers: Option<&Peers>) -> String {
    let us = |us: f64| format!("{us:.1}");
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let mut op = row.op.clone();
    if let Some(note) = &row.note {
        let _ = write!(op, " ({note})");
    }
    if row.timing == Timing::Host {
        op += " [host clock]";
    }
    let peer = fastest(row, peers).map(|peer| format!("{} ({})", us(peer.us), peer.peer));
    let share = match row.flops {
        Some(flops) => Some(format!("{:.0} TFLOP/s", flops / row.us / 1e6)),
        None => row.share.map(|share| format!("{:.0}%", share * 100.0)),
    };
    let met = row.goal_met.map(|met| if met { "yes" } else { "no" }.into());
    let cells = [
        op,
        row.batch.to_string(),
        or_dash(row.n.map(|n| n.to_string())),
        us(row.us),
        or_dash(peer),
        or_dash(row.limit_us.map(us)),
        or_dash(share),
        or_dash(row.goal_us.map(us)),
        or_dash(met),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Rows that differ in a note are variants that no peer was measured on.
fn fastest<'a>(row: &Row, peers: Option<&'a Peers>) -> Option<&'a PeerRow> {
    let same = |peer: &&PeerRow| (&peer.op, peer.batch, peer.n) == (&row.op, row.batch, row.n);
    let rows = peers.filter(|_| row.note.is_none())?.rows.iter();
    rows.filter(same).min_by(|a, b| a.us.total_cmp(&b.us))
}

/// `document` with what lies between [`begin`] of `name` and the next [`END`] replaced by `table`; none where the marks are
/// missing.
pub fn replaced(document: &str, name: &str, table: &str) -> Option<String> {
    let begin = begin(name);
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n{table}{END}{after}"))
}
