//! The story: what happens to a Service in its life, told while traffic flows.

mod begin;
mod end;
mod judge;
mod outside;
mod playground;
mod scale;
mod trouble;

use std::path::PathBuf;

use anyhow::Result;
use lb_userspace::lab::{Agent, Host, Lab};

use crate::{cluster::Cluster, screen, traffic::Traffic, world::World};

/// How the story is told.
pub(crate) struct Options {
    pub(crate) lb: PathBuf,
    pub(crate) fast: bool,
    pub(crate) keep: bool,
    /// What everything that the demo makes is named by.
    pub(crate) name: String,
}

/// All that the steps share.
struct Story<'a> {
    world: &'a World,
    cluster: Cluster<'a>,
    agents: [Agent; 2],
    /// A pod to type in, on each node.
    shells: [Host; 2],
    /// Traffic to the Service `web`.
    traffic: Traffic,
    /// Requests of each client after a change.
    requests: usize,
    step: usize,
    summary: Vec<Vec<String>>,
    problems: usize,
}

/// Tells it from the beginning to the end; whether all went as it should.
pub(crate) fn tell(options: Options) -> Result<bool> {
    let lab = Lab::named(&options.name)?;
    let world = World::build(&lab)?;
    let mut story = Story::begin(&lab, &world, &options)?;
    story.a_service_is_created()?;
    story.its_endpoints_are_listed()?;
    story.it_is_scaled_up()?;
    story.it_is_scaled_down()?;
    story.a_pod_dies_and_respawns()?;
    // Lives as long as the playground.
    let _physical = story.a_service_without_selector()?;
    story.a_rollout_goes_bad()?;
    story.it_is_opened_to_the_outside()?;
    story.the_agents_are_killed()?;
    let well = story.sum_up();
    if options.keep {
        lab.keep()?;
        story.open_the_playground(&lab, &options.lb)?;
    }
    Ok(well)
}

impl Story<'_> {
    fn heading(&mut self, title: &str) {
        self.step += 1;
        screen::heading(self.step, title);
    }
}
