//! Plots of lines side by side as an SVG file: one panel for each of several groups, one line for each series.

use std::fmt::Write as _;

/// Lines over the same axis.
pub struct Panel {
    pub name: String,
    /// In the order of the series, at equal distances.
    pub lines: Vec<Vec<f64>>,
}

/// The last one in grey: what the others are compared with.
const COLOURS: [&str; 4] = ["#1f77b4", "#ff7f0e", "#2ca02c", "#7f7f7f"];
const WIDTH: usize = 240;
const HEIGHT: usize = 160;
const LEFT: usize = 50;
const TOP: usize = 70;
const GAP: usize = 60;
const COLUMNS: usize = 4;

/// All panels under a title, four in a row, each from zero, or its least value, to its highest; `series` are the
/// lines' names, four at most.
pub fn svg(title: &str, series: &[&str], panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (LEFT + COLUMNS * (WIDTH + GAP), TOP + rows * (HEIGHT + GAP));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    let mut add =
        |line: String| writeln!(text, "{line}").expect("writing to a string does not fail; this is a bug");
    for (index, (name, colour)) in series.iter().zip(COLOURS).enumerate() {
        let x = LEFT + index * 190;
        add(format!(
            "<line x1=\"{x}\" y1=\"38\" x2=\"{}\" y2=\"38\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"42\">{name}</text>",
            x + 20,
            x + 26
        ));
    }
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = (LEFT + index % COLUMNS * (WIDTH + GAP), TOP + index / COLUMNS * (HEIGHT + GAP));
        let values = || panel.lines.iter().flatten().copied();
        let (least, most) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
        let range = (most - least).max(f64::MIN_POSITIVE);
        add(format!(
            "<text x=\"{x}\" y=\"{}\">{}</text><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             fill=\"none\" stroke=\"#cccccc\"/>",
            y - 6,
            panel.name
        ));
        for (value, at) in [(most, y + 10), (least, y + HEIGHT)] {
            add(format!("<text x=\"{}\" y=\"{at}\" text-anchor=\"end\">{value:.0}</text>", x - 4));
        }
        for (line, colour) in panel.lines.iter().zip(COLOURS) {
            let points: Vec<String> = line
                .iter()
                .enumerate()
                .map(|(step, value)| {
                    let right = x as f64 + WIDTH as f64 * (step + 1) as f64 / line.len() as f64;
                    format!("{right:.1},{:.1}", y as f64 + HEIGHT as f64 * (1.0 - (value - least) / range))
                })
                .collect();
            add(format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                points.join(" ")
            ));
        }
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_from_the_bottom_to_the_top() {
        let panel = Panel { name: "p".into(), lines: vec![vec![0.0, 2.0]] };
        let text = svg("t", &["a"], &[panel]);
        assert!(text.contains("points=\"170.0,230.0 290.0,70.0\""), "{text}");
        assert!(text.ends_with("</svg>\n"));
    }

    #[test]
    fn what_is_below_zero_is_in_the_panel_too() {
        let panel = |lines| svg("t", &["a"], &[Panel { name: "p".into(), lines }]);
        assert!(panel(vec![vec![-2.0, 2.0]]).contains("points=\"170.0,230.0 290.0,70.0\""));
        assert!(panel(vec![vec![-2.0, -1.0]]).contains("points=\"170.0,230.0 290.0,150.0\""));
        assert!(panel(vec![vec![0.0, 0.0]]).contains("points=\"170.0,230.0 290.0,230.0\""));
    }
}
