//! Figures as bars, in plain SVG: a panel for each metric, a group of bars for each case, a colour for each series.
//!
//! There is no empty line in it, so that it can stand in Markdown.

use std::fmt::Write;

use crate::figures::Figure;

/// Where bars begin at the least, and how wide a character of what stands before them is.
const LEFT: f64 = 330.0;
const CHARACTER: f64 = 7.0;
/// How long the longest bar of a panel is, and how much room there is behind it.
pub const LONGEST: f64 = 330.0;
const RIGHT: f64 = 100.0;
const BAR: f64 = 14.0;
const GAP: f64 = 10.0;
const COLOURS: [&str; 4] = ["#3465a4", "#b0b0b0", "#c17d11", "#4e9a06"];

/// What is distinct, in the order in which it comes first.
fn distinct<'a>(of: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for one in of {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number for people: three digits at least, and groups of three.
fn shown(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((&*text, String::new()), |(w, r)| (w, format!(".{r}")));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// A picture of the figures, under a title.
pub fn draw(title: &str, figures: &[Figure]) -> String {
    let mut series = distinct(figures.iter().map(|figure| figure.series.as_str()));
    // What is ours comes first, and so the library has one colour in all pictures.
    series.sort_by_key(|name| !["library", "serve"].contains(name));
    let longest = figures.iter().map(|figure| figure.case.chars().count()).max().unwrap_or(0);
    let left = LEFT.max(longest as f64 * CHARACTER + 18.0);
    let width = left + LONGEST + RIGHT;
    let mut body = String::new();
    let mut y = 24.0;
    text(&mut body, 10.0, y, "start", "bold", title);
    if series.len() > 1 {
        for (at, name) in series.iter().enumerate() {
            let x = left + 110.0 * at as f64;
            rectangle(&mut body, x, y - 10.0, 10.0, 10.0, COLOURS[at % COLOURS.len()]);
            text(&mut body, x + 14.0, y, "start", "normal", name);
        }
    }
    for metric in distinct(figures.iter().map(|figure| figure.metric.as_str())) {
        let of_metric = || figures.iter().filter(|figure| figure.metric == metric);
        let most = of_metric().map(|figure| figure.value).fold(f64::MIN_POSITIVE, f64::max);
        y += 30.0;
        text(&mut body, 10.0, y, "start", "bold", metric);
        for case in distinct(of_metric().map(|figure| figure.case.as_str())) {
            y += GAP;
            for (at, figure) in of_metric().filter(|figure| figure.case == case).enumerate() {
                if at == 0 {
                    text(&mut body, left - 8.0, y + BAR - 3.0, "end", "normal", case);
                }
                let length = LONGEST * figure.value.max(0.0) / most;
                let colour = series.iter().position(|name| *name == figure.series).unwrap_or(0);
                rectangle(&mut body, left, y, length, BAR - 2.0, COLOURS[colour % COLOURS.len()]);
                text(
                    &mut body,
                    left + length + 6.0,
                    y + BAR - 3.0,
                    "start",
                    "normal",
                    &shown(figure.value),
                );
                y += BAR;
            }
        }
    }
    let height = y + 16.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n",
        escaped(title)
    )
}

fn rectangle(to: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    let bar = writeln!(
        to,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
    bar.expect("a string takes what is written");
}

fn text(to: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    let text = escaped(text);
    let line = writeln!(
        to,
        "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\" fill=\"#222\">{text}</text>"
    );
    line.expect("a string takes what is written");
}
