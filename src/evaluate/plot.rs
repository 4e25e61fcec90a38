//! Leak against false alarms, drawn: an SVG that reads on light and dark pages.
//!
//! Knows nothing but the points of a sweep. Written by hand so that no browser and no font file is needed.

use std::fmt::Write;

use super::SweepPoint;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 64.0;

/// Colours of either page; the marks differ in shape too. Plain values, since not every viewer knows variables.
const STYLE: &str = "\
.page{fill:#ffffff}\
text{font:13px system-ui,sans-serif;fill:#1f2430}\
.title{font-size:15px;font-weight:600}\
.soft{fill:#5b6270;font-size:12px}\
.grid{stroke:#dfe3ea}\
.axis{stroke:#5b6270}\
.a{stroke:#b3261e}.b{stroke:#1d5fa8}\
.af{fill:#b3261e}.bf{fill:#1d5fa8}\
.line{fill:none;stroke-width:2}\
.ring{fill:none;stroke:#1f2430;stroke-width:2}\
@media(prefers-color-scheme:dark){\
.page{fill:#14171c}text{fill:#e8ebf0}.soft{fill:#a3abb8}.grid{stroke:#333a45}.axis{stroke:#a3abb8}\
.a{stroke:#ff8a80}.b{stroke:#82b7ff}.af{fill:#ff8a80}.bf{fill:#82b7ff}.ring{stroke:#e8ebf0}}";

/// One curve.
struct Series {
    title: &'static str,
    class: char,
    bytes: fn(&SweepPoint) -> u64,
}

const SERIES: [Series; 2] = [
    Series { title: "recorded tunnels", class: 'a', bytes: |point| point.figures.tunnel_worst_bytes },
    Series { title: "slow, spread and shaped", class: 'b', bytes: |point| point.figures.lowslow_worst_bytes },
];

/// The curve of a sweep: most payload octets out before the stop, over benign pairs refused by score or ledger in a thousand, one point a
/// threshold, the one in force ringed. An empty sweep gives axes alone.
pub fn leak_against_false_alarms(sweep: &[SweepPoint]) -> String {
    let refused = |point: &SweepPoint| point.figures.pairs_judged.rate.unwrap_or(0.0) * 1000.0;
    let most_bytes = sweep.iter().flat_map(|point| SERIES.iter().map(|series| (series.bytes)(point))).max();
    let across = Linear::over(sweep.iter().map(refused).fold(0.0, f64::max));
    let up = Logarithmic::over(most_bytes.unwrap_or(0) as f64);

    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\" aria-labelledby=\"t d\">\n\
         <title id=\"t\">Leak against false alarms</title>\n\
         <desc id=\"d\">Most payload bytes out before the stop over benign pairs refused by score or ledger in a thousand, as the \
         sinkhole's threshold moves; the threshold in force is ringed.</desc>\n\
         <style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"26\">Leak against false alarms</text>\n"
    );
    legend(&mut out);
    grid(&mut out, &across, &up);
    for (which, series) in SERIES.iter().enumerate() {
        let points: Vec<_> =
            sweep.iter().map(|point| (across.place(refused(point)), up.place((series.bytes)(point) as f64))).collect();
        curve(&mut out, series, which, &points);
        thresholds(&mut out, sweep, &points);
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String) {
    let mut x = LEFT;
    for (which, series) in SERIES.iter().enumerate() {
        mark(out, series, which, (x + 6.0, 44.0));
        let _ = writeln!(out, "<text class=\"soft\" x=\"{}\" y=\"48\">{}</text>", x + 18.0, series.title);
        x += 40.0 + 7.0 * series.title.len() as f64;
    }
    let _ = writeln!(
        out,
        "<circle class=\"ring\" cx=\"{}\" cy=\"44\" r=\"7\"/>\
         <text class=\"soft\" x=\"{}\" y=\"48\">in force (labels: sinkhole threshold, nats)</text>",
        x + 6.0,
        x + 20.0,
    );
}

fn grid(out: &mut String, across: &Linear, up: &Logarithmic) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in up.ticks() {
        let y = up.place(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            LEFT - 8.0,
            y + 4.0,
        );
    }
    for tick in across.ticks() {
        let x = across.place(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            bottom + 18.0,
        );
    }
    let _ = writeln!(
        out,
        "<path class=\"axis line\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">benign pairs of session and domain refused by score or ledger, in 1,000</text>\
         <text transform=\"translate(22 {:.1}) rotate(-90)\" text-anchor=\"middle\">payload bytes out before the stop, \
         worst session</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 18.0,
        (TOP + bottom) / 2.0,
    );
}

fn curve(out: &mut String, series: &Series, which: usize, points: &[(f64, f64)]) {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
    }
    let _ = writeln!(out, "<path class=\"line {}\" d=\"{path}\"/>", series.class);
    let mut places = points.to_vec();
    places.dedup();
    for place in places {
        mark(out, series, which, place);
    }
}

