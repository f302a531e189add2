//! After each change: what every client saw, and whether that was right.

use std::time::Duration;

use super::Story;
use crate::{
    cluster::Names,
    screen::{self, milliseconds},
    traffic::{Change, Fared},
};

/// Problems of one step beyond this many are counted only.
const SHOWN: usize = 5;

impl Story<'_> {
    /// Lets traffic flow over the change and reports on it.
    pub(super) fn judge(&mut self, title: &str, change: &Change<'_>) {
        let fared = self.traffic.judge(change);
        self.report(title, fared);
    }

    /// A table of what clients saw, and what was wrong.
    pub(super) fn report(&mut self, title: &str, fared: Vec<Fared>) {
        let servers: Names =
            fared.iter().flat_map(|fared| fared.after.answers.keys().cloned()).collect();
        let header = ["CLIENT", "#NEW SET AFTER", "#SENT", "#FAILED"];
        let numbered: Vec<_> = servers.iter().map(|server| format!("#{server}")).collect();
        let header: Vec<_> =
            header.into_iter().chain(numbered.iter().map(String::as_str)).collect();
        screen::table(&header, fared.iter().map(|fared| row(fared, &servers)));

        let excused: usize = fared.iter().map(|fared| fared.excused).sum();
        if excused > 0 {
            screen::say(&format!("{excused} failed before the kernel could know: not counted"));
        }
        let (held, disturbed) = self.traffic.undisturbed(&self.cluster.alive());
        let problems: Vec<_> =
            fared.iter().flat_map(|fared| &fared.problems).chain(&disturbed).collect();
        for problem in problems.iter().take(SHOWN) {
            screen::bad(problem);
        }
        if problems.len() > SHOWN {
            screen::bad(&format!("and {} more", problems.len() - SHOWN));
        }
        if held > 0 && disturbed.is_empty() {
            screen::good(&format!("{held} long-lived connections to living pods, none disturbed"));
        }
        self.problems += problems.len();
        self.summary.push(summary(title, &fared, problems.is_empty()));
    }
}

/// One client's line, with each backend's share of its answers.
fn row(fared: &Fared, servers: &Names) -> Vec<String> {
    let answered: usize = fared.after.answers.values().sum();
    let share = |server: &String| {
        fared.after.answers.get(server).map_or_else(String::new, |count| {
            format!("{:.0} %", 100.0 * *count as f64 / answered as f64)
        })
    };
    let failed = fared.tally.failures.len() - fared.excused;
    [
        fared.client.to_owned(),
        time(fared.reached),
        fared.tally.sent().to_string(),
        failed.to_string(),
    ]
    .into_iter()
    .chain(servers.iter().map(share))
    .collect()
}

fn summary(title: &str, fared: &[Fared], well: bool) -> Vec<String> {
    let slowest = fared.iter().filter_map(|fared| fared.reached).max();
    let sum = |of: fn(&Fared) -> usize| fared.iter().map(of).sum::<usize>().to_string();
    vec![
        title.to_owned(),
        time(slowest),
        sum(|fared| fared.tally.sent()),
        sum(|fared| fared.tally.failures.len() - fared.excused),
        sum(|fared| fared.excused),
        if well { "ok" } else { "FAILED" }.to_owned(),
    ]
}

fn time(reached: Option<Duration>) -> String {
    reached.map_or_else(|| "-".to_owned(), milliseconds)
}
