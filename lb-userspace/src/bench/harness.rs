//! The harness programs in the kernel: what they visit, whom they call, and how long it takes.

use std::{num::NonZeroUsize, os::fd::AsFd as _, sync::atomic::Ordering::Relaxed, time::Duration};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray},
    programs::{ProgramFd, Xdp, XdpMode, xdp::XdpLink},
};
use lb_common::{
    abi::{
        Words,
        bench::{FloorKey, FloorValue, Run, STAMP_V4, STAMP_V6, Stamp},
    },
    addr::{V4, V6},
};

use super::{
    broken,
    network::{IDLE, IDLE_FIRST, UPLINK},
    node,
};
use crate::{cli::Failure, datapath::mmap::Mapped};

/// The compiled programs.
static BYTES: &[u8] = aya::include_bytes_aligned!(env!("LB_BENCH_OBJECT"));

/// Packets in one test run: the kernel tells whole nanoseconds a packet, and several runs tell
/// parts of one.
const CHUNK: u32 = 8192;

/// A program of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    NextV4,
    NextV6,
    RecordV4,
    RecordV6,
    FreshV4,
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Self::NextV4 => "next_v4",
            Self::NextV6 => "next_v6",
            Self::RecordV4 => "record_v4",
            Self::RecordV6 => "record_v6",
            Self::FreshV4 => "fresh_v4",
        }
    }

    const fn frame(self) -> usize {
        match self {
            Self::NextV4 | Self::RecordV4 | Self::FreshV4 => Run::FRAME_V4,
            Self::NextV6 | Self::RecordV6 => Run::FRAME_V6,
        }
    }

    const ALL: [Self; 5] =
        [Self::NextV4, Self::NextV6, Self::RecordV4, Self::RecordV6, Self::FreshV4];
}

/// Slot of the program that does nothing.
pub const TRIVIAL: u32 = 0;
/// Slot of the floor.
pub const FLOOR: u32 = 1;
/// First slot of a world.
const WORLDS: u32 = 2;

/// What some packets took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Took {
    /// Nanoseconds a packet, the harness included.
    pub ns: f64,
    /// What the program answered to the last.
    pub code: u32,
}

/// The harness, loaded.
pub struct Harness {
    object: Ebpf,
    run: Array<MapData, Run>,
    programs: ProgramArray<MapData>,
    floor: HashMap<MapData, FloorKey, FloorValue>,
    counts: PerCpuArray<MapData, u64>,
    stamps_v4: Stamps,
    stamps_v6: Stamps,
    slots: u32,
}

