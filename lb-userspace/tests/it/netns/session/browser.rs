//! A real browser on a host, told what to do through a pipe: the DevTools protocol, without a port.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{ChildStdin, ChildStdout, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lb_userspace::lab::{Host, Process};
use serde_json::{Value, json};

/// Both pipes are the child's standard ones, moved to where the browser looks for them.
const MOVED: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

pub struct Browser {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// The one page's.
    session: Option<String>,
    last: u64,
    // Goes last: it is ended with it.
    _process: Process,
}

impl Browser {
    /// Starts one with an empty page; what it writes is under `folder`.
    pub fn start(host: &Host, folder: &Path) -> Self {
        let mut command = host.command("sh").unwrap();
        command.args(["-c", MOVED, "sh", "chromium", "--headless=new", "--no-sandbox"]);
        command.args(["--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
        command.args(["--no-first-run", "--disable-background-networking"]);
        command.arg(format!("--user-data-dir={}", folder.join("profile").display()));
        command.arg("--remote-debugging-pipe");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(host, &mut command).unwrap();
        let to = process.child().stdin.take().unwrap();
        let from = BufReader::new(process.child().stdout.take().unwrap());
        let mut browser = Self { to, from, session: None, last: 0, _process: process };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let page = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &page);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser
    }

    /// Opens a page.
    pub fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", &json!({"url": url}));
        assert_eq!(answer["errorText"], Value::Null, "{url}");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let how = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &how);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression holds in the page.
    pub fn until(&mut self, expression: &str) {
        let looks = format!(
            "new Promise(found => {{ const look = () => ({expression}) ? found() : setTimeout(look, 50); \
             look(); }})"
        );
        self.value(&looks);
    }

    /// What the page looks like in a window so many pixels wide, from its top to its end.
    pub fn picture(&mut self, width: u32, shade: &str, file: &Path) {
        let window = |height: u64| {
            let mobile = width < 800;
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile})
        };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": shade}]});
        self.call("Emulation.setEmulatedMedia", &features);
        self.call("Emulation.setDeviceMetricsOverride", &window(100));
        // The next two frames that it draws are as wide as that.
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
        let height = self.value("document.documentElement.scrollHeight").as_u64().unwrap();
        self.call("Emulation.setDeviceMetricsOverride", &window(height));
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        fs::write(file, STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// One command and its answer.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        write!(self.to, "{message}\0").expect("chromium: `cargo xtask setup test` installs it");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser ended during {method}");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            // What it tells without being asked is for nobody here.
            if answer["id"] == self.last {
                assert_eq!(answer["error"], Value::Null, "{method} {parameters}");
                return answer["result"].clone();
            }
        }
    }
}
