//! One chart as SVG: lines over a logarithmic axis, with names for everything that has a number.

use std::fmt::Write as _;

use super::escaped;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
/// Where the plot is; numbers stand left of it and below.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 472.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 216.0;
/// Labels closer than this would run into each other.
const APART: f64 = 40.0;

/// Lines to be drawn.
#[derive(Debug)]
pub struct Chart {
    pub title: &'static str,
    /// What is to be seen, in a sentence.
    pub says: &'static str,
    pub x: &'static str,
    /// What `y` is in.
    pub unit: &'static str,
    pub scale: Scale,
    pub series: Vec<Series>,
}

/// How heights stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    Logarithmic,
}

/// Points of one case, in order.
#[derive(Debug)]
pub struct Series {
    pub name: &'static str,
    /// Number of its colour and shape.
    pub look: usize,
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// The chart, or nothing if nothing of it was measured.
    pub fn draw(&self, page: &mut String) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().next().is_none() {
            return;
        }
        let frame = Frame::around(self.scale, points());
        let _ = write!(
            page,
            "<figure><h2>{}</h2><p class=says>{}</p><ul class=legend>",
            escaped(self.title),
            escaped(self.says),
        );
        for Series { name, look, points } in &self.series {
            if !points.is_empty() {
                let mark = mark(*look, (8.0, 8.0));
                let name = escaped(name);
                let _ = write!(page, "<li><svg viewBox='0 0 16 16'>{mark}</svg>{name}");
            }
        }
        let title = escaped(self.title);
        let _ =
            write!(page, "</ul><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{title}'>");
        self.axes(&frame, page);
        for series in &self.series {
            self.line(series, &frame, page);
        }
        page.push_str("</svg></figure>");
    }

    fn axes(&self, frame: &Frame, page: &mut String) {
        for tick in frame.ticks() {
            let y = frame.height(tick);
            let _ = write!(
                page,
                "<line class=grid x1={LEFT} x2={RIGHT} y1={y:.1} y2={y:.1} />\
                 <text x={} y={:.1} text-anchor=end>{} {}</text>",
                LEFT - 8.0,
                y + 4.0,
                short(tick),
                self.unit,
            );
        }
        let mut free = f64::MIN;
        for number in &frame.xs {
            let x = frame.across(*number);
            let _ = write!(
                page,
                "<line class=grid x1={x:.1} x2={x:.1} y1={BOTTOM} y2={} />",
                BOTTOM + 5.0
            );
            if x >= free {
                let (y, text) = (BOTTOM + 20.0, short(*number));
                let _ = write!(page, "<text x={x:.1} y={y} text-anchor=middle>{text}</text>");
                free = x + APART;
            }
        }
        let (x, y) = (f64::midpoint(LEFT, RIGHT), HEIGHT - 10.0);
        let _ = write!(page, "<text class=axis x={x} y={y} text-anchor=middle>{}</text>", self.x);
    }

    fn line(&self, Series { name, look, points }: &Series, frame: &Frame, page: &mut String) {
        let place = |(x, y): &(f64, f64)| (frame.across(*x), frame.height(*y));
        let path: Vec<String> =
            points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(page, "<polyline class='line c{look}' points='{}' />", path.join(" "));
        for point in points {
            let _ = write!(
                page,
                "<g><title>{}: {} {} at {}</title>{}</g>",
                escaped(name),
                short(point.1),
                self.unit,
                short(point.0),
                mark(*look, place(point)),
            );
        }
    }
}

/// Which numbers are where.
struct Frame {
    scale: Scale,
    /// Of `y`.
    low: f64,
    high: f64,
    /// All values of `x`, in order.
    xs: Vec<f64>,
}

