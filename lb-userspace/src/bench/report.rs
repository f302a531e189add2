//! What came out, as a table and as a document.

use serde::{Deserialize, Serialize};

use super::{machine::Machine, target::Target};
use crate::cli::output::{Column, Document, Show};

/// Everything that was measured, and on what.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub cases: Vec<Row>,
}

/// One case. What is not nanoseconds a packet has a value with a unit in their place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub flows: Option<u32>,
    pub services: Option<u32>,
    /// Of each service, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_ns: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_ns: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub ratio_floor: Option<f64>,
    pub samples: Vec<f64>,
    /// The bound, and in words.
    pub target: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aim: Option<String>,
    /// The figure that is held against the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figure: Option<f64>,
    pub met: Option<bool>,
    /// Why there is no figure, or what else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Row {
    /// A case that could not be measured here.
    pub fn without(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), note: Some(why.into()), ..Self::default() }
    }

    /// The same with its target, which `figure` meets or not.
    pub fn held_against(self, target: Option<Target>, figure: Option<f64>) -> Self {
        let Some(target) = target else { return self };
        Self {
            target: Some(target.bound()),
            aim: Some(target.to_string()),
            figure,
            met: figure.map(|figure| target.is_met_by(figure)),
            ..self
        }
    }

    /// What tells it from the others.
    pub fn key(&self) -> (&str, Option<u32>, Option<u32>, Option<u32>) {
        (&self.name, self.flows, self.services, self.endpoints)
    }
}

impl Show for Report {
    fn document(&self) -> impl Serialize {
        Document::new("Bench", self)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::text("CASE"),
            Column::number("FLOWS"),
            Column::number("SERVICES"),
            Column::number("NET"),
            Column::number("× FLOOR"),
            Column::number("FIGURE"),
            Column::text("TARGET"),
            Column::text("MET"),
            Column::number("RAW").wide(),
            Column::text("NOTE").wide(),
        ];
        COLUMNS
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.cases.iter().map(cells).collect()
    }

    fn names(&self) -> Vec<String> {
        self.cases.iter().map(|row| row.name.clone()).collect()
    }

    fn nothing(&self) -> &'static str {
        "No case has this name."
    }
}

fn cells(row: &Row) -> Vec<String> {
    let number = |number: Option<f64>, digits: usize| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
    };
    let count =
        |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let main = match (row.net_ns, row.value, &row.unit) {
        (Some(net), ..) => format!("{net:.1} ns"),
        (None, Some(value), unit) => format!("{value:.2} {}", unit.as_deref().unwrap_or_default()),
        (None, None, _) => "-".to_owned(),
    };
    vec![
        row.name.clone(),
        count(row.flows),
        count(row.services),
        main,
        number(row.ratio_floor, 2),
        number(row.figure, 2),
        row.aim.clone().unwrap_or_else(|| "-".to_owned()),
        match (row.met, &row.note) {
            (Some(true), _) => "yes".to_owned(),
            (Some(false), _) => "NO".to_owned(),
            (None, Some(note)) => note.clone(),
            (None, None) => "-".to_owned(),
        },
        number(row.raw_ns, 1),
        row.note.clone().unwrap_or_default(),
    ]
}
