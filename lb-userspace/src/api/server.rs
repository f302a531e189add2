//! The agent's end of the socket.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Request, Response, peer};

/// No question is longer.
const LONGEST_LINE: u64 = 16 << 20;
/// So much is read of who gets no answer anyway.
const LONGEST_OF_STRANGERS: u64 = 4 << 10;
/// How long a client may take to ask, and then to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long clients may take when the agent ends.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// Between a connection that could not be taken, for want of descriptors say, and the next.
const BREATH: Duration = Duration::from_millis(100);

/// Answers questions.
pub trait Handler: Send + Sync + 'static {
    /// Answers one question, [`Response::Refused`] if it cannot.
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another agent answers at {}", .0.display())]
    Taken(PathBuf),
    #[error("cannot listen at {}: {error}", .socket.display())]
    Io { socket: PathBuf, error: io::Error },
}

/// Listens at a path, for its owner and group only. What a dead agent left there is replaced; a
/// living one is not.
pub async fn bind(socket: &Path) -> Result<UnixListener, BindError> {
    if UnixStream::connect(socket).await.is_ok() {
        return Err(BindError::Taken(socket.into()));
    }
    listen(socket).map_err(|error| BindError::Io { socket: socket.into(), error })
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    // Made under another name first: nobody can connect before the mode is right.
    let mut fresh = socket.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
    fs::rename(&fresh, socket)?;
    Ok(listener)
}

/// Answers what [`bind`] made of `socket` until cancelled; answers that are under way are finished.
pub async fn serve<H: Handler>(
    listener: UnixListener,
    socket: &Path,
    handler: Arc<H>,
    cancel: CancellationToken,
) {
    let answers = TaskTracker::new();
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            // Nothing tells that there is a descriptor again; whoever waits may be luckier then.
            sleep(BREATH).await;
            continue;
        };
        // Whoever runs the host may have given the socket to another group meanwhile.
        let group = fs::metadata(socket).map(|meta| meta.gid()).ok();
        let handler = Arc::clone(&handler);
        answers.spawn(async move {
            if let Err(error) = converse(stream, &*handler, group).await {
                tracing::debug!(%error, "a client of the socket went away");
            }
        });
    }
    answers.close();
    // A client that says nothing shall not keep the agent from ending.
    _ = timeout(LAST_PATIENCE, answers.wait()).await;
}

async fn converse<H: Handler>(
    stream: UnixStream,
    handler: &H,
    group: Option<u32>,
) -> io::Result<()> {
    let trusted = is_trusted(&stream, group)?;
    let (reader, mut writer) = stream.into_split();
    let longest = if trusted { LONGEST_LINE } else { LONGEST_OF_STRANGERS };
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(reader.take(longest)).read_line(&mut line)).await??;
    let response = match serde_json::from_str(&line) {
        _ if !trusted => Response::Refused("you are neither root nor of the agent's group".into()),
        Ok(request) => handler.answer(request).await,
        Err(error) => Response::Refused(format!("the question makes no sense: {error}")),
    };
    let mut line = serde_json::to_vec(&response)?;
    line.push(b'\n');
    timeout(PATIENCE, writer.write_all(&line)).await?
}

/// The file's mode keeps others out; this does too where a mount ignores modes.
fn is_trusted(stream: &UnixStream, group: Option<u32>) -> io::Result<bool> {
    let (peer, own) = (stream.peer_cred()?, nix::unistd::geteuid().as_raw());
    if peer.uid() == 0 || peer.uid() == own {
        return Ok(true);
    }
    let Some(group) = group else { return Ok(false) };
    Ok(peer.gid() == group || peer::groups(stream)?.contains(&group))
}