impl Frame {
    fn around<'a>(scale: Scale, points: impl Iterator<Item = &'a (f64, f64)> + Clone) -> Self {
        let mut xs: Vec<f64> = points.clone().map(|(x, _)| x.max(1.0)).collect();
        xs.sort_unstable_by(f64::total_cmp);
        xs.dedup();
        let ys = || points.clone().map(|(_, y)| *y);
        let highest = ys().fold(f64::MIN_POSITIVE, f64::max);
        let (low, high) = match scale {
            Scale::Linear => {
                let step = step(highest);
                (0.0, (highest / step).ceil() * step)
            }
            Scale::Logarithmic => {
                let lowest = ys().filter(|y| *y > 0.0).fold(highest, f64::min);
                let low = lowest.log10().floor();
                (10_f64.powf(low), 10_f64.powf(highest.log10().ceil().max(low + 1.0)))
            }
        };
        Self { scale, low, high, xs }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.high);
                let count = (self.high / step).round() as u32;
                (0..=count).map(|at| f64::from(at) * step).collect()
            }
            Scale::Logarithmic => {
                let decades = (self.high / self.low).log10().round() as i32;
                (0..=decades).map(|at| self.low * 10_f64.powi(at)).collect()
            }
        }
    }

    fn height(&self, y: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => y / self.high,
            Scale::Logarithmic => {
                (y.max(self.low) / self.low).log10() / (self.high / self.low).log10()
            }
        };
        BOTTOM - part * (BOTTOM - TOP)
    }

    fn across(&self, x: f64) -> f64 {
        let (Some(first), Some(last)) = (self.xs.first(), self.xs.last()) else { return LEFT };
        let span = (last / first).ln();
        let part = if span > 0.0 { (x.max(1.0) / first).ln() / span } else { 0.5 };
        // A little room on both sides.
        LEFT + 24.0 + part * (RIGHT - LEFT - 48.0)
    }
}

/// A step of 1, 2 or 5 that leads to this in four to ten.
fn step(highest: f64) -> f64 {
    let magnitude = 10_f64.powf((highest / 4.0).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * magnitude);
    steps.into_iter().rev().find(|step| highest / step >= 4.0).unwrap_or(magnitude)
}

/// A point: each look has a shape too, for those who cannot tell the colours apart.
fn mark(look: usize, (x, y): (f64, f64)) -> String {
    let class = format!("class='mark c{look}'");
    match look % 4 {
        0 => format!("<circle {class} cx={x:.1} cy={y:.1} r=4.5 />"),
        1 => format!("<rect {class} x={:.1} y={:.1} width=8 height=8 />", x - 4.0, y - 4.0),
        2 => format!("<path {class} d='M{x:.1} {:.1}l5 9h-10z' />", y - 5.5),
        _ => format!("<path {class} d='M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z' />", y - 5.5),
    }
}

/// A number as short as it can be told.
pub fn short(number: f64) -> String {
    let told = match number.abs() {
        large if large >= 1e6 => format!("{:.1}M", number / 1e6),
        large if large >= 1e4 => format!("{:.0}k", number / 1e3),
        medium if medium >= 100.0 => format!("{number:.0}"),
        medium if medium >= 10.0 => format!("{number:.1}"),
        small if small >= 0.01 || small == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    };
    // Without a fraction that says nothing.
    let (digits, suffix) = told.split_at(told.trim_end_matches(['M', 'k']).len());
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    format!("{digits}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_short() {
        let told = [0.0, 0.001, 0.5, 5.0, 12.5, 250.0, 10_000.0, 1_048_576.0, 262_144.0].map(short);
        assert_eq!(told, ["0", "0.001", "0.5", "5", "12.5", "250", "10k", "1M", "262k"]);
    }

    #[test]
    fn steps_are_round_and_few() {
        for (highest, wanted) in [(520.0, 100.0), (62.0, 10.0), (8.0, 2.0), (0.9, 0.2)] {
            assert!((step(highest) - wanted).abs() < 1e-9, "{highest}: {}", step(highest));
        }
    }

    #[test]
    fn a_decade_is_as_high_as_any_other() {
        let points = [(1.0, 0.04), (100.0, 3.0)];
        let frame = Frame::around(Scale::Logarithmic, points.iter());
        assert_eq!((frame.low, frame.high, frame.ticks().len()), (0.01, 10.0, 4));
        let heights: Vec<f64> = frame.ticks().into_iter().map(|tick| frame.height(tick)).collect();
        let first = heights[0] - heights[1];
        assert!(heights.windows(2).all(|pair| (pair[0] - pair[1] - first).abs() < 1e-6));
        assert_eq!((heights[0], frame.height(0.0)), (BOTTOM, BOTTOM), "none is below");
    }
}
