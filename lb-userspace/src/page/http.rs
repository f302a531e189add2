//! The server of the live page. It only reads, and answers only who asks by an address of this host:
//! a page from elsewhere cannot get here by a name of its own.

use std::{convert::Infallible, io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures::{StreamExt as _, stream};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::{Feed, PAGE, Source};
use crate::{api::Frame, listen::Bounded};

/// Viewers at one time.
const VIEWERS: usize = 16;
/// A connection with nothing to tell says so, that nobody between takes it for dead.
const STILL_HERE: Duration = Duration::from_secs(15);
/// Nothing from elsewhere is loaded, and nobody else shows the page as theirs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

struct Server<S> {
    source: S,
    viewers: Arc<Semaphore>,
    cancel: CancellationToken,
}

/// Listens for viewers.
///
/// # Errors
/// If the address cannot be had.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// The page and its frames; streams end when it is cancelled.
pub fn router<S: Source>(source: S, cancel: CancellationToken) -> Router {
    let viewers = Arc::new(Semaphore::new(VIEWERS));
    Router::new()
        .route("/", get(page))
        .route("/frames", get(frames::<S>))
        .with_state(Arc::new(Server { source, viewers, cancel }))
        .layer(from_fn(by_address))
}

/// Answers viewers until cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve<S: Source>(
    listener: TcpListener,
    source: S,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = router(source, cancel.clone());
    axum::serve(Bounded::new(listener), router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
}

async fn by_address(request: Request, next: Next) -> Response {
    let mut response = match is_address(request.headers()) {
        true => next.run(request).await,
        false => (StatusCode::FORBIDDEN, "ask by address, or as localhost\n").into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// Whether the host that was asked for is an address or `localhost`.
fn is_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn page() -> Html<&'static str> {
    Html(PAGE)
}

/// What one viewer's stream needs.
struct Viewer {
    feed: Box<dyn Feed>,
    pace: Duration,
    is_first: bool,
    _seat: OwnedSemaphorePermit,
}

async fn frames<S: Source>(State(server): State<Arc<Server<S>>>) -> Response {
    let Ok(seat) = Arc::clone(&server.viewers).try_acquire_owned() else {
        let what = "as many look on as there may be\n";
        return (StatusCode::SERVICE_UNAVAILABLE, what).into_response();
    };
    let (feed, pace) = (server.source.open(), server.source.pace());
    let viewer = Viewer { feed, pace, is_first: true, _seat: seat };
    let events = stream::unfold(Some(viewer), step);
    let events = events.take_until(server.cancel.clone().cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::new().interval(STILL_HERE)).into_response()
}

/// The next event; after the last frame one that says so.
async fn step(viewer: Option<Viewer>) -> Option<(Result<Event, Infallible>, Option<Viewer>)> {
    let mut viewer = viewer?;
    if !std::mem::take(&mut viewer.is_first) {
        // The pace of frames, or of the recording: nothing is waited for.
        tokio::time::sleep(viewer.pace).await;
    }
    // Maps are read, or a socket asked: that blocks.
    let asked = tokio::task::spawn_blocking(move || (viewer.feed.next(), viewer)).await;
    let (next, viewer) = asked.ok()?;
    match next {
        Ok(Some(frame)) => Some((Ok(event(&frame)), Some(viewer))),
        Ok(None) => Some((Ok(Event::default().event("end").data("-")), None)),
        Err(why) => Some((Ok(problem(&why)), Some(viewer))),
    }
}

fn event(frame: &Frame) -> Event {
    let id = frame.at.to_string();
    Event::default()
        .json_data(frame)
        .map_or_else(|error| problem(&error.to_string()), |it| it.id(id))
}

fn problem(why: &str) -> Event {
    // One line: that is what an event's data is.
    Event::default().event("problem").data(why.lines().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_by_address_or_as_localhost_is_answered() {
        let asked = |host: &'static str| {
            let host = header::HeaderValue::from_static(host);
            is_address(&HeaderMap::from_iter([(header::HOST, host)]))
        };
        for host in ["127.0.0.1:8080", "[::1]:8080", "localhost", "LOCALHOST:1", "127.0.0.1"] {
            assert!(asked(host), "{host}");
        }
        for host in ["attacker.example:8080", "attacker.example", "", "127.0.0.1.example:80"] {
            assert!(!asked(host), "{host}");
        }
        assert!(!is_address(&HeaderMap::new()));
    }
}
