//! An agent whose maps lie otherwise than those that it finds, and what may go wrong with that.
//!
//! Those that it finds are its own: what is written beside them names a field that it does not know.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    thread,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::Settings;
use lb_userspace::{
    datapath::{
        maps::Maps,
        object::{Sizes, Unused, load_pinned},
    },
    lab::{Agent, Held},
    plan::tables::Op,
};

use super::{
    nodes::go_on,
    objects::Front,
    world::{FAMILIES, Over, Pod, V4, V6, World},
};

const OFTEN: Duration = Duration::from_millis(10);

/// A Service with two backends; its agent has died, and its programs go on.
struct Scene {
    agent: Agent,
    front: Front,
    pods: [Pod; 2],
    world: World,
}

fn scene(label: &str) -> Scene {
    let world = World::new(label);
    let pods = [world.pod(1, 10), world.pod(2, 10)];
    let front = Front::new("web", 1);
    world.put("web", &front.manifests(&[&pods[0], &pods[1]]));
    let mut agent = world.agent(1, &["--xdp-mode", "native"]);
    agent.kill().unwrap();
    let layout = MapData::from_pin(agent.bpffs().join("maps/LAYOUT")).and_then(Map::from_map_data);
    let mut layout: HashMap<_, [u8; 32], u64> = layout.unwrap().try_into().unwrap();
    for name in ["FLOWS_V4.more", "FLOWS_V6.more"] {
        let mut key = [0; 32];
        key[..name.len()].copy_from_slice(name.as_bytes());
        layout.insert(key, 0, 0).unwrap();
    }
    Scene { agent, front, pods, world }
}

impl Scene {
    /// Connections from outside, in both families.
    fn hold(&self) -> [Held; 2] {
        FAMILIES.map(|family| {
            Held::open(&self.world.client, self.front.outside(family)[family], 6, OFTEN).unwrap()
        })
    }

    fn has(&self, folder: &str) -> bool {
        self.agent.bpffs().join(folder).exists()
    }
}

#[test]
fn connections_that_began_after_an_agent_died_in_its_move_outlive_the_next_start() {
    let mut scene = scene("died");
    let before = scene.hold();
    {
        let unused = Unused { pods: true, xdp: true, raw: true, dsr: true };
        let sizes = Sizes::with_flow_bytes(1 << 20);
        let (mut object, moving) = load_pinned(sizes, scene.agent.bpffs(), unused).unwrap();
        let (mut moving, mut maps) = (moving.unwrap(), Maps::from_object(&mut object).unwrap());
        moving.carry_backends(&mut maps).unwrap();
        maps.born(moving.birth()).unwrap();
        // As much of the plan as flows that are known already need.
        let image = Maps::from_pins(&scene.agent.bpffs().join("maps")).unwrap().image().unwrap();
        let (sets_v4, sets_v6) = maps.flow_sets();
        let (flow_mask_v4, flow_mask_v6) = (sets_v4 - 1, sets_v6 - 1);
        let settings = Settings { flow_mask_v4, flow_mask_v6, ..image.settings.unwrap() };
        let frontends = image.frontends.into_iter();
        let frontends = frontends.map(|(at, frontend)| Op::PutFrontend { at, frontend });
        maps.settings.set(0, settings, 0).unwrap();
        maps.apply(&frontends.collect::<Vec<_>>()).unwrap();
        moving.take_place().unwrap();
        // Here it dies.
    }
    let since = scene.hold();
    scene.agent.restart().unwrap();
    go_on(&before);
    go_on(&since);
    assert!(scene.has("maps") && !scene.has("maps-new") && !scene.has("maps-old"));
}

#[test]
fn a_move_whose_programs_find_no_hook_goes_on_when_they_do() {
    goes_on_when_there_is_a_hook("hook", "getpeername6@", assert_served_by);
}

#[test]
fn so_does_one_of_which_a_single_interface_keeps_the_old_program() {
    goes_on_when_there_is_a_hook("interface", "ingress@", |_, _, _| {});
}

/// A hook cannot be had for a while; `meanwhile` looks on.
fn goes_on_when_there_is_a_hook(label: &str, hook: &str, meanwhile: fn(&World, &Front, &str)) {
    let Scene { mut agent, front, pods, world } = scene(label);
    let held = [V4, V6]
        .map(|family| Held::open(&world.client, front.outside(family)[family], 6, OFTEN).unwrap());
    // Where a link is pinned there is a folder; the program goes on.
    let bpffs = agent.bpffs().to_owned();
    let link = fs::read_dir(bpffs.join("links")).unwrap().map(|entry| entry.unwrap().path());
    let link = link.into_iter().find(|path| path.display().to_string().contains(hook));
    let link = link.expect("a pin of that hook");
    let aside = bpffs.with_file_name("aside");
    fs::rename(&link, &aside).unwrap();
    fs::create_dir(&link).unwrap();
    world.put("web", &front.manifests(&[&pods[1]]));
    let log = agent.log().to_owned();
    let problem = "the maps cannot be moved to this version's layout: ";
    thread::scope(|scope| {
        let restarted = scope.spawn(|| agent.restart());
        while !restarted.is_finished() && !says(&log, problem) {
            // A log tells nobody that it has grown: it is read again until the agent is there.
            thread::sleep(OFTEN);
        }
        assert!(bpffs.join("maps-old").exists(), "{}", fs::read_to_string(&log).unwrap());
        // Whatever it sees: the agent waits for its hook, and this scope for the agent.
        let looked = catch_unwind(AssertUnwindSafe(|| meanwhile(&world, &front, &pods[1].name)));
        fs::remove_dir(&link).unwrap();
        fs::rename(&aside, &link).unwrap();
        restarted.join().unwrap().unwrap();
        looked.unwrap_or_else(|seen| resume_unwind(seen));
    });
    assert!(!bpffs.join("maps-old").exists());
    assert_served_by(&world, &front, &pods[1].name);
    go_on(&held);
}

/// Everybody outside is answered by that one.
fn assert_served_by(world: &World, front: &Front, name: &str) {
    for target in FAMILIES.into_iter().flat_map(|family| front.outside(family)) {
        for over in Over::BOTH {
            assert_eq!(over.who(&world.client, target), name, "{over:?} {target}");
        }
    }
}

fn says(log: &Path, what: &str) -> bool {
    fs::read_to_string(log).unwrap().contains(what)
}
