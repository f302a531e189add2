//! What the screen is about: the last frame, the view, and what is chosen in it.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::api::{BackendRow, Frame, MapRow, Rate, ServiceRow};

/// Points of a trend.
pub(super) const TREND: usize = 24;
/// Rows that a page key skips.
const PAGE: usize = 10;

/// The four tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    #[default]
    Services,
    Drops,
    Maps,
    Flows,
}

impl View {
    pub const ALL: [Self; 4] = [Self::Services, Self::Drops, Self::Maps, Self::Flows];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Services => "Services",
            Self::Drops => "Drops",
            Self::Maps => "Maps",
            Self::Flows => "Flows",
        }
    }
}

/// See the module.
pub(super) struct App {
    pub frame: Frame,
    pub view: View,
    /// `namespace/name` or `namespace/name:port` whose backends are shown.
    pub opened: Option<String>,
    pub chosen: usize,
    pub paused: bool,
    /// Why there is nothing newer.
    pub problem: Option<String>,
    trends: BTreeMap<String, VecDeque<f64>>,
    over: bool,
}

impl App {
    pub fn new(view: View, opened: Option<String>) -> Self {
        Self {
            frame: Frame::default(),
            view,
            opened,
            chosen: 0,
            paused: false,
            problem: None,
            trends: BTreeMap::new(),
            over: false,
        }
    }

    /// Whether somebody wants to leave.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Takes in a new moment.
    pub fn put(&mut self, frame: Frame) {
        self.problem = None;
        if self.paused {
            return;
        }
        let mut trends = BTreeMap::new();
        for row in &frame.services {
            let key = trend_key(row);
            let mut trend = self.trends.remove(&key).unwrap_or_default();
            trend.push_back(busy(row.rate));
            if trend.len() > TREND {
                trend.pop_front();
            }
            trends.insert(key, trend);
        }
        // Those that are not among the busiest any more begin anew.
        self.trends = trends;
        self.frame = frame;
        // The fullest first: that is what is looked for.
        let percent = |row: &MapRow| row.percent().unwrap_or(-1.0);
        self.frame.maps.sort_by(|a, b| percent(b).total_cmp(&percent(a)));
        self.chosen = self.chosen.min(self.rows().saturating_sub(1));
    }

    /// There was nothing to take in.
    pub fn fail(&mut self, why: String) {
        self.problem = Some(why);
    }

    /// How busy a Service was, the newest last.
    pub fn trend(&self, row: &ServiceRow) -> Vec<f64> {
        self.trends.get(&trend_key(row)).map(|it| it.iter().copied().collect()).unwrap_or_default()
    }

    /// The backends of what is opened.
    pub fn opened_backends(&self) -> Vec<&BackendRow> {
        let Some(opened) = &self.opened else { return Vec::new() };
        let is_of = |row: &&BackendRow| {
            let port = row.port_of();
            port == *opened || port.split(':').next() == Some(opened)
        };
        self.frame.backends.iter().filter(is_of).collect()
    }

    /// How many rows the table has.
    pub fn rows(&self) -> usize {
        match (self.view, &self.opened) {
            (View::Services, Some(_)) => self.opened_backends().len(),
            (View::Services, None) => self.frame.services.len(),
            (View::Drops, _) => self.frame.drops.len(),
            (View::Maps, _) => self.frame.maps.len(),
            (View::Flows, _) => self.frame.flows.len(),
        }
    }

    /// Does what a key says.
    pub fn press(&mut self, key: KeyEvent) {
        let last = self.rows().saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.over = true,
            KeyCode::Char('q') => self.over = true,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char(digit @ '1'..='4') => self.show(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(View::ALL.len() - 1),
            KeyCode::Up | KeyCode::Char('k') => self.chosen = self.chosen.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.chosen = last.min(self.chosen + 1),
            KeyCode::PageUp => self.chosen = self.chosen.saturating_sub(PAGE),
            KeyCode::PageDown => self.chosen = last.min(self.chosen + PAGE),
            KeyCode::Home => self.chosen = 0,
            KeyCode::End => self.chosen = last,
            KeyCode::Enter if self.view == View::Services && self.opened.is_none() => {
                let chosen = self.frame.services.get(self.chosen);
                self.opened = chosen.map(ServiceRow::port_of);
                self.chosen = 0;
            }
            KeyCode::Esc | KeyCode::Backspace => self.close(),
            _ => {}
        }
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.opened = None;
        self.chosen = 0;
    }

    fn turn(&mut self, by: usize) {
        let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or(0);
        self.show(View::ALL[(at + by) % View::ALL.len()]);
    }

    /// Back to the Services, at the one that was opened.
    fn close(&mut self) {
        if let Some(opened) = self.opened.take() {
            let at = self.frame.services.iter().position(|row| row.port_of() == opened);
            self.chosen = at.unwrap_or(0);
        }
    }
}

/// Connections and packets, each second.
pub(super) fn busy(rate: Option<Rate>) -> f64 {
    rate.map_or(0.0, |rate| rate.connections_per_second + rate.packets_per_second)
}

fn trend_key(row: &ServiceRow) -> String {
    format!("{} {}:{} {}", row.port_of(), row.address, row.port, row.protocol)
}
