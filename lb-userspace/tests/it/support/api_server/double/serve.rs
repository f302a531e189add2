//! HTTP in front of the store.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query as QueryOf, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    super::objects::{self, Query, Selector, Target, failure},
    Double,
    store::Refused,
    watcher::Watcher,
};

/// The double's API.
pub fn router(double: Double) -> Router {
    Router::new().fallback(answer).with_state(double)
}

async fn answer(
    State(double): State<Double>,
    method: Method,
    uri: Uri,
    QueryOf(query): QueryOf<Query>,
    body: Bytes,
) -> Response {
    let Some(target) = Target::parse(uri.path()).filter(|target| target.types().is_some()) else {
        return failure(404, "NotFound", "the server could not find the requested resource");
    };
    let result = match (method.as_str(), &target.name) {
        ("GET", None) => return collection(&double, target, &query),
        ("GET", Some(_)) => double.store().get(&target),
        ("POST", None) => parse(&body).and_then(|o| double.write(|s| s.create(&target, o))),
        ("PUT", Some(_)) => parse(&body).and_then(|o| double.write(|s| s.replace(&target, o))),
        ("PATCH", Some(_)) => parse(&body).and_then(|o| double.write(|s| s.patch(&target, o))),
        ("DELETE", Some(_)) => double.write(|s| s.delete(&target)),
        _ => return failure(405, "MethodNotAllowed", "the double does not do that"),
    };
    let code = if method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
    match result {
        Ok(object) => (code, Json(object)).into_response(),
        Err((code, reason, message)) => failure(code, reason, &message),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| (400, "BadRequest", error.to_string()))
}

fn collection(double: &Double, target: Target, query: &Query) -> Response {
    match Selector::parse(query) {
        Err(message) => failure(400, "BadRequest", &message),
        Ok(selector) if objects::is_watch(query) => {
            Body::from_stream(Watcher::new(double.clone(), target, selector, query).lines())
                .into_response()
        }
        Ok(selector) => Json(page(double, &target, &selector, query)).into_response(),
    }
}

/// One page; the continue token is how many objects came before it.
fn page(double: &Double, target: &Target, selector: &Selector, query: &Query) -> Value {
    let number = |parameter: &str| query.get(parameter).and_then(|value| value.parse().ok());
    let skip = number("continue").unwrap_or(0);
    let limit = number("limit").unwrap_or(usize::MAX);
    let store = double.store();
    let mut rest = store.list(target).filter(|object| selector.matches(object)).skip(skip);
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let more = rest.next().map(|_| (skip + limit).to_string());
    let (api_version, kind) = target.types().unwrap();
    json!({
        "apiVersion": api_version, "kind": format!("{kind}List"), "items": items,
        "metadata": {"resourceVersion": store.version().to_string(), "continue": more},
    })
}
