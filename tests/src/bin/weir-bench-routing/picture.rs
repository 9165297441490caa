//! The picture of a scenario: how slow the slowest are, by share of the requests, and beside it what
//! the caches had and how evenly the machines worked.

use std::fmt::Write;

use crate::contestants::Contestant;
use crate::figures::at;
use crate::report::Measured;

/// An SVG document.
pub(crate) fn draw(measured: &Measured, contestants: &[Contestant]) -> String {
    let mut svg = Svg::begin(measured.name, measured.about);
    let tails: Vec<Vec<f64>> = (0..contestants.len())
        .map(|place| pooled(measured, place))
        .collect();
    let scale = Scale::of(&tails);
    svg.tail_axes(&scale);
    for (place, (contestant, sorted)) in contestants.iter().zip(&tails).enumerate() {
        svg.tail(&scale, sorted, Style::of(place, contestant, contestants));
    }
    svg.bars(measured, contestants);
    svg.end()
}

/// Times to the first token of one contestant in all runs, sorted, in simulated milliseconds.
fn pooled(measured: &Measured, place: usize) -> Vec<f64> {
    let outcomes = measured
        .runs
        .iter()
        .filter_map(|run| run.outcomes.get(place));
    let mut times: Vec<f64> = outcomes
        .flat_map(|outcome| outcome.ttft_ms.iter().copied())
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// How a contestant is drawn: methods as NVCF defines them have the colour of ours, and dashes.
#[derive(Clone, Copy)]
struct Style {
    colour: &'static str,
    dashes: &'static str,
}

impl Style {
    fn of(place: usize, contestant: &Contestant, all: &[Contestant]) -> Self {
        let ours = all
            .iter()
            .position(|other| other.nvcf == Some(contestant.name));
        let colour = COLOURS.get(ours.unwrap_or(place) % COLOURS.len());
        Self {
            colour: colour.copied().unwrap_or("#000"),
            dashes: if ours.is_some() { "6 4" } else { "" },
        }
    }
}

/// The vertical axis: milliseconds, logarithmic, whole decades and their halves.
struct Scale {
    min: f64,
    max: f64,
}

impl Scale {
    fn of(tails: &[Vec<f64>]) -> Self {
        let ends = |share: f64| tails.iter().map(move |sorted| at(sorted, share));
        let finite = |value: &f64| value.is_finite();
        let min = ends(0.25).filter(finite).fold(f64::INFINITY, f64::min);
        let max = ends(0.999).filter(finite).fold(0.0, f64::max);
        if min >= max {
            return Self {
                min: 1.0,
                max: 10.0,
            };
        }
        Self {
            min: min.max(1.0) * 0.8,
            max: max * 1.25,
        }
    }

    fn y(&self, ms: f64) -> f64 {
        let share = (ms.max(self.min) / self.min).ln() / (self.max / self.min).ln();
        TOP + HEIGHT * (1.0 - share.min(1.0))
    }

    /// 1, 2 and 5 of each decade in between.
    fn ticks(&self) -> Vec<f64> {
        let decades = (0..7).map(|decade| 10.0_f64.powi(decade));
        decades
            .flat_map(|decade| [decade, 2.0 * decade, 5.0 * decade])
            .filter(|tick| (self.min..=self.max).contains(tick))
            .collect()
    }
}

/// The horizontal place of a share of the requests: each step to the right leaves fewer.
fn x(share: f64) -> f64 {
    let nines = -(1.0 - share).max(1e-9).log10();
    LEFT + WIDTH * (nines / NINES_MAX).min(1.0)
}

struct Svg(String);

impl Svg {
    fn begin(name: &str, about: &str) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{W}\" height=\"{H}\" viewBox=\"0 0 {W} {H}\" \
             font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
             <rect width=\"{W}\" height=\"{H}\" fill=\"#fff\"/>\n",
        ));
        svg.text(LEFT, 28.0, "start", 18.0, name);
        svg.text(LEFT, 48.0, "start", 12.0, about);
        svg
    }

    fn end(mut self) -> String {
        self.0 += "</svg>\n";
        self.0
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, size: f64, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
        ));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    fn add(&mut self, element: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.0, "{element}");
    }

    fn tail_axes(&mut self, scale: &Scale) {
        for tick in scale.ticks() {
            let y = scale.y(tick);
            self.line((LEFT, y), (LEFT + WIDTH, y), GRID);
            let label = if tick < 1000.0 {
                format!("{tick} ms")
            } else {
                format!("{} s", tick / 1000.0)
            };
            self.text(LEFT - 8.0, y + 4.0, "end", 12.0, &label);
        }
        for (share, label) in [
            (0.0, "fastest"),
            (0.5, "p50"),
            (0.75, "p75"),
            (0.9, "p90"),
            (0.95, "p95"),
            (0.99, "p99"),
            (0.999, "p99.9"),
        ] {
            let x = x(share);
            self.line((x, TOP), (x, TOP + HEIGHT), GRID);
            self.text(x, TOP + HEIGHT + 18.0, "middle", 12.0, label);
        }
        let axis = (LEFT, TOP + HEIGHT);
        self.line(axis, (LEFT + WIDTH, TOP + HEIGHT), AXIS);
        self.line(axis, (LEFT, TOP), AXIS);
        let middle = LEFT + WIDTH / 2.0;
        let below = TOP + HEIGHT + 38.0;
        let share = "share of the requests that were at least as fast (percentile)";
        self.text(middle, below, "middle", 12.0, share);
        self.text(
            LEFT,
            TOP - 10.0,
            "start",
            12.0,
            "time to first token, simulated, logarithmic: lower is better",
        );
    }

    fn tail(&mut self, scale: &Scale, sorted: &[f64], style: Style) {
        if sorted.is_empty() {
            return;
        }
        let mut points = String::new();
        for step in 0..=STEPS {
            let nines = NINES_MAX * f64::from(step) / f64::from(STEPS);
            let share = 1.0 - 10.0_f64.powf(-nines);
            let _infallible = write!(points, "{:.1},{:.1} ", x(share), scale.y(at(sorted, share)));
        }
        let Style { colour, dashes } = style;
        self.add(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>"
        ));
    }

    /// A row for each contestant: its line, its name and its figures.
    fn bars(&mut self, measured: &Measured, contestants: &[Contestant]) {
        let titles = [
            (COLUMNS[0], "TTFT p99"),
            (COLUMNS[1], "cache hits, | best possible"),
            (COLUMNS[2], "balance of work, 1 is even"),
        ];
        for (x, title) in titles {
            self.text(x, TOP - 10.0, "start", 12.0, title);
        }
        for (place, contestant) in contestants.iter().enumerate() {
            let style = Style::of(place, contestant, contestants);
            let y = TOP + 14.0 + ROW * place as f64;
            let Style { colour, dashes } = style;
            self.add(format_args!(
                "<line x1=\"{SIDE}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-dasharray=\"{dashes}\"/>",
                SIDE + 26.0
            ));
            self.text(SIDE + 34.0, y + 4.0, "start", 12.0, contestant.name);
            let p99 = measured.median(place, |outcome| outcome.ttft.p99);
            let seconds = format!("{:.2} s", p99 / 1000.0);
            self.text(COLUMNS[0], y + 4.0, "start", 12.0, &seconds);
            let hits = measured.median(place, |outcome| outcome.hit_rate);
            self.bar(
                COLUMNS[1],
                y,
                hits,
                colour,
                &format!("{:.0} %", 100.0 * hits),
            );
            let best = COLUMNS[1] + BAR * measured.best_hit_rate();
            self.line((best, y - 9.0), (best, y + 9.0), AXIS);
            let balance = measured.median(place, |outcome| outcome.capacity_balance);
            self.bar(COLUMNS[2], y, balance, colour, &format!("{balance:.2}"));
        }
        let runs = measured.runs.len();
        let asked = measured.median(0, |outcome| outcome.asked as f64);
        let below = TOP + HEIGHT + 38.0;
        let note = format!(
            "{runs} run(s) of {asked:.0} requests each after the warm-up; figures are medians of the runs"
        );
        self.text(SIDE, below, "start", 12.0, &note);
    }

    fn bar(&mut self, x: f64, y: f64, share: f64, colour: &str, label: &str) {
        let share = if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let top = y - 7.0;
        self.add(format_args!(
            "<rect x=\"{x}\" y=\"{top}\" width=\"{BAR}\" height=\"14\" fill=\"#f2f2f2\"/>"
        ));
        self.add(format_args!(
            "<rect x=\"{x}\" y=\"{top}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\" fill-opacity=\"0.75\"/>",
            BAR * share
        ));
        self.text(x + BAR + 6.0, y + 4.0, "start", 12.0, label);
    }
}

