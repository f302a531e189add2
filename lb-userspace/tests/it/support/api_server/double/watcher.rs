//! One client's watch.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    super::objects::{Query, Selector, Target, status},
    Double, Order, Tick,
    store::Event,
};

pub struct Watcher {
    double: Double,
    ticks: watch::Receiver<Tick>,
    target: Target,
    selector: Selector,
    /// What happened up to here has been told, or is in `lines`.
    version: u64,
    bookmarks: u64,
    lines: VecDeque<String>,
    end: Instant,
}

impl Watcher {
    pub fn new(double: Double, target: Target, selector: Selector, query: &Query) -> Self {
        let seconds = query.get("timeoutSeconds").and_then(|value| value.parse().ok());
        let ticks = double.tick.subscribe();
        let bookmarks = ticks.borrow().bookmarks;
        let mut watcher = Self {
            double,
            ticks,
            target,
            selector,
            version: 0,
            bookmarks,
            lines: VecDeque::new(),
            end: Instant::now() + Duration::from_secs(seconds.unwrap_or(300)),
        };
        watcher.begin(query);
        watcher
    }

    /// The lines of the response, one event each.
    pub fn lines(self) -> impl Stream<Item = Result<String, Infallible>> + Send {
        stream::unfold(self, |mut watcher| async {
            let line = watcher.next().await?;
            Some((Ok(line), watcher))
        })
    }

    /// From a place in history, or with everything there is and, if asked for, a mark after it.
    fn begin(&mut self, query: &Query) {
        let double = self.double.clone();
        let store = double.store();
        let from = query.get("resourceVersion").and_then(|value| value.parse().ok()).unwrap_or(0);
        let marked = query.contains_key("sendInitialEvents");
        self.version = store.version();
        if from == 0 || marked {
            let objects = store.list(&self.target).filter(|object| self.selector.matches(object));
            for object in objects.cloned().collect::<Vec<_>>() {
                self.tell("ADDED", &object);
            }
            if marked {
                self.bookmark(&json!({"k8s.io/initial-events-end": "true"}));
            }
        } else if from < store.compacted() {
            let message = format!("too old resource version: {from} ({})", store.compacted());
            self.tell("ERROR", &status(410, "Expired", &message));
            self.end = Instant::now();
        } else {
            self.version = from;
        }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let tick = *self.ticks.borrow_and_update();
            self.gather(tick);
            if self.lines.is_empty() {
                timeout_at(self.end, self.ticks.changed()).await.ok()?.ok()?;
            }
        }
    }

    fn gather(&mut self, tick: Tick) {
        if !tick.held {
            let events = {
                let store = self.double.store();
                let events = store.since(&self.target, self.version);
                self.version = self.version.max(store.version());
                events
            };
            for event in in_order(events, tick.order) {
                self.tell_event(event);
            }
        }
        if tick.bookmarks != self.bookmarks {
            self.bookmarks = tick.bookmarks;
            self.bookmark(&json!({}));
        }
    }

    /// An object that stops matching the selector is deleted for this watcher, as it was before
    /// but at the version of the change.
    fn tell_event(&mut self, Event { version, before, after, .. }: Event) {
        let before = before.filter(|object| self.selector.matches(object));
        let after = after.filter(|object| self.selector.matches(object));
        match (before, after) {
            (None, None) => {}
            (None, Some(object)) => self.tell("ADDED", &object),
            (Some(_), Some(object)) => self.tell("MODIFIED", &object),
            (Some(mut object), None) => {
                object["metadata"]["resourceVersion"] = json!(version.to_string());
                self.tell("DELETED", &object);
            }
        }
    }

    fn bookmark(&mut self, annotations: &Value) {
        let (api_version, kind) = self.target.types().unwrap();
        let metadata =
            json!({"resourceVersion": self.version.to_string(), "annotations": annotations});
        self.tell(
            "BOOKMARK",
            &json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}),
        );
    }

    fn tell(&mut self, kind: &str, object: &Value) {
        self.lines.push_back(format!("{}\n", json!({"type": kind, "object": object})));
    }
}

fn in_order(events: Vec<Event>, order: Order) -> Vec<Event> {
    match order {
        Order::AsItHappened => events,
        Order::Reversed => events.into_iter().rev().collect(),
        Order::Stuttered => events.into_iter().flat_map(|event| [event.clone(), event]).collect(),
        Order::Repeated => [events.clone(), events].concat(),
    }
}
