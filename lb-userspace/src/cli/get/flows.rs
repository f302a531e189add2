//! `lb get flows`: as conntrack lists them.

use super::Row;
use crate::{api::FlowRow, cli::output::Column};

impl Row for FlowRow {
    const KIND: &'static str = "FlowList";
    const COLUMNS: &'static [Column] = &[
        Column::text("PROTO"),
        Column::text("STATE"),
        Column::number("LEFT"),
        Column::text("SOURCE"),
        Column::text("DESTINATION"),
        Column::text("NEW-SOURCE"),
        Column::text("NEW-DESTINATION"),
        Column::text("SERVICE").wide(),
        Column::text("ROLE").wide(),
    ];
    const NOTHING: &'static str = "no flows";

    fn cells(&self) -> Vec<String> {
        vec![
            self.protocol.clone(),
            self.state.clone(),
            self.expires_in_seconds.to_string(),
            self.source.to_string(),
            self.destination.to_string(),
            self.new_source.to_string(),
            self.new_destination.to_string(),
            self.service.clone().unwrap_or_else(|| "-".into()),
            self.role.clone(),
        ]
    }

    fn name(&self) -> String {
        format!("flow/{}/{}/{}", self.protocol, self.source, self.destination)
    }
}
