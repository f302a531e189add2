//! The live page in a real browser, fed from a recording.

mod recording;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use axum::{Router, extract::Path, response::Html, routing::get};
use lb_userspace::page::{PAGE, http, replay::Replay};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::recording::frame;

/// Frames of the recording.
const FRAMES: u64 = 60;
/// How long a browser may compute, in its own time.
const BUDGET: &str = "--virtual-time-budget=30000";

/// A frame of that width with the harness in it: windows refuse to be as narrow as a phone. What it
/// writes down is written here.
fn framed(width: u32) -> String {
    format!(
        "<!doctype html><iframe src='/harness' style='width:{width}px;height:900px;border:0'></iframe>\
         <script>const waiting = setInterval(() => {{\
         const found = document.querySelector('iframe').contentDocument.getElementById('results');\
         if (!found) return; clearInterval(waiting);\
         document.body.append(document.importNode(found, true)); }}, 50)</script>"
    )
}

/// The page on a port of its own, as `/`, and as `/harness` with a script at its end.
struct Site {
    address: SocketAddr,
    cancel: CancellationToken,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Site {
    fn new(harness: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("frames.jsonl");
        let lines = (0..FRAMES).map(|number| serde_json::to_string(&frame(number)).unwrap() + "\n");
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        let replay = Replay::open(&file, Duration::from_millis(1)).unwrap();
        let cancel = CancellationToken::new();
        let page = PAGE.replace("</body>", &format!("<script>{harness}</script></body>"));
        let harness = get(move || std::future::ready(Html(page)));
        // The harness is no part of the page, and not held to its policy.
        let framed = get(|width: Path<u32>| std::future::ready(Html(framed(width.0))));
        let router = Router::new().route("/harness", harness).route("/framed/{width}", framed);
        let router = router.merge(http::router(replay, cancel.clone()));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(http::bind(([127, 0, 0, 1], 0).into())).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, cancel, folder, _runtime: runtime }
    }

