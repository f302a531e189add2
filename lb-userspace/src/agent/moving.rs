//! An agent whose maps lie otherwise than those that it finds: the old programs go on until the new
//! maps hold the plan, see [`crate::datapath::moving`].

use lb_common::abi::Settings;

use super::{setup, state::State};
use crate::{
    datapath::{
        carry::{Carried, CarryError},
        maps::{Birth, Maps},
        moving::Moving,
    },
    plan::tables,
};

/// For how many ticks no flow is opened at most, when the old tables are looked through for the last
/// time: far more than that takes.
const PAUSE: u32 = 5 * Settings::SECOND;

/// How maps began; new ones now, or with the old ones, whose backends they get.
pub fn inherit(moving: Option<&Moving>, maps: &mut Maps) -> Result<Birth, CarryError> {
    let birth = match moving.filter(|moving| !moving.is_in_place()) {
        Some(moving) => {
            moving.carry_backends(maps)?;
            moving.birth()
        }
        None => Birth { table_key: setup::draw(), tick: setup::ticks() },
    };
    maps.born(birth).map_err(|source| CarryError::Unreadable { map: "META", source })
}

impl State {
    /// Whether the old programs are still on their hooks, and are to stay there.
    pub(super) fn waits(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| !moving.is_in_place())
    }

    /// Ends a move that is begun, once the maps are what they should be. If it cannot, everything
    /// goes on as it was.
    pub(super) fn move_in(&mut self) {
        let Some(mut moving) = self.moving.take() else { return };
        match self.take_place(&mut moving) {
            Ok(Carried { entries, lost }) => {
                tracing::info!(entries, lost, "moved to maps of another layout");
            }
            Err(error) => {
                tracing::error!("the maps cannot be moved to this version's layout: {error}");
                self.moving = Some(moving);
            }
        }
    }

    fn take_place(&mut self, moving: &mut Moving) -> Result<Carried, Box<dyn std::error::Error>> {
        let settings: Settings = tables::settings(self.base, &self.node)?;
        let mut carried = Carried::default();
        if !moving.is_in_place() {
            carried = moving.carry_flows(&self.maps, &settings, setup::ticks())?;
            // Who is just being answered must not be a stranger to the new programs.
            moving.pause(setup::ticks().wrapping_add(PAUSE))?;
            carried += moving.carry_flows(&self.maps, &settings, setup::ticks())?;
            // Flows have bits in the gate too.
            self.maps.tighten_gate()?;
            moving.take_place()?;
            self.pins.moved_to(moving.folder().to_owned());
            self.attach().map_err(|failure| failure.to_string())?;
        }
        // What began in spite of that; from here on nobody writes to the old tables.
        carried += moving.carry_flows(&self.maps, &settings, setup::ticks())?;
        moving.end()?;
        Ok(carried)
    }
}
