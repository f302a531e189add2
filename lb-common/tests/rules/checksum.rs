use lb_common::{
    checksum::{Delta, Sum},
    packet::{Frame, Packet as _},
};

/// RFC 1071's algorithm over whole bytes, in 64 bits and big-endian: as naive as can be.
fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn naive(bytes: &[u8]) -> [u8; 2] {
    (!naive_sum(bytes)).to_be_bytes()
}

/// One's complement has two zeros.
fn same(a: [u8; 2], b: [u8; 2]) -> bool {
    let zero = |x: [u8; 2]| if x == [0xff, 0xff] { [0, 0] } else { x };
    zero(a) == zero(b)
}

#[test]
fn rfc_1071s_example_sums_to_ddf2() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::ZERO.bytes(&bytes).finish(), (!0xddf2_u16).to_be_bytes());
}

#[test]
fn rfc_1624s_example_gives_zero_where_the_older_equation_gave_all_ones() {
    // Section 4: HC = DD2F, m = 5555, m' = 3285.
    let delta = Delta::ZERO.replace2([0x55, 0x55], [0x32, 0x85]);
    assert_eq!(delta.apply([0xdd, 0x2f]), [0x00, 0x00]);
}

#[test]
fn a_whole_sum_is_that_of_the_naive_algorithm() {
    bolero::check!().with_type::<Vec<[u8; 2]>>().for_each(|pairs| {
        let bytes = pairs.concat();
        assert_eq!(Sum::ZERO.bytes(&bytes).finish(), naive(&bytes));
    });
}

#[test]
fn a_delta_gives_what_a_full_recomputation_gives() {
    bolero::check!().with_type::<([[u8; 2]; 24], [u8; 2], [u8; 4], [u8; 16])>().for_each(
        |(words, two, four, sixteen)| {
            let old = words.concat();
            let mut new = old.clone();
            new[2..4].copy_from_slice(two);
            new[8..12].copy_from_slice(four);
            new[16..32].copy_from_slice(sixteen);
            let delta = Delta::ZERO
                .replace2(old[2..4].try_into().expect("two"), *two)
                .replace4(old[8..12].try_into().expect("four"), *four)
                .and(Delta::ZERO.replace16(old[16..32].try_into().expect("sixteen"), *sixteen));
            assert!(same(delta.apply(naive(&old)), naive(&new)));
        },
    );
}

#[test]
fn a_wrong_checksum_stays_wrong_by_the_same_amount() {
    bolero::check!().with_type::<([u8; 16], [u8; 16], u16)>().for_each(|(old, new, error)| {
        let delta = Delta::ZERO.replace16(*old, *new);
        let wrong_by =
            |bytes: &[u8; 16], checksum: [u8; 2]| naive_sum(&[&bytes[..], &checksum[..]].concat());
        let stored = (u16::from_be_bytes(naive(old)).wrapping_add(*error)).to_be_bytes();
        let before = wrong_by(old, stored);
        let after = wrong_by(new, delta.apply(stored));
        assert!(same(before.to_be_bytes(), after.to_be_bytes()), "{before:#x} {after:#x}");
    });
}

#[test]
fn nothing_replaced_changes_no_checksum() {
    for checksum in 0..=u16::MAX {
        assert_eq!(Delta::ZERO.apply(checksum.to_be_bytes()), checksum.to_be_bytes());
    }
}

#[test]
fn a_udp_checksum_that_was_never_made_is_not_made_up() {
    bolero::check!().with_type::<([u8; 4], [u8; 4])>().for_each(|(old, new)| {
        assert_eq!(Delta::ZERO.replace4(*old, *new).apply_udp([0, 0]), [0, 0]);
    });
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    let delta = Delta::ZERO.replace2([0x55, 0x55], [0x32, 0x85]);
    assert_eq!(delta.apply([0xdd, 0x2f]), [0, 0]);
    assert_eq!(delta.apply_udp([0xdd, 0x2f]), [0xff, 0xff]);
}

#[test]
fn a_frame_takes_the_pseudo_headers_and_the_headers_share_together() {
    let pseudo = Delta::ZERO.replace4([10, 0, 0, 1], [192, 0, 2, 77]);
    let header = Delta::ZERO.replace2([0x12, 0x34], [0xfe, 0xdc]);
    let mut bytes = [0xaa, 0xbb, 0x12, 0x9f, 0xcc];
    Frame::new(&mut bytes, 5).transport_checksum(2, pseudo, header, false, true).expect("in reach");
    let [high, low] = header.apply(pseudo.apply([0x12, 0x9f]));
    assert_eq!(bytes, [0xaa, 0xbb, high, low, 0xcc]);
}

#[test]
fn a_checksum_beyond_the_frame_is_not_written() {
    let mut bytes = [7; 4];
    let mut frame = Frame::new(&mut bytes, 3);
    let delta = Delta::ZERO.replace2([0, 1], [2, 3]);
    assert_eq!(frame.transport_checksum(2, delta, delta, false, true), None);
    assert_eq!(bytes, [7; 4]);
}
