//! The tables of `lb top`, row by row.

use std::net::SocketAddr;

use ratatui::{
    layout::{Alignment, Constraint},
    style::{Color, Modifier, Style},
    symbols::bar,
    text::Text,
    widgets::{Cell, Row, Table},
};

use super::{
    app::{App, TREND},
    draw::coloured,
};
use crate::{
    api::{BackendRow, Example, Rate, ServiceRow},
    cli::get::human,
};

/// A column: its title, how wide it is, and whether it has numbers.
type Column = (&'static str, Constraint, bool);

const fn text(title: &'static str, width: u16) -> Column {
    (title, Constraint::Length(width), false)
}

const fn number(title: &'static str, width: u16) -> Column {
    (title, Constraint::Length(width), true)
}

const fn rest(title: &'static str, least: u16) -> Column {
    (title, Constraint::Min(least), false)
}

fn table(columns: &[Column], rows: Vec<(Vec<String>, Style)>) -> Table<'static> {
    let cell = |text: String, column: &Column| {
        let side = if column.2 { Alignment::Right } else { Alignment::Left };
        Cell::from(Text::from(text).alignment(side))
    };
    let row = |cells: Vec<String>| {
        Row::new(cells.into_iter().zip(columns).map(|(text, column)| cell(text, column)))
    };
    let titles = columns.iter().map(|(title, ..)| (*title).to_owned()).collect();
    let header = row(titles).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = rows.into_iter().map(|(cells, style)| row(cells).style(style));
    Table::new(rows.collect::<Vec<_>>(), columns.iter().map(|(_, width, _)| *width)).header(header)
}

/// As wide as the widest of these, within reason.
fn widest(texts: impl Iterator<Item = String>) -> u16 {
    texts.map(|text| text.chars().count()).max().unwrap_or(0).clamp(12, 47) as u16
}

/// Each with how busy it is and was; narrow screens leave the trend out.
pub(super) fn services(app: &App, width: usize) -> Table<'static> {
    let address = |row: &ServiceRow| SocketAddr::new(row.address, row.port).to_string();
    let addresses = widest(app.frame.services.iter().map(address));
    let mut columns = vec![
        rest("SERVICE", 16),
        text("ADDRESS:PORT", addresses),
        text("PROTO", 5),
        number("BACKENDS", 8),
        number("CPS", 7),
        number("PPS", 7),
        number("BPS", 7),
        number("DROPS/S", 7),
    ];
    // What the others, with the blanks between them, leave.
    let trend = width.saturating_sub(69 + usize::from(addresses)).min(TREND);
    if trend >= 8 {
        columns.push(text("TREND", trend as u16));
    }
    let most = app.frame.services.iter().flat_map(|row| app.trend(row)).fold(1.0, f64::max);
    let row = |row: &ServiceRow| {
        let rate = row.rate.unwrap_or_default();
        let style = match (row.backends_ready, rate.drops_per_second > 0.0) {
            (0, _) => coloured(Color::Red),
            (_, true) => coloured(Color::Yellow),
            (_, false) => Style::new(),
        };
        let cells = vec![
            row.port_of(),
            address(row),
            row.protocol.clone(),
            format!("{}/{}", row.backends_ready, row.backends_total),
            per_second(row.rate, |rate| rate.connections_per_second),
            per_second(row.rate, |rate| rate.packets_per_second),
            per_second(row.rate, |rate| rate.bytes_per_second),
            per_second(row.rate, |rate| rate.drops_per_second),
            sparkline(&app.trend(row), most, trend),
        ];
        (cells, style)
    };
    table(&columns, app.frame.services.iter().map(row).collect())
}

/// Each with its share against what its weight asks for.
pub(super) fn backends(app: &App, width: usize) -> Table<'static> {
    let rows = app.opened_backends();
    let places = widest(rows.iter().map(|row| row.place().to_string()));
    let bar_width = width.saturating_sub(62 + usize::from(places)).clamp(10, 40);
    let columns = [
        text("BACKEND", places),
        text("NODE", 10),
        text("STATE", 8),
        number("WEIGHT", 6),
        number("SHARE%", 6),
        number("NOW%", 5),
        text("", bar_width as u16),
        number("CPS", 6),
        number("PPS", 6),
        number("BPS", 6),
    ];
    let of_port = |row: &BackendRow| {
        let key = (row.port_of(), row.protocol.clone(), row.address.is_ipv4());
        let same =
            |it: &&&BackendRow| (it.port_of(), it.protocol.clone(), it.address.is_ipv4()) == key;
        rows.iter().filter(same).copied().collect::<Vec<_>>()
    };
    let row = |row: &&BackendRow| {
        let all = of_port(row);
        let now = |row: &BackendRow| row.rate.map_or(0.0, |rate| rate.connections_per_second);
        let (part, whole) = (now(row), all.iter().map(|it| now(it)).sum::<f64>());
        let share = if whole > 0.0 { format!("{:.1}", part * 100.0 / whole) } else { "-".into() };
        let weights =
            |it: &BackendRow| if it.state == "active" { f64::from(it.weight) } else { 0.0 };
        let fair = weights(row) * 100.0 / all.iter().map(|it| weights(it)).sum::<f64>().max(1.0);
        let style = if row.state == "active" {
            Style::new()
        } else {
            Style::new().add_modifier(Modifier::DIM)
        };
        let cells = vec![
            row.place().to_string(),
            row.node.clone().unwrap_or_else(|| "-".into()),
            row.state.clone(),
            row.weight.to_string(),
            format!("{:.1}", row.share),
            share,
            share_bar(row.share, fair, bar_width),
            per_second(row.rate, |rate| rate.connections_per_second),
            per_second(row.rate, |rate| rate.packets_per_second),
            per_second(row.rate, |rate| rate.bytes_per_second),
        ];
        (cells, style)
    };
    table(&columns, rows.iter().map(row).collect())
}

