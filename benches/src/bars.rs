//! A plot of groups of bars as an SVG file: a share for each of several series, with the range of its repetitions.

use std::fmt::Write as _;

/// Bars that stand together.
pub struct Group {
    pub name: String,
    /// In the order of the series.
    pub bars: Vec<Bar>,
}

/// From 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

/// Grey for what is compared with, the last one in a colour of its own: also told apart in black and white.
const COLOURS: [&str; 6] = ["#d9d9d9", "#bdbdbd", "#969696", "#737373", "#525252", "#1f77b4"];
const BAR_WIDTH: usize = 18;
const GAP: usize = 28;
const LEFT: usize = 50;
const TOP: usize = 60;
const HEIGHT: usize = 240;
const BOTTOM: usize = 40;

/// All groups side by side under a title; `series` are the bars' names, six at most.
pub fn svg(title: &str, series: &[&str], groups: &[Group]) -> String {
    let group_width = series.len() * BAR_WIDTH + GAP;
    let width = (LEFT + groups.len() * group_width).max(LEFT + series.len() * 130);
    let height = TOP + HEIGHT + BOTTOM;
    let y = |share: f64| TOP as f64 + HEIGHT as f64 * (1.0 - share);
    let mut lines = vec![
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">"
        ),
        format!("<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"),
        format!("<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>", escaped(title)),
    ];
    for (index, name) in series.iter().enumerate() {
        let x = LEFT + index * 130;
        lines.push(format!(
            "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"42\">{}</text>",
            COLOURS[index % COLOURS.len()],
            x + 17,
            escaped(name)
        ));
    }
    for percent in (0..=100).step_by(20) {
        let y = y(f64::from(percent) / 100.0);
        lines.push(format!(
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{width}\" y2=\"{y:.1}\" stroke=\"#eeeeee\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            LEFT - 6,
            y + 4.0
        ));
    }
    for (index, group) in groups.iter().enumerate() {
        let left = LEFT + GAP / 2 + index * group_width;
        for (index, bar) in group.bars.iter().enumerate() {
            let (x, top) = (left + index * BAR_WIDTH, y(bar.mean));
            let middle = x + BAR_WIDTH / 2 - 1;
            lines.push(format!(
                "<rect x=\"{x}\" y=\"{top:.1}\" width=\"{}\" height=\"{:.1}\" fill=\"{}\"/>\
                 <line x1=\"{middle}\" y1=\"{:.1}\" x2=\"{middle}\" y2=\"{:.1}\" stroke=\"black\"/>",
                BAR_WIDTH - 2,
                y(0.0) - top,
                COLOURS[index % COLOURS.len()],
                y(bar.least),
                y(bar.most),
            ));
        }
        let middle = left + group.bars.len() * BAR_WIDTH / 2;
        lines.push(format!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            TOP + HEIGHT + 20,
            escaped(&group.name)
        ));
    }
    lines.push("</svg>".to_owned());
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").expect("a string takes what is written to it; this is a bug");
        text
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_high_as_its_share() {
        let bar = |mean| Bar { mean, least: mean - 0.1, most: mean + 0.1 };
        let group = Group { name: "a<b".into(), bars: vec![bar(0.5), bar(0.25)] };
        let text = svg("shares", &["one", "two"], &[group]);
        assert!(text.contains("y=\"180.0\" width=\"16\" height=\"120.0\""), "{text}");
        assert!(text.contains("y=\"240.0\" width=\"16\" height=\"60.0\""), "{text}");
        assert!(text.contains("a&lt;b") && text.ends_with("</svg>\n"), "{text}");
    }
}
