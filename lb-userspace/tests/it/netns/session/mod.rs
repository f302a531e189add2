//! An operator's five questions, asked in a real terminal and in a real browser on a living agent.
//!
//! `cargo xtask session` writes what was typed and seen to `docs/operators.md` and the pictures beside
//! it.

mod browser;
mod terminal;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_userspace::lab::{Agent, Load};
use serde_json::{Value, json};

use self::{browser::Browser, terminal::Terminal};
use super::world::{POD_PORT, Pod, V4, World, address, node_address};

/// The document, with `{{NAME}}` where something was typed and shown.
const DOCUMENT: &str = include_str!("operators.md");

/// How often each client dials.
const OFTEN: Duration = Duration::from_millis(50);

/// A Service of the shop that also has a NodePort.
fn service(name: &str, number: u8, more: &Value, endpoints: &[(&str, Value)]) -> Vec<Value> {
    let mut spec = json!({
        "type": "NodePort", "clusterIP": format!("10.96.0.{number}"), "selector": {"app": name},
        "ports": [{
            "name": "http", "port": 80, "targetPort": POD_PORT, "nodePort": 30000 + u16::from(number),
        }],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let endpoints = endpoints.iter().map(|(pod, endpoint)| {
        let mut endpoint = endpoint.clone();
        endpoint["targetRef"] =
            json!({"kind": "Pod", "namespace": "shop", "name": pod, "uid": pod});
        endpoint
    });
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-1"), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": POD_PORT}],
        }),
    ]
}

fn endpoint(pod: &Pod, ready: bool) -> Value {
    json!({
        "addresses": [pod.addresses[V4]], "nodeName": format!("n{}", pod.node),
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
    })
}

/// A shop with something wrong: `cart` has one client and session affinity, a pod of it never gets
/// ready, and nobody has started a pod of `reports`.
struct Shop {
    agent: Agent,
    _loads: Vec<Load>,
    _pods: Vec<Pod>,
    world: World,
}

impl Shop {
    fn open() -> Self {
        let world = World::new("session");
        let pods = vec![
            world.pod(1, 10),
            world.pod(1, 11),
            world.pod(1, 12),
            world.pod(2, 10),
            world.pod(2, 11),
        ];
        let shell = world.pod(1, 20);
        let [web1, cart1, cart2, web2, cart3] = &pods[..] else { panic!("five") };
        let web = [("web-7d4f9", endpoint(web1, true)), ("web-x2c8k", endpoint(web2, true))];
        world.put("web", &service("web", 80, &Value::Null, &web));
        let cart = [
            ("cart-5b6c7", endpoint(cart1, true)),
            ("cart-9k2lm", endpoint(cart2, false)),
            ("cart-q8w3r", endpoint(cart3, true)),
        ];
        let affinity = json!({"sessionAffinity": "ClientIP"});
        world.put("cart", &service("cart", 81, &affinity, &cart));
        world.put("reports", &service("reports", 82, &Value::Null, &[]));
        let flags = ["--xdp-mode", "native", "--page-address", "127.0.0.1:10250"];
        let agent = world.agent(1, &[&flags[..], &["--flow-table-bytes", "4MiB"]].concat());
        let to = |number: u16| (node_address(1, V4), 30000 + number).into();
        let inside = (address("10.96.0.80"), 80).into();
        let loads = vec![
            Load::start(&world.client, to(80), OFTEN),
            Load::start(&world.client, to(81), OFTEN),
            Load::start(&world.client, to(82), 5 * OFTEN),
            Load::start(&shell.host, inside, 2 * OFTEN),
        ];
        let pods = pods.into_iter().chain([shell]).collect();
        Self { agent, _loads: loads, _pods: pods, world }
    }
}

/// What the lines have beside the command in front of them; a sentence may go on in the next.
fn has(said: &str, parts: &[&str]) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(words(said).contains(&words(part)), "{part} is not in\n{said}");
    }
}

/// Where documents go: into the tree if somebody wants them, else nowhere that stays.
fn docs(folder: &Path) -> PathBuf {
    let docs = env::var_os("LB_SESSION").map_or_else(|| folder.join("docs"), PathBuf::from);
    fs::create_dir_all(docs.join("images")).unwrap();
    docs
}

