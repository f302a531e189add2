//! What operators do and look at: drain, top, page and sysdump.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use flate2::read::GzDecoder;
use lb_userspace::api::Level;
use serde_json::json;

use super::{Outcome, lb, lb_with, socket::Running};

#[test]
fn a_backend_is_drained_and_given_back_and_the_answer_names_it() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["drain", "10.1.1.3:8080", "--force"]);
    assert_eq!(found.code, 0, "{found:?}");
    let row: Vec<_> = found.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["10.1.1.3:8080", "web-1", "drained", "default/web:http"]);
    let json = agent.lb(&["ready", "10.1.1.3:8080", "-o", "json"]).json();
    assert_eq!((&json["kind"], &json["items"][0]["state"]), (&json!("DrainList"), &json!("ready")));
    let again = agent.lb(&["drain", "default/web-1"]).stdout;
    assert!(again.contains("drained (as before)"), "{again}");
    assert_eq!(
        agent.lb(&["drain", "default/web-1", "-o", "name"]).stdout,
        "backend/10.1.1.3:8080\n"
    );
}

#[test]
fn the_last_backend_is_not_drained_without_force_and_bad_names_are_told_apart() {
    let agent = Running::new(Level::Ok);
    agent
        .lb(&["drain", "10.1.1.3:8080"])
        .fails_with(1, "without 10.1.1.3:8080 nobody answers for default/web:http");
    for verb in ["drain", "ready"] {
        agent
            .lb(&[verb, "10.9.9.9:80"])
            .fails_with(4, "no backend on this node is called 10.9.9.9:80");
        agent.lb(&[verb, "default/none"]).fails_with(4, "default/none");
        agent.lb(&[verb, "10.1.1.4:8080"]).fails_with(1, "changes nothing when asked to");
        let wrong = agent.lb(&[verb, "10.1.1.3"]);
        let says = "`10.1.1.3` is neither ADDRESS:PORT nor NAMESPACE/POD";
        assert!(wrong.code == 2 && wrong.stderr.contains(says), "{wrong:?}");
    }
}

#[test]
fn top_needs_a_terminal_and_prints_a_screen_once_without() {
    let agent = Running::new(Level::Ok);
    agent.lb(&["top"]).fails_with(2, "lb top needs a terminal");
    insta::assert_snapshot!("top_services", agent.lb(&["top", "--once"]).stdout);
    insta::assert_snapshot!(
        "top_backends",
        agent.lb(&["top", "--once", "--service", "default/web"]).stdout
    );
    for view in ["drops", "maps", "flows"] {
        let screen = agent.lb(&["top", "--once", "--view", view]).stdout;
        insta::assert_snapshot!(format!("top_{view}"), screen);
    }
}

#[test]
fn top_shows_trends_of_a_recording_and_rates_that_nobody_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorded.jsonl");
    let line = |at: u64, connections: u64| {
        json!({"at": at, "services": [{
            "namespace": "shop", "name": "web", "portName": "http", "address": "10.96.0.10",
            "port": 80, "protocol": "TCP", "type": "ClusterIP", "backendsReady": 1,
            "backendsTotal": 1, "connections": connections, "packets": 0, "bytes": 0, "drops": 0,
            "connectionsPerSecond": connections as f64 / 10.0, "packetsPerSecond": 0.0,
            "bytesPerSecond": 0.0, "dropsPerSecond": 0.0,
        }], "servicesTotal": 1})
    };
    let lines: Vec<_> = (0..5).map(|at| line(at * 2000, at * 100).to_string()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let found = lb(&["top", "--once", "--replay", file.to_str().unwrap()]);
    assert!(found.stdout.contains("shop/web:http") && found.stdout.contains(" 40 "), "{found:?}");
    assert!(found.stdout.contains("no agent answers"), "{found:?}");
    std::fs::write(&file, "{\"at\": \"noon\"}").unwrap();
    let wrong = lb(&["top", "--once", "--replay", file.to_str().unwrap()]);
    wrong.fails_with(1, "recorded.jsonl:1: ");
}

#[test]
fn top_records_a_frame_a_line() {
    let agent = Running::new(Level::Ok);
    let found = agent.lb(&["top", "--once", "-o", "json"]);
    assert_eq!(found.stdout.lines().count(), 1, "{found:?}");
    let json = found.json();
    assert_eq!((&json["servicesTotal"], &json["lastSyncSeconds"]), (&json!(3), &json!(4.0)));
}

/// `lb page`, ended with the test.
struct Page(Child, String);

