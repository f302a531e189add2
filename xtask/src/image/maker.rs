//! Whichever program makes images here.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::Label;
use crate::process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    Buildah,
    Podman,
    Docker,
}

/// Whether there is one that works.
pub(crate) fn is_here() -> bool {
    Maker::find().is_some()
}

impl Maker {
    /// The first that works, those first that need no service.
    pub(super) fn find() -> Option<Self> {
        [Self::Buildah, Self::Podman, Self::Docker].into_iter().find(|maker| {
            let question = if *maker == Self::Docker { "info" } else { "--version" };
            process::find(maker.name()).is_some()
                && process::succeeds(Command::new(maker.name()).arg(question))
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Buildah => "buildah",
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// Builds the image of that folder's Containerfile.
    pub(super) fn build(self, context: &Path, label: &Label) -> Result<()> {
        process::run(&mut self.build_command(context, label))
    }

    fn build_command(self, context: &Path, label: &Label) -> Command {
        let mut command = Command::new(self.name());
        command.arg("build").arg("--file").arg(context.join("Containerfile"));
        command.args(["--tag", &tag(label)]);
        command.args(["--build-arg", &format!("VERSION={}", label.version)]);
        command.args(["--build-arg", &format!("REVISION={}", label.revision)]);
        match self {
            // Nothing runs in it while it is built: no container is needed.
            Self::Buildah => command.args(["--isolation=chroot", "--timestamp", &label.time]),
            Self::Podman => command.args(["--timestamp", &label.time]),
            Self::Docker => command.env("SOURCE_DATE_EPOCH", &label.time),
        };
        command.arg(context);
        command
    }

    /// Writes the image into a file, as an archive of an OCI layout.
    pub(super) fn save(self, label: &Label, archive: &Path) -> Result<()> {
        let mut command = Command::new(self.name());
        let (tag, file) = (tag(label), archive.display());
        match self {
            Self::Buildah => {
                command.args(["push", "--quiet", &tag]).arg(format!("oci-archive:{file}:{tag}"))
            }
            Self::Podman => command
                .args(["save", "--quiet", "--format=oci-archive", "--output"])
                .arg(archive)
                .arg(&tag),
            Self::Docker => command.args(["save", "--output"]).arg(archive).arg(&tag),
        };
        process::run(&mut command)
    }

    /// Removes the image from where the program keeps images.
    #[cfg(test)]
    pub(super) fn forget(self, label: &Label) -> Result<()> {
        process::run(Command::new(self.name()).args(["rmi", &tag(label)]))
    }
}

fn tag(label: &Label) -> String {
    format!("lb:{}", label.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_maker_is_told_version_commit_and_folder() {
        let label =
            Label { version: "1.2.3".into(), revision: "abc".into(), time: "1700000000".into() };
        for maker in [Maker::Buildah, Maker::Podman, Maker::Docker] {
            let shown = process::show(&maker.build_command(Path::new("/there"), &label));
            let words = "--tag lb:1.2.3 --build-arg VERSION=1.2.3 --build-arg REVISION=abc";
            assert!(shown.starts_with(&format!("{} build ", maker.name())), "{shown}");
            assert!(shown.contains(words) && shown.ends_with(" /there"), "{shown}");
        }
    }
}