pub(super) fn drops(app: &App) -> Table<'static> {
    let columns = [
        text("REASON", 20),
        text("VERDICT", 7),
        number("COUNT", 7),
        number("RATE", 7),
        rest("LAST-EXAMPLE", 30),
    ];
    let row = |row: &crate::api::DropRow| {
        let last = row.last_example.as_ref().map_or_else(|| "-".into(), Example::line);
        let rate = per_second(row.rate, |rate| rate.drops_per_second);
        let is_now = row.rate.is_some_and(|rate| rate.drops_per_second > 0.0);
        let style = if is_now { coloured(Color::Yellow) } else { Style::new() };
        let count = human(row.count as f64);
        (vec![row.reason.clone(), row.verdict.clone(), count, rate, last], style)
    };
    table(&columns, app.frame.drops.iter().map(row).collect())
}

pub(super) fn maps(app: &App, width: usize) -> Table<'static> {
    let bar_width = width.saturating_sub(64).clamp(10, 40);
    let columns = [
        rest("MAP", 16),
        text("TYPE", 13),
        number("USED", 8),
        number("MAX", 8),
        number("%", 5),
        text("", bar_width as u16),
        number("BYTES", 7),
    ];
    let row = |row: &crate::api::MapRow| {
        let percent = row.percent();
        let style = match percent {
            Some(percent) if percent >= 80.0 => coloured(Color::Red),
            Some(percent) if percent >= 50.0 => coloured(Color::Yellow),
            _ => Style::new(),
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let cells = vec![
            row.name.clone(),
            row.kind.clone(),
            or_dash(row.used.map(|used| used.to_string())),
            row.capacity.to_string(),
            or_dash(percent.map(|percent| format!("{percent:.1}"))),
            percent.map(|percent| filled(percent, bar_width)).unwrap_or_default(),
            human(row.bytes as f64),
        ];
        (cells, style)
    };
    table(&columns, app.frame.maps.iter().map(row).collect())
}

/// Narrow screens leave the role out.
pub(super) fn flows(app: &App, width: usize) -> Table<'static> {
    let mut columns = vec![
        text("PROTO", 5),
        text("STATE", 11),
        rest("SOURCE", 21),
        rest("DESTINATION", 21),
        rest("NEW-DESTINATION", 21),
        rest("SERVICE", 12),
    ];
    if width >= 115 {
        columns.push(text("ROLE", 12));
    }
    let row = |row: &crate::api::FlowRow| {
        let cells = vec![
            row.protocol.clone(),
            row.state.clone(),
            row.source.to_string(),
            row.destination.to_string(),
            row.new_destination.to_string(),
            row.service.clone().unwrap_or_else(|| "-".into()),
            row.role.clone(),
        ];
        (cells, Style::new())
    };
    table(&columns, app.frame.flows.iter().map(row).collect())
}

fn per_second(rate: Option<Rate>, of: impl Fn(Rate) -> f64) -> String {
    rate.map_or_else(|| "-".into(), |rate| human((of(rate) * 10.0).round() / 10.0))
}

/// Heights of the last points against the most of all, the newest to the right.
pub(super) fn sparkline(points: &[f64], most: f64, width: usize) -> String {
    const LEVELS: [&str; 8] = [
        bar::ONE_EIGHTH,
        bar::ONE_QUARTER,
        bar::THREE_EIGHTHS,
        bar::HALF,
        bar::FIVE_EIGHTHS,
        bar::THREE_QUARTERS,
        bar::SEVEN_EIGHTHS,
        bar::FULL,
    ];
    let level = |point: &f64| match (point / most * 8.0).ceil() as usize {
        0 => " ",
        level => LEVELS[level.min(8) - 1],
    };
    let points = &points[points.len().saturating_sub(width)..];
    let line: String = points.iter().map(level).collect();
    format!("{}{line}", " ".repeat(width - points.len()))
}

/// A bar that is so full.
fn filled(percent: f64, width: usize) -> String {
    let full = (percent.clamp(0.0, 100.0) / 100.0 * width as f64).round() as usize;
    "█".repeat(full) + &"░".repeat(width - full)
}

/// The same with a mark where it should end.
pub(super) fn share_bar(share: f64, fair: f64, width: usize) -> String {
    let at = (fair.clamp(0.0, 100.0) / 100.0 * width as f64).round() as usize;
    let bar = filled(share, width);
    bar.chars().enumerate().map(|(i, c)| if i + 1 == at.max(1) { '┃' } else { c }).collect()
}
