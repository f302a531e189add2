//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The top of the checkout. Asked at run time: a target folder that was copied from another
/// checkout holds an xtask that was compiled there.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
        Path::new(&xtask).parent().expect("xtask is in a folder of the workspace").to_owned()
    })
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
