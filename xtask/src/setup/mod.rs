//! `cargo xtask setup`: finds or installs what the other verbs need. The checks are quick and ask
//! no network, so every verb makes them first; nothing is touched when all is there.

mod apt;
mod cargo_tools;
mod linker;
mod rust_src;
mod unpacked;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{image, process};

/// What to set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Compiling, the eBPF object included
    Build,
    /// Running the tests
    Test,
    /// Running the demo
    Demo,
    /// Formatting, clippy, invariants and licences
    Lint,
    /// Booting other kernels
    Vm,
    /// Making the container image and its bill of materials
    Image,
    /// Everything
    All,
}

/// One thing a machine must have.
struct Need {
    name: &'static str,
    why: &'static str,
    scopes: &'static [Scope],
    /// Without network, in milliseconds.
    is_here: fn() -> bool,
    install: fn() -> Result<()>,
    /// What to type where `install` cannot.
    by_hand: fn() -> String,
}

const NEEDS: &[Need] = &[
    Need {
        name: "a C compiler",
        why: "rustc links with it, and some crates hold C",
        scopes: &[Scope::Build, Scope::Test, Scope::Demo, Scope::Lint, Scope::Vm, Scope::Image],
        is_here: || process::find("cc").is_some(),
        install: || apt::install(&["gcc", "libc6-dev"]),
        by_hand: || apt::by_hand(&["gcc", "libc6-dev"]),
    },
    Need {
        name: "rust-src",
        why: "`core` is compiled from source for the BPF target",
        scopes: &[Scope::Build, Scope::Test, Scope::Demo, Scope::Lint, Scope::Vm, Scope::Image],
        is_here: rust_src::is_here,
        install: rust_src::install,
        by_hand: || "rustup component add rust-src".to_owned(),
    },
    Need {
        name: "bpf-linker",
        why: "links eBPF objects; compiling it takes a minute or two",
        scopes: &[Scope::Build, Scope::Test, Scope::Demo, Scope::Lint, Scope::Vm, Scope::Image],
        is_here: linker::is_here,
        install: linker::install,
        by_hand: linker::by_hand,
    },
    Need {
        name: "network programs",
        why: "tests and demo lay out nodes, pods and firewalls in network namespaces",
        scopes: &[Scope::Test, Scope::Demo, Scope::Vm],
        is_here: || apt::missing(apt::PROGRAMS).is_empty(),
        install: || apt::install(&apt::missing(apt::PROGRAMS)),
        by_hand: || apt::by_hand(&apt::missing(apt::PROGRAMS)),
    },
    Need {
        name: "QEMU and busybox",
        why: "other kernels run in virtual machines, and those in a file system of busybox",
        scopes: &[Scope::Vm],
        is_here: || apt::missing(apt::GUESTS).is_empty(),
        install: || apt::install(&apt::missing(apt::GUESTS)),
        by_hand: || apt::by_hand(&apt::missing(apt::GUESTS)),
    },
    Need {
        name: "cargo-nextest",
        why: "runs the tests: one process each, limits on time and on how many at once",
        scopes: &[Scope::Test],
        is_here: || cargo_tools::is_here("cargo-nextest"),
        install: || cargo_tools::install("cargo-nextest"),
        by_hand: || cargo_tools::by_hand("cargo-nextest"),
    },
    Need {
        name: "promtool",
        why: "checks and tests the alert rules; it alone is taken out of Debian's prometheus",
        scopes: &[Scope::Test],
        is_here: || process::find("promtool").is_some(),
        install: unpacked::promtool,
        by_hand: || apt::by_hand(&["prometheus"]),
    },
    Need {
        name: "helm and kubectl",
        why: "render the chart and the manifests",
        scopes: &[Scope::Test],
        is_here: || ["helm", "kubectl"].iter().all(|name| process::find(name).is_some()),
        install: unpacked::charts,
        by_hand: unpacked::charts_by_hand,
    },
    Need {
        name: "systemd-analyze",
        why: "verifies the unit",
        scopes: &[Scope::Test],
        is_here: || process::find("systemd-analyze").is_some(),
        install: || apt::install(&["systemd"]),
        by_hand: || apt::by_hand(&["systemd"]),
    },
    Need {
        name: "buildah, podman or docker",
        why: "makes the container image",
        scopes: &[Scope::Image],
        is_here: image::maker_is_here,
        install: || apt::install(&["buildah"]),
        by_hand: || apt::by_hand(&["buildah"]),
    },
    Need {
        name: "cargo-cyclonedx",
        why: "writes the bill of materials; compiling it takes some minutes",
        scopes: &[Scope::Image],
        is_here: || cargo_tools::is_here("cargo-cyclonedx"),
        install: || cargo_tools::install("cargo-cyclonedx"),
        by_hand: || cargo_tools::by_hand("cargo-cyclonedx"),
    },
    Need {
        name: "tmux",
        why: "tests type in a real terminal",
        scopes: &[Scope::Test],
        is_here: || process::find("tmux").is_some(),
        install: || apt::install(&["tmux"]),
        by_hand: || apt::by_hand(&["tmux"]),
    },
    Need {
        name: "Chromium",
        why: "tests look at the live page in a real browser; fetching it takes a minute",
        scopes: &[Scope::Test],
        is_here: || process::find("chromium").is_some(),
        install: || apt::install(&["chromium"]),
        by_hand: || apt::by_hand(&["chromium"]),
    },
    Need {
        name: "rustfmt and clippy",
        why: "format and lint",
        scopes: &[Scope::Lint],
        is_here: || cargo_tools::is_here("cargo-fmt") && cargo_tools::is_here("cargo-clippy"),
        install: || process::run(&mut cargo_tools::components()),
        by_hand: || process::show(&cargo_tools::components()),
    },
    Need {
        name: "cargo-deny",
        why: "checks licences and sources of dependencies; compiling it takes some minutes",
        scopes: &[Scope::Lint],
        is_here: || cargo_tools::is_here("cargo-deny"),
        install: || cargo_tools::install("cargo-deny"),
        by_hand: || cargo_tools::by_hand("cargo-deny"),
    },
];

