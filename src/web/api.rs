//! The native HTTP API: paths, methods, parameters and bodies. Each handler is a small function from a checked
//! request to an answer; what it decides is in the service.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures_util::Stream;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use warp::{Filter, Rejection, Reply};

use super::body::Bodies;
use super::conversation::converse;
use super::problem::Problem;
use super::socket::NativeSocket;
use super::wire::{self, Encoding, ExecuteBody, InputBody};
use crate::execution::Execution;
use crate::id::Client;
use crate::service::{CancelOnDrop, Idempotency, Service};

type Query = HashMap<String, String>;
type Answer = Result<Response<String>, Problem>;

/// How long a poll may wait for the end.
const LONGEST_POLL: f64 = 300.0;

/// A comment line keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    pub service: Arc<Service>,
    pub bodies: Bodies,
    pub stop: CancellationToken,
}

/// All routes of the native API, with an answer for every request.
pub fn routes(api: Api) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let with_api = warp::any().map(move || api.clone());
    let query = warp::query::<Query>();
    let client = warp::ext::get::<Client>();
    let headers = warp::header::headers_cloned();
    let execution = warp::path!("api" / "executions" / String / ..).and(with_api.clone()).map(find);

    let health = warp::path!("api" / "health").and(warp::get()).and(with_api.clone()).then(health);
    let languages = warp::path!("api" / "languages").and(warp::get()).and(with_api.clone()).map(languages);
    let metrics = warp::path!("metrics").and(warp::get()).and(with_api.clone()).map(metrics);
    let execute = warp::path!("api" / "execute")
        .and(warp::post())
        .and(with_api.clone())
        .and(client)
        .and(headers)
        .and(query)
        .and(warp::body::stream())
        .then(|api, client, headers, query, body| async move {
            answer(execute(api, client, headers, query, body).await)
        });
    let status = execution
        .clone()
        .and(warp::path::end())
        .and(warp::get())
        .and(query)
        .then(|execution, query| async move { answer(status(execution, query).await) });
    let cancel = execution
        .clone()
        .and(warp::path::end())
        .and(warp::delete())
        .and(with_api.clone())
        .map(|execution, api| answer(cancel(execution, &api)));
    let input = execution
        .clone()
        .and(warp::path!("input"))
        .and(warp::post())
        .and(with_api.clone())
        .and(headers)
        .and(warp::body::stream())
        .then(
            |execution, api, headers, body| async move { answer(input(execution, api, headers, body).await) },
        );
    let events = execution
        .and(warp::path!("events"))
        .and(warp::get())
        .and(query)
        .and(headers)
        .map(|execution, query, headers| events(execution, &query, &headers));
    let socket = warp::path!("api" / "ws")
        .and(warp::get())
        .and(with_api.clone())
        .and(client)
        .and(warp::ws())
        .map(socket);

    health
        .or(execute)
        .or(status)
        .or(events)
        .or(input)
        .or(cancel)
        .or(languages)
        .or(metrics)
        .or(socket)
        .recover(|rejection| async move { Ok::<_, Infallible>(refusal(&rejection).response()) })
}

fn answer(result: Answer) -> Response<String> {
    result.unwrap_or_else(|problem| problem.response())
}

fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response<String> {
    let text = serde_json::to_string(body).expect("wire types have string keys only");
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What no route took.
fn refusal(rejection: &Rejection) -> Problem {
    if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method.");
    }
    if rejection.is_not_found() {
        return Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path.");
    }
    if rejection.find::<warp::reject::MissingHeader>().is_some()
        || rejection.find::<warp::reject::InvalidHeader>().is_some()
    {
        return Problem::bad_request("This path takes WebSocket handshakes only.");
    }
    if rejection.find::<warp::reject::InvalidQuery>().is_some() {
        return Problem::bad_request("The query cannot be read.");
    }
    log::error!("a request was rejected for a reason that has no answer: {rejection:?}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The request could not be handled.")
}

async fn health(api: Api) -> Response<String> {
    match api.service.health().await {
        Ok(()) => json_response(
            StatusCode::OK,
            &json!({ "status": "ok", "message": "Server is running", "version": env!("CARGO_PKG_VERSION") }),
        ),
        Err(reason) => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "degraded", "message": format!("Server is running, but {reason}"), "reason": reason }),
        ),
    }
}

fn languages(api: Api) -> Response<String> {
    let rules = &api.service.rules;
    let list: Vec<Value> = rules
        .languages
        .iter()
        .map(|language| {
            let mut limits = rules.limits.default.clone();
            limits.memory = rules.default_memory(language);
            wire::language(language, &limits, api.service.pool().ready(&language.id))
        })
        .collect();
    json_response(StatusCode::OK, &list)
}

