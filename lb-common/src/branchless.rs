//! Choices without branches. Each branch in a BPF program is a path that the verifier walks, and a
//! choice among a set's four entries made by branches multiplies the paths behind it by four.

/// `value`, about which the compiler learns nothing: else it would turn arithmetic back into
/// branches.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register onto itself. (No instruction at all would leave two lines of the
    // source at one place, which the kernel refuses in debug information.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}

#[cfg(not(target_arch = "bpf"))]
const fn opaque(value: u64) -> u64 {
    value
}

/// 1 if any bit of `value` is set, else 0.
#[inline(always)]
pub fn any(value: u64) -> u64 {
    opaque(value | value.wrapping_neg()) >> 63
}

/// 1 if `value` is negative, else 0.
#[inline(always)]
pub fn negative(value: i32) -> u64 {
    opaque(u64::from(value as u32)) >> 31
}

/// Index of the first of `flags` (each 0 or 1) that is 0; 4 if none is.
#[inline(always)]
pub fn first_zero(flags: [u64; 4]) -> usize {
    let [a, b, c, d] = flags;
    let ab = opaque(a & b);
    let abc = opaque(ab & c);
    opaque(a + ab + abc + (abc & d)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_tells_zero_from_everything_else() {
        assert_eq!([any(0), any(1), any(1 << 63), any(u64::MAX)], [0, 1, 1, 1]);
    }

    #[test]
    fn negative_is_the_sign() {
        assert_eq!([0, 1, i32::MAX, -1, i32::MIN].map(negative), [0, 0, 0, 1, 1]);
    }

    #[test]
    fn first_zero_finds_the_first_for_every_set_of_flags() {
        for bits in 0..16_u64 {
            let flags = [0, 1, 2, 3].map(|at| bits >> at & 1);
            let expected = flags.iter().position(|flag| *flag == 0).unwrap_or(4);
            assert_eq!(first_zero(flags), expected, "{flags:?}");
        }
    }
}
