//! Step time against context as an SVG: a panel for every batch, a line for every policy, dashed its byte limit.

use std::fmt::Write;

use super::table::{Report, Row};

/// Extents of a panel, and of the frame inside it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 64.0;
const RIGHT: f64 = 150.0;
const BOTTOM: f64 = 56.0;

/// Line colours by order of the policies, apart for the colour-blind too (Okabe and Ito).
const COLOURS: [&str; 5] = ["#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7"];

/// One decode test of a line.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Cached tokens, mean over the steps.
    tokens: f64,
    ms: f64,
    /// Milliseconds that reading the same bytes takes.
    limit_ms: f64,
}

/// The plot; `None` where the report has no decode test.
pub(super) fn svg(report: &Report) -> Option<String> {
    let decodes = || report.tests.iter().filter(|row| row.n_gen > 0);
    let mut panels: Vec<(usize, usize)> = Vec::new();
    for row in decodes() {
        if !panels.contains(&(row.batch, row.n_gen)) {
            panels.push((row.batch, row.n_gen));
        }
    }
    if panels.is_empty() {
        return None;
    }
    let height = HEIGHT * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, &(batch, n_gen)) in panels.iter().enumerate() {
        let rows: Vec<&Row> = decodes().filter(|row| (row.batch, row.n_gen) == (batch, n_gen)).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * index as f64);
        panel(&mut out, report, &rows);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn panel(out: &mut String, report: &Report, rows: &[&Row]) {
    let mut lines: Vec<(&str, Vec<Point>)> = Vec::new();
    for row in rows {
        let (Some(tokens), Some(share)) = (row.context_tokens, row.read_share) else { continue };
        let point = Point { tokens: tokens.max(1.0), ms: row.ms_per_step, limit_ms: row.ms_per_step * share };
        match lines.iter_mut().find(|(policy, _)| *policy == row.policy) {
            Some((_, points)) => points.push(point),
            None => lines.push((row.policy, vec![point])),
        }
    }
    for (_, points) in &mut lines {
        points.sort_by(|a, b| a.tokens.total_cmp(&b.tokens));
    }
    let axes = Axes::of(lines.iter().flat_map(|(_, points)| points));
    title(out, report, rows);
    axes.draw(out);
    for (index, (policy, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        axes.line(out, points.iter().map(|p| (p.tokens, p.ms)), colour, "");
        axes.line(out, points.iter().map(|p| (p.tokens, p.limit_ms)), colour, " stroke-dasharray=\"5 4\"");
        for p in points {
            let (x, y) = (axes.x(p.tokens), axes.y(p.ms));
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        key(out, index, colour, "", policy);
    }
    key(out, lines.len(), "#888888", " stroke-dasharray=\"5 4\"", "byte limit");
}

fn title(out: &mut String, report: &Report, rows: &[&Row]) {
    let Some(Row { batch, n_gen, .. }) = rows.first() else { return };
    let name = escaped(&format!("{}, {}, {}", report.model, report.dtype, report.device));
    let sequences = if *batch == 1 { "one sequence".to_owned() } else { format!("{batch} sequences") };
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"24\" font-size=\"14\" font-weight=\"bold\">{name}</text>\n\
         <text x=\"{LEFT}\" y=\"44\">{sequences}, means over {n_gen} steps; byte limit: weights and KV that were read, at \
         {:.1} GB/s</text>\n",
        report.read_gb_per_s
    );
}

/// One line of the key at the right.
fn key(out: &mut String, index: usize, colour: &str, dash: &str, name: &str) {
    let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 12.0 + 20.0 * index as f64);
    let _ = write!(
        out,
        "<path d=\"M{x} {y}h28\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
         <text x=\"{}\" y=\"{}\">{name}</text>\n",
        x + 36.0,
        y + 4.0
    );
}

/// Ranges of a panel: tokens from one power of two to another, milliseconds from 0.
#[derive(Clone, Copy, Debug)]
struct Axes {
    /// Powers of two.
    log: [f64; 2],
    ms: f64,
    ms_step: f64,
}

