//! CRC32c, the checksum of SCTP (RFC 9260, appendix A), kept right by differences.
//!
//! A CRC is linear: what a change of some bytes does to it does not depend on those that stay. Four
//! bytes that are replaced at the start of `length` bytes change it by the product of old xor new
//! with `x^(8 * length)`, modulo the polynomial. So new ports need no look at the payload, and a
//! wrong checksum stays wrong by the same amount.
//!
//! Polynomials are kept bit-reversed, as CRC32c has them: the highest bit of a word is the
//! coefficient of `x^0`.

/// The polynomial of Castagnoli without its `x^32`.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// `x^0`.
const ONE: u32 = 1 << 31;
/// Digits of four bits in a length.
const PLACES: usize = 4;
/// And in a word.
const NIBBLES: usize = 8;
const ENTRIES: usize = PLACES * 16 * NIBBLES * 16;

/// Products with `x^(8 * digit * 16^place)`, for each digit of a length: of every value that each
/// nibble of a word can have. 32 KiB, of which a packet reads as many bytes as 32 cache lines have.
///
/// A loop over bits would need neither, but verifiers since kernel 6.18 follow both outcomes of each
/// bit, with branches or without.
static PRODUCTS: [u32; ENTRIES] = products();

/// What changes in the checksum of `length` bytes when four at their start do: `difference` is the
/// old ones xor the new ones, as a little-endian word, and so is the result for the checksum's bytes.
#[inline(always)]
pub fn change(difference: u32, length: u16) -> u32 {
    let mut product = difference;
    let mut place = 0;
    while place < PLACES {
        let digit = (length >> (4 * place)) as usize & 15;
        let mut next = 0;
        let mut nibble = 0;
        while nibble < NIBBLES {
            let value = (product >> (4 * nibble)) as usize & 15;
            next ^= PRODUCTS[index(place, digit, nibble, value) & (ENTRIES - 1)];
            nibble += 1;
        }
        product = next;
        place += 1;
    }
    product
}

#[inline(always)]
const fn index(place: usize, digit: usize, nibble: usize, value: usize) -> usize {
    ((place * 16 + digit) * NIBBLES + nibble) * 16 + value
}

const fn products() -> [u32; ENTRIES] {
    let mut products = [0; ENTRIES];
    let mut place = 0;
    while place < PLACES {
        // What one more of the digit means: x^(8 * 16^place).
        let mut step = ONE;
        let mut exponent = 8 << (4 * place);
        while exponent != 0 {
            step = times_x(step);
            exponent -= 1;
        }
        let mut power = ONE;
        let mut digit = 0;
        while digit < 16 {
            fill(&mut products, index(place, digit, 0, 0), power);
            power = times(power, step);
            digit += 1;
        }
        place += 1;
    }
    products
}

/// Writes the products of all nibbles with a power.
const fn fill(products: &mut [u32; ENTRIES], at: usize, power: u32) {
    // Of single bits, from the highest down: the power times x^0, x^1 and so on.
    let mut of_bit = power;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        let (row, mask) = (at + bit / 4 * 16, 1 << (bit % 4));
        let mut value = 0;
        while value < 16 {
            if value & mask != 0 {
                products[row + value] ^= of_bit;
            }
            value += 1;
        }
        of_bit = times_x(of_bit);
    }
}

/// The product of two polynomials.
const fn times(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted, mut bit) = (0, a, 32);
    while bit > 0 {
        bit -= 1;
        if b >> bit & 1 != 0 {
            product ^= shifted;
        }
        shifted = times_x(shifted);
    }
    product
}

const fn times_x(a: u32) -> u32 {
    if a & 1 == 0 { a >> 1 } else { a >> 1 ^ POLYNOMIAL }
}
