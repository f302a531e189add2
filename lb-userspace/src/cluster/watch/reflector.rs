//! One kind, kept in step with the server for as long as it takes.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::{Api, ResourceExt as _, api::WatchEvent};
use tokio::time::{sleep, timeout};
use tracing::info;

use super::{
    Options,
    backoff::Backoff,
    listing::{self, Events, Listing, Manner},
    outlet::Outlet,
    place::{Place, Step},
    problem::Problem,
    resource::Watched,
};
use crate::cluster::{Change, Op};

/// The most events handed on at once when many have arrived.
const BATCH: usize = 256;

/// Attempts until a permission that is missing is one that nobody means to give: a server that has just
/// started refuses for a moment what it will allow.
const PATIENT: u32 = 8;

/// Lists, watches, resumes, and lists again.
pub(super) struct Reflector<K> {
    api: Api<K>,
    options: Options,
    outlet: Outlet,
    /// Where to resume; `None` asks for a listing.
    place: Option<Place>,
    manner: Manner,
    /// Whether the server sends bookmarks, and so must not be silent for long.
    bookmarks: bool,
    /// Whether a complete listing was handed on, were it only that there is nothing.
    was_listed: bool,
    /// How often we were not allowed to read it.
    refusals: u32,
    /// What could not be read since the last listing: an object may be another than we think.
    unread: Option<String>,
}

