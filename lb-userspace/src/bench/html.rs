//! A report as one page that needs nothing else: charts, and the table under them.

mod chart;

use std::fmt::Write as _;

use self::chart::{Chart, Scale, Series, short};
use super::{Report, Row};
use crate::cli::output::Show as _;

/// Light and dark, as the reader's screen is.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fff; --line: #e0e4ea;
  --good: #18794e; --bad: #b4232a; --c0: #2563c9; --c1: #0e7c86; --c2: #c2410c; --c3: #7a3fb5;
  --c4: #6b7686; --c5: #9a6b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --paper: #12161c;
  --line: #2b323c; --good: #4cc38a; --bad: #ff8080; --c0: #6ea8fe; --c1: #4fd1c5; --c2: #fb9a5a;
  --c3: #c79bf2; --c4: #98a2b3; --c5: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin: 0; } h2 { font-size: 1.1rem; margin: 0; }
.soft, .says { color: var(--soft); margin: .2rem 0 .6rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr));
  gap: 2rem 2.5rem; margin: 2rem 0; }
figure { margin: 0; } figure > svg { width: 100%; height: auto; display: block; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; padding: 0;
  margin: 0 0 .4rem; font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .35rem; }
.legend svg { width: 1rem; height: 1rem; }
svg text { fill: var(--soft); font-size: 13px; } svg text.axis { fill: var(--ink); }
.grid { stroke: var(--line); } .line { fill: none; stroke-width: 2; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .5rem .8rem;
  align-items: center; font-size: .9rem; }
.bars b { font-weight: 400; height: 1.2rem; border-radius: 2px; min-width: 2px; }
.bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .85rem; margin-top: .6rem; }
th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--soft); font-weight: 500; white-space: nowrap; }
.n { text-align: right; white-space: nowrap; } td:first-child { white-space: nowrap; }
td:last-child { min-width: 16rem; color: var(--soft); }
.yes .met { color: var(--good); } .no .met { color: var(--bad); font-weight: 600; }
";
/// Colours by their numbers: our own, and those of others everywhere alike.
const OURS: usize = 0;
const OURS_TOO: usize = 1;
const NFTABLES: usize = 2;
const IPTABLES: usize = 3;
const NOTHING: usize = 4;
const MORE: usize = 5;

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut page = String::from("<!doctype html><html lang=en><meta charset=utf-8>");
    let _ = write!(page, "<meta name=viewport content='width=device-width'>");
    let _ = write!(page, "<title>lb bench</title><style>{STYLE}{}</style>", colours());
    head(&mut page, report);
    page.push_str("<div class=charts>");
    for chart in charts(report) {
        chart.draw(&mut page);
    }
    let sides = [
        ("live-pps", "lb", OURS),
        ("live-pps-nftables", "rules of nftables", NFTABLES),
        ("live-pps-nothing", "sent back as it is", NOTHING),
    ];
    let says =
        "To a NodePort with a backend on another node, one core for everything; more is better.";
    bars(&mut page, ("Packets a second", says), report, &sides);
    let sides = [
        ("connect-rate", "ClusterIP, lb", OURS),
        ("connect-rate-nftables", "ClusterIP, rules of nftables", NFTABLES),
        ("connect-rate-direct", "direct to the pod", NOTHING),
    ];
    let says = "Real ones, one after the other, 1,000 Services loaded; more is better.";
    bars(&mut page, ("Connections a second", says), report, &sides);
    page.push_str("</div>");
    table(&mut page, report);
    page
}

/// One rule a colour, for lines and for marks.
fn colours() -> String {
    (OURS..=MORE)
        .map(|look| {
            format!(
                ".line.c{look} {{ stroke: var(--c{look}); }} .mark.c{look} {{ fill: var(--c{look}); }} \
                 b.c{look} {{ background: var(--c{look}); }}\n"
            )
        })
        .collect()
}