impl Axes {
    fn of<'a>(points: impl Iterator<Item = &'a Point>) -> Axes {
        let (mut first, mut last, mut ms) = (f64::INFINITY, 0.0f64, f64::MIN_POSITIVE);
        for point in points {
            first = first.min(point.tokens);
            last = last.max(point.tokens);
            ms = ms.max(point.ms).max(point.limit_ms);
        }
        let from = if first.is_finite() { first.log2().floor() } else { 0.0 };
        let ms_step = step(ms / 5.0);
        Axes {
            log: [from, last.max(1.0).log2().ceil().max(from + 1.0)],
            ms: (ms / ms_step).ceil() * ms_step,
            ms_step,
        }
    }

    fn x(self, tokens: f64) -> f64 {
        let [from, to] = self.log;
        LEFT + (tokens.log2() - from) / (to - from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(self, ms: f64) -> f64 {
        HEIGHT - BOTTOM - ms / self.ms * (HEIGHT - TOP - BOTTOM)
    }

    fn line(self, out: &mut String, points: impl Iterator<Item = (f64, f64)>, colour: &str, dash: &str) {
        let place = |(tokens, ms)| format!("{:.1},{:.1}", self.x(tokens), self.y(ms));
        let places: Vec<String> = points.map(place).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            places.join(" ")
        );
    }

    fn draw(self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let count = (self.ms / self.ms_step).round() as usize;
        for ms in (0..=count).map(|i| i as f64 * self.ms_step) {
            let y = self.y(ms);
            let decimals = (-self.ms_step.log10().floor()).max(0.0) as usize;
            let _ = write!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#dddddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ms:.decimals$}</text>\n",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let [from, to] = self.log.map(|log| log as i32);
        // At most nine labels.
        for power in (from..=to).step_by(((to - from) as usize / 9 + 1).max(1)) {
            let tokens = 2f64.powi(power);
            let x = self.x(tokens);
            let label = if power >= 10 { format!("{}k", tokens / 1024.0) } else { tokens.to_string() };
            let _ = write!(
                out,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#eeeeee\"/>\n\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>\n",
                bottom + 18.0
            );
        }
        let (middle, height) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        let _ = write!(
            out,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">cached tokens a sequence (1k = 1024, log scale)</text>\n\
             <text transform=\"translate(18 {height}) rotate(-90)\" text-anchor=\"middle\">time of a decode step \
             (ms)</text>\n",
            bottom + 40.0
        );
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `least`.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|&s| s >= least).unwrap_or(10.0 * power)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: &'static str, batch: usize, tokens: f64, ms: f64) -> Row {
        Row {
            test: String::new(),
            policy,
            batch,
            n_prompt: 0,
            n_gen: 8,
            depth: 0,
            repeats: 1,
            tokens_per_s: 1.0,
            tokens_per_s_sd: 0.0,
            ms_per_step: ms,
            gb_per_s: Some(1.0),
            read_share: Some(0.5),
            attended_tokens: Some(1.0),
            context_tokens: Some(tokens),
        }
    }

    fn report(tests: Vec<Row>) -> Report {
        let (model, device) = ("a<b>&c".to_owned(), "cpu".to_owned());
        Report { model, device, dtype: "bf16", read_gb_per_s: 10.0, attention: Vec::new(), tests }
    }

    #[test]
    fn a_panel_a_batch_and_two_lines_a_policy() {
        let rows = [1, 4].into_iter().flat_map(|batch| {
            ["full", "lim"].into_iter().flat_map(move |policy| {
                [4096.0, 100.0].map(|tokens| row(policy, batch, tokens, tokens / 1000.0))
            })
        });
        let text = svg(&report(rows.collect())).expect("decode tests");
        assert_eq!(text.matches("<g ").count(), 2);
        assert_eq!(text.matches("<polyline ").count(), 2 * 2 * 2);
        assert_eq!(text.matches("<circle ").count(), 2 * 2 * 2);
        assert_eq!(text.matches("byte limit</text>").count(), 2);
        assert!(
            text.contains("a&lt;b&gt;&amp;c") && text.contains("(ms)") && text.contains(">4k<"),
            "{text}"
        );
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(text.matches('<').count(), text.matches('>').count());
    }

    #[test]
    fn a_single_point_has_axes() {
        let text = svg(&report(vec![row("full", 1, 1.0, 0.02)])).expect("a decode test");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(svg(&report(Vec::new())).is_none());
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let points = [(64.0, 1.0), (16384.0, 9.0)].map(|(tokens, ms)| Point { tokens, ms, limit_ms: 0.5 });
        let axes = Axes::of(points.iter());
        assert_eq!((axes.log, axes.ms, axes.ms_step), ([6.0, 14.0], 10.0, 2.0));
        assert_eq!((axes.x(64.0), axes.x(16384.0)), (LEFT, WIDTH - RIGHT));
        assert_eq!((axes.y(0.0), axes.y(10.0)), (HEIGHT - BOTTOM, TOP));
        assert!((axes.x(1024.0) - (LEFT + WIDTH - RIGHT) / 2.0).abs() < 1e-9);
    }
}
