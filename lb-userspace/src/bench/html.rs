//! A report as one page that needs nothing else: charts, and the table under them.

use std::fmt::Write as _;

use super::{Report, Row};
use crate::cli::output::Show as _;

/// Light and dark, as the reader's screen is.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --line: #d5dae2; --good: #18794e;
  --bad: #b4232a; --c0: #6b7686; --c1: #2563c9; --c2: #c2410c; --c3: #7a3fb5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #12161c; --line: #333b46;
  --good: #4cc38a; --bad: #ff8080; --c0: #98a2b3; --c1: #6ea8fe; --c2: #fb9a5a; --c3: #c79bf2; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--line); }
.yes { color: var(--good); } .no { color: var(--bad); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
";
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
/// Where numbers stand, and names.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 580.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 228.0;

/// Points of one case, and its name.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut page = String::from("<!doctype html><html lang=en><meta charset=utf-8>");
    let _ = write!(page, "<meta name=viewport content='width=device-width'>");
    let _ = write!(page, "<title>lb bench</title><style>{STYLE}</style><h1>lb bench</h1>");
    let machine = &report.machine;
    let _ = write!(
        page,
        "<p>{} · {} CPUs · {} MB · Linux {} · {} · lb {}{}</p>",
        escaped(&machine.cpu),
        machine.cpus,
        machine.memory_mb,
        escaped(&machine.kernel),
        escaped(&machine.date),
        escaped(&machine.version),
        if machine.optimised {
            ""
        } else {
            ", not optimised: times of the control plane do not count"
        },
    );
    let flows = |row: &Row| Some((f64::from(row.flows?), row.net_ns?));
    let cost = ["floor", "established-v4", "established-v4-reply"];
    chart(&mut page, "Nanoseconds a packet, net, by flows", &cost, report, flows);
    let size = |row: &Row| Some((f64::from(row.services? * row.endpoints?), row.value?));
    chart(
        &mut page,
        "Start in seconds, by endpoints",
        &["sync-cold", "sync-restart"],
        report,
        size,
    );
    chart(&mut page, "One endpoint changed, ms (p99), by endpoints", &["sync-one"], report, size);
    table(&mut page, report);
    page
}

/// A chart of some cases, if there is anything to show.
fn chart(
    page: &mut String,
    title: &str,
    names: &[&str],
    report: &Report,
    point: impl Fn(&Row) -> Option<(f64, f64)>,
) {
    let series = names.iter().map(|name| {
        let rows = report.cases.iter().filter(|row| row.name == *name);
        let mut points: Vec<_> = rows.filter_map(&point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: (*name).to_owned(), points }
    });
    let series: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
    let all = || series.iter().flat_map(|series| &series.points);
    let widest = all().map(|point| point.0.max(1.0).log2()).fold(1.0, f64::max);
    let highest = all().map(|point| point.1).fold(0.0, f64::max);
    if highest <= 0.0 {
        return;
    }
    let place = |(x, y): (f64, f64)| {
        let right = LEFT + x.max(1.0).log2() / widest * (RIGHT - LEFT);
        (right, BOTTOM - y / highest * (BOTTOM - TOP))
    };
    let _ = write!(page, "<h2>{title}</h2><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img>");
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (_, y) = place((1.0, part * highest));
        let _ = write!(
            page,
            "<line x1={LEFT} x2={RIGHT} y1={y:.1} y2={y:.1} stroke='var(--line)'/>\
             <text x=4 y={:.1}>{}</text>",
            y + 4.0,
            short(part * highest),
        );
    }
    for (at, Series { name, points }) in series.iter().enumerate() {
        let colour = format!("var(--c{})", at % 4);
        let line: Vec<String> = points
            .iter()
            .map(|point| place(*point))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = write!(
            page,
            "<polyline points='{}' fill=none stroke='{colour}' stroke-width=2 />",
            line.join(" "),
        );
        for point in points {
            let (x, y) = place(*point);
            let (flows, cost) = (short(point.0), short(point.1));
            let _ = write!(
                page,
                "<circle cx={x:.1} cy={y:.1} r=3.5 fill='{colour}'><title>{name}: {cost} at \
                 {flows}</title></circle><text x={x:.1} y={} text-anchor=middle>{flows}</text>",
                BOTTOM + 18.0,
            );
        }
        let y = TOP + 18.0 * (at as f64 + 0.5);
        let _ = write!(
            page,
            "<circle cx={} cy={:.1} r=4 fill='{colour}'/><text x={} y={:.1}>{name}</text>",
            RIGHT + 16.0,
            y - 4.0,
            RIGHT + 26.0,
            y,
        );
    }
    page.push_str("</svg>");
}

fn table(page: &mut String, report: &Report) {
    page.push_str("<h2>All cases</h2><table><tr>");
    for column in report.columns() {
        let _ = write!(page, "<th>{}", escaped(column.title));
    }
    for (row, cells) in report.cases.iter().zip(report.rows()) {
        let class = match row.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let _ = write!(page, "<tr class='{class}'>");
        for cell in cells {
            let _ = write!(page, "<td>{}", escaped(&cell));
        }
    }
    page.push_str("</table></html>\n");
}

/// A number as short as it can be told.
fn short(number: f64) -> String {
    match number {
        large if large >= 1e6 => format!("{:.1}M", large / 1e6),
        large if large >= 1e4 => format!("{:.0}k", large / 1e3),
        medium if medium >= 10.0 => format!("{medium:.0}"),
        small => format!("{small:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;

    fn row(name: &str, flows: u32, net: f64) -> Row {
        let name = name.to_owned();
        Row { name, flows: Some(flows), net_ns: Some(net), ..Row::default() }
    }

    #[test]
    fn a_page_has_a_point_for_each_case_and_asks_nobody_for_more() {
        let cases = vec![row("floor", 1, 30.0), row("floor", 1 << 20, 300.0), row("<b>", 1, 1.0)];
        let page = page(&Report { machine: Machine::here(), cases });
        assert_eq!(page.matches("<polyline").count(), 1);
        assert_eq!(page.matches("floor: ").count(), 2);
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }
}