impl Harness {
    /// Loads it, with room for so many stamps, and a floor that knows up to `flows` flows.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn load(stamps_v4: u32, stamps_v6: u32, flows: u32) -> Result<Self, Failure> {
        let mut object = EbpfLoader::new()
            .map_max_entries("STAMPS_V4", stamps_v4)
            .map_max_entries("STAMPS_V6", stamps_v6)
            .map_max_entries("FLOOR", flows)
            .load(BYTES)
            .map_err(|error| broken("the harness cannot be loaded", &error))?;
        for (entry, interface) in Entry::ALL.into_iter().zip(IDLE_FIRST..IDLE_FIRST + IDLE) {
            load(&mut object, entry.name())?;
            keep_at_hand(&mut object, entry.name(), interface)?;
        }
        let mut programs: ProgramArray<MapData> = take(&mut object, "PROGRAMS")?;
        for (slot, name) in [(TRIVIAL, "trivial"), (FLOOR, "floor_v4")] {
            let fd = load(&mut object, name)?;
            programs.set(slot, &fd, 0).map_err(|error| broken("PROGRAMS", &error))?;
        }
        Ok(Self {
            run: take(&mut object, "RUN")?,
            floor: take(&mut object, "FLOOR")?,
            counts: take(&mut object, "COUNTS")?,
            stamps_v4: Stamps::open(&mut object, "STAMPS_V4", STAMP_V4)?,
            stamps_v6: Stamps::open(&mut object, "STAMPS_V6", STAMP_V6)?,
            object,
            programs,
            slots: WORLDS,
        })
    }

    /// Makes a program one that can be called; its slot.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn admit(&mut self, program: &ProgramFd) -> Result<u32, Failure> {
        let slot = self.slots;
        self.programs.set(slot, program, 0).map_err(|error| broken("PROGRAMS", &error))?;
        self.slots += 1;
        Ok(slot)
    }

    /// Tells the floor a flow.
    ///
    /// # Errors
    /// If its map is full.
    pub fn teach(&mut self, key: &FloorKey, value: &FloorValue) -> Result<(), Failure> {
        self.floor.insert(key, value, 0).map_err(|error| broken("FLOOR", &error))
    }

    /// How many packets the floor did not know.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn missed(&self) -> Result<u64, Failure> {
        let counts = self.counts.get(&1, 0).map_err(|error| broken("COUNTS", &error))?;
        Ok(counts.iter().sum())
    }

    /// Runs a program on so many packets; `run` says which and is brought up to date.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn run(&mut self, entry: Entry, run: &mut Run, packets: u32) -> Result<Took, Failure> {
        let failed = |error: &dyn std::error::Error| broken(entry.name(), error);
        self.run.set(0, *run, 0).map_err(|error| failed(&error))?;
        let program: &Xdp = node::program(&self.object, entry.name())?;
        let frame = vec![0; entry.frame()];
        // `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
        let context = [0, frame.len() as u32, 0, UPLINK, 0].map(u32::to_ne_bytes).concat();
        let (mut total, mut code, mut left) = (Duration::ZERO, 0, packets);
        while left > 0 {
            // A record needs the packet before it, which the next test run does not have.
            let records = matches!(entry, Entry::RecordV4 | Entry::RecordV6);
            let repeat = if records { left } else { left.min(CHUNK) };
            let options = TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::default()
            };
            let result = program.test_run(options).map_err(|error| failed(&error))?;
            total += result.duration * repeat;
            code = result.return_value;
            left -= repeat;
        }
        *run = self.run.get(&0, 0).map_err(|error| failed(&error))?;
        Ok(Took { ns: total.as_nanos() as f64 / f64::from(packets.max(1)), code })
    }
}

/// Packets that are under way at once: as many as the far end's ring takes with ease.
const BATCH: u32 = 64;

impl Harness {
    /// Sends so many packets out of an interface, as a network card would find them.
    ///
    /// # Errors
    /// If the kernel refuses (before 5.18 it cannot).
    pub fn send(&mut self, run: &mut Run, packets: u32, interface: u32) -> Result<(), Failure> {
        let entry = Entry::NextV4;
        let failed = |error: &dyn std::error::Error| broken(entry.name(), error);
        self.run.set(0, *run, 0).map_err(|error| failed(&error))?;
        let frame = vec![0; entry.frame()];
        let context = [0, frame.len() as u32, 0, interface, 0].map(u32::to_ne_bytes).concat();
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let program: &Xdp = node::program(&self.object, entry.name())?;
        program.test_run(options).map_err(|error| failed(&error))?;
        *run = self.run.get(&0, 0).map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Puts a program of the harness before an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(&mut self, name: &'static str, interface: &str) -> Result<XdpLink, Failure> {
        load(&mut self.object, name)?;
        attach(&mut self.object, name, interface)
    }

    /// How many packets came to the far end.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn sunk(&self) -> Result<u64, Failure> {
        let counts = self.counts.get(&0, 0).map_err(|error| broken("COUNTS", &error))?;
        Ok(counts.iter().sum())
    }
}

/// Puts a loaded program before an interface, for as long as the link lives.
///
/// # Errors
/// If the kernel refuses.
pub fn attach(object: &mut Ebpf, name: &'static str, to: &str) -> Result<XdpLink, Failure> {
    let missing = || broken(name, &"it is not in the object");
    let program: &mut Xdp =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)?;
    let link = program.attach(to, XdpMode::Driver).and_then(|link| program.take_link(link));
    link.map_err(|error| broken(format_args!("{name} on {to}"), &error))
}