    /// Runs the browser; what it prints.
    fn browse(&self, path: &str, arguments: &[&str]) -> String {
        let profile = self.folder.path().join("profile");
        let output = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", BUDGET])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(arguments)
            .arg(format!("http://{}{path}", self.address))
            .stdin(Stdio::null())
            .output()
            .expect("chromium: `cargo xtask setup test` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn screenshot(&self, width: u32, dark: bool) -> PathBuf {
        let shade = if dark { "dark" } else { "light" };
        let folder = std::env::var_os("LB_SCREENSHOTS").map(PathBuf::from);
        let file = folder
            .unwrap_or_else(|| self.folder.path().into())
            .join(format!("{width}-{shade}.png"));
        let height = if width < 800 { 2500 } else { 1250 };
        self.browse(
            "/",
            &[
                &format!("--screenshot={}", file.display()),
                &format!("--window-size={width},{height}"),
                // The browser's own words: 0 is dark.
                &format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)),
            ],
        );
        file
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// What the harness has found out: it waits until the recording is over, does what people do, and
/// writes everything down.
const HARNESS: &str = r##"
const found = {};
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const text = selector => [...document.querySelectorAll(selector)].map(node => node.textContent.trim());
addEventListener("error", event => { found.error = String(event.message); });
const waiting = setInterval(() => {
  if (document.body.dataset.ended !== "yes") return;
  clearInterval(waiting);
  found.title = document.title;
  found.level = document.getElementById("level").dataset.level;
  found.said = document.getElementById("said").textContent;
  found.sync = document.getElementById("sync").textContent;
  found.cards = text("#cards h3");
  found.rows = document.querySelectorAll("#cards tbody tr").length;
  found.drained = text("#cards tr.off th");
  found.measure = document.getElementById("measure").value;
  found.drops = text("#drop-rows th");
  found.bars = document.querySelectorAll("#drop-chart rect").length;
  found.ways = text("#path-rows tr:first-child > *");
  found.columns = text("#path-chart text.axis");
  found.ribbons = document.querySelectorAll("#path-chart path").length;
  found.fullest = text("#map-rows tr:first-child > *");
  found.full = document.querySelector("#map-rows tr").className;
  found.meters = [...document.querySelectorAll("[role=meter]")].every(it => it.getAttribute("aria-label") && it.getAttribute("aria-valuenow"));
  found.labelled = [...document.querySelectorAll("section, [role=img]")].every(it => it.getAttribute("aria-labelledby") || it.getAttribute("aria-label"));
  found.headers = [...document.querySelectorAll("th")].every(it => it.scope);
  const kept = document.querySelector("#cards tbody tr");
  document.getElementById("service").value = "shop/api:grpc TCP";
  document.getElementById("service").dispatchEvent(new Event("change"));
  found.chosen = text("#cards h3");
  document.getElementById("measure").value = "connectionsPerSecond";
  document.getElementById("measure").dispatchEvent(new Event("change"));
  found.clients = [...new Set(text("#path-rows th"))];
  press("p");
  found.paused = [paused, document.getElementById("pause").getAttribute("aria-pressed"), document.getElementById("said").textContent];
  take({ ...last, lastSyncSeconds: 77 });
  found.frozen = document.getElementById("sync").textContent;
  press("p");
  found.thawed = document.getElementById("sync").textContent;
  press("s"); found.focus = [document.activeElement.id];
  document.activeElement.blur(); press("m"); found.focus.push(document.activeElement.id);
  take({ ...last, backends: [...last.backends].reverse() });
  document.getElementById("service").value = ""; document.getElementById("service").dispatchEvent(new Event("change"));
  events.dispatchEvent(new MessageEvent("problem", { data: "map FLOWS_V4 is gone" })); found.lost = document.getElementById("level").dataset.level;
  take({ ...last, status: null, backends: [], services: [], drops: [], maps: [], clients: [], lastSyncSeconds: null });
  found.nothing = [text("#level")[0], text("#more")[0], text("#drop-summary")[0], text("#path-chart")[0], text("#sync")[0]];
  const html = { ...last, status: { node: "<img src=x onerror=alert(1)>", lines: [] } };
  take(html); found.images = document.querySelectorAll("img").length;
  const results = document.createElement("pre");
  results.id = "results"; results.textContent = JSON.stringify(found);
  document.body.append(results);
}, 50);
"##;

#[test]
fn the_page_shows_what_happens_and_does_what_keys_say_in_a_real_browser() {
    let site = Site::new(HARNESS);
    let dom = site.browse("/harness", &["--dump-dom"]);
    let found = results(&dom);
    assert_eq!(found["error"], Value::Null, "{found:#}");
    let is = |key: &str, wanted: Value| assert_eq!(found[key], wanted, "{key} in {found:#}");
    is("title", "node-1 Warn: Flows".into());
    is("level", "warn".into());
    is("said", "node-1: Warn: Flows".into());
    is("sync", "59 s ago".into());
    is("measure", "packetsPerSecond".into());
    is("rows", 9.into());
    is("drained", serde_json::json!(["10.244.1.15:8080 (drained)"]));
    let cards = found["cards"].as_array().unwrap();
    assert!(
        cards.len() == 3 && cards[0].as_str().unwrap().starts_with("shop/web:http"),
        "{found:#}"
    );
    assert_eq!(found["drops"].as_array().unwrap().len(), 3);
    // Two reasons at a time, in a third of the moments.
    is("bars", (2 * FRAMES / 3).into());
    let way = found["ways"].as_array().unwrap();
    assert_eq!((&way[0], &way[1]), (&"203.0.113.9".into(), &"shop/api:grpc".into()), "{found:#}");
    is("columns", serde_json::json!(["client", "Service", "backend", "node"]));
    assert!(found["ribbons"].as_u64().unwrap() > 12, "{found:#}");
    is("fullest", serde_json::json!(["FLOWS_V4", "", "78.2", "410.0k", "524.3k"]));
    is("full", "half".into());
    for key in ["meters", "labelled", "headers"] {
        is(key, true.into());
    }
    let chosen = found["chosen"].as_array().unwrap();
    assert!(
        chosen.len() == 1 && chosen[0].as_str().unwrap().starts_with("shop/api:grpc"),
        "{found:#}"
    );
    is("clients", serde_json::json!(["all clients"]));
    is("paused", serde_json::json!([true, "true", "Paused"]));
    is("frozen", "59 s ago".into());
    is("thawed", "77 s ago".into());
    is("focus", serde_json::json!(["service", "measure"]));
    is("lost", "lost".into());
    let nothing = [
        "no agent",
        "No Service has a backend.",
        "Nothing was refused.",
        "no traffic in connections/s",
        "never",
    ];
    is("nothing", serde_json::json!(nothing));
    is("images", 0.into());
}

#[test]
fn nothing_sticks_out_of_the_screen_whatever_its_width() {
    let harness = r#"
      const waiting = setInterval(() => {
        if (document.body.dataset.ended !== "yes") return;
        clearInterval(waiting);
        const width = document.documentElement.clientWidth;
        const out = [...document.querySelectorAll("main *, header *")].filter(it => !it.closest(".wrap, .out, svg, details:not([open]) > div") && it.getBoundingClientRect().right > width + 1);
        document.body.append(Object.assign(document.createElement("pre"), { id: "results", textContent: JSON.stringify([width, document.documentElement.scrollWidth, out.map(it => it.outerHTML.slice(0, 80))]) }));
      }, 50);"#;
    for wanted in [360, 1024, 1920] {
        let site = Site::new(harness);
        let width = format!("--window-size={},1000", wanted + 300);
        let dom = site.browse(&format!("/framed/{wanted}"), &["--dump-dom", &width]);
        let found = results(&dom);
        assert_eq!(found[0], wanted, "the page is as wide as it was told");
        assert!(found[1].as_u64().unwrap() <= wanted, "{wanted}: {found:#}");
        assert_eq!(found[2], serde_json::json!([]), "{wanted}");
    }
}

/// What a harness wrote down.
fn results(dom: &str) -> Value {
    let text = dom.split("<pre id=\"results\">").nth(1).and_then(|it| it.split("</pre>").next());
    let text = text.unwrap_or_else(|| panic!("the harness came to no end:\n{dom}"));
    serde_json::from_str(&text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        .unwrap()
}

#[test]
fn light_and_dark_are_drawn_as_the_viewer_likes() {
    let site = Site::new("");
    let files = [false, true].map(|dark| site.screenshot(1024, dark));
    let brightness = files.each_ref().map(|file| corner(file));
    assert!(brightness[0] > 200 && brightness[1] < 60, "{brightness:?}");
    if std::env::var_os("LB_SCREENSHOTS").is_some() {
        for width in [360, 1920] {
            for dark in [false, true] {
                site.screenshot(width, dark);
            }
        }
    }
}

/// How bright the first pixel of a PNG is: its first line has no filter that matters for it.
fn corner(file: &std::path::Path) -> u8 {
    use std::io::Read as _;
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let (mut at, mut packed) = (8, Vec::new());
    while at + 8 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if &bytes[at + 4..at + 8] == b"IDAT" {
            packed.extend(&bytes[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    let mut line = [0; 4];
    flate2::read::ZlibDecoder::new(&packed[..]).read_exact(&mut line).unwrap();
    // A filter's number, then red, green and blue.
    line[1]
}
