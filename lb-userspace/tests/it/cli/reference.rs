//! Man pages and completions, which are made from the commands themselves: complete, and such as their
//! readers take.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Stdio},
};

use super::lb;

/// The flags of every command that people see, by its whole name.
fn commands(folder: &std::path::Path) -> BTreeMap<String, BTreeSet<String>> {
    assert_eq!(lb(&["docs", folder.to_str().unwrap()]).code, 0);
    let text = fs::read_to_string(folder.join("cli.md")).unwrap();
    let mut found = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (name, help) = section.split_once('\n').unwrap();
        let words = help.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        let flags = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let of_lines = flags.flat_map(|line| line.split([' ', ',', '=', '[']).take(8));
        let known: BTreeSet<_> = of_lines.filter(|word| word.starts_with("--")).collect();
        let named = words.filter(|word| known.contains(word)).map(str::to_owned).collect();
        found.insert(name.to_owned(), named);
    }
    found
}

#[test]
fn every_command_has_a_man_page_with_each_of_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands(folder.path());
    assert!(commands.len() >= 20, "{commands:?}");
    for (name, flags) in commands {
        let page = folder.path().join("man").join(name.replace(' ', "-") + ".1");
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".TH ") && page.contains(".SH SYNOPSIS"), "{name}");
        for flag in flags {
            assert!(page.contains(&flag.replace('-', "\\-")), "{name}: {flag}");
        }
    }
}

#[test]
fn every_shell_completes_every_command_and_flag() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands(folder.path());
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = lb(&["completion", shell]).stdout;
        for (name, flags) in &commands {
            let verb = name.rsplit(' ').next().unwrap();
            assert!(script.contains(verb), "{shell}: {name}");
            for flag in flags {
                // Fish names a flag without its dashes.
                let known = script.contains(flag.as_str())
                    || script.contains(&format!("-l {}", flag.trim_start_matches('-')));
                assert!(known, "{shell}: {name} {flag}");
            }
        }
    }
}

#[test]
fn bash_takes_its_script_and_completes_a_verb_with_it() {
    let script = lb(&["completion", "bash"]).stdout;
    let ask = "eval \"$1\"; COMP_WORDS=(lb unin) COMP_CWORD=1; _lb lb unin lb; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", ask, "bash", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "uninstall", "{}", String::from_utf8_lossy(&output.stderr));
}
