//! Listeners of HTTP that anybody may connect to: no more connections at a time than are served, and
//! none that says nothing.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Connections at a time; others wait in the kernel's queue, and descriptors stay for our own work.
const CONNECTIONS: usize = 256;
/// How long a client may take for its next question, all of it, and to take in a part of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener with few places.
#[derive(Debug)]
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Bounded {
    /// With as many places, and as much patience, as each of our servers has.
    pub fn new(listener: TcpListener) -> Self {
        Self::with(listener, CONNECTIONS, PATIENCE)
    }

    fn with(listener: TcpListener, places: usize, patience: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(places)), patience }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let patience = self.patience;
        // Nobody waits for it: it is what ends a connection that stays silent.
        (Connection { stream, end: Box::pin(sleep(patience)), patience, _place: place }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its client is too slow.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Put off by what is written, not by what is read: a question that comes byte by byte does not
    /// keep its place.
    end: Pin<Box<Sleep>>,
    patience: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// What came of a try; if that is nothing yet, whether there is time left for another.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match tried {
            Poll::Pending if self.end.as_mut().poll(context).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            tried => tried,
        }
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        tried: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if tried.is_ready() {
            self.end.as_mut().reset(Instant::now() + self.patience);
        }
        self.in_time(context, tried)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_read(context, into);
        self.in_time(context, tried)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::Router;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server that answers `well` to everybody.
    async fn serve(places: usize, patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let router = Router::new().fallback(async || "well");
        let bounded = Bounded::with(listener, places, patience);
        tokio::spawn(axum::serve(bounded, router).into_future());
        at
    }

    const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";

    async fn answer(client: &mut TcpStream) -> String {
        let mut read = [0; 4096];
        let length = client.read(&mut read).await.unwrap();
        String::from_utf8_lossy(&read[..length]).into_owned()
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_is_answered_once_one_is_free() {
        let at = serve(2, PATIENCE).await;
        let mut first = TcpStream::connect(at).await.unwrap();
        let mut second = TcpStream::connect(at).await.unwrap();
        for client in [&mut first, &mut second] {
            client.write_all(QUESTION).await.unwrap();
            assert!(answer(client).await.ends_with("well"));
        }
        let mut third = TcpStream::connect(at).await.unwrap();
        third.write_all(QUESTION).await.unwrap();
        let mut waiting = tokio::spawn(async move { answer(&mut third).await });
        // Those that have places are served meanwhile.
        for _ in 0..3 {
            second.write_all(QUESTION).await.unwrap();
            assert!(answer(&mut second).await.ends_with("well"));
        }
        assert!(!waiting.is_finished(), "it has no place yet");
        drop(first);
        assert!((&mut waiting).await.unwrap().ends_with("well"));
    }

    #[tokio::test]
    async fn who_asks_nothing_or_byte_by_byte_loses_its_place_and_who_asks_again_keeps_it() {
        let patience = Duration::from_secs(2);
        let at = serve(3, patience).await;
        let mut silent = TcpStream::connect(at).await.unwrap();
        let mut regular = TcpStream::connect(at).await.unwrap();
        let (mut read, mut write) = TcpStream::connect(at).await.unwrap().into_split();
        let slow = tokio::spawn(async move { read.read(&mut [0; 16]).await });
        // A header without end, far longer in coming than there is patience for.
        for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(&[b'a'; 80]) {
            if slow.is_finished() {
                break;
            }
            write.write_all(&[*byte]).await.ok();
            regular.write_all(QUESTION).await.unwrap();
            assert!(answer(&mut regular).await.ends_with("well"));
            // The pace of who sends slowly: nothing is waited for.
            sleep(patience / 20).await;
        }
        assert!(slow.is_finished(), "it still has its place");
        for ended in [slow.await.unwrap(), silent.read(&mut [0; 16]).await] {
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        }
        regular.write_all(QUESTION).await.unwrap();
        assert!(answer(&mut regular).await.ends_with("well"));
    }
}
