//! Line charts as SVG: panels below one another, x on a logarithmic or a plain scale, y from 0, a key at the right.

use std::fmt::Write;

/// Extents of a panel, and of the frame inside it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 64.0;
const RIGHT: f64 = 150.0;
const BOTTOM: f64 = 56.0;

/// Where names in the key begin, and what a letter of them takes at most on average.
const KEY: f64 = WIDTH - RIGHT + 52.0;
const LETTER: f64 = 7.0;

/// Line colours in order, apart for the colour-blind too (Okabe and Ito, then Tol).
const COLOURS: [&str; 11] = [
    "#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933",
    "#332288", "#44AA99",
];

/// For lines that belong to no series.
pub(crate) const GREY: &str = "#888888";

/// The colour of the `index`-th series.
pub(crate) fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// One frame with its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panel {
    /// In bold.
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) x_scale: Scale,
    /// What x spans at least.
    pub(crate) x_range: Option<[f64; 2]>,
    /// Where y ends at least.
    pub(crate) y_max: f64,
    pub(crate) lines: Vec<Line>,
}

/// How x is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From one power of two to another.
    #[default]
    Log,
    /// From one whole number to another, a label each where there is room.
    Whole,
}

/// Points joined in order.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// In the key; `None` leaves it out.
    pub(crate) name: Option<String>,
    pub(crate) colour: &'static str,
    /// Dashed and without marks.
    pub(crate) dashed: bool,
    /// None for a line that is only in the key.
    pub(crate) points: Vec<Point>,
}

/// y is at least 0, and x above 0 on a logarithmic scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Drawn up and down from y where it is not 0.
    pub(crate) error: f64,
}

/// The whole picture.
pub(crate) fn svg(panels: &[Panel]) -> String {
    let names = panels.iter().flat_map(|panel| &panel.lines).filter_map(|line| line.name.as_deref());
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let (width, height) = (WIDTH.max(KEY + LETTER * longest as f64), HEIGHT * panels.len() as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * index as f64);
        panel.draw(&mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

impl Panel {
    fn draw(&self, out: &mut String) {
        let points = self.lines.iter().flat_map(|line| line.points.iter().copied());
        let ends = self.x_range.into_iter().flatten().map(|x| Point { x, y: 0.0, error: 0.0 });
        let axes = Axes::of(points.chain(ends), self.x_scale, self.y_max);
        let (title, subtitle) = (escaped(&self.title), escaped(&self.subtitle));
        let _ = write!(
            out,
            "<text x=\"{LEFT}\" y=\"24\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n\
             <text x=\"{LEFT}\" y=\"44\">{subtitle}</text>\n"
        );
        axes.draw(out, self.x_label, self.y_label);
        // Dashed lines last: through their gaps what they cover is seen.
        for dashed in [false, true] {
            let shown = |line: &&Line| line.dashed == dashed && !line.points.is_empty();
            self.lines.iter().filter(shown).for_each(|line| axes.line(out, line));
        }
        let keyed = self.lines.iter().filter_map(|line| Some((line, line.name.as_deref()?)));
        for (index, (line, name)) in keyed.enumerate() {
            key(out, index, line, name);
        }
    }
}

/// One line of the key at the right.
fn key(out: &mut String, index: usize, line: &Line, name: &str) {
    let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 12.0 + 20.0 * index as f64);
    let Line { colour, .. } = line;
    let (dash, name) = (line.dash(), escaped(name));
    let _ = write!(
        out,
        "<path d=\"M{x} {y}h28\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
         <text x=\"{KEY}\" y=\"{}\">{name}</text>\n",
        y + 4.0
    );
}

impl Line {
    fn dash(&self) -> &'static str {
        if self.dashed { " stroke-dasharray=\"5 4\"" } else { "" }
    }
}

/// Ranges of a panel, y from 0.
#[derive(Clone, Copy, Debug)]
struct Axes {
    scale: Scale,
    /// Powers of two, or whole numbers.
    x: [f64; 2],
    top: f64,
    step: f64,
}

impl Axes {
    fn of(points: impl Iterator<Item = Point>, scale: Scale, least: f64) -> Axes {
        let (mut first, mut last, mut top) = (f64::INFINITY, 0.0f64, least.max(f64::MIN_POSITIVE));
        for point in points {
            first = first.min(point.x);
            last = last.max(point.x);
            top = top.max(point.y);
        }
        let [first, last] = match scale {
            Scale::Log => [first.log2(), last.max(1.0).log2()],
            Scale::Whole => [first, last],
        };
        let from = if first.is_finite() { first.floor() } else { 0.0 };
        let step = step(top / 5.0);
        Axes {
            scale,
            x: [from, last.ceil().max(from + 1.0)],
            // Against 100 / 20 being a little more than 5.
            top: (top / step - 1e-9).ceil() * step,
            step,
        }
    }