impl<K: Watched> Reflector<K> {
    pub(super) fn new(api: Api<K>, options: Options, outlet: Outlet) -> Self {
        Self {
            api,
            options,
            outlet,
            place: None,
            manner: Manner::Stream,
            bookmarks: false,
            was_listed: false,
            refusals: 0,
            unread: None,
        }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.options.pause);
        loop {
            let begun = Instant::now();
            let end = self.session().await;
            backoff.lasted(begun.elapsed());
            let pause = match end {
                Ok(()) => backoff.pause(),
                Err(problem) => self.learn(problem, &mut backoff).await,
            };
            sleep(pause).await;
            self.outlet.note(|status| status.restarts += 1);
        }
    }

    /// From here to the end of one connection. `Ok` is a watch that the server closed.
    async fn session(&mut self) -> Result<(), Problem> {
        let events = match &self.place {
            Some(place) => listing::watch(&self.api, &self.options, place).await?,
            None if self.manner == Manner::Stream => {
                let (listing, events) = listing::stream(&self.api, &self.options)
                    .await
                    .map_err(Problem::while_streaming)?;
                self.reset(listing).await;
                events
            }
            None => {
                let listing = listing::plain(&self.api, &self.options, self.manner).await?;
                let place = listing.place.clone();
                self.reset(listing).await;
                listing::watch(&self.api, &self.options, &place).await?
            }
        };
        self.outlet.heard(Instant::now(), self.unread.as_deref(), |_| ());
        self.follow(events).await
    }

    /// Hands a complete listing on.
    async fn reset(&mut self, Listing { objects, place }: Listing<K>) {
        let received = Instant::now();
        self.outlet.send(vec![K::change(Op::Reset(objects))], received).await;
        self.was_listed = true;
        self.unread = None;
        self.outlet.heard(received, None, |status| {
            status.listings += 1;
            status.version = Some(place.version().to_owned());
        });
        self.place = Some(place);
    }

    /// Hands events on as they come, all that have arrived at once.
    async fn follow(&mut self, events: Events<K>) -> Result<(), Problem> {
        let mut chunks = events.ready_chunks(BATCH);
        loop {
            let patience = self.patience();
            let next = timeout(patience, chunks.next()).await;
            let Some(chunk) = next.map_err(|_| Problem::Silent(patience))? else {
                return Ok(());
            };
            let received = Instant::now();
            let mut changes = Vec::with_capacity(chunk.len());
            let taken = chunk.into_iter().try_for_each(|event| self.take(event, &mut changes));
            self.outlet.send(changes, received).await;
            taken?;
            let version = self.place.as_ref().map(|place| place.version().to_owned());
            let unread = self.unread.as_deref();
            self.outlet.heard(received, unread, |status| status.version = version);
        }
    }

    fn patience(&self) -> Duration {
        let closed = self.options.watch_timeout + self.options.grace;
        if self.bookmarks { closed.min(self.options.bookmark_patience) } else { closed }
    }

    /// One event of a watch: what it changes, and where in history that leaves us.
    fn take(
        &mut self,
        event: kube::Result<WatchEvent<K>>,
        changes: &mut Vec<Change>,
    ) -> Result<(), Problem> {
        match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                if self.is_news(&object)? {
                    changes.push(K::change(Op::Apply(object.kept())));
                }
            }
            Ok(WatchEvent::Deleted(object)) => {
                if self.is_news(&object)? {
                    changes.push(K::change(Op::Delete(object.object_name())));
                }
            }
            Ok(WatchEvent::Bookmark(bookmark)) => {
                self.bookmarks = true;
                self.advance(&bookmark.metadata.resource_version);
            }
            Ok(WatchEvent::Error(status)) => {
                return Err(Problem::of_status(K::KIND, "watch", status));
            }
            // Asking again would bring the same object again: say so and go on without it.
            Err(error @ kube::Error::SerdeError(_)) => {
                self.unread = Some(format!("an event that cannot be read: {error}"));
            }
            Err(error) => return Err(Problem::of(K::KIND, "watch", error)),
        }
        Ok(())
    }

    fn is_news(&mut self, object: &K) -> Result<bool, Problem> {
        match self.advance(&object.resource_version().unwrap_or_default()) {
            Step::Forward => Ok(true),
            Step::Again => Ok(false),
            Step::Back => Err(Problem::Disorder),
        }
    }

    fn advance(&mut self, version: &str) -> Step {
        self.place.get_or_insert_with(|| Place::new("0")).advance(version)
    }

    /// Draws the lesson of a failed session and answers how long to wait before the next.
    async fn learn(&mut self, problem: Problem, backoff: &mut Backoff) -> Duration {
        match &problem {
            Problem::NoStreaming(_) => {
                info!(resource = %K::KIND, "{problem}; listing in the plain way from now on");
                self.manner = Manner::Pages;
                self.outlet.note(|status| status.plain_lists = true);
                return Duration::ZERO;
            }
            Problem::Expired if self.place.is_none() && self.manner == Manner::Pages => {
                self.manner = Manner::Whole;
            }
            Problem::Expired | Problem::Disorder if self.place.is_some() => {
                self.place = None;
                self.outlet.problem(problem.to_string());
                return backoff.soon();
            }
            Problem::NotServed(kind) if kind.may_be_absent() => {
                self.place = None;
                // What there was of it went with the kind.
                self.say_empty().await;
                self.outlet.problem(problem.to_string());
                return self.options.absent_pause;
            }
            // A server that refuses everything has not begun, or has lost who may give permissions.
            Problem::Forbidden { .. }
                if K::KIND.may_be_refused() && !self.was_listed && self.outlet.has_services() =>
            {
                self.refusals += 1;
                if self.refusals >= PATIENT {
                    self.say_empty().await;
                }
            }
            Problem::Expired
            | Problem::Disorder
            | Problem::NotServed(_)
            | Problem::Forbidden { .. }
            | Problem::Silent(_)
            | Problem::CutListing
            | Problem::Server(_)
            | Problem::Client(_) => {}
        }
        self.outlet.problem(problem.to_string());
        backoff.pause()
    }

    /// Where there is nothing to be had of a kind, that is a complete listing.
    async fn say_empty(&mut self) {
        self.outlet.send(vec![K::change(Op::Reset(Vec::new()))], Instant::now()).await;
        self.was_listed = true;
    }
}