fn head(page: &mut String, report: &Report) {
    let machine = &report.machine;
    let held = report.cases.iter().filter_map(|row| row.met);
    let (met, all) = held.fold((0, 0), |(met, all), it| (met + u32::from(it), all + 1));
    let _ = write!(
        page,
        "<h1>lb bench</h1><p class=soft>{} · {} CPUs · ",
        escaped(&machine.cpu),
        machine.cpus
    );
    let _ = write!(
        page,
        "{} MB · Linux {} · {} · lb {}</p>",
        machine.memory_mb,
        escaped(&machine.kernel),
        escaped(&machine.date),
        escaped(&machine.version),
    );
    if !machine.optimised {
        page.push_str("<p class=no>Not optimised: times of the control plane do not count.</p>");
    }
    if all > 0 {
        let _ = write!(page, "<p>{met} of {all} targets met.</p>");
    }
}

fn charts(report: &Report) -> [Chart; 5] {
    let series =
        |name: &'static str, look, case: &str, point: &dyn Fn(&Row) -> Option<(f64, f64)>| {
            let rows = report.cases.iter().filter(|row| row.name == case);
            let mut points: Vec<_> = rows.filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series { name, look, points }
        };
    let flows =
        |row: &Row| Some((f64::from(row.flows?), row.net_ns?)).filter(|_| row.services <= Some(1));
    let one_flow =
        |row: &Row| Some((f64::from(row.services?), row.net_ns?)).filter(|_| row.flows == Some(1));
    let services = |name, look, few: &str, many: &str| {
        let Series { mut points, .. } = series(name, look, few, &one_flow);
        points.extend(series(name, look, many, &one_flow).points);
        Series { name, look, points }
    };
    let size = |row: &Row| Some((f64::from(row.services? * row.endpoints?), row.value?));
    [
        Chart {
            title: "What a packet costs, by flows",
            says: "Nanoseconds without the harness, flows in random order; less is better. The floor \
                   is the kernel's own hash map with a rewrite.",
            x: "flows",
            unit: "ns",
            scale: Scale::Linear,
            series: vec![
                series("floor", NOTHING, "floor", &flows),
                series("to a backend", OURS, "established-v4", &flows),
                series("reply", OURS_TOO, "established-v4-reply", &flows),
                series("DSR, first step", MORE, "dsr-v4", &flows),
            ],
        },
        Chart {
            title: "What a packet costs, by Services",
            says: "One flow, so many Services loaded; less is better.",
            x: "Services",
            unit: "ns",
            scale: Scale::Linear,
            series: vec![
                services("to a backend", OURS, "established-v4", "services-10000"),
                services("reply", OURS_TOO, "established-v4-reply", "services-10000-reply"),
            ],
        },
        Chart {
            title: "From all objects to the kernel",
            says: "Nothing there before, and a new agent on the maps of the old one, beside the same \
                   Services as rules; less is better.",
            x: "endpoints of all Services",
            unit: "s",
            scale: Scale::Logarithmic,
            series: vec![
                series("cold start", OURS, "sync-cold", &size),
                series("restart", OURS_TOO, "sync-restart", &size),
                series("through an API server", MORE, "sync-cold-api", &size),
                series("nftables", NFTABLES, "nftables-cold", &size),
                series("iptables", IPTABLES, "iptables-cold", &size),
            ],
        },
        Chart {
            title: "One endpoint changed",
            says: "Until a packet meets it, 99 of 100 changes; beside the median of the same change \
                   as rules; less is better.",
            x: "endpoints of all Services",
            unit: "ms",
            scale: Scale::Logarithmic,
            series: vec![
                series("lb", OURS, "sync-one", &size),
                series("through an API server", MORE, "sync-one-api", &size),
                series("nftables", NFTABLES, "nftables-one", &size),
                series("iptables", IPTABLES, "iptables-one", &size),
            ],
        },
        Chart {
            title: "Memory of the agent's tables",
            says: "Resident and its own, without the kernel's maps; less is better.",
            x: "endpoints of all Services",
            unit: "MB",
            scale: Scale::Linear,
            series: vec![series("lb", OURS, "memory", &size)],
        },
    ]
}

