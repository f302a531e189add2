/// Where a field lies in an entry of a map, for versions of this program that lay it out otherwise:
/// they read what they know by its name.
///
/// An entry is words of 64 bits; bits count from the lowest of the first word. A field is within one
/// word. Names keep their meaning for ever; a field of another meaning gets another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub first_bit: u32,
    pub bits: u32,
}

impl Field {
    /// A field of `bits` bits in word `word`, `shift` above its lowest.
    pub(crate) const fn in_word(name: &'static str, word: usize, shift: u32, bits: u32) -> Self {
        Self { name, first_bit: word as u32 * 64 + shift, bits }
    }

    /// A field of a structure, by its place and size in bytes.
    pub(crate) const fn in_bytes(name: &'static str, offset: usize, size: usize) -> Self {
        let (offset, size) = (offset as u32, size as u32);
        let shift = if cfg!(target_endian = "big") { 8 - offset % 8 - size } else { offset % 8 };
        Self { name, first_bit: (offset / 8) * 64 + shift * 8, bits: size * 8 }
    }
}
