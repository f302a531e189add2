//! Clients: one exchange on a new connection, or many.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{host::Host, task::runtime};

/// How long any single exchange may take: a lost packet is repaired within, a lost connection
/// is not.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer a lab's server gives.
const ANSWER: usize = 65_536;

/// A connection that HTTP requests go over, one after another.
#[derive(Debug)]
pub struct Exchange {
    stream: TcpStream,
    target: SocketAddr,
}

impl Exchange {
    /// Connects from where the calling thread is; needs a runtime made there.
    pub async fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = patiently(TcpStream::connect(target)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, target })
    }

    /// One request and the whole body of its answer.
    pub async fn ask(&mut self, path: &str, more: bool) -> io::Result<String> {
        let connection = if more { "keep-alive" } else { "close" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n",
            self.target
        );
        patiently(async {
            self.stream.write_all(request.as_bytes()).await?;
            self.answer().await
        })
        .await
    }

    async fn answer(&mut self) -> io::Result<String> {
        let mut read = Vec::with_capacity(ANSWER);
        loop {
            if self.stream.read_buf(&mut read).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed half-way"));
            }
            if let Some(body) = body(&read)? {
                return Ok(body);
            }
        }
    }
}

/// The body once all of it is there.
fn body(read: &[u8]) -> io::Result<Option<String>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let text = str::from_utf8(read).map_err(|_not_text| bad("the answer is not text"))?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(bad(head.lines().next().unwrap_or("an empty answer")));
    }
    let length: usize = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
        })
        .ok_or_else(|| bad("the answer has no length"))?;
    Ok((body.len() >= length).then(|| body[..length].to_owned()))
}

/// Fails with "timed out" after [`PATIENCE`].
pub(super) async fn patiently<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Who answers there, asked over a new connection.
pub(super) async fn ask_once(target: SocketAddr, path: &str) -> io::Result<String> {
    Exchange::connect(target).await?.ask(path, false).await
}

/// The name of the server that answers at `target`, asked from `host` over a new connection.
pub fn get(host: &Host, target: SocketAddr) -> io::Result<String> {
    get_path(host, target, "/")
}

/// The answer to a request for `path`, asked from `host` over a new connection.
pub fn get_path(host: &Host, target: SocketAddr, path: &str) -> io::Result<String> {
    host.run(|| runtime().block_on(ask_once(target, path)))
}

/// What became of a number of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers by the name of the server.
    pub answers: BTreeMap<String, usize>,
    /// What each failed request met.
    pub failures: Vec<String>,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, outcome: Result<&str, &str>) {
        match outcome {
            Ok(name) => *self.answers.entry(name.to_owned()).or_default() += 1,
            Err(error) => self.failures.push(error.to_owned()),
        }
    }

    /// How many were sent.
    pub fn sent(&self) -> usize {
        self.answers.values().sum::<usize>() + self.failures.len()
    }
}

/// Sends `requests` requests over a new connection each, `parallel` at a time.
pub fn burst(host: &Host, target: SocketAddr, requests: usize, parallel: usize) -> Tally {
    let tally = Mutex::new(Tally::default());
    let started = AtomicUsize::new(0);
    let work = || {
        let runtime = runtime();
        while started.fetch_add(1, Ordering::Relaxed) < requests {
            let outcome = runtime.block_on(ask_once(target, "/")).map_err(|e| e.to_string());
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add(outcome.as_deref().map_err(String::as_str));
        }
    };
    // Threads started on a host are on it too.
    host.run(|| thread::scope(|scope| (0..parallel).for_each(|_| drop(scope.spawn(work)))));
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One datagram from a new socket of `host`, and the answer to it.
pub fn udp_ask(host: &Host, target: SocketAddr, question: &str) -> io::Result<String> {
    host.run(|| {
        let any = if target.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        ask(&UdpSocket::bind(any)?, target, question)
    })
}

/// Asks by a UDP socket that is there already.
pub fn ask(socket: &UdpSocket, target: SocketAddr, question: &str) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    socket.send(question.as_bytes())?;
    let mut buffer = [0; ANSWER];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_when_all_of_it_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nweb-1";
        assert_eq!(body(&answer[..20]).expect("so far so good"), None);
        assert_eq!(body(&answer[..answer.len() - 1]).expect("so far so good"), None);
        assert_eq!(body(answer).expect("an answer"), Some("web-1".to_owned()));
    }

    #[test]
    fn an_answer_that_is_no_success_is_an_error_that_quotes_it() {
        let error = body(b"HTTP/1.1 503 Busy\r\n\r\n").expect_err("a failure");
        assert_eq!(error.to_string(), "HTTP/1.1 503 Busy");
    }
}