/// Sets up for one scope; silent when all is there.
pub(crate) fn ensure(scope: Scope) -> Result<()> {
    ensure_all(&needs_of(scope).collect::<Vec<_>>())
}

/// [`ensure`] as a verb of its own: ends with a line.
pub(crate) fn announce(scope: Scope) -> Result<()> {
    ensure(scope)?;
    let names: Vec<_> = needs_of(scope).map(|need| need.name).collect();
    println!("all is there: {}", names.join(", "));
    Ok(())
}

fn needs_of(scope: Scope) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| scope == Scope::All || need.scopes.contains(&scope))
}

fn ensure_all(needs: &[&Need]) -> Result<()> {
    for need in needs {
        let Need { name, why, is_here, install, by_hand, .. } = need;
        if is_here() {
            continue;
        }
        eprintln!("setup: installing {name}: {why}");
        let typed =
            || format!("cannot set up {name}; once this works, try again:\n  {}", by_hand());
        install().with_context(typed)?;
        anyhow::ensure!(is_here(), "installed, and still not found: {}", typed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn need(is_here: fn() -> bool, install: fn() -> Result<()>) -> Need {
        let (name, why, by_hand) = ("a thing", "why not", || "get thing".to_owned());
        Need { name, why, scopes: &[Scope::Test], is_here, install, by_hand }
    }

    #[test]
    fn nothing_is_installed_when_all_is_there() {
        let present = need(|| true, || panic!("nothing was missing"));
        ensure_all(&[&present]).unwrap();
    }

    #[test]
    fn what_cannot_be_installed_ends_in_one_error_with_the_command_to_type() {
        let error = ensure_all(&[&need(|| false, || anyhow::bail!("no network"))]).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("cannot set up a thing"), "{text}");
        assert!(text.contains("\n  get thing") && text.ends_with("no network"), "{text}");
    }

    #[test]
    fn an_installer_that_installs_nothing_is_found_out() {
        let error = ensure_all(&[&need(|| false, || Ok(()))]).unwrap_err();
        assert!(error.to_string().starts_with("installed, and still not found"), "{error}");
    }

    #[test]
    fn a_build_needs_neither_test_tools_nor_lint_tools() {
        let names: Vec<_> = needs_of(Scope::Build).map(|need| need.name).collect();
        assert_eq!(names, ["a C compiler", "rust-src", "bpf-linker"]);
        assert_eq!(needs_of(Scope::All).count(), NEEDS.len());
    }
}
