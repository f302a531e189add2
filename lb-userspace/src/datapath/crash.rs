//! For tests (feature `lab`): whoever writes to the kernel can be made to end before a certain write.
//! Without the feature there is nothing of it.

#[cfg(feature = "lab")]
pub use self::points::{after, left};

/// A write to the kernel comes next.
#[inline(always)]
pub(super) fn point() {
    #[cfg(feature = "lab")]
    points::pass();
}

#[cfg(feature = "lab")]
mod points {
    use std::sync::{Mutex, PoisonError};

    struct End {
        /// How many writes there may still be.
        left: u64,
        /// What comes then.
        now: fn() -> !,
    }

    static END: Mutex<Option<End>> = Mutex::new(None);

    /// Lets so many writes pass, and ends before the next.
    pub fn after(left: u64, now: fn() -> !) {
        *END.lock().unwrap_or_else(PoisonError::into_inner) = Some(End { left, now });
    }

    /// How many writes would still pass; nothing ends from now on.
    pub fn left() -> Option<u64> {
        let end = END.lock().unwrap_or_else(PoisonError::into_inner).take();
        end.map(|end| end.left)
    }

    pub(super) fn pass() {
        let mut end = END.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *end {
            None => {}
            Some(End { left: 0, now }) => {
                let now = *now;
                *end = None;
                drop(end);
                now()
            }
            Some(End { left, .. }) => *left -= 1,
        }
    }
}