/// A family that the harness can write packets of.
pub trait Stamped: lb_common::addr::Addr {
    const NEXT: Entry;
    const RECORD: Entry;

    /// Finds room for so many stamps; the index of the first.
    fn room(harness: &mut Harness, count: u32) -> Result<u32, Failure>;
    fn put(harness: &Harness, index: u32, stamp: &Stamp<Self>);
    fn get(harness: &Harness, index: u32) -> Stamp<Self>;
}

macro_rules! stamped {
    ($family:ty, $stamps:ident, $words:ident, $next:ident, $record:ident) => {
        impl Stamped for $family {
            const NEXT: Entry = Entry::$next;
            const RECORD: Entry = Entry::$record;

            fn room(harness: &mut Harness, count: u32) -> Result<u32, Failure> {
                harness.$stamps.room(count)
            }

            fn put(harness: &Harness, index: u32, stamp: &Stamp<Self>) {
                let words: [u64; $words] = stamp.to_words();
                harness.$stamps.words::<$words>(index).iter().zip(words).for_each(|(to, word)| {
                    to.store(word, Relaxed);
                });
            }

            fn get(harness: &Harness, index: u32) -> Stamp<Self> {
                let words = harness.$stamps.words::<$words>(index);
                Stamp::from_words(&std::array::from_fn(|at| words[at].load(Relaxed)))
            }
        }
    };
}

stamped!(V4, stamps_v4, STAMP_V4, NextV4, RecordV4);
stamped!(V6, stamps_v6, STAMP_V6, NextV6, RecordV6);

/// The memory of one family's stamps, and how much of it is taken.
struct Stamps {
    memory: Mapped,
    taken: u32,
    size: u32,
}

impl Stamps {
    fn open(object: &mut Ebpf, name: &'static str, words: usize) -> Result<Self, Failure> {
        let map = object.take_map(name).ok_or_else(|| broken(name, &"it is not in the object"))?;
        let Map::Array(data) = &map else { return Err(broken(name, &"it is not an array")) };
        let size = data.info().map_err(|error| broken(name, &error))?.max_entries();
        let length = NonZeroUsize::new(size as usize * words).unwrap_or(NonZeroUsize::MIN);
        let memory =
            Mapped::new(data.fd().as_fd(), length).map_err(|error| broken(name, &error))?;
        Ok(Self { memory, taken: 0, size })
    }

    fn room(&mut self, count: u32) -> Result<u32, Failure> {
        let first = self.taken;
        self.taken += count;
        if self.taken > self.size {
            return Err(broken("stamps", &format!("no room for {count} more")));
        }
        Ok(first)
    }

    fn words<const N: usize>(&self, index: u32) -> &[std::sync::atomic::AtomicU64] {
        &self.memory.words()[index as usize * N..][..N]
    }
}

fn load(object: &mut Ebpf, name: &'static str) -> Result<ProgramFd, Failure> {
    let missing = || broken(name, &"it is not in the object");
    let program: &mut Xdp =
        object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)?;
    if program.fd().is_err() {
        program.load().map_err(|error| broken(name, &error))?;
    }
    let fd = program.fd().map_err(|error| broken(name, &error))?;
    fd.try_clone().map_err(|error| broken(name, &error))
}

/// Puts a program on an interface that nothing passes. A test run patches the kernel's dispatcher of XDP
/// programs before and after, and waits for every CPU each time, 17 ms in all, unless the program is
/// there already.
fn keep_at_hand(object: &mut Ebpf, name: &'static str, interface: u32) -> Result<(), Failure> {
    let program: &mut Xdp = object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| broken(name, &"it is not in the object"))?;
    let held = program.attach_to_if_index(interface, XdpMode::Skb);
    held.map(|_| ()).map_err(|error| broken(name, &error))
}

fn take<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, Failure> {
    let map = object.take_map(name).ok_or_else(|| broken(name, &"it is not in the object"))?;
    T::try_from(map).map_err(|error| broken(name, &error))
}