const W: f64 = 1280.0;
const H: f64 = 480.0;
/// The field of the tails.
const LEFT: f64 = 70.0;
const TOP: f64 = 90.0;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 320.0;
/// The rows beside it.
const SIDE: f64 = 665.0;
const COLUMNS: [f64; 3] = [855.0, 930.0, 1110.0];
const BAR: f64 = 110.0;
const ROW: f64 = 32.0;
const GRID: &str = "#e4e4e4";
const AXIS: &str = "#555";
/// Up to the slowest of a thousand.
const NINES_MAX: f64 = 3.0;
const STEPS: u32 = 240;
/// Told apart by most eyes, also without colours (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#999999", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#0072b2", "#cc79a7",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_place_their_figures() {
        let scale = Scale::of(&[(1..=1000).map(f64::from).collect(), vec![40.0; 10]]);
        assert!(scale.y(50.0) > scale.y(500.0), "more is higher up");
        assert!((TOP..=TOP + HEIGHT).contains(&scale.y(1e9)));
        assert!(scale.ticks().contains(&100.0));
        assert!((x(0.0) - LEFT).abs() < 1e-9 && (x(0.999) - LEFT - WIDTH).abs() < 1e-6);
        assert!(x(0.9) - x(0.0) > x(0.5) - x(0.0));
        assert!(Scale::of(&[Vec::new()]).ticks().contains(&5.0));
    }
}
