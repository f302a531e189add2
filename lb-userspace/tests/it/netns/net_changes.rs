//! The kernel says when interfaces, addresses or routes change.

use std::{fs, time::Duration};

use futures::FutureExt as _;
use lb_userspace::net::Changes;
use tokio::time::timeout;

use super::net_namespace::{alone_async, ip};

/// The end of a wait for what will never come.
const PATIENCE: Duration = Duration::from_secs(10);

async fn hear(changes: &mut Changes, what: &str) {
    let heard = timeout(PATIENCE, changes.next()).await;
    heard.unwrap_or_else(|_| panic!("no news of: {what}")).expect("a socket that works");
}

/// Whether there is nothing left to hear.
fn quiet(changes: &mut Changes) -> bool {
    changes.next().now_or_never().is_none()
}

/// Nothing happens in this network by itself: no interface is up.
fn each_is_heard_once(lines: &'static [&str]) {
    alone_async(async || {
        let mut changes = Changes::begin().unwrap();
        for line in lines {
            assert!(quiet(&mut changes), "before: {line}");
            ip(line);
            hear(&mut changes, line).await;
        }
        assert!(quiet(&mut changes));
    });
}

#[test]
fn an_interface_that_comes_is_renamed_or_goes_is_a_change() {
    each_is_heard_once(&[
        "link add eth0 type veth peer name wire",
        "link set eth0 name eth1",
        "link del eth1",
    ]);
}

#[test]
fn an_address_that_comes_or_goes_is_a_change_in_both_families() {
    each_is_heard_once(&[
        "addr add 192.0.2.1/32 dev lo",
        "addr del 192.0.2.1/32 dev lo",
        "addr add 2001:db8::1/128 dev lo nodad",
        "addr del 2001:db8::1/128 dev lo",
    ]);
}

#[test]
fn a_route_that_comes_changes_or_goes_is_a_change_in_both_families() {
    each_is_heard_once(&[
        "route add blackhole 198.18.0.0/16",
        "route replace unreachable 198.18.0.0/16",
        "route del 198.18.0.0/16",
        "-6 route add blackhole 2001:db8::/48",
        "-6 route del 2001:db8::/48",
    ]);
}

#[test]
fn an_interface_that_is_switched_on_is_a_change() {
    alone_async(async || {
        ip("link add eth0 type veth peer name wire");
        let mut changes = Changes::begin().unwrap();
        assert!(quiet(&mut changes));
        ip("link set eth0 up");
        hear(&mut changes, "eth0 up").await;
    });
}

#[test]
fn whoever_waits_already_is_woken() {
    alone_async(async || {
        let mut changes = Changes::begin().unwrap();
        let waiting = tokio::spawn(async move { changes.next().await });
        tokio::task::yield_now().await;
        ip("route add blackhole 198.18.0.0/16");
        timeout(PATIENCE, waiting).await.expect("woken").unwrap().expect("a socket that works");
    });
}

#[test]
fn more_changes_than_the_socket_can_hold_are_one_change() {
    alone_async(async || {
        let mut changes = Changes::begin().unwrap();
        let mut lost = 0;
        for third in 0..=255 {
            for table in 1..=8 {
                ip(&format!("route add blackhole 198.18.{third}.0/24 table {table}"));
            }
            lost = dropped();
            if lost > 0 {
                break;
            }
        }
        assert!(lost > 0, "the socket held all of it");

        hear(&mut changes, "the flood").await;
        assert!(quiet(&mut changes));
        ip("route add blackhole 198.19.0.0/16");
        hear(&mut changes, "a route after the flood").await;
    });
}

/// How many messages the kernel has thrown away in this network because nobody took them.
fn dropped() -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/netlink").expect("netlink's sockets");
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let titles = lines.next().expect("titles");
    let column = titles.iter().position(|title| *title == "Drops").expect("a column for drops");
    lines.map(|line| line[column].parse::<u64>().expect("a number")).sum()
}
