//! The commands' end of the socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Request, Response};

/// An agent that takes longer than this is not one to wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the agent is not reachable at {}: {error}", .socket.display())]
    Unreachable { socket: PathBuf, error: io::Error },
    #[error("the agent's answer makes no sense: {0}")]
    Answer(String),
    #[error("{0}")]
    Refused(String),
}

/// Asks the agent, and waits for the answer.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, AskError> {
    let line = exchange(socket, request)
        .map_err(|error| AskError::Unreachable { socket: socket.into(), error: told(error) })?;
    match serde_json::from_str(&line) {
        Ok(Response::Refused(why)) => Err(AskError::Refused(why)),
        Ok(response) => Ok(response),
        Err(error) => Err(AskError::Answer(error.to_string())),
    }
}

/// A process that is stopped keeps its socket: the kernel calls that unavailable.
fn told(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let what = format!("it has not answered for {} s", PATIENCE.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, what)
        }
        _ => error,
    }
}

fn exchange(socket: &Path, request: &Request) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
    }
    Ok(answer)
}
