//! What must not leave this host. None of it is collected; should a message quote it all the same, it
//! is struck out.

use std::{fs, path::Path};

use crate::config::Config;

/// Where a pod finds its token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What stands before a secret in kubeconfigs, headers and messages.
const MARKS: [&str; 8] = [
    "bearer ",
    "token: ",
    "token=",
    "password: ",
    "password=",
    "client-key-data: ",
    "secret=",
    "id-token: ",
];
/// Shorter words are no secrets.
const SHORTEST: usize = 8;
const STRUCK: &str = "[struck out]";

/// Words that nobody may read.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of this host, as far as they can be read.
    pub fn of(config: &Config) -> Self {
        let mut secrets = Self::default();
        secrets.add_all(config.seed_file.as_deref());
        secrets.add_all(Some(Path::new(TOKEN)));
        let kubeconfig = config.kubeconfig.clone().or_else(|| {
            let named = std::env::var_os("KUBECONFIG").map(std::path::PathBuf::from);
            named.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".kube/config")))
        });
        let text = kubeconfig.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().for_each(|line| secrets.add_marked(line));
        secrets
    }

    fn add_all(&mut self, file: Option<&Path>) {
        let bytes = file.and_then(|file| fs::read(file).ok()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.split_whitespace().for_each(|word| self.add(word));
    }

    fn add_marked(&mut self, line: &str) {
        let lower = line.to_ascii_lowercase();
        for mark in MARKS {
            if let Some(at) = lower.find(mark) {
                self.add(first_word(&line[at + mark.len()..]));
            }
        }
    }

    fn add(&mut self, word: &str) {
        if word.len() >= SHORTEST {
            self.0.push(word.to_owned());
        }
    }

    /// The text without them, and without what a mark says is one.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret, STRUCK);
        }
        let lines = text.split_inclusive('\n').map(hide_marked);
        lines.collect()
    }
}

fn hide_marked(line: &str) -> String {
    let mut line = line.to_owned();
    for mark in MARKS {
        let mut from = 0;
        while let Some(at) = line[from..].to_ascii_lowercase().find(mark) {
            from += at + mark.len();
            let word = first_word(&line[from..]).to_owned();
            if word.len() >= SHORTEST && word != STRUCK {
                let start = from + line[from..].find(&word).unwrap_or(0);
                line.replace_range(start..start + word.len(), STRUCK);
            }
        }
    }
    line
}

fn first_word(text: &str) -> &str {
    let is_end = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | ',' | ';');
    text.trim_start_matches(['"', '\'', ' ']).split(is_end).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kubeconfig_and_headers_hold_is_struck_out_and_the_rest_stays() {
        let mut secrets = Secrets::default();
        secrets.add_marked("    token: \"abcdefgh-1234\"");
        secrets.add("seed-of-the-cluster");
        let text = "GET / (Authorization: Bearer eyJhbGciOi.x) abcdefgh-1234\nwith seed-of-the-cluster, \
                    password=hunter2hunter2 and token: short\n";
        let hidden = secrets.hide(text);
        let wanted = format!(
            "GET / (Authorization: Bearer {STRUCK} {STRUCK}\nwith {STRUCK}, password={STRUCK} and \
             token: short\n"
        );
        assert_eq!(hidden, wanted);
        let twice = secrets.hide("token: aaaabbbb-1, token: ccccdddd-2");
        assert_eq!(twice, format!("token: {STRUCK}, token: {STRUCK}"));
    }
}
