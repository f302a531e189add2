//! The screen: a headline, the views, a table, and the keys.

use ratatui::{
    Frame as Screen,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, TableState, Wrap},
};

use super::{
    app::{App, View},
    tables,
};
use crate::{
    api::{Level, StatusReport},
    cli::output,
};

const KEYS: &str = "↑↓ choose  Enter open  Esc back  Tab 1-4 views  p pause  q quit";

/// Draws everything.
pub(super) fn draw(app: &App, screen: &mut Screen<'_>) {
    let parts = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(2),
        Constraint::Length(1),
    ];
    let [head, views, body, more, keys] = Layout::vertical(parts).areas(screen.area());
    screen.render_widget(Paragraph::new(headline(app)), head);
    screen.render_widget(Paragraph::new(tabs(app)), views);
    table(app, screen, body);
    screen.render_widget(Paragraph::new(details(app)).wrap(Wrap { trim: true }), more);
    screen.render_widget(Paragraph::new(Line::styled(KEYS, faint())), keys);
}

/// The node, how it is, and how new all this is.
fn headline(app: &App) -> Line<'static> {
    if let Some(problem) = &app.problem {
        return Line::styled(problem.clone(), coloured(Color::Red).add_modifier(Modifier::BOLD));
    }
    let frame = &app.frame;
    let mut spans = Vec::new();
    match &frame.status {
        Some(status) => {
            let (word, colour) = match status.level() {
                Level::Ok => ("Ok", Color::Green),
                Level::Warn => ("Warn", Color::Yellow),
                Level::Fail => ("Fail", Color::Red),
            };
            spans.push(Span::styled(status.node.clone(), bold()));
            spans.push(Span::raw(" "));
            spans.push(Span::styled(word, coloured(colour).add_modifier(Modifier::BOLD)));
            spans.push(Span::raw(unwell(status)));
        }
        None => spans.push(Span::styled("no agent answers: from the pins", bold())),
    }
    let ages = [("last sync", frame.last_sync_seconds), ("heard", frame.source_age_seconds)];
    for (what, age) in ages {
        spans.extend(age.map(|age| Span::raw(format!("  {what} {age:.0} s ago"))));
    }
    if app.paused {
        spans.push(Span::styled("  paused", coloured(Color::Yellow)));
    }
    Line::from(spans)
}

fn unwell(status: &StatusReport) -> String {
    let keys: Vec<_> = status.lines.iter().filter(|line| line.level > Level::Ok).collect();
    let keys: Vec<_> = keys.into_iter().map(|line| line.key.as_str()).collect();
    if keys.is_empty() { String::new() } else { format!(": {}", keys.join(", ")) }
}

fn tabs(app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style =
            if view == app.view { bold().add_modifier(Modifier::REVERSED) } else { faint() };
        spans.push(Span::styled(format!(" {number} {} ", view.title()), style));
    }
    if let Some(opened) = app.opened.as_ref().filter(|_| app.view == View::Services) {
        spans.push(Span::styled(format!("  › {opened}"), bold()));
    }
    Line::from(spans)
}

fn table(app: &App, screen: &mut Screen<'_>, area: Rect) {
    if app.rows() == 0 {
        return screen.render_widget(Paragraph::new(nothing(app)).style(faint()), area);
    }
    let width = usize::from(area.width);
    let table = match (app.view, &app.opened) {
        (View::Services, Some(_)) => tables::backends(app, width),
        (View::Services, None) => tables::services(app, width),
        (View::Drops, _) => tables::drops(app),
        (View::Maps, _) => tables::maps(app, width),
        (View::Flows, _) => tables::flows(app, width),
    };
    let mut state = TableState::default().with_selected(app.chosen);
    let table =
        table.column_spacing(1).row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    screen.render_stateful_widget(table, area, &mut state);
}

fn nothing(app: &App) -> String {
    match (app.view, &app.opened) {
        (View::Services, Some(opened)) => format!("{opened} has no backends"),
        (View::Services, None) => "no services".to_owned(),
        (View::Drops, _) => "nothing was rejected or dropped".to_owned(),
        (View::Maps, _) => "no maps".to_owned(),
        (View::Flows, _) => "no flows".to_owned(),
    }
}

/// What there is to say about the chosen row, or about all.
fn details(app: &App) -> String {
    let frame = &app.frame;
    match (app.view, &app.opened) {
        (View::Services, Some(_)) => {
            "Share of all connections; ┃ is where the weights would have it. Now: of the last seconds'."
                .to_owned()
        }
        (View::Services, None) => match frame.services_total.saturating_sub(frame.services.len()) {
            0 => String::new(),
            more => format!("and {more} that are less busy: see `lb get services`"),
        },
        (View::Drops, _) => frame
            .drops
            .get(app.chosen)
            .map(|row| format!("{}: {} ({})", row.reason, row.hint, row.doc))
            .unwrap_or_default(),
        (View::Flows, _) => format!("{} of them; `lb get flows` has filters", frame.flows.len()),
        (View::Maps, _) => String::new(),
    }
}

/// A colour, where colours are wanted.
pub(super) fn coloured(colour: Color) -> Style {
    if output::colour() { Style::new().fg(colour) } else { Style::new() }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}