#[test]
fn five_questions_are_answered_by_one_command_or_one_look_each() {
    let shop = Shop::open();
    let folder = shop.world.lab.folder();
    let docs = docs(&folder);
    let terminal = Terminal::open(&shop.agent, &folder);
    let mut typed: Vec<(&str, String)> = Vec::new();

    // Enough has happened once the client was refused and its requests have rates.
    terminal.until("a rate", |_| {
        let rows = shop.agent.json(["get", "drops"]).unwrap();
        rows["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["dropsPerSecond"].as_f64() > Some(0.0))
    });

    // Why is a packet dropped?
    let drops = terminal.run("lb get drops");
    has(&drops, &["no-endpoints", "tcp 203.0.113.9:", "> 192.168.10.1:30082", "start pods"]);
    let explained = terminal.run("lb explain tcp 203.0.113.9:40000 192.168.10.1:30082");
    has(
        &explained,
        &["reject (no-endpoints)", "shop/reports:http", "docs/datapath.md#no-endpoints"],
    );
    typed.push(("drops", drops + &explained));

    // Which backend takes an uneven share?
    let shares = terminal.run("lb get backends shop/cart --sort-by share%");
    let rows: Vec<&str> = shares.lines().skip(2).collect();
    assert!(rows[0].contains(" 100.0 ") && rows[1].contains(" 0.0 "), "{shares}");
    typed.push(("shares", shares));

    // Why is an endpoint not used?
    let described = terminal.run("lb describe service shop/cart");
    let reason = "not ready: its readiness probe fails";
    has(&described, &["Session affinity:         client", "cart-9k2lm", reason, "in the kernel"]);
    typed.push(("described", described));

    // Is this node up to date?
    let status = terminal.run("lb status");
    has(&status, &["Source:    Ok", "Last sync: Ok", "in all: no-endpoints"]);
    typed.push(("status", status));

    // How full are the tables?
    let maps = terminal.run("lb get maps --sort-by % | head -8");
    assert!(maps.lines().nth(2).is_some_and(|line| line.starts_with("FLOWS_V4")), "{maps}");
    typed.push(("maps", maps));

    // The same to look at, in the terminal.
    let mut browser = Browser::start(shop.agent.node(), &folder);
    terminal.begin("lb top --interval 1");
    let trends = |screen: &str| {
        let blocks =
            |line: &str| line.chars().filter(|letter| ('▁'..='█').contains(letter)).count();
        screen.lines().any(|line| line.contains("shop/cart:http") && blocks(line) > 8)
    };
    has(&terminal.until_screen("a trend", trends), &["n1 Ok", "1 Services", "shop/reports:http"]);
    show(&mut browser, &terminal.screen(), &docs.join("images/top.png"));
    terminal.press(&["Enter"]);
    let opened = terminal.until_screen("one Service", |screen| screen.contains("WEIGHT"));
    has(&opened, &["10.244."]);
    show(&mut browser, &terminal.screen(), &docs.join("images/top-backends.png"));
    terminal.press(&["q"]);

    // And in the browser.
    browser.open("http://127.0.0.1:10250/");
    browser.until("document.querySelectorAll('#drop-chart rect').length > 9");
    let mut text = |selector: &str| {
        let all = format!(
            "[...document.querySelectorAll('{selector}')].map(it => it.innerText).join('\\n')"
        );
        browser.value(&all).as_str().unwrap().to_owned()
    };
    has(&text("#drop-rows"), &["no-endpoints", "203.0.113.9", "start pods that are ready"]);
    has(&text("#cards"), &["shop/cart:http", "100.0", "0.0"]);
    has(&text("#sync"), &["s ago"]);
    has(&text("#map-rows tr:first-child"), &["FLOWS_V4"]);
    has(&text("#level"), &["Ok"]);
    for (width, shade, name) in [
        (1280, "light", "page"),
        (1280, "dark", "page-dark"),
        (360, "light", "page-phone"),
        (360, "dark", "page-phone-dark"),
    ] {
        browser.picture(width, shade, &docs.join(format!("images/{name}.png")));
    }

    let mut document = DOCUMENT.to_owned();
    for (name, said) in &typed {
        let place = format!("{{{{{name}}}}}");
        assert!(document.contains(&place), "{place}");
        document = document.replace(&place, said.trim_end());
    }
    fs::write(docs.join("operators.md"), document).unwrap();
}

#[test]
fn the_document_is_what_the_session_writes_but_for_what_was_shown() {
    let written = include_str!("../../../../../docs/operators.md");
    let mut rest = written;
    for part in DOCUMENT.split("{{").map(|part| part.split_once("}}").map_or(part, |it| it.1)) {
        let at = rest.find(part);
        assert!(
            at.is_some(),
            "write docs/operators.md anew (`cargo xtask session`), it lacks:\n{part}"
        );
        rest = &rest[at.unwrap_or_default() + part.len()..];
    }
    assert_eq!(rest, "");
}

/// Shows a page of HTML and keeps what it looks like.
fn show(browser: &mut Browser, page: &str, file: &Path) {
    browser.value(&format!("document.documentElement.innerHTML = {}", json!(page)));
    browser.picture(890, "dark", file);
}
