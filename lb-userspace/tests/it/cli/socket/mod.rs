//! Commands against an agent: the real socket and the real server, with answers made up.

mod answers;
mod served;
mod shown;

use std::{path::PathBuf, sync::Arc};

use lb_userspace::api::{Level, bind, serve};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::answers::Agent;
use super::{Outcome, lb};

/// A listening agent, gone at the end of the test.
pub(super) struct Running {
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    served: Option<tokio::task::JoinHandle<()>>,
}

impl Running {
    pub(super) fn new(kernel: Level) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let socket = folder.path().join("lb.sock");
        let listener = runtime.block_on(bind(&socket)).unwrap();
        let cancel = stop.clone();
        let served = runtime.spawn(async move {
            serve(listener, &socket, Arc::new(Agent { kernel }), cancel).await;
        });
        Self { folder, runtime, stop, served: Some(served) }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("lb.sock")
    }

    pub(super) fn lb(&self, arguments: &[&str]) -> Outcome {
        lb(&[arguments, &["--socket", self.socket().to_str().unwrap()]].concat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
