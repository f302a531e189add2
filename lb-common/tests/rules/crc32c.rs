use lb_common::crc32c::change;

use crate::support::CRC32C;

/// The checksum's bytes as a word.
fn whole(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes)
}

/// Holds the change against two whole computations.
fn holds(old: [u8; 4], new: [u8; 4], rest: &[u8]) {
    let (before, after) = ([&old, rest].concat(), [&new, rest].concat());
    let length = u16::try_from(before.len()).expect("no longer than an IP packet");
    let changed = whole(&before) ^ change(word(old) ^ word(new), length);
    assert_eq!(changed, whole(&after), "{old:?} became {new:?} before {} bytes", rest.len());
}

#[test]
fn the_crc_that_this_is_held_against_knows_the_check_value_of_its_catalogue() {
    assert_eq!(whole(b"123456789"), 0xe306_9283);
}

#[test]
fn a_change_gives_what_a_computation_over_all_bytes_gives() {
    bolero::check!()
        .with_type::<([u8; 4], [u8; 4], Vec<u8>)>()
        .for_each(|(old, new, rest)| holds(*old, *new, rest));
}

#[test]
fn it_holds_at_every_length_that_an_ip_packet_can_have() {
    let bytes: Vec<u8> = (0..=u16::MAX).map(|at| (at.wrapping_mul(0x9e37) >> 7) as u8).collect();
    for length in
        (4..=usize::from(u16::MAX)).step_by(251).chain([4, 5, 6, 7, 8, 15, 16, 17, 65_535])
    {
        holds([0xde, 0xad, 0xbe, 0xef], [0, 1, 2, 3], &bytes[4..length]);
    }
}

#[test]
fn nothing_replaced_changes_nothing_and_two_changes_are_one() {
    bolero::check!().with_type::<(u32, u32, u16)>().for_each(|(one, other, length)| {
        assert_eq!(change(0, *length), 0);
        assert_eq!(change(*one, *length) ^ change(*other, *length), change(one ^ other, *length));
    });
}