fn metrics(api: Api) -> Response<String> {
    let mut response = Response::new(api.service.metrics_text());
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn execute<B: Buf>(
    api: Api,
    client: Client,
    headers: HeaderMap,
    query: Query,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Answer {
    let encoding = encoding(&query)?;
    let wait = flag(&query, "wait")?;
    let received = api.bodies.read_json(&headers, body).await?;
    let (body, warnings) = wire::parse::<ExecuteBody>(received.bytes())?;
    let idempotency = idempotency(&headers, received.bytes())?;
    // Who names its request may come back for the result; nobody else could ever read it.
    let may_return = idempotency.is_some();
    let execution = api.service.submit(&client, body.into_request()?, idempotency)?;
    drop(received);
    if !wait {
        return Ok(json_response(StatusCode::ACCEPTED, &wire::accepted(&execution, &warnings)));
    }
    let outcome = match may_return {
        true => execution.finished().await,
        false => CancelOnDrop::new(Arc::clone(&execution)).finished().await,
    };
    Ok(json_response(StatusCode::OK, &wire::completed(&execution, &outcome, &warnings, encoding)))
}

async fn status(execution: Result<Arc<Execution>, Problem>, query: Query) -> Answer {
    let execution = execution?;
    let encoding = encoding(&query)?;
    if let Some(wait) = query.get("wait") {
        let seconds = wait.parse().ok().filter(|seconds| (0.0..=LONGEST_POLL).contains(seconds));
        let seconds = seconds.ok_or_else(|| {
            Problem::bad_request(format!("wait is {wait:?}; it must be seconds from 0 to {LONGEST_POLL}"))
        })?;
        // Either way the state is what is answered.
        let _ = tokio::time::timeout(Duration::from_secs_f64(seconds), execution.finished()).await;
    }
    Ok(json_response(StatusCode::OK, &wire::status(&execution, encoding)))
}

fn cancel(execution: Result<Arc<Execution>, Problem>, api: &Api) -> Answer {
    let execution = execution?;
    api.service.cancel(&execution)?;
    let answer = json!({ "executionId": execution.id.to_string(), "message": "Cancellation requested" });
    Ok(json_response(StatusCode::ACCEPTED, &answer))
}

async fn input<B: Buf>(
    execution: Result<Arc<Execution>, Problem>,
    api: Api,
    headers: HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Answer {
    let execution = execution?;
    let received = api.bodies.read_json(&headers, body).await?;
    let (body, _) = wire::parse::<InputBody>(received.bytes())?;
    let (data, eof) = body.into_parts()?;
    if !execution.interactive {
        let sentence = "this execution is not interactive; its input came with the request";
        return Err(Problem::new(StatusCode::CONFLICT, sentence));
    }
    execution.input.push(data, eof)?;
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Server-Sent Events: what was, then what happens, to the end.
fn events(
    execution: Result<Arc<Execution>, Problem>,
    query: &Query,
    headers: &HeaderMap,
) -> warp::reply::Response {
    let prepared = execution.and_then(|execution| {
        let first = first_event(query, headers)?;
        Ok((execution, first, encoding(query)?))
    });
    let (execution, first, encoding) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => return problem.response().into_response(),
    };
    // An EventSource comes back whenever a stream ends, until it hears 204 (HTML, 9.2.3).
    if headers.contains_key("last-event-id") && execution.is_over_at(first) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let stream = futures_util::stream::unfold(execution.read(first), move |mut reader| async move {
        let (seq, event) = reader.next().await?;
        let (name, data) = wire::event(reader.execution(), seq, &event, encoding);
        let event = warp::sse::Event::default().id(seq.to_string()).event(name).data(data.to_string());
        Some((Ok::<_, Infallible>(event), reader))
    });
    let mut response =
        warp::sse::reply(warp::sse::keep_alive().interval(KEEP_ALIVE).stream(stream)).into_response();
    // nginx would hold the events back until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// `Last-Event-ID: N` goes on after N; `from=N` begins with N.
fn first_event(query: &Query, headers: &HeaderMap) -> Result<usize, Problem> {
    let number = |name: &str, text: &str| {
        text.parse::<usize>()
            .map_err(|_| Problem::bad_request(format!("{name} is {text:?}; it must be a number")))
    };
    if let Some(last) = headers.get("last-event-id").and_then(|last| last.to_str().ok()) {
        return number("Last-Event-ID", last).map(|last| last.saturating_add(1));
    }
    query.get("from").map_or(Ok(0), |from| number("from", from))
}

fn socket(api: Api, client: Client, handshake: warp::ws::Ws) -> impl Reply {
    let limit = usize::try_from(api.bodies.limit()).unwrap_or(usize::MAX);
    handshake.max_message_size(limit).max_frame_size(limit).on_upgrade(move |socket| async move {
        converse(NativeSocket::new(socket), api.service, client, api.stop).await;
    })
}

fn find(id: String, api: Api) -> Result<Arc<Execution>, Problem> {
    let found = id.parse().ok().and_then(|id| api.service.find(id));
    found.ok_or_else(Problem::unknown_execution)
}

fn encoding(query: &Query) -> Result<Encoding, Problem> {
    match query.get("encoding").map(String::as_str) {
        None | Some("utf8") => Ok(Encoding::Utf8),
        Some("base64") => Ok(Encoding::Base64),
        Some(other) => Err(Problem::bad_request(format!("encoding is {other:?}; it must be utf8 or base64"))),
    }
}

fn flag(query: &Query, name: &str) -> Result<bool, Problem> {
    match query.get(name).map(String::as_str) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => Err(Problem::bad_request(format!("{name} is {other:?}; it must be true or false"))),
    }
}

fn idempotency(headers: &HeaderMap, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key =
        key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= 255).ok_or_else(|| {
            Problem::bad_request("Idempotency-Key must be 1 to 255 visible ASCII characters")
        })?;
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint: hasher.finish() }))
}
