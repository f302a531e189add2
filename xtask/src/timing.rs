//! How long each part took.

use std::time::{Duration, Instant};

use anyhow::Result;

/// One part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) tests: Option<usize>,
    pub(crate) took: Duration,
}

/// The parts so far, in order.
pub(crate) struct Timings {
    begun: Instant,
    parts: Vec<Part>,
}

impl Timings {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), parts: Vec::new() }
    }

    /// Runs a part under a heading and notes its time, failed or not.
    pub(crate) fn part<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.counted(name, None, work)
    }

    /// As [`Timings::part`], with a number of tests for the table.
    pub(crate) fn counted<T>(
        &mut self,
        name: &str,
        tests: Option<usize>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        eprintln!("── {name}");
        let begun = Instant::now();
        let result = work();
        self.parts.push(Part { name: name.to_owned(), tests, took: begun.elapsed() });
        result
    }

    /// The table of all parts.
    pub(crate) fn print(&self, title: &str) {
        print!("{}", table(title, &self.parts, self.begun.elapsed()));
    }
}

fn table(title: &str, parts: &[Part], total: Duration) -> String {
    let tests: usize = parts.iter().filter_map(|part| part.tests).sum();
    let mut text = format!("\n{title:<24} {:>6} {:>9}\n", "tests", "time");
    for Part { name, tests, took } in parts {
        text += &row(name, *tests, *took);
    }
    text + &row("in all", (tests > 0).then_some(tests), total)
}

fn row(name: &str, tests: Option<usize>, took: Duration) -> String {
    let tests = tests.map_or_else(|| "-".to_owned(), |number| number.to_string());
    format!("{name:<24} {tests:>6} {:>8.1}s\n", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_part_and_sums_the_tests() {
        let part = |name: &str, tests, seconds| Part {
            name: name.to_owned(),
            tests,
            took: Duration::from_secs(seconds),
        };
        let parts =
            [part("build", None, 70), part("rules", Some(60), 2), part("kube", Some(12), 3)];
        assert_eq!(
            table("test", &parts, Duration::from_secs(76)),
            "
test                      tests      time
build                         -     70.0s
rules                        60      2.0s
kube                         12      3.0s
in all                       72     76.0s
"
        );
    }

    #[test]
    fn a_part_that_fails_is_in_the_table_too() {
        let mut timings = Timings::start();
        let result: Result<()> = timings.part("clippy", || anyhow::bail!("red"));
        assert_eq!(result.unwrap_err().to_string(), "red");
        assert_eq!(timings.parts[0].name, "clippy");
    }
}
