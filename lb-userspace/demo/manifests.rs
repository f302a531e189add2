//! The folder that stands for the API server: what is in it is the cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Result;

const NODES: &str = include_str!("manifests/nodes.yaml");
pub(crate) const WEB: &str = include_str!("manifests/service-web.yaml");
pub(crate) const WEB_NODE_PORT: &str = include_str!("manifests/service-web-nodeport.yaml");
pub(crate) const DB: &str = include_str!("manifests/service-db.yaml");
const POD: &str = include_str!("manifests/pod.yaml");

/// Manifests in files, replaced whole.
pub(crate) struct Manifests {
    folder: PathBuf,
    /// Where files are written before they are moved into place.
    draft: PathBuf,
}

impl Manifests {
    /// A folder with the nodes in it.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        let folder = parent.join("manifests");
        fs::create_dir(&folder)?;
        let this = Self { folder, draft: parent.join("draft.yaml") };
        this.put("nodes.yaml", NODES)?;
        Ok(this)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces a file in one step, so that nobody reads half of it; the moment when it was
    /// there to be read.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<Instant> {
        fs::write(&self.draft, text)?;
        let moment = Instant::now();
        fs::rename(&self.draft, self.folder.join(name))?;
        Ok(moment)
    }
}

/// What a Pod's manifest says.
pub(crate) struct PodFacts<'a> {
    pub(crate) name: &'a str,
    pub(crate) app: &'a str,
    pub(crate) version: &'a str,
    pub(crate) node: &'a str,
    pub(crate) addresses: &'a [String; 2],
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
}

impl PodFacts<'_> {
    pub(crate) fn manifest(&self) -> String {
        let Self { name, app, version, node, addresses: [ipv4, ipv6], ready, terminating } = self;
        [
            ("${name}", *name),
            ("${app}", app),
            ("${version}", version),
            ("${node}", node),
            ("${ipv4}", ipv4),
            ("${ipv6}", ipv6),
            ("${ready}", if *ready { "True" } else { "False" }),
            ("${deletion}", if *terminating { "\"2026-01-01T00:00:00Z\"" } else { "null" }),
        ]
        .iter()
        .fold(POD.to_owned(), |text, (mark, value)| text.replace(mark, value))
    }
}