/// A disc for the first curve, a square for the second.
fn mark(out: &mut String, series: &Series, which: usize, (x, y): (f64, f64)) {
    let class = series.class;
    let _ = match which {
        0 => writeln!(out, "<circle class=\"{class}f\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        _ => writeln!(
            out,
            "<rect class=\"{class}f\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>",
            x - 4.0,
            y - 4.0
        ),
    };
}

/// The thresholds beside their points; points that fall together share one label.
fn thresholds(out: &mut String, sweep: &[SweepPoint], points: &[(f64, f64)]) {
    let mut labelled: Vec<((f64, f64), Vec<f64>, bool)> = Vec::new();
    for (point, place) in sweep.iter().zip(points) {
        let near = |other: &&mut ((f64, f64), Vec<f64>, bool)| {
            (other.0.0 - place.0).abs() < 14.0 && (other.0.1 - place.1).abs() < 14.0
        };
        match labelled.iter_mut().find(near) {
            Some((_, all, in_force)) => {
                all.push(point.threshold);
                *in_force |= point.in_force;
            }
            None => labelled.push((*place, vec![point.threshold], point.in_force)),
        }
        if point.in_force {
            let _ = writeln!(out, "<circle class=\"ring\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"9\"/>", place.0, place.1);
        }
    }
    for ((x, y), all, _) in labelled {
        let (low, high) = all.iter().fold((f64::MAX, f64::MIN), |(low, high), t| (low.min(*t), high.max(*t)));
        let text = if low == high { format!("{low}") } else { format!("{low} to {high}") };
        // Towards the middle of the page, so that nothing is cut off at its edge.
        let (x, anchor) = if x > WIDTH * 0.75 { (x - 10.0, "end") } else { (x + 10.0, "start") };
        let _ = writeln!(
            out,
            "<text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            y - 9.0
        );
    }
}

/// 0 to a round number, left to right.
struct Linear {
    step: f64,
    steps: u32,
}

impl Linear {
    fn over(most: f64) -> Self {
        let rough = (most.max(0.1) * 1.05) / 5.0;
        let magnitude = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * magnitude).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        Self { step, steps: (most.max(0.1) * 1.05 / step).ceil() as u32 }
    }

    fn place(&self, value: f64) -> f64 {
        LEFT + (WIDTH - RIGHT - LEFT) * value / (self.step * f64::from(self.steps))
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        // Multiples of a step such as 0.2 are rounded back to what is written.
        (0..=self.steps).map(|n| (f64::from(n) * self.step * 1e6).round() / 1e6)
    }
}

/// 1 to a power of two, bottom to top; 0 is shown at 1.
struct Logarithmic {
    powers: u32,
}

impl Logarithmic {
    fn over(most: f64) -> Self {
        // Half as much again, so that the highest point has room for its label.
        Self { powers: (most.max(16.0) * 1.5).log2().ceil() as u32 }
    }

    fn place(&self, value: f64) -> f64 {
        let share = value.max(1.0).log2() / f64::from(self.powers);
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (0..=self.powers).step_by(self.powers.div_ceil(8).max(1) as usize).map(|n| f64::from(1u32 << n.min(31)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::figures::Headline;
    use crate::evaluate::rates::Rate;

    fn point(threshold: f64, tunnel: u64, lowslow: u64, refused: u64) -> SweepPoint {
        let figures = Headline {
            tunnel_first_action: Some(3),
            tunnel_worst_bytes: tunnel,
            lowslow_first_action: None,
            lowslow_worst_bytes: lowslow,
            lowslow_open: 1,
            pairs_judged: Rate::new(refused, 4000),
            sessions_quarantined: 0,
        };
        SweepPoint { threshold, in_force: threshold == 4.0, figures }
    }

    #[test]
    fn every_point_lies_on_the_page_and_one_is_ringed() {
        let sweep = [point(2.0, 10, 100, 40), point(4.0, 40, 810, 3), point(8.0, 20_000, 0, 0)];
        let svg = leak_against_false_alarms(&sweep);
        assert_eq!(svg.matches("class=\"ring\"").count(), 3, "one in the legend, one on each curve");
        let number = |attribute: &str| {
            svg.match_indices(attribute)
                .map(|(at, found)| {
                    let rest = &svg[at + found.len()..];
                    rest[..rest.find('"').expect("closed")].parse::<f64>().expect("a number")
                })
                .collect::<Vec<_>>()
        };
        assert!(number(" cx=\"").iter().all(|x| (0.0..=WIDTH).contains(x)));
        assert!(number(" cy=\"").iter().all(|y| (0.0..=HEIGHT).contains(y)));
        assert!(svg.contains("prefers-color-scheme:dark") && svg.ends_with("</svg>\n"));
        assert!(leak_against_false_alarms(&[]).contains("in 1,000"), "axes alone");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let ticks: Vec<_> = Linear::over(3.1).ticks().collect();
        assert_eq!(ticks, [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(Linear::over(0.0).ticks().last(), Some(0.15), "room for nothing too");
        assert_eq!(Logarithmic::over(810.0).ticks().last(), Some(1024.0));
        assert!(Logarithmic::over(4096.0).place(4096.0) > TOP, "room for a label");
    }
}
