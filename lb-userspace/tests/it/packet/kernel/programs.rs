//! The programs, each run on single frames.

use std::{
    cell::RefCell,
    os::fd::AsFd as _,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use aya::{
    TestRun as _, TestRunOptions, TestRunResult,
    maps::{Array, HashMap, Map, MapData},
    programs::{Program as Loaded, ProgramError},
};
use lb_userspace::datapath::{
    maps::Maps,
    object::{Sizes, Unused},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::super::{
    network::{Network, UPLINK},
    pool::Pooled,
};

/// A program that sees frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Xdp,
    Ingress,
    Egress,
    PodIngress,
    PodEgress,
}

impl Program {
    /// Whether pods are behind its interface.
    pub const fn faces_pods(self) -> bool {
        matches!(self, Self::PodIngress | Self::PodEgress)
    }

    /// Whether it sees what leaves.
    pub const fn is_egress(self) -> bool {
        matches!(self, Self::Egress | Self::PodEgress)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "uplink_xdp",
            Self::Ingress => "uplink_ingress",
            Self::Egress => "uplink_egress",
            Self::PodIngress => "pod_ingress",
            Self::PodEgress => "pod_egress",
        }
    }

    /// The context that says on which interface the frame is.
    pub fn context(self, length: usize) -> Vec<u8> {
        let words: &[u32] = match self {
            // `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
            Self::Xdp => &[0, length as u32, 0, UPLINK, 0],
            // `__sk_buff`: ingress_ifindex and ifindex are its tenth and eleventh words.
            Self::Ingress | Self::Egress | Self::PodIngress | Self::PodEgress => {
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, UPLINK, UPLINK]
            }
        };
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// The programs, with a network of their own. Each is loaded when it first runs: the verifier takes
/// most of the time.
pub struct Programs {
    object: RefCell<Pooled>,
    pub network: Network,
}

impl Programs {
    pub fn load(sizes: Sizes, unused: Unused) -> (Self, Maps) {
        let network = Network::enter();
        let object = Pooled::take(sizes, unused);
        // Handles of our own: programs that are yet to be loaded need the object's.
        let maps = Maps::open(|name| match object.map(name) {
            Some(
                Map::Array(map)
                | Map::HashMap(map)
                | Map::LruHashMap(map)
                | Map::LpmTrie(map)
                | Map::PerCpuArray(map),
            ) => Map::from_map_data(MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?),
            _ => panic!("{name} is a map of another kind"),
        });
        let maps = maps.expect("the object's maps");
        (Self { object: RefCell::new(object), network }, maps)
    }

    /// Runs each frame at XDP on two CPUs at once; what came of it on each.
    pub fn race(&self, frames: &[Vec<u8>]) -> Vec<[(u32, Vec<u8>); 2]> {
        let mut object = self.object.borrow_mut();
        let program = object.program_mut(Program::Xdp.name()).expect("a program of the object");
        let Loaded::Xdp(program) = program else { panic!("XDP is for frames") };
        if program.fd().is_err() {
            program.load().expect("a program");
        }
        let (program, arrived) = (&*program, AtomicUsize::new(0));
        let run = |cpu: usize| {
            let mut only = CpuSet::new();
            only.set(cpu).expect("a CPU");
            sched_setaffinity(Pid::from_raw(0), &only).expect("a thread on its CPU");
            let run = |(round, frame): (usize, &Vec<u8>)| {
                let (context, mut out) = (Program::Xdp.context(frame.len()), vec![0; frame.len()]);
                let options = TestRunOptions {
                    data_in: Some(frame),
                    data_out: Some(&mut out),
                    ctx_in: Some(&context),
                    ..TestRunOptions::default()
                };
                // Asleep they would not start at once; the other may still be kept from its CPU.
                arrived.fetch_add(1, SeqCst);
                while arrived.load(SeqCst) < 2 * (round + 1) {
                    std::hint::spin_loop();
                }
                let result = program.test_run(options).expect("a test run");
                (result.return_value, out)
            };
            frames.iter().enumerate().map(run).collect::<Vec<_>>()
        };
        // Threads are in the namespace of the one that starts them.
        let [one, other] = thread::scope(|scope| {
            [0, 1].map(|cpu| scope.spawn(move || run(cpu))).map(|cpu| cpu.join().expect("a CPU"))
        });
        one.into_iter().zip(other).map(|(one, other)| [one, other]).collect()
    }

    /// Keeps the calling thread, and what it runs, on one CPU: some memory is a CPU's own.
    pub fn stay_on_one_cpu() {
        let mut only = CpuSet::new();
        only.set(0).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &only).expect("a thread on its CPU");
    }

    /// Makes every packet one of which no fragment was seen.
    pub fn forget_fragments(&self) {
        let mut object = self.object.borrow_mut();
        let map = object.map_mut("FRAGMENTS").expect("a map of the object");
        let mut fragments: HashMap<_, [u8; 40], [u8; 8]> = map.try_into().expect("a hash map");
        let keys: Result<Vec<_>, _> = fragments.keys().collect();
        for key in keys.expect("the fragments' keys") {
            fragments.remove(&key).expect("a fragment");
        }
    }

    /// Of how many packets a first fragment is remembered.
    pub fn fragments(&self) -> usize {
        let object = self.object.borrow();
        let map = object.map("FRAGMENTS").expect("a map of the object");
        let fragments: HashMap<_, [u8; 40], [u8; 8]> = map.try_into().expect("a hash map");
        fragments.keys().count()
    }

    /// How many flows of each family are half-open, as the programs count them.
    pub fn opening(&self) -> [u64; 2] {
        let object = self.object.borrow();
        let map = object.map("OPENING").expect("a map of the object");
        let opening: Array<_, u64> = map.try_into().expect("an array");
        [0, 1].map(|family| opening.get(&family, 0).expect("a family's count"))
    }

    /// Makes none half-open.
    pub fn forget_opening(&self) {
        let mut object = self.object.borrow_mut();
        let map = object.map_mut("OPENING").expect("a map of the object");
        let mut opening: Array<_, u64> = map.try_into().expect("an array");
        for family in 0..2 {
            opening.set(family, 0, 0).expect("a family's count");
        }
    }

    /// Makes every way to a node one that is not known.
    pub fn forget_ways(&self) {
        let mut object = self.object.borrow_mut();
        let map = object.map_mut("WAYS_TO_NODES").expect("a map of the object");
        let mut ways: Array<_, [u64; 2]> = map.try_into().expect("an array");
        for node in 0..4 {
            ways.set(node, [0; 2], 0).expect("a node's ways");
        }
    }

    /// Runs a program on a frame; its return code and the frame afterwards. `None` if the kernel has
    /// no test run for such a frame.
    pub fn run(&self, program: Program, frame: &[u8]) -> Option<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 128];
        match self.try_run(program, frame, &mut out, 1) {
            Ok(result) => {
                out.truncate(result.data_size_out as usize);
                Some((result.return_value, out))
            }
            Err(ProgramError::SyscallError(error)) => {
                assert_eq!(error.io_error.raw_os_error(), Some(libc::EINVAL), "{error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a program on a frame that it does not change, many times.
    pub fn run_often(&self, program: Program, frame: &[u8], times: u32) -> u32 {
        let mut out = vec![0; frame.len()];
        let result = self.try_run(program, frame, &mut out, times).expect("a test run");
        assert_eq!(out, frame, "each run shall see the same frame");
        result.return_value
    }

    pub fn try_run(
        &self,
        program: Program,
        frame: &[u8],
        out: &mut [u8],
        repeat: u32,
    ) -> Result<TestRunResult, ProgramError> {
        let context = program.context(frame.len());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let mut object = self.object.borrow_mut();
        match object.program_mut(program.name()).expect("a program of the object") {
            Loaded::Xdp(program) => {
                if program.fd().is_err() {
                    program.load()?;
                }
                program.test_run(options)
            }
            Loaded::SchedClassifier(program) => {
                if program.fd().is_err() {
                    program.load()?;
                }
                program.test_run(options)
            }
            _ => panic!("{program:?} is for frames"),
        }
    }
}
