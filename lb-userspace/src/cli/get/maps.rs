//! `lb get maps` and `lb get interfaces`.

use super::{Row, human};
use crate::{
    api::{InterfaceRow, MapRow},
    cli::output::Column,
};

impl Row for MapRow {
    const KIND: &'static str = "MapList";
    const COLUMNS: &'static [Column] = &[
        Column::text("MAP"),
        Column::text("TYPE"),
        Column::number("USED"),
        Column::number("MAX"),
        Column::number("%"),
        Column::number("BYTES"),
    ];
    const NOTHING: &'static str = "no maps";

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            self.name.clone(),
            self.kind.clone(),
            or_dash(self.used.map(|used| used.to_string())),
            self.capacity.to_string(),
            or_dash(self.percent().map(|percent| format!("{percent:.1}"))),
            human(self.bytes as f64),
        ]
    }

    fn name(&self) -> String {
        format!("map/{}", self.name)
    }
}

impl Row for InterfaceRow {
    const KIND: &'static str = "InterfaceList";
    const COLUMNS: &'static [Column] = &[
        Column::text("INTERFACE"),
        Column::number("INDEX"),
        Column::text("HOOK"),
        Column::text("MODE"),
    ];
    const NOTHING: &'static str = "no program is on any hook";

    fn cells(&self) -> Vec<String> {
        vec![
            self.interface.clone(),
            self.index.to_string(),
            self.hook.clone(),
            self.mode.clone().unwrap_or_else(|| "-".into()),
        ]
    }

    fn name(&self) -> String {
        format!("interface/{}/{}", self.interface, self.hook)
    }
}