/// Values of a few cases side by side, if the first was measured.
fn bars(
    page: &mut String,
    (title, says): (&str, &str),
    report: &Report,
    sides: &[(&str, &str, usize)],
) {
    let value = |case: &str| {
        let row = report.cases.iter().find(|row| row.name == case)?;
        Some((row.value?, row.unit.as_deref().unwrap_or_default()))
    };
    let found: Vec<_> =
        sides.iter().filter_map(|(case, name, look)| Some((name, look, value(case)?))).collect();
    let most = found.iter().map(|(_, _, (value, _))| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let _ = write!(page, "<figure><h2>{title}</h2><p class=says>{says}</p><div class=bars>");
    for (name, look, (value, unit)) in found {
        let _ = write!(
            page,
            "<span>{name}</span><b class=c{look} style='width:{:.1}%'></b><span>{} {}</span>",
            value / most * 100.0,
            short(value),
            escaped(unit),
        );
    }
    page.push_str("</div></figure>");
}

fn table(page: &mut String, report: &Report) {
    page.push_str("<h2>All cases</h2><div class=table><table><tr>");
    let columns = report.columns();
    for column in columns {
        let _ = write!(page, "<th{}>{}", class(column.number, column.title), escaped(column.title));
    }
    for (row, cells) in report.cases.iter().zip(report.rows()) {
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let _ = write!(page, "<tr class='{met}'>");
        for (column, cell) in columns.iter().zip(cells) {
            let class = class(column.number, column.title);
            // What is not held against a target has its note in the last column alone.
            let cell = if column.title == "MET" && row.met.is_none() { "-" } else { &*cell };
            let _ = write!(page, "<td{class}>{}", escaped(cell));
        }
    }
    page.push_str("</table></div></html>\n");
}

fn class(is_number: bool, title: &str) -> &'static str {
    match (is_number, title) {
        (true, _) => " class=n",
        (false, "MET") => " class=met",
        (false, _) => "",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;

    fn row(name: &str, flows: u32, net: f64) -> Row {
        let name = name.to_owned();
        Row { name, flows: Some(flows), services: Some(0), net_ns: Some(net), ..Row::default() }
    }

    fn sync(name: &str, services: u32, value: f64) -> Row {
        let (services, endpoints) = (Some(services), Some(10));
        let name = name.to_owned();
        Row { name, services, endpoints, value: Some(value), ..Row::default() }
    }

    #[test]
    fn a_page_has_a_point_for_each_case_and_asks_nobody_for_more() {
        let cases = vec![row("floor", 1, 30.0), row("floor", 1 << 20, 300.0), row("<b>", 1, 1.0)];
        let page = page(&Report { machine: Machine::here(), cases });
        assert_eq!((page.matches("<figure>").count(), page.matches("<polyline").count()), (1, 4));
        assert_eq!(page.matches("<title>floor: ").count(), 2);
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
        for elsewhere in ["http:", "https:", "url(", "src=", "<script"] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn rules_of_others_stand_beside_ours_and_values_beside_their_names() {
        let pps = |name: &str, value| Row { unit: Some("Mpps".into()), ..sync(name, 1, value) };
        let cases = vec![
            sync("sync-one", 100, 0.04),
            sync("sync-one", 10_000, 0.1),
            sync("nftables-one", 100, 20.0),
            sync("iptables-one", 100, 21.0),
            pps("live-pps", 2.0),
            pps("live-pps-nftables", 0.5),
        ];
        let page = page(&Report { machine: Machine::here(), cases });
        for what in [
            "<title>lb: 0.1 ms at 100k</title>",
            "<title>nftables: 20 ms at 1000</title>",
            "<title>iptables: 21 ms at 1000</title>",
            "style='width:25.0%'",
            "0.5 Mpps",
        ] {
            assert!(page.contains(what), "{what}: {page}");
        }
    }
}