    fn x(self, x: f64) -> f64 {
        let [from, to] = self.x;
        let x = if self.scale == Scale::Log { x.log2() } else { x };
        LEFT + (x - from) / (to - from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y / self.top * (HEIGHT - TOP - BOTTOM)
    }

    fn line(self, out: &mut String, line: &Line) {
        let Line { colour, points, dashed, .. } = line;
        let places = points.iter().map(|p| format!("{:.1},{:.1}", self.x(p.x), self.y(p.y)));
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{}/>",
            places.collect::<Vec<_>>().join(" "),
            line.dash()
        );
        for p in points.iter().filter(|_| !dashed) {
            let (x, y) = (self.x(p.x), self.y(p.y));
            if p.error > 0.0 {
                let [low, high] = [p.y - p.error, p.y + p.error].map(|y| self.y(y.clamp(0.0, self.top)));
                let _ = writeln!(out, "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>");
            }
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }

    fn draw(self, out: &mut String, x_label: &str, y_label: &str) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let count = (self.top / self.step).round() as usize;
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        for value in (0..=count).map(|i| i as f64 * self.step) {
            let y = self.y(value);
            let _ = write!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#dddddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.decimals$}</text>\n",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let [from, to] = self.x.map(|end| end as i32);
        let most = if self.scale == Scale::Log { 9 } else { 18 };
        for mark in (from..=to).step_by(((to - from) as usize / most + 1).max(1)) {
            let value = if self.scale == Scale::Log { 2f64.powi(mark) } else { f64::from(mark) };
            let x = self.x(value);
            let short = self.scale == Scale::Log && mark >= 10;
            let label = if short { format!("{}k", value / 1024.0) } else { value.to_string() };
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
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x_label}</text>\n\
             <text transform=\"translate(18 {height}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>\n",
            bottom + 40.0
        );
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `least`.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|&s| s >= least).unwrap_or(10.0 * power)
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        Point { x, y, error: 0.0 }
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let axes = Axes::of([point(64.0, 1.0), point(16384.0, 9.0)].into_iter(), Scale::Log, 0.0);
        assert_eq!((axes.x, axes.top, axes.step), ([6.0, 14.0], 10.0, 2.0));
        assert_eq!((axes.x(64.0), axes.x(16384.0)), (LEFT, WIDTH - RIGHT));
        assert_eq!((axes.y(0.0), axes.y(10.0)), (HEIGHT - BOTTOM, TOP));
        assert!((axes.x(1024.0) - (LEFT + WIDTH - RIGHT) / 2.0).abs() < 1e-9);
        assert_eq!(Axes::of([].into_iter(), Scale::Log, 100.0).top, 100.0);
        let plain = Axes::of([point(0.0, 1.0), point(7.0, 9.0)].into_iter(), Scale::Whole, 0.0);
        assert_eq!((plain.x(0.0), plain.x(7.0)), (LEFT, WIDTH - RIGHT));
        assert!((plain.x(3.5) - (LEFT + WIDTH - RIGHT) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn long_names_get_room() {
        let name = Some("tidal:dense=0-1,select=2,5".to_owned());
        let line = Line { name, colour: GREY, dashed: true, points: Vec::new() };
        let text = svg(&[Panel { lines: vec![line], ..Panel::default() }]);
        assert!(text.contains(&format!("viewBox=\"0 0 {} 420\"", KEY + 26.0 * LETTER)), "{text}");
    }

    #[test]
    fn errors_stay_in_the_frame_and_names_are_escaped() {
        let name = Some("a<b".to_owned());
        let points = vec![Point { x: 64.0, y: 95.0, error: 10.0 }];
        let line = Line { name, colour: colour(8), dashed: false, points };
        let only_key = Line { name: Some("limit".into()), colour: GREY, dashed: true, points: Vec::new() };
        let panel = Panel { y_max: 100.0, lines: vec![line, only_key], ..Panel::default() };
        let text = svg(&[panel.clone(), panel]);
        assert_eq!((text.matches("<g ").count(), text.matches("<polyline ").count()), (2, 2));
        assert!(text.contains("a&lt;b</text>") && text.contains(&format!("V{TOP:.1}\"")), "{text}");
        assert!(text.contains("viewBox=\"0 0 760 840\""), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(text.matches('<').count(), text.matches('>').count());
    }
}
