//! For tests (feature `lab`): whoever writes to the kernel can be made to end before a certain write.
//! Without the feature there is nothing of it.

#[cfg(feature = "lab")]
pub use self::points::{after, after_here, left_here};

/// A write to the kernel comes next.
#[inline(always)]
pub(super) fn point() {
    #[cfg(feature = "lab")]
    points::pass();
}

#[cfg(feature = "lab")]
mod points {
    use std::{
        cell::Cell,
        sync::{Mutex, PoisonError},
    };

    #[derive(Clone, Copy)]
    struct End {
        /// How many writes there may still be.
        left: u64,
        /// What comes then.
        now: fn() -> !,
    }

    /// Of the process, whose threads share the writing.
    static END: Mutex<Option<End>> = Mutex::new(None);

    thread_local! {
        /// Of this thread alone: tests run side by side.
        static HERE: Cell<Option<End>> = const { Cell::new(None) };
    }

    /// Lets so many writes of this process pass, and ends before the next.
    pub fn after(left: u64, now: fn() -> !) {
        *END.lock().unwrap_or_else(PoisonError::into_inner) = Some(End { left, now });
    }

    /// As [`after`], for what this thread writes.
    pub fn after_here(left: u64, now: fn() -> !) {
        HERE.set(Some(End { left, now }));
    }

    /// How many writes of this thread would still pass; nothing ends here from now on.
    pub fn left_here() -> Option<u64> {
        HERE.take().map(|end| end.left)
    }

    pub(super) fn pass() {
        let here = HERE.take().map(counted);
        HERE.set(here.and_then(Result::ok));
        let mut end = END.lock().unwrap_or_else(PoisonError::into_inner);
        let all = end.take().map(counted);
        *end = all.and_then(Result::ok);
        drop(end);
        if let Some(now) = [here, all].into_iter().flatten().find_map(Result::err) {
            now();
        }
    }

    /// One write less; what comes in its place, if there may be none.
    fn counted(End { left, now }: End) -> Result<End, fn() -> !> {
        left.checked_sub(1).map(|left| End { left, now }).ok_or(now)
    }
}
