//! `lb get drops`.

use super::{Row, human, per_second};
use crate::{
    api::{DropRow, Example},
    cli::output::Column,
};

impl Row for DropRow {
    const KIND: &'static str = "DropList";
    const COLUMNS: &'static [Column] = &[
        Column::text("REASON"),
        Column::number("COUNT"),
        Column::number("RATE"),
        Column::text("LAST-EXAMPLE").at_least(52),
        Column::prose("HINT"),
        Column::text("VERDICT").wide(),
        Column::text("SERVICE").wide(),
        Column::text("HOOK").wide(),
        Column::text("DOC").wide(),
    ];
    const NOTHING: &'static str = "nothing was rejected or dropped";

    fn cells(&self) -> Vec<String> {
        let last = self.last_example.as_ref();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            self.reason.clone(),
            human(self.count as f64),
            per_second(self.rate.map(|rate| rate.drops_per_second)),
            or_dash(last.map(Example::line)),
            self.hint.clone(),
            self.verdict.clone(),
            or_dash(last.and_then(|last| last.service.clone())),
            or_dash(last.map(|last| last.hook.clone())),
            self.doc.clone(),
        ]
    }

    fn name(&self) -> String {
        format!("drop/{}", self.reason)
    }
}

/// Leaves out what never happened.
pub(super) fn happened(mut rows: Vec<DropRow>) -> Vec<DropRow> {
    rows.retain(|row| row.count > 0);
    rows
}
