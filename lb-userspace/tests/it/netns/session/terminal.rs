//! A real terminal on a host (tmux), in which somebody types.

use std::{
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use lb_userspace::lab::{Agent, PATIENCE};

/// What tables are made for.
const COLUMNS: &str = "100";
const LINES: &str = "24";

pub struct Terminal {
    socket: PathBuf,
    prompt: String,
}

impl Terminal {
    /// A shell on the agent's node, where `lb` is that agent's.
    pub fn open(agent: &Agent, folder: &Path) -> Self {
        let programs = folder.join("programs");
        fs::create_dir(&programs).unwrap();
        symlink(env!("CARGO_BIN_EXE_lb"), programs.join("lb")).unwrap();
        let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
        let socket = folder.join("tmux");
        let prompt = format!("{}#", agent.node().name());
        // What an interactive shell reads first.
        let profile = folder.join("profile.sh");
        fs::write(&profile, format!("PS1='{prompt} '\n")).unwrap();
        let mut tmux = agent.node().command("tmux").unwrap();
        tmux.arg("-u").arg("-S").arg(&socket).args(["-f", "/dev/null", "new-session", "-d"]);
        tmux.args(["-x", COLUMNS, "-y", LINES, "exec sh"]);
        tmux.env("LB_SOCKET", agent.socket()).env("LB_BPFFS", agent.bpffs());
        tmux.env("PATH", path).env("ENV", &profile);
        tmux.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR").env_remove("TMUX");
        let status = tmux.status().expect("tmux: `cargo xtask setup test` installs it");
        assert!(status.success(), "tmux: {status}");
        let terminal = Self { socket, prompt };
        terminal.until("a prompt", |screen| screen.trim_end() == terminal.prompt);
        terminal
    }

    /// Types a command and waits for its end; the prompt, the command, and all that it said.
    pub fn run(&self, command: &str) -> String {
        let before = self.prompts();
        self.keys(&["-l", command]);
        self.keys(&["Enter"]);
        let text = self.until(command, |text| {
            text.trim_end().ends_with(&self.prompt) && prompts(text, &self.prompt) > before
        });
        let typed = text.rfind(&format!("{} {command}", self.prompt)).expect("what was typed");
        let said = text[typed..].trim_end().strip_suffix(&self.prompt).expect("a prompt");
        let wide = said.lines().find(|line| line.chars().count() > 100);
        assert!(wide.is_none() || !command.contains(" get "), "wider than the terminal: {wide:?}");
        said.to_owned()
    }

    /// Presses keys, by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        self.keys(keys);
    }

    /// Types a command that takes the screen.
    pub fn begin(&self, command: &str) {
        self.keys(&["-l", command]);
        self.keys(&["Enter"]);
    }

    /// Looks until all that was shown so far is what is waited for.
    pub fn until(&self, what: &str, shown: impl Fn(&str) -> bool) -> String {
        self.look(&["-S", "-"], what, shown)
    }

    /// Looks until the screen is what is waited for.
    pub fn until_screen(&self, what: &str, shown: impl Fn(&str) -> bool) -> String {
        self.look(&[], what, shown)
    }

    /// Each look is a process of its own, which paces this.
    fn look(&self, from: &[&str], what: &str, shown: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + 30 * PATIENCE;
        loop {
            let text = self.tmux(&[&["capture-pane", "-p", "-J"], from].concat());
            if shown(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "never {what}:\n{text}");
        }
    }

    /// The screen as a page of HTML.
    pub fn screen(&self) -> String {
        page(&self.tmux(&["capture-pane", "-p", "-e"]))
    }

    fn prompts(&self) -> usize {
        prompts(&self.tmux(&["capture-pane", "-p", "-J", "-S", "-"]), &self.prompt)
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output =
            Command::new("tmux").args(["-u", "-S"]).arg(&self.socket).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").status().unwrap();
    }
}

fn prompts(text: &str, prompt: &str) -> usize {
    text.lines().filter(|line| line.starts_with(prompt)).count()
}

/// Colours of a terminal, dark and bright.
const COLOURS: [&str; 16] = [
    "#1b2129", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0",
    "#7f8794", "#ff7b86", "#b5e890", "#ffd68a", "#82c4ff", "#e29bf5", "#7fd8e4", "#ffffff",
];
const PAPER: &str = "#11161d";

/// How the next letters look.
#[derive(Default)]
struct Style {
    ink: Option<usize>,
    paper: Option<usize>,
    bold: bool,
    dim: bool,
    turned: bool,
}

impl Style {
    /// Takes in the numbers of one escape sequence (SGR).
    fn take(&mut self, numbers: &str) {
        let numbers: Vec<usize> = numbers.split(';').map(|it| it.parse().unwrap_or(0)).collect();
        match numbers[..] {
            // Of 256 colours the first are the terminal's own.
            [38, 5, ink] => self.ink = Some(ink),
            [48, 5, paper] => self.paper = Some(paper),
            _ => numbers.into_iter().for_each(|number| self.take_one(number)),
        }
    }

    fn take_one(&mut self, number: usize) {
        match number {
            0 => *self = Self::default(),
            1 => self.bold = true,
            2 => self.dim = true,
            7 => self.turned = true,
            22 => (self.bold, self.dim) = (false, false),
            27 => self.turned = false,
            30..=37 => self.ink = Some(number - 30),
            39 => self.ink = None,
            40..=47 => self.paper = Some(number - 40),
            49 => self.paper = None,
            90..=97 => self.ink = Some(number - 82),
            100..=107 => self.paper = Some(number - 92),
            _ => panic!("a colour that no command shows: {number}"),
        }
    }

    fn css(&self) -> String {
        let ink = self.ink.map_or(COLOURS[7], |at| COLOURS[at]);
        let paper = self.paper.map_or(PAPER, |at| COLOURS[at]);
        let (ink, paper) = if self.turned { (paper, ink) } else { (ink, paper) };
        let weight = if self.bold { ";font-weight:bold" } else { "" };
        let faint = if self.dim { ";opacity:.6" } else { "" };
        format!("color:{ink};background:{paper}{weight}{faint}")
    }
}

/// Text with a terminal's escape sequences as a page.
fn page(text: &str) -> String {
    let mut body = String::new();
    let mut style = Style::default();
    for (at, part) in text.trim_end().split("\x1b[").enumerate() {
        let letters = match at {
            0 => part,
            _ => {
                let (numbers, letters) = part.split_once('m').expect("a colour");
                style.take(numbers);
                letters
            }
        };
        let letters = letters.replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(body, "<span style=\"{}\">{letters}</span>", style.css());
    }
    format!(
        "<body style=\"margin:0;background:{PAPER}\"><pre style=\"margin:0;padding:12px;font:14px/1.25 \
         'DejaVu Sans Mono',monospace\">{body}</pre>"
    )
}
