//! Matrices as SVG: a panel each, below one another, cells shaded by a share from 0 to 1, a scale at the right.

use std::fmt::Write;

use crate::chart::escaped;

/// Extents of what surrounds a panel's cells.
const LEFT: f64 = 70.0;
const TOP: f64 = 64.0;
const RIGHT: f64 = 96.0;
const BOTTOM: f64 = 60.0;

/// Where cells are to fit in.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 480.0;

/// Cells are squares up to this size where a panel has few.
const CELL: f64 = 44.0;
/// From this size on a cell shows its number.
const WITH_NUMBER: f64 = 26.0;

/// Tells apart neighbouring shades by eye; the same shades of a column join to one stroke.
const SHADES: usize = 16;

/// Colours from the least share to 1 (ColorBrewer's Blues, by its ends and middle).
const RAMP: [[f64; 3]; 3] = [[239.0, 245.0, 252.0], [107.0, 174.0, 214.0], [8.0, 48.0, 107.0]];

/// One matrix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panel {
    /// In bold.
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    /// What the shade says.
    pub(crate) scale_label: &'static str,
    pub(crate) columns: usize,
    /// `[row][column]`, whole rows; `None` is left blank.
    pub(crate) cells: Vec<Option<f64>>,
    /// The share of the lightest shade.
    pub(crate) least: f64,
    /// Labels along the axes: where in rows or columns, and the text.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) y_ticks: Vec<(f64, String)>,
    /// Cells framed in red: row and column.
    pub(crate) framed: Vec<(usize, usize)>,
    /// What the frames say; below the subtitle.
    pub(crate) note: String,
}

/// Ticks at the middle of each of `count` cells, thinned out to at most 24.
pub(crate) fn cell_ticks(count: usize) -> Vec<(f64, String)> {
    let step = count.div_ceil(24).max(1);
    (0..count).step_by(step).map(|i| (i as f64 + 0.5, i.to_string())).collect()
}

/// The whole picture.
pub(crate) fn svg(panels: &[Panel]) -> String {
    let height: f64 = panels.iter().map(|panel| panel.height()).sum();
    let width = LEFT + WIDTH + RIGHT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for panel in panels {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<g transform=\"translate(0 {top})\">");
        panel.draw(&mut out);
        out.push_str("</g>\n");
        top += panel.height();
    }
    out.push_str("</svg>\n");
    out
}

impl Panel {
    fn rows(&self) -> usize {
        self.cells.len() / self.columns.max(1)
    }

    /// Extents of a cell. Few cells are square, many fill the frame.
    fn cell(&self) -> [f64; 2] {
        let [wide, high] = [WIDTH / self.columns.max(1) as f64, HEIGHT / self.rows().max(1) as f64];
        if self.columns == self.rows() { [wide.min(high).min(CELL); 2] } else { [wide, high] }
    }

    fn height(&self) -> f64 {
        TOP + self.cell()[1] * self.rows() as f64 + BOTTOM
    }

    fn shade(&self, share: f64) -> usize {
        let part = (share - self.least) / (1.0 - self.least).max(f64::MIN_POSITIVE);
        // A share that is no number is drawn as the least.
        (part.clamp(0.0, 1.0) * (SHADES - 1) as f64).round() as usize
    }

