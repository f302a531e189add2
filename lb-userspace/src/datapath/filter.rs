//! tc where the kernel has no links for it (TCX, kernel 6.6): cls_bpf filters, which are replaced in
//! place because their priority and handle are always the same.
//!
//! A filter cannot be pinned. The program that it runs is pinned beside the links instead, under the
//! filter's name: by that the filter is known to be ours.

use std::{
    fs, io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};

use super::crash;
use crate::net;

/// "lb".
const HANDLE: TcHandle = TcHandle::new(0, 0x6c62);
/// Before those that leave the choice to the kernel.
const PRIORITY: u16 = 1;
/// The kinds of pins: a filter each way, and that the place for both was made by us.
const INGRESS: &str = "ingress-filter";
const EGRESS: &str = "egress-filter";
const PLACE: &str = "clsact";

/// Puts a program on an interface and pins it; the names of the pins that there are for it now.
///
/// # Errors
/// If the kernel does not take the filter or the pin.
pub fn put(
    hook: &mut SchedClassifier,
    folder: &Path,
    name: &str,
    index: u32,
    at: TcAttachType,
) -> Result<Vec<String>, ProgramError> {
    let filter = pin_name(at, index);
    let place = format!("{PLACE}@{index}");
    let attached = |at| SchedClassifierLink::attached(name, at, PRIORITY, HANDLE, None);
    crash::point();
    // In place if it is there already: no packet passes between two programs.
    let id = match attached(at).map(|filter| hook.attach_to_link(filter)) {
        Ok(Ok(id)) => id,
        Ok(Err(_)) | Err(_) => {
            // First, so that a place of ours without a pin is never left behind. Where others have made
            // it before, the pin goes again.
            let has_place = folder.join(&place).exists();
            if !has_place {
                pin(hook, &folder.join(&place))?;
            }
            crash::point();
            if qdisc_add_clsact(name).is_err() && !has_place {
                fs::remove_file(folder.join(&place)).map_err(ProgramError::from)?;
            }
            // Nor a filter.
            pin(hook, &folder.join(&filter))?;
            crash::point();
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            hook.attach_with_options(name, at, TcAttachOptions::Netlink(options))?
        }
    };
    // It stays when the agent goes.
    let _stays = ManuallyDrop::new(hook.take_link(id)?);
    pin(hook, &folder.join(&filter))?;
    let there = folder.join(&place).exists();
    Ok([filter].into_iter().chain(there.then_some(place)).collect())
}

/// Pins a program in the place of the one before, of which nothing is left.
fn pin(hook: &mut SchedClassifier, path: &Path) -> Result<(), ProgramError> {
    // No name on a BPF file system has a dot.
    let next = PathBuf::from(format!("{}-next", path.display()));
    crash::point();
    let _left_over = fs::remove_file(&next);
    crash::point();
    hook.pin(&next).map_err(io::Error::other)?;
    crash::point();
    Ok(fs::rename(&next, path)?)
}

/// The names of all pins that there may be for the filters of an interface.
pub fn pins_of(index: u32) -> [String; 3] {
    [EGRESS, INGRESS, PLACE].map(|kind| format!("{kind}@{index}"))
}

fn pin_name(at: TcAttachType, index: u32) -> String {
    let kind = if at == TcAttachType::Egress { EGRESS } else { INGRESS };
    format!("{kind}@{index}")
}

/// Removes what the pin of that name stands for, if it stands for something that is not a link: the
/// filter, or the place of filters unless others use it.
///
/// # Errors
/// If the kernel refuses; that it is gone already is no error.
pub fn remove(pin: &str) -> io::Result<()> {
    let Some((kind, index)) = pin.split_once('@') else { return Ok(()) };
    let Ok(index) = index.parse() else { return Ok(()) };
    let at = match kind {
        INGRESS => TcAttachType::Ingress,
        EGRESS => TcAttachType::Egress,
        PLACE => return net::remove_unused_clsact(index),
        _ => return Ok(()),
    };
    // With its interface the filter went too.
    let Some(name) = net::interface_name(index) else { return Ok(()) };
    let filter = SchedClassifierLink::attached(&name, at, PRIORITY, HANDLE, None)?;
    match filter.detach() {
        Err(error) if !is_gone(&error) => Err(io::Error::other(error)),
        _ => Ok(()),
    }
}

/// The order to remove pins in: the place of filters after the filters.
pub fn is_place(pin: &str) -> bool {
    pin.split_once('@').is_some_and(|(kind, _)| kind == PLACE)
}

fn is_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let gone = |error: &io::Error| {
        matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV))
    };
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(gone))
}
