//! How a header type becomes readable straight out of a packet.

/// A wire header: a struct over packet bytes.
///
/// # Safety
/// Implementors are `repr(C)`, have alignment 1 and are valid for every bit pattern, so that a
/// reference to one may be made from any bounds-checked place in a packet.
pub unsafe trait Header: Copy + Sized {
    /// Length on the wire, in bytes.
    const LEN: usize = size_of::<Self>();
    /// Whether it is the link's own header, at the start of a frame, or a part of that.
    const IS_LINK: bool = false;
}

/// Declares a header of byte arrays and proves what [`Header`] asks for.
macro_rules! header {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? } $(link: $link:literal)?) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty),* }

        const _: () = assert!(align_of::<$name>() == 1);

        // SAFETY: `repr(C)` over bytes and byte arrays, which have no invalid bit pattern; the
        // assertion above pins the alignment.
        unsafe impl $crate::wire::Header for $name {
            $(const IS_LINK: bool = $link;)?
        }
    };
}
pub(crate) use header;