    fn draw(&self, out: &mut String) {
        let [wide, high] = self.cell();
        let (right, bottom) = (LEFT + wide * self.columns as f64, TOP + high * self.rows() as f64);
        let [title, subtitle, note] = [&self.title, &self.subtitle, &self.note].map(|text| escaped(text));
        let _ = write!(
            out,
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n\
             <text x=\"{LEFT}\" y=\"38\">{subtitle}</text>\n\
             <text x=\"{LEFT}\" y=\"54\" fill=\"#c00000\">{note}</text>\n"
        );
        self.shades(out, wide, high);
        if wide.min(high) >= WITH_NUMBER {
            self.numbers(out, wide, high);
        }
        for &(row, column) in &self.framed {
            let (x, y) = (LEFT + wide * column as f64, TOP + high * row as f64);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" fill=\"none\" \
                 stroke=\"#c00000\" stroke-width=\"2\"/>"
            );
        }
        self.axes(out, [wide, high], [right, bottom]);
        self.scale(out, right + 20.0);
    }

    /// A path a shade, in cells: strokes down each column.
    fn shades(&self, out: &mut String, wide: f64, high: f64) {
        let mut paths = vec![String::new(); SHADES];
        for column in 0..self.columns {
            let of_row = |row: usize| self.cells[row * self.columns + column].map(|share| self.shade(share));
            let shades: Vec<Option<usize>> = (0..self.rows()).map(of_row).collect();
            let mut row = 0;
            for run in shades.chunk_by(|a, b| a == b) {
                if let Some(shade) = run[0] {
                    let _ = write!(paths[shade], "M{column} {row}v{}", run.len());
                }
                row += run.len();
            }
        }
        // A little wider than the column, so that no seam shows.
        let _ = writeln!(
            out,
            "<g transform=\"translate({:.2} {TOP}) scale({wide:.4} {high:.4})\" \
             stroke-width=\"{:.3}\">",
            LEFT + wide / 2.0,
            1.0 + 0.15 / wide
        );
        for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let _ = writeln!(out, "<path d=\"{path}\" stroke=\"{}\"/>", colour(shade));
        }
        out.push_str("</g>\n");
    }

    /// Shares in percent.
    fn numbers(&self, out: &mut String, wide: f64, high: f64) {
        for (index, share) in self.cells.iter().enumerate() {
            let Some(share) = share else { continue };
            let (row, column) = (index / self.columns, index % self.columns);
            let (x, y) = (LEFT + wide * (column as f64 + 0.5), TOP + high * (row as f64 + 0.5) + 4.0);
            let ink = if self.shade(*share) * 2 > SHADES { "white" } else { "black" };
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"11\" text-anchor=\"middle\" fill=\"{ink}\">{:.0}</text>",
                share * 100.0
            );
        }
    }

    fn axes(&self, out: &mut String, [wide, high]: [f64; 2], [right, bottom]: [f64; 2]) {
        for (at, label) in &self.x_ticks {
            let (x, y) = (LEFT + wide * at, bottom + 16.0);
            let label = escaped(label);
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>");
        }
        for (at, label) in &self.y_ticks {
            let (x, y) = (LEFT - 6.0, TOP + high * at + 4.0);
            let label = escaped(label);
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>");
        }
        let (middle, centre) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        let Panel { x_label, y_label, .. } = self;
        let _ = write!(
            out,
            "<path d=\"M{LEFT} {TOP}V{bottom:.1}H{right:.1}\" fill=\"none\" stroke=\"black\"/>\n\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>\n\
             <text transform=\"translate(18 {centre:.1}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>\n",
            bottom + 36.0
        );
    }

    /// From the least share at the bottom to 1.
    fn scale(&self, out: &mut String, x: f64) {
        let high = 9.0;
        for shade in 0..SHADES {
            let (y, colour) = (TOP + high * (SHADES - 1 - shade) as f64, colour(shade));
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"14\" height=\"{:.1}\" fill=\"{colour}\"/>",
                high + 0.1
            );
        }
        let ends = [(1.0, TOP + 10.0), (self.least, TOP + high * SHADES as f64)];
        for (share, y) in ends {
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{y:.1}\">{:.0}%</text>", x + 20.0, share * 100.0);
        }
        let centre = TOP + high * SHADES as f64 / 2.0;
        let _ = writeln!(
            out,
            "<text transform=\"translate({:.1} {centre:.1}) rotate(-90)\" text-anchor=\"middle\" font-size=\"11\">{}</text>",
            x + 32.0,
            self.scale_label
        );
    }
}

/// A shade's colour.
fn colour(shade: usize) -> String {
    let at = shade as f64 / (SHADES - 1) as f64 * (RAMP.len() - 1) as f64;
    let (first, part) = ((at as usize).min(RAMP.len() - 2), at - (at as usize).min(RAMP.len() - 2) as f64);
    let channel = |c: usize| (RAMP[first][c] * (1.0 - part) + RAMP[first + 1][c] * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(columns: usize, cells: Vec<Option<f64>>) -> Panel {
        Panel { columns, cells, least: 0.5, framed: vec![(0, 1)], note: "a<b".into(), ..Panel::default() }
    }

    #[test]
    fn the_ramp_ends_where_it_should() {
        assert_eq!((colour(0).as_str(), colour(SHADES - 1).as_str()), ("#eff5fc", "#08306b"));
        let panel = panel(1, Vec::new());
        let shades = [0.0, 0.5, 0.75, 1.0, f64::NAN].map(|share| panel.shade(share));
        assert_eq!(shades, [0, 0, SHADES / 2, SHADES - 1, 0]);
    }

    #[test]
    fn few_cells_are_square_and_show_their_numbers() {
        let text = svg(&[panel(2, vec![Some(1.0), Some(0.25), None, Some(0.5)])]);
        assert!(text.contains(&format!(
            "viewBox=\"0 0 {} {}\"",
            LEFT + WIDTH + RIGHT,
            TOP + 2.0 * CELL + BOTTOM
        )));
        for number in [">100</text>", ">25</text>", ">50</text>", "a&lt;b"] {
            assert!(text.contains(number), "{number} in {text}");
        }
        assert_eq!(text.matches('<').count(), text.matches('>').count());
    }

    #[test]
    fn many_cells_join_down_a_column() {
        let cells = (0..100 * 200).map(|i| (i % 200 != 7).then_some(1.0)).collect();
        let text = svg(&[panel(200, cells)]);
        assert_eq!(text.matches('M').count(), 199 + 1, "a stroke a column, and the axes");
        assert!(text.contains("M6 0v100M8 0v100") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn ticks_are_thinned_out() {
        let labels = |count| cell_ticks(count).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(3), ["0", "1", "2"]);
        assert_eq!(labels(36).len(), 18);
    }
}
