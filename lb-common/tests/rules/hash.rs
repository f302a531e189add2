use lb_common::{
    addr::{V4, V6},
    flow::Tuple,
    hash,
    wire::proto,
};

use crate::support::tuple;

const SEED: u64 = 0x6c62_272e_07bb_0142;

/// The flow hash once more, straight from its description.
fn naive(seed: u64, words: &[u64]) -> u64 {
    let mut hash = u128::from(seed);
    let low = u128::from(u64::MAX);
    for word in words {
        hash ^= (u128::from(*word) * 0x9e37_79b9_7f4a_7c15) & low;
        hash ^= hash >> 33;
        hash = (hash * 0xff51_afd7_ed55_8ccd) & low;
        hash ^= hash >> 33;
    }
    hash = (hash * 0xc4ce_b9fe_1a85_ec53) & low;
    (hash ^ (hash >> 29)) as u64
}

#[test]
fn a_flow_has_the_same_hash_today_and_tomorrow() {
    // Rings and flow tables outlive a version: these values are a promise.
    let v4: Tuple<V4> = tuple(proto::TCP, "192.0.2.9:40000", "10.96.0.10:80");
    let v6: Tuple<V6> = tuple(proto::UDP, "[2001:db8::9]:40000", "[fd00::10]:53");
    let golden = [hash::tuple(SEED, &v4), hash::tuple(SEED, &v6), hash::tuple(0, &v4)];
    assert_eq!(
        golden,
        [3_994_310_743_472_606_358, 10_778_221_946_520_750_141, 17_762_302_703_694_872_374]
    );
}

#[test]
fn the_hash_is_the_one_that_is_described() {
    bolero::check!().with_type::<(u64, [u8; 4], [u8; 4], [u8; 2], [u8; 2], u8)>().for_each(
        |&(seed, src, dst, sport, dport, protocol)| {
            let [a, b, c, d] = src;
            let [e, f, g, h] = dst;
            let addresses = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let ports = [sport[0], sport[1], dport[0], dport[1], protocol, 0, 0, 0];
            let words = [addresses, u64::from_le_bytes(ports)];
            let flow = Tuple { src: V4(src), dst: V4(dst), sport, dport, protocol };
            assert_eq!(hash::tuple(seed, &flow), naive(seed, &words));
        },
    );
}

#[test]
fn every_bit_of_a_flow_turns_about_half_of_the_hash() {
    let flow: Tuple<V4> = tuple(proto::TCP, "192.0.2.9:40000", "10.96.0.10:80");
    let plain = hash::tuple(SEED, &flow);
    for bit in 0..104 {
        let mut other = flow;
        let mask = 1 << (bit % 8);
        match bit / 8 {
            at @ 0..4 => other.src.0[at] ^= mask,
            at @ 4..8 => other.dst.0[at - 4] ^= mask,
            at @ 8..10 => other.sport[at - 8] ^= mask,
            at @ 10..12 => other.dport[at - 10] ^= mask,
            _ => other.protocol ^= mask,
        }
        let turned = (hash::tuple(SEED, &other) ^ plain).count_ones();
        assert!((12..=52).contains(&turned), "bit {bit} turns {turned} of 64");
    }
}

/// Pearson's statistic over `counts`, divided by its expectation: 1 for an even draw.
fn unevenness(counts: &[u32]) -> f64 {
    let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let square: f64 = counts.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
    square / (counts.len() - 1) as f64
}

#[test]
fn one_clients_ports_and_one_nets_clients_spread_evenly_over_sets_and_slots() {
    let flow: Tuple<V4> = tuple(proto::TCP, "192.0.2.0:0", "10.96.0.10:80");
    let ports = (0..40_000_u16).map(|port| Tuple { sport: port.to_be_bytes(), ..flow });
    let clients = (0..40_000_u16).map(|client| {
        let [high, low] = client.to_be_bytes();
        Tuple { src: V4([192, 0, high, low]), ..flow }
    });
    let flows: [Vec<Tuple<V4>>; 2] = [ports.collect(), clients.collect()];
    for flows in flows {
        let (mut sets, mut slots) = ([0; 256], [0; 251]);
        for flow in &flows {
            let hash = hash::tuple(SEED, flow);
            sets[hash as usize & 255] += 1;
            slots[hash::scale(hash, 251) as usize] += 1;
        }
        // With 250 degrees of freedom the deviation of this figure is 0.09: eight of them.
        for unevenness in [unevenness(&sets), unevenness(&slots)] {
            assert!((0.28..1.72).contains(&unevenness), "{unevenness}");
        }
    }
}

#[test]
fn another_seed_is_another_hash_so_that_collisions_cannot_be_prepared() {
    let flow: Tuple<V4> = tuple(proto::TCP, "192.0.2.9:1", "10.96.0.10:80");
    let flows = (0..60_000_u16).map(|port| Tuple { sport: port.to_be_bytes(), ..flow });
    let prepared: Vec<_> =
        flows.filter(|flow| hash::scale(hash::tuple(0, flow), 64) == 0).collect();
    assert!(prepared.len() > 700, "{}", prepared.len());
    let still = prepared.iter().filter(|flow| hash::scale(hash::tuple(SEED, flow), 64) == 0);
    assert!(still.count() < prepared.len() / 16);
}

#[test]
fn scale_gives_every_number_its_equal_share_of_all_hashes() {
    for n in [1_u64, 2, 3, 251, 1021, 65_537, u64::from(u32::MAX)] {
        let scale = |high: u64| u64::from(hash::scale(high << 32, n as u32));
        assert_eq!((scale(0), scale(u64::from(u32::MAX))), (0, n - 1));
        // Number k begins at the first hash that is not below k / n.
        for k in [1, n / 3, n / 2, n - 1].into_iter().filter(|k| (1..n).contains(k)) {
            let begins = (k << 32).div_ceil(n);
            assert_eq!((scale(begins - 1), scale(begins)), (k - 1, k), "{k} of {n}");
        }
    }
}

#[test]
fn scale_stays_below_its_bound() {
    bolero::check!().with_type::<(u64, u32)>().for_each(|&(hash, n)| {
        assert!(n == 0 || hash::scale(hash, n) < n);
    });
}
