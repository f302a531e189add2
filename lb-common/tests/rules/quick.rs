//! The shortcut ends where the rules would, wherever it ends at all.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bolero::TypeGenerator;
use lb_common::{
    abi::{BackendState, NodeSlot},
    limits::HOP_CHECKS,
    packet::Frame,
    parse::{Ip, version},
    path::{Draft, Family, Hook, Outcome, Trace, quick},
    verdict::{Reason, Verdict},
    wire::proto,
    world::{Route, Store},
};

use super::{
    support::{ACK, FIN, RST, SYN, Sample},
    town::{HOP, Town, seconds},
};

/// Something that happens in a town.
#[derive(Debug, TypeGenerator)]
enum Step {
    Sent {
        client: u8,
        flags: Flags,
    },
    Answered {
        client: u8,
        flags: Flags,
    },
    /// A packet with a byte that is not as it was.
    Spoiled {
        client: u8,
        place: u8,
        with: u8,
    },
    Cut {
        client: u8,
        length: u8,
    },
    Waited(u16),
    Retired {
        backend: u8,
        state: u8,
    },
    Renewed {
        backend: u8,
        generation: bool,
    },
    Led(u8),
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Flags {
    Syn,
    Data,
    Fin,
    Rst,
}

impl Flags {
    const fn bits(self) -> u8 {
        match self {
            Self::Syn => SYN,
            Self::Data => ACK,
            Self::Fin => ACK | FIN,
            Self::Rst => RST,
        }
    }
}

/// What the shortcut makes of the frame, and the frame afterwards.
fn shortcut(town: &Town, frame: &[u8]) -> (Option<Verdict>, Outcome, Vec<u8>) {
    fn of<A: Family>(town: &Town, frame: &[u8]) -> (Option<Verdict>, Outcome, Vec<u8>)
    where
        lb_common::model::TestWorld: Store<A>,
    {
        let (mut bytes, mut outcome) = (frame.to_vec(), Outcome::default());
        // Room for an envelope.
        bytes.resize(frame.len() + 40, 0);
        let mut packet = Frame::new(&mut bytes, frame.len());
        let family = if A::IS_V4 { Ip::V4 } else { Ip::V6 };
        let verdict = (version(&packet) == family)
            .then(|| {
                let mut draft = Draft::<A>::default();
                let mut trace = Trace::default();
                quick::run(&mut packet, &town.world, &mut draft, &mut outcome, &mut trace)
            })
            .flatten();
        let bytes = packet.bytes().to_vec();
        (verdict, outcome, bytes)
    }
    if town.names.v4 {
        of::<lb_common::addr::V4>(town, frame)
    } else {
        of::<lb_common::addr::V6>(town, frame)
    }
}

/// Lets a frame in; whether the shortcut had an end for it.
#[track_caller]
fn arrives(town: &Town, frame: &[u8]) -> bool {
    let (verdict, outcome, bytes) = shortcut(town, frame);
    let before = format!("{:?} {:?}", town.world.v4.flow_entries(), town.world.v6.flow_entries());
    let run = town.world.arrive(frame);
    let Some(verdict) = verdict else {
        assert_eq!(bytes, frame, "what has no end here is as it was");
        return false;
    };
    assert_eq!((verdict, outcome, bytes), (run.verdict, run.outcome, run.bytes));
    let after = format!("{:?} {:?}", town.world.v4.flow_entries(), town.world.v6.flow_entries());
    assert_eq!(after, before, "the rules had something to write down");
    true
}

/// What the backend sent back last, if the client reached one.
fn answer(town: &Town, client: u16, flags: u8) -> Option<Sample> {
    let run = town.world.arrive(&town.to_vip(client, ACK).bytes());
    (run.reason == Reason::ToRemote).then(|| Sample::read(&run.bytes).answered(flags))
}

#[test]
fn where_the_shortcut_ends_the_rules_would_have_ended_with_the_same_bytes_and_nothing_to_note() {
    let (taken, asked) = (AtomicU32::new(0), AtomicU32::new(0));
    bolero::check!().with_type::<(bool, [Step; 4])>().for_each(|(spread, steps)| {
        for mut town in Town::all_of(proto::TCP, Hook::Xdp) {
            town = town.with_backends(1, 2);
            town.world = town.world.with_flow_sets(1);
            if *spread {
                town = town.spread(&[(2, 2), (1, 1), (3, 1), (NodeSlot::REST, 2)]);
            }
            for client in 0..4 {
                town.arrive(&town.to_vip(40_000 + client, SYN));
                town.arrive(&town.to_vip(40_000 + client, ACK));
            }
            for step in steps {
                happens(&mut town, step, &taken, &asked);
            }
        }
    });
    let (taken, asked) = (taken.into_inner(), asked.into_inner());
    assert!(taken > 0 && taken < asked, "{taken} of {asked}");
}

fn happens(town: &mut Town, step: &Step, taken: &AtomicU32, asked: &AtomicU32) {
    let port = |client: &u8| 40_000 + u16::from(client % 4);
    let id = |backend: &u8| [10, 20, 21][usize::from(backend % 3)];
    let frame = match step {
        Step::Sent { client, flags } => town.to_vip(port(client), flags.bits()).bytes(),
        Step::Answered { client, flags } => match answer(town, port(client), flags.bits()) {
            Some(answer) => answer.bytes(),
            None => return,
        },
        Step::Spoiled { client, place, with } => {
            let mut frame = town.to_vip(port(client), ACK).bytes();
            let place = usize::from(*place) % frame.len();
            frame[place] = *with;
            frame
        }
        Step::Cut { client, length } => {
            let mut frame = town.to_vip(port(client), ACK).bytes();
            frame.truncate(usize::from(*length));
            frame
        }
        Step::Waited(ticks) => {
            town.world.wait(u32::from(*ticks) % seconds(40));
            return;
        }
        Step::Retired { backend, state } => {
            let states = [BackendState::Active, BackendState::Retired, BackendState::Gone];
            town.retire(id(backend), states[usize::from(state % 3)], true);
            return;
        }
        Step::Renewed { backend, generation } => {
            town.set_backend(id(backend), 1 + u32::from(*generation));
            return;
        }
        Step::Led(way) => {
            town.route([Route::Hop(HOP), Route::Stack, Route::None][usize::from(way % 3)]);
            return;
        }
    };
    asked.fetch_add(1, Relaxed);
    if arrives(town, &frame) {
        taken.fetch_add(1, Relaxed);
    }
}

#[test]
fn packets_of_a_connection_under_way_take_it_in_both_directions() {
    for town in Town::all_of(proto::TCP, Hook::Xdp) {
        let town = town.with_backends(0, 1);
        town.establish(40_000);
        let answer = answer(&town, 40_000, ACK).expect("a backend");
        // The first one asks for its way.
        town.returned(&answer);
        assert!(arrives(&town, &town.to_vip(40_000, ACK).bytes()));
        assert!(arrives(&town, &answer.bytes()));
        for flags in [SYN, ACK | FIN, RST] {
            assert!(!arrives(&town, &town.to_vip(40_000, flags).bytes()));
        }
    }
}

#[test]
fn a_flow_that_is_to_be_renewed_is_left_to_the_rules_even_where_others_ask_for_the_way() {
    for town in Town::all_of(proto::TCP, Hook::Xdp) {
        let town = town.with_backends(0, 1);
        town.establish(40_000);
        town.world.wait(town.world.settings.timeouts.tcp / 16 + 1);
        for slot in &town.world.hops {
            (0..HOP_CHECKS).for_each(|_| slot.ask(town.world.now.get()));
        }
        let data = town.to_vip(40_000, ACK).bytes();
        assert!(!arrives(&town, &data), "it has to be renewed first");
        assert!(arrives(&town, &data), "its old way is followed then");
    }
}
