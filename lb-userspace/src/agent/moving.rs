//! An agent whose maps lie otherwise than those that it finds: the old programs go on until the new
//! maps hold the plan, see [`crate::datapath::moving`].

use lb_common::abi::Settings;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{setup, state::State};
use crate::{
    cli::Failure,
    config::Config,
    datapath::{
        carry::{Carried, CarryError},
        maps::{Birth, Maps},
        moving::Moving,
    },
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
    /// Puts the programs on their hooks at a start; where a move has to be made, that waits for it.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        let Some(moving) = self.moving.take_if(|moving| moving.is_in_place()) else {
            return if self.waits() { Ok(()) } else { self.attach() };
        };
        let begun = match self.carry(&moving) {
            Ok(Carried { entries, lost }) => {
                tracing::info!(entries, lost, "brought over what an unfinished move had left");
                self.attach()
            }
            Err(error) => {
                self.tell_unmoved(&*error, None);
                Ok(())
            }
        };
        moving.go_on();
        // Hooks that are known with the listings only may still have the old programs.
        self.moving = Some(moving);
        begun
    }

    /// Puts the programs on all of their hooks; on none where those of sockets fail.
    fn attach(&mut self) -> Result<(), Failure> {
        self.attach_to_sockets()?;
        self.attach_to_the_rest();
        Ok(())
    }

    fn attach_to_sockets(&mut self) -> Result<(), Failure> {
        self.hooks.sockets(&mut self.object, &setup::cgroup(&self.config)?)
    }

    fn attach_to_the_rest(&mut self) {
        if self.maps.has_stranded_sockets() || self.maps.bars_sources() {
            self.hooks.guard(&mut self.object);
        } else {
            self.hooks.end_guard();
        }
        self.hook_up();
    }

    /// Whether the old programs are still on their hooks, and are to stay there.
    pub(super) fn waits(&self) -> bool {
        let is_beside = |moving: &Moving| !moving.is_in_place();
        self.unmoved.is_some() || self.moving.as_ref().is_some_and(is_beside)
    }

    /// Ends a move that is begun, once the maps are what they should be; whether none is left. If it
    /// cannot, the old programs go on, and it is to be tried again.
    pub(super) fn move_in(&mut self) -> bool {
        let Some(mut moving) = self.moving.take() else { return true };
        let before = self.unmoved.take();
        match self.take_place(&mut moving) {
            Ok(Carried { entries, lost }) => {
                tracing::info!(entries, lost, "moved to maps of another layout");
                true
            }
            Err(error) => {
                moving.go_on();
                self.moving = Some(moving);
                self.tell_unmoved(&*error, before.as_deref());
                false
            }
        }
    }

    /// Says why the move is not over, unless it was said before.
    fn tell_unmoved(&mut self, error: &dyn std::error::Error, before: Option<&str>) {
        let problem = format!("the maps cannot be moved to this version's layout: {error}");
        if before != Some(problem.as_str()) {
            tracing::error!("{problem}");
        }
        self.unmoved = Some(problem);
    }

    fn take_place(&mut self, moving: &mut Moving) -> Result<Carried, Box<dyn std::error::Error>> {
        // Before anything is changed that takes the old maps from their programs.
        check_cgroup(&self.config)?;
        let mut carried = self.carry(moving)?;
        if !moving.is_in_place() {
            moving.take_place()?;
            self.pins.moved_to(moving.folder().to_owned());
        }
        // The maps are the new ones: what can have the new programs gets them, whatever fails.
        let sockets = self.attach_to_sockets();
        self.attach_to_the_rest();
        sockets.map_err(|failure| failure.what)?;
        if let Some(why) = &self.hooks.unrenewed {
            return Err(format!("a hook has the old program: {why}").into());
        }
        // What began in spite of the pause; from here on nobody writes to the old tables.
        carried += moving.carry_flows(&mut self.maps, &self.base, setup::ticks())?;
        self.maps.tighten_gate()?;
        if let Err(error) = moving.end() {
            tracing::warn!("old maps are pinned until the next start: {error}");
        }
        Ok(carried)
    }

    /// Brings over what the old programs know, and lets them open no flow until the new ones are on
    /// their hooks.
    fn carry(&mut self, moving: &Moving) -> Result<Carried, Box<dyn std::error::Error>> {
        let mut carried = moving.carry_flows(&mut self.maps, &self.base, setup::ticks())?;
        // Who is just being answered must not be a stranger to the new programs.
        moving.pause(setup::ticks().wrapping_add(PAUSE))?;
        carried += moving.carry_flows(&mut self.maps, &self.base, setup::ticks())?;
        // Flows have bits in the gate too.
        self.maps.tighten_gate()?;
        Ok(carried)
    }
}

/// Refuses a cgroup that cannot have programs.
fn check_cgroup(config: &Config) -> Result<(), String> {
    let path = setup::cgroup(config).map_err(|failure| failure.what)?;
    let wrong = |what: &dyn std::fmt::Display| Err(format!("cgroup {}: {what}", path.display()));
    match statfs(&path) {
        Ok(system) if system.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(()),
        Ok(_) => wrong(&"it is not in the v2 hierarchy"),
        Err(errno) => wrong(&std::io::Error::from(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Options;

    #[test]
    fn a_cgroup_that_cannot_have_programs_is_named() {
        let check = |path: PathBuf| {
            let options = Options { cgroup_root: Some(path), ..Options::default() };
            check_cgroup(&Config::from_options(options, "n1").unwrap())
        };
        check(setup::cgroup_mount().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let other = Err(format!("cgroup {}: it is not in the v2 hierarchy", path.display()));
        assert_eq!(check(path), other);
        let missing = check("/nonexistent".into()).unwrap_err();
        assert!(missing.starts_with("cgroup /nonexistent: No such file"), "{missing}");
    }
}