impl Page {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lb"))
            .arg("page")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        Self(child, address)
    }

    /// Asks under a host's name and reads until `enough` is there.
    fn get(&self, path: &str, host: &str, enough: &str) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(enough) {
            match stream.read(&mut bytes).unwrap() {
                0 => break,
                count => seen.extend(&bytes[..count]),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_page_is_served_on_loopback_with_frames_of_the_agent_to_who_asks_by_address() {
    let agent = Running::new(Level::Ok);
    let page = Page::start(&["--socket", agent.socket().to_str().unwrap(), "--interval", "10"]);
    let document = page.get("/", &page.1, "</html>");
    assert!(document.starts_with("HTTP/1.1 200") && document.contains("</html>"), "{document}");
    assert!(document.to_lowercase().contains("content-security-policy: default-src 'none'"));
    assert!(!document.contains("//cdn") && !document.contains("https://"), "it needs nobody else");
    let frames = page.get("/frames", &page.1, "\"lines\"");
    assert!(frames.contains("text/event-stream") && frames.contains("\"node\":\"n1\""), "{frames}");
    let strange = page.get("/frames", "attacker.example", "address");
    assert!(strange.starts_with("HTTP/1.1 403"), "{strange}");
}

#[test]
fn the_page_is_for_loopback_only_and_needs_an_agent_or_a_recording() {
    lb(&["page", "--address", "0.0.0.0:0"]).fails_with(2, "0.0.0.0:0 is no loopback address");
    lb(&["page", "--socket", "/nonexistent/lb.sock"]).fails_with(3, "not reachable");
    lb(&["page", "--replay", "/nonexistent"]).fails_with(1, "/nonexistent: ");
}

/// The archive's files with their text.
fn unpack(file: &Path) -> Vec<(String, String)> {
    let file = std::fs::File::open(file).unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Makes a dump among secrets; the archive's files.
fn dump(socket: &Path, folder: &Path) -> (Outcome, Vec<(String, String)>) {
    let (seed, kubeconfig) = (folder.join("seed"), folder.join("kubeconfig"));
    std::fs::write(&seed, "the-seed-of-this-cluster\n").unwrap();
    std::fs::write(&kubeconfig, "users:\n- name: lb\n  user: {token: tokentokentoken}\n").unwrap();
    let file = folder.join("dump.tar.gz");
    let (file_name, socket) = (file.to_str().unwrap(), socket.to_str().unwrap());
    let bpffs = folder.join("pins");
    let mut words = vec!["sysdump", file_name, "--socket", socket];
    words.extend(["--bpffs", bpffs.to_str().unwrap()]);
    words.extend(["--seed-file", seed.to_str().unwrap()]);
    words.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = lb_with(
        &words,
        |command| {
            command.env("PATH", path);
        },
        "",
    );
    assert_eq!(found.code, 0, "{found:?}");
    (found, unpack(&file))
}

#[test]
fn a_dump_has_everything_and_no_secret() {
    let agent = Running::new(Level::Ok);
    let folder = tempfile::tempdir().unwrap();
    let (found, files) = dump(&agent.socket(), folder.path());
    for name in [
        "version.txt",
        "status.json",
        "services.json",
        "backends.json",
        "drops.json",
        "flows.json",
        "maps.json",
        "interfaces.json",
        "services/default/web.json",
        "doctor.json",
        "metrics.txt",
        "config.yaml",
        "host/kernel.txt",
        "host/parameters.txt",
        "host/routes.txt",
        "agent.log",
        "missing.txt",
    ] {
        let wanted = format!("lb-sysdump/{name}");
        assert!(files.iter().any(|(name, _)| *name == wanted), "{name}: {found:?}");
    }
    for (name, text) in &files {
        for secret in ["the-seed-of-this-cluster", "tokentokentoken", "eyJhbGciOiJSUzI1NiJ9"] {
            assert!(!text.contains(secret), "{secret} in {name}");
        }
    }
    let log = &files.iter().find(|(name, _)| name.ends_with("agent.log")).unwrap().1;
    assert!(log.contains("in the kernel") && log.contains("Bearer [struck out]"), "{log}");
    // What there was no answer to is named: this agent has no plan yet, and nothing is pinned.
    let missing = &files.iter().find(|(name, _)| name.ends_with("missing.txt")).unwrap().1;
    assert!(missing.contains("plan.json: the listing is not complete yet"), "{missing}");
    assert!(found.stdout.contains("without pins.txt: "), "{found:?}");
}

#[test]
fn a_dump_without_an_agent_says_what_is_missing_and_harms_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (found, files) = dump(Path::new("/nonexistent/lb.sock"), folder.path());
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["doctor.json", "config.yaml", "host/kernel.txt", "missing.txt"] {
        assert!(names.contains(&format!("lb-sysdump/{name}").as_str()), "{names:?}");
    }
    assert!(found.stdout.contains("without status.json: the agent is not reachable"), "{found:?}");
    let file = folder.path().join("dump.tar.gz");
    lb(&["sysdump", file.to_str().unwrap()]).fails_with(1, "dump.tar.gz: ");
    assert_eq!(unpack(&file).len(), files.len(), "it is as it was");
}
