//! What the server refuses, holds back, and remembers having been asked.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Query as QueryOf, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use tokio::sync::watch;

use super::objects::{self, Query, Target};

/// What a client asks of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A page of a plain list.
    List,
    /// A watch that begins with a streaming list.
    StreamList,
    /// A watch from a place in history.
    Watch,
    /// That an object be made.
    Create,
}

/// What is said instead of an answer.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A failure as the response: code, reason, message.
    Status(u16, &'static str, &'static str),
    /// The failure as an `ERROR` event within a watch that began well.
    Event(u16, &'static str, &'static str),
    /// Nothing, for as long as the rule stands; then the answer.
    Wait,
}

/// Rules in front of a server. They apply to the client under test, not to the admin.
#[derive(Clone, Default)]
pub struct Gate(Arc<watch::Sender<Book>>);

#[derive(Clone, Default)]
struct Book {
    rules: Vec<Rule>,
    asked: Vec<(Ask, String)>,
}

#[derive(Clone)]
struct Rule {
    ask: Ask,
    resource: String,
    refusal: Refusal,
    once: bool,
}

impl Gate {
    /// From now on, until [`open`](Self::open).
    pub fn refuse(&self, ask: Ask, resource: &str, refusal: Refusal) {
        self.add(Rule { ask, resource: resource.to_owned(), refusal, once: false });
    }

    /// The next time only.
    pub fn refuse_once(&self, ask: Ask, resource: &str, refusal: Refusal) {
        self.add(Rule { ask, resource: resource.to_owned(), refusal, once: true });
    }

    /// Streaming lists of every resource, in the words of servers that have the feature off.
    pub fn refuse_streaming(&self) {
        for resource in ["services", "endpointslices", "endpoints", "nodes", "servicecidrs"] {
            let message = "sendInitialEvents is forbidden for watch unless the WatchList feature \
                           gate is enabled";
            self.refuse(Ask::StreamList, resource, Refusal::Status(422, "Invalid", message));
        }
    }

    /// Drops every rule.
    pub fn open(&self) {
        self.0.send_modify(|book| book.rules.clear());
    }

    /// How often something was asked so far, refused or not.
    pub fn asked(&self, ask: Ask, resource: &str) -> usize {
        let book = self.0.borrow();
        book.asked.iter().filter(|(a, r)| *a == ask && r == resource).count()
    }

    /// Waits until something has been asked so often.
    pub async fn until_asked(&self, ask: Ask, resource: &str, times: usize) {
        let mut book = self.0.subscribe();
        let enough = book.wait_for(|book| {
            book.asked.iter().filter(|(a, r)| *a == ask && r == resource).count() >= times
        });
        tokio::time::timeout(std::time::Duration::from_secs(60), enough)
            .await
            .unwrap_or_else(|_| panic!("{ask:?} of {resource} was not asked {times} times"))
            .unwrap();
    }

    pub(super) fn in_front_of(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), guard))
    }

    fn add(&self, rule: Rule) {
        self.0.send_modify(|book| book.rules.push(rule));
    }

    /// Notes a request and looks up the rule for it, using up one that applies once.
    fn judge(&self, ask: Ask, resource: &str) -> Option<Refusal> {
        let mut verdict = None;
        self.0.send_modify(|book| {
            book.asked.push((ask, resource.to_owned()));
            let found = book.rules.iter().position(|r| r.ask == ask && r.resource == resource);
            verdict = found.map(|index| {
                if book.rules[index].once {
                    book.rules.remove(index).refusal
                } else {
                    book.rules[index].refusal.clone()
                }
            });
        });
        verdict
    }
}

async fn guard(
    State(gate): State<Gate>,
    QueryOf(query): QueryOf<Query>,
    request: Request,
    next: Next,
) -> Response {
    let target = Target::parse(request.uri().path()).filter(|target| target.name.is_none());
    let ask = match request.method().as_str() {
        "GET" => Some(ask(&query)),
        "POST" => Some(Ask::Create),
        _ => None,
    };
    let Some((target, ask)) = target.zip(ask) else {
        return next.run(request).await;
    };
    match gate.judge(ask, &target.resource) {
        None => next.run(request).await,
        Some(Refusal::Status(code, reason, message)) => objects::failure(code, reason, message),
        Some(Refusal::Event(code, reason, message)) => {
            let object = objects::status(code, reason, message);
            let event = serde_json::json!({"type": "ERROR", "object": object});
            Body::from(format!("{event}\n")).into_response()
        }
        Some(Refusal::Wait) => {
            let mut book = gate.0.subscribe();
            // It happens though the client has hung up meanwhile, as in servers that took it in.
            let late = tokio::spawn(async move {
                book.wait_for(|book| book.rules.is_empty()).await.unwrap();
                next.run(request).await
            });
            late.await.unwrap()
        }
    }
}

fn ask(query: &Query) -> Ask {
    match (objects::is_watch(query), query.contains_key("sendInitialEvents")) {
        (false, _) => Ask::List,
        (true, true) => Ask::StreamList,
        (true, false) => Ask::Watch,
    }
}

/// A router that hands every request on to a real server, with the client's credentials.
pub(super) fn forward(client: kube::Client) -> Router {
    Router::new().fallback(move |request: Request| {
        let client = client.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let mut onward = axum::http::Request::builder().method(head.method).uri(head.uri);
            for name in ["accept", "content-type"] {
                if let Some(value) = head.headers.get(name) {
                    onward = onward.header(name, value);
                }
            }
            match client.send(onward.body(body.to_vec().into()).unwrap()).await {
                Ok(answer) => {
                    let (mut head, body) = answer.into_parts();
                    head.headers.remove("transfer-encoding");
                    Response::from_parts(head, Body::new(body))
                }
                Err(error) => objects::failure(502, "BadGateway", &error.to_string()),
            }
        }
    })
}
