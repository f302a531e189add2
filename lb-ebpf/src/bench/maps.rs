//! The harness's maps, its view of a frame, and the calls that it makes: all that is unsafe here.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_xdp_adjust_head,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        Word,
        bench::{FloorKey, FloorValue, Run, Stamp},
    },
    addr::{Addr, V4, V6},
    wire::Header,
};

#[map]
static RUN: Array<Run> = Array::with_max_entries(1, 0);
#[map]
static STAMPS_V4: Array<Stamp<V4>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static STAMPS_V6: Array<Stamp<V6>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(Run::SLOTS, 0);
/// Preallocated, as a table for packets has to be.
#[map]
static FLOOR: HashMap<FloorKey, FloorValue> = HashMap::with_max_entries(1, 0);
/// Packets that came to the far end, and packets whose flow the floor did not know.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// See [`settle`].
#[map]
static SETTLED: Array<Word> = Array::with_max_entries(1, 0);

/// Indices of [`COUNTS`].
pub const SUNK: u32 = 0;
pub const MISSED: u32 = 1;

/// A family that stamps are kept for.
pub trait Stamps: Addr {
    fn stamp(index: u32) -> Option<&'static mut Stamp<Self>>;
}

macro_rules! stamps {
    ($family:ty, $map:ident) => {
        impl Stamps for $family {
            #[inline(always)]
            fn stamp(index: u32) -> Option<&'static mut Stamp<Self>> {
                // SAFETY: an element of an array map; one harness program runs at a time, and user
                // space waits for it.
                $map.get_ptr_mut(index).map(|stamp| unsafe { &mut *stamp })
            }
        }
    };
}

stamps!(V4, STAMPS_V4);
stamps!(V6, STAMPS_V6);

/// What is to be run.
#[inline(always)]
pub fn run() -> Option<&'static mut Run> {
    // SAFETY: as for stamps.
    RUN.get_ptr_mut(0).map(|run| unsafe { &mut *run })
}

/// What the floor knows of a flow.
#[inline(always)]
pub fn floor(key: &FloorKey) -> Option<FloorValue> {
    // SAFETY: nothing is removed from the map while programs run.
    unsafe { FLOOR.get(key) }.copied()
}

#[inline(always)]
pub fn count(index: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(index) {
        // SAFETY: the element of this CPU.
        unsafe { *count += 1 };
    }
}

/// Waits until what was written is in the cache, where a device's packets are: a program that reads
/// by other sizes than the harness wrote would wait for it on the harness's account.
#[inline(always)]
pub fn settle() {
    // An atomic operation that returns something is a full barrier.
    if let Some(word) = SETTLED.get(0) {
        word.add(1);
    }
}

/// Goes on in the program in `slot`; comes back only where there is none.
#[inline(always)]
pub fn call(context: &XdpContext, slot: u32) {
    // SAFETY: nothing here needs to be dropped.
    unsafe { PROGRAMS.tail_call(context, slot) }
}

/// The frame's length.
#[inline(always)]
pub fn length(context: &XdpContext) -> usize {
    context.data_end() - context.data()
}

/// Takes bytes from the frame's head, or with a negative number adds some.
#[inline(always)]
pub fn adjust_head(context: &XdpContext, by: i32) -> Option<()> {
    // SAFETY: the helper takes this program's own context; the frame is looked at anew after it.
    (unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), by) } == 0).then_some(())
}

/// The header at `offset`.
#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "a frame is memory that the kernel lends to one program at a time"
)]
pub fn header<T: Header>(context: &XdpContext, offset: usize) -> Option<&mut T> {
    let at = context.data() + offset;
    if at + T::LEN > context.data_end() {
        return None;
    }
    // SAFETY: the whole of `T` lies within the frame; `T: Header` has alignment 1 and no invalid
    // bits, and callers take one reference at a time.
    Some(unsafe { &mut *(at as *mut T) })
}
