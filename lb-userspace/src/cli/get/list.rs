//! Rows of one kind as every format shows them.

use serde::Serialize;

use crate::cli::{
    Exit, Failure,
    output::{Column, Document, Items, Show},
};

/// A line of a list.
pub(super) trait Row: Serialize {
    /// The list's, in documents.
    const KIND: &'static str;
    const COLUMNS: &'static [Column];
    /// What stands in the place of a table without rows.
    const NOTHING: &'static str;
    fn cells(&self) -> Vec<String>;
    fn name(&self) -> String;
    /// Namespace and name of the Service that it is about.
    fn service(&self) -> Option<(&str, &str)> {
        None
    }
}

/// Rows that can be shown.
pub(super) struct List<T>(pub Vec<T>);

impl<T: Row> List<T> {
    /// Sorts by a column's title, whatever its case.
    pub fn sort_by(&mut self, title: &str) -> Result<(), Failure> {
        let at = T::COLUMNS.iter().position(|column| column.title.eq_ignore_ascii_case(title));
        let Some(at) = at else {
            let titles: Vec<_> = T::COLUMNS.iter().map(|column| column.title).collect();
            let what = format_args!("there is no column {title}");
            return Err(Failure::new(
                Exit::Usage,
                what,
                format!("use one of {}", titles.join(", ")),
            ));
        };
        if T::COLUMNS[at].number {
            let key = |row: &T| number(&row.cells()[at]);
            self.0.sort_by(|a, b| key(b).total_cmp(&key(a)));
        } else {
            self.0.sort_by_cached_key(|row| row.cells()[at].clone());
        }
        Ok(())
    }
}

impl<T: Row> Show for List<T> {
    fn document(&self) -> impl Serialize {
        Document::new(T::KIND, Items { items: &self.0 })
    }

    fn columns(&self) -> &'static [Column] {
        T::COLUMNS
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.0.iter().map(Row::cells).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.iter().map(Row::name).collect();
        names.dedup();
        names
    }

    fn nothing(&self) -> &'static str {
        T::NOTHING
    }
}

const UNITS: [(&str, f64); 3] = [("G", 1e9), ("M", 1e6), ("k", 1e3)];

/// A number in few letters: `7`, `0.5`, `12.3k`.
pub(in crate::cli) fn human(number: f64) -> String {
    match UNITS.iter().find(|(_, unit)| number >= *unit) {
        Some((name, unit)) => format!("{:.1}{name}", number / unit),
        None if number.fract() == 0.0 || number >= 100.0 => format!("{number:.0}"),
        None => format!("{number:.1}"),
    }
}

/// The reverse of [`human`]; what is no number comes last.
fn number(cell: &str) -> f64 {
    let cell = cell.strip_suffix('s').unwrap_or(cell);
    let unit = UNITS.iter().find_map(|(name, unit)| Some((cell.strip_suffix(name)?, *unit)));
    let (digits, unit) = unit.unwrap_or((cell, 1.0));
    digits.parse::<f64>().map_or(-1.0, |number| number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_can_be_read_back() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.52, "0.5"),
            (123.4, "123"),
            (12_340.0, "12.3k"),
            (5e9, "5.0G"),
        ] {
            assert_eq!(human(value), text);
        }
        assert!(number("1.5M") > number("900k") && number("-") < number("0"));
        assert!(number("10s") > number("9s") && number("0s") > number("-"));
    }
}
