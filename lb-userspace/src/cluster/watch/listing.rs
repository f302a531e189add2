//! The two ways to get a complete listing, and a watch from where it ends.

use std::{future::Future, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Options, place::Place, problem::Problem, resource::Watched};

/// A watch, as the server tells it.
pub(super) type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// How a server is asked for a listing: the best way it has not refused yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Stream,
    Pages,
    /// For a server that forgets the first page before it is asked for the last.
    Whole,
}

/// Everything there is of a kind, and the place in history at which that is so.
pub(super) struct Listing<K> {
    pub(super) objects: Vec<K>,
    pub(super) place: Place,
}

/// Follows a watch from a place on.
pub(super) async fn watch<K: Watched>(
    api: &Api<K>,
    options: &Options,
    place: &Place,
) -> Result<Events<K>, Problem> {
    let parameters = parameters::<K>(options);
    let opening = api.watch(&parameters, place.version());
    open(opening, options.answer_patience).await
}

/// A streaming list: a watch that begins with everything there is and marks where that ends.
/// The same stream then goes on as the watch.
///
/// No resource version is asked for: the answer is never older than the question, so a server
/// that lags behind its peers cannot take us back in time.
pub(super) async fn stream<K: Watched>(
    api: &Api<K>,
    options: &Options,
) -> Result<(Listing<K>, Events<K>), Problem> {
    let deadline = Instant::now() + options.list_patience;
    let parameters = parameters::<K>(options).initial_events();
    let mut events = open(api.watch(&parameters, ""), options.list_patience).await?;
    let mut objects = Vec::new();
    loop {
        let event = timeout_at(deadline, events.next()).await;
        let event = event.map_err(|_| Problem::Silent(options.list_patience))?;
        match event.ok_or(Problem::CutListing)?.map_err(refused_watch::<K>)? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => objects.push(object.kept()),
            WatchEvent::Bookmark(mark)
                if mark.metadata.annotations.contains_key("k8s.io/initial-events-end") =>
            {
                let place = Place::new(mark.metadata.resource_version);
                return Ok((Listing { objects, place }, events));
            }
            // A first telling has no deletions; a bookmark without the mark says nothing here.
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => {
                return Err(Problem::of_status(K::KIND, "watch", status));
            }
        }
    }
}

/// A plain list, page by page or whole; the newest state, as above.
pub(super) async fn plain<K: Watched>(
    api: &Api<K>,
    options: &Options,
    manner: Manner,
) -> Result<Listing<K>, Problem> {
    let mut parameters = ListParams {
        label_selector: K::LABELS.map(str::to_owned),
        field_selector: K::FIELDS.map(str::to_owned),
        limit: (manner != Manner::Whole).then_some(options.page_size),
        ..ListParams::default()
    };
    let mut objects = Vec::new();
    loop {
        let page = within(options.list_patience, api.list(&parameters))
            .await?
            .map_err(|error| Problem::of(K::KIND, "list", error))?;
        objects.extend(page.items.into_iter().map(K::kept));
        parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if parameters.continue_token.is_none() {
            let version = page.metadata.resource_version.unwrap_or_default();
            return Ok(Listing { objects, place: Place::new(version) });
        }
    }
}

async fn open<K, S>(
    opening: impl Future<Output = kube::Result<S>>,
    patience: Duration,
) -> Result<Events<K>, Problem>
where
    K: Watched,
    S: futures::Stream<Item = kube::Result<WatchEvent<K>>> + Send + 'static,
{
    Ok(within(patience, opening).await?.map_err(refused_watch::<K>)?.boxed())
}

async fn within<T>(patience: Duration, future: impl Future<Output = T>) -> Result<T, Problem> {
    timeout(patience, future).await.map_err(|_| Problem::Silent(patience))
}

fn refused_watch<K: Watched>(error: kube::Error) -> Problem {
    Problem::of(K::KIND, "watch", error)
}

fn parameters<K: Watched>(options: &Options) -> WatchParams {
    WatchParams {
        label_selector: K::LABELS.map(str::to_owned),
        field_selector: K::FIELDS.map(str::to_owned),
        timeout: Some(u32::try_from(options.watch_timeout.as_secs()).unwrap_or(u32::MAX).max(1)),
        ..WatchParams::default()
    }
}
