//! One client's loop over named messages, both ways. It knows no kind of socket: the native WebSocket and Socket.IO
//! are two `Wire`s of it.
//!
//! ```text
//! conversation (one task per socket)
//!  └─ follower (one per joined execution): reads the log, waits where the socket is slow
//! ```

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use super::wire::{self, Encoding, ExecuteBody, InputBody};
use crate::execution::Execution;
use crate::id::Client;
use crate::service::Service;

/// Messages that may wait for the socket; when they are as many, the followers wait.
const QUEUE: usize = 64;

/// How long a socket may take for one message before its client counts as gone.
const SEND_DEADLINE: Duration = Duration::from_secs(40);

/// A message from the client. `ack` is its own number for the answer it wants.
#[derive(Debug)]
pub struct Incoming {
    pub event: String,
    pub data: Value,
    pub ack: Option<u64>,
}

/// A message to the client.
#[derive(Debug)]
pub enum Outgoing {
    Event(&'static str, Value),
    Ack(u64, Result<Value, Value>),
}

/// The client can no longer be reached.
#[derive(Debug)]
pub struct Closed;

/// A socket, seen as a source and a sink of messages.
pub trait Wire: Send {
    /// The next message; `None` when the client has gone. Must be cancel-safe.
    fn receive(&mut self) -> impl Future<Output = Option<Incoming>> + Send;
    fn send(&mut self, message: Outgoing) -> impl Future<Output = Result<(), Closed>> + Send;
    /// Takes leave, because the server stops.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// Talks until the client goes or the server stops.
pub async fn converse(mut wire: impl Wire, service: Arc<Service>, client: Client, stop: CancellationToken) {
    enum Event {
        Incoming(Option<Incoming>),
        Outgoing(Outgoing),
        Stop,
    }
    let (out, mut outgoing) = mpsc::channel(QUEUE);
    let mut talk = Talk { service, client, out, joined: HashSet::new(), followers: JoinSet::new() };
    loop {
        let event = tokio::select! {
            incoming = wire.receive() => Event::Incoming(incoming),
            Some(message) = outgoing.recv() => Event::Outgoing(message),
            () = stop.cancelled() => Event::Stop,
        };
        let message = match event {
            Event::Incoming(Some(incoming)) => {
                for message in talk.take(incoming) {
                    if !sent(&mut wire, message).await {
                        return;
                    }
                }
                continue;
            }
            Event::Outgoing(message) => message,
            Event::Incoming(None) => return,
            Event::Stop => return talk.take_leave(outgoing, wire).await,
        };
        if !sent(&mut wire, message).await {
            return;
        }
        // Followers that have ended are done with.
        while talk.followers.try_join_next().is_some() {}
    }
}

async fn sent(wire: &mut impl Wire, message: Outgoing) -> bool {
    matches!(tokio::time::timeout(SEND_DEADLINE, wire.send(message)).await, Ok(Ok(())))
}

struct Talk {
    service: Arc<Service>,
    client: Client,
    out: mpsc::Sender<Outgoing>,
    joined: HashSet<crate::id::ExecutionId>,
    /// Aborted when the conversation ends.
    followers: JoinSet<()>,
}

/// What is said to a message that asks for nothing good.
struct Refused {
    event: &'static str,
    execution: Option<String>,
    sentence: String,
}

impl Talk {
    /// The server stops, and all executions have ended: their last events are still delivered.
    async fn take_leave(self, mut outgoing: mpsc::Receiver<Outgoing>, mut wire: impl Wire) {
        let Talk { out, followers: _following, .. } = self;
        drop(out);
        while let Some(message) = outgoing.recv().await {
            if !sent(&mut wire, message).await {
                return;
            }
        }
        wire.close().await;
    }

    /// Acts on a message; gives what is to be answered at once.
    fn take(&mut self, incoming: Incoming) -> Vec<Outgoing> {
        let Incoming { event, data, ack } = incoming;
        match (self.act(&event, &data), ack) {
            (Ok(answer), Some(ack)) => vec![Outgoing::Ack(ack, Ok(answer))],
            (Ok(_), None) => vec![],
            (Err(Refused { event, execution, sentence }), ack) => {
                let mut payload = json!({ "error": sentence, "message": sentence });
                if let Some(execution) = execution {
                    payload["executionId"] = json!(execution);
                }
                let answer = ack.map(|ack| Outgoing::Ack(ack, Err(payload.clone())));
                answer.into_iter().chain([Outgoing::Event(event, payload)]).collect()
            }
        }
    }

    fn act(&mut self, event: &str, data: &Value) -> Result<Value, Refused> {
        match event {
            "join_execution" => {
                let execution = self.find(data)?;
                self.follow(&execution);
                Ok(json!({ "executionId": execution.id.to_string() }))
            }
            "execution_input" => {
                let execution = self.find(data)?;
                let refused = |sentence: &str| Refused::of(&execution, sentence);
                let (body, _) = from_value::<InputBody>(data).map_err(|problem| refused(problem.detail()))?;
                let (bytes, eof) = body.into_parts().map_err(|problem| refused(problem.detail()))?;
                if !execution.interactive {
                    return Err(refused(
                        "this execution is not interactive; its input came with the request",
                    ));
                }
                execution.input.push(bytes, eof).map_err(|error| refused(&error.to_string()))?;
                Ok(json!({}))
            }
            "execution_cancel" => {
                let execution = self.find(data)?;
                let ended = |error: crate::service::AlreadyEnded| Refused::of(&execution, &error.to_string());
                self.service.cancel(&execution).map_err(ended)?;
                Ok(json!({}))
            }
            "execute" => {
                let submitted = from_value::<ExecuteBody>(data).and_then(|(body, warnings)| {
                    let request = body.into_request()?;
                    let execution = self.service.submit(&self.client, request, None)?;
                    Ok((execution, warnings))
                });
                let (execution, warnings) = submitted.map_err(|problem| Refused {
                    event: "execution_error",
                    execution: None,
                    sentence: problem.detail().to_owned(),
                })?;
                self.follow(&execution);
                Ok(wire::accepted(&execution, &warnings))
            }
            _ => Err(Refused {
                event: if event.starts_with("terminal_") { "terminal_error" } else { "execution_error" },
                execution: None,
                sentence: format!("there is no event {:?} here", event.chars().take(80).collect::<String>()),
            }),
        }
    }

    /// The execution that a payload names: the id itself, or an object with it.
    fn find(&self, data: &Value) -> Result<Arc<Execution>, Refused> {
        let id = data.as_str().or_else(|| data.get("executionId")?.as_str());
        let found = id.and_then(|id| id.parse().ok()).and_then(|id| self.service.find(id));
        found.ok_or_else(|| Refused {
            event: "execution_error",
            execution: id.map(|id| id.chars().take(80).collect()),
            sentence: match id {
                Some(_) => Problem::unknown_execution().detail().to_owned(),
                None => "the execution's id is missing".to_owned(),
            },
        })
    }

    /// Sends all of an execution's events, from the first. Joining twice changes nothing.
    fn follow(&mut self, execution: &Arc<Execution>) {
        if !self.joined.insert(execution.id) {
            return;
        }
        let (out, mut reader) = (self.out.clone(), execution.read(0));
        self.followers.spawn(async move {
            while let Some((seq, event)) = reader.next().await {
                let (name, data) = wire::event(reader.execution(), seq, &event, Encoding::Utf8);
                if out.send(Outgoing::Event(name, data)).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Refused {
    fn of(execution: &Execution, sentence: &str) -> Self {
        Refused {
            event: "execution_error",
            execution: Some(execution.id.to_string()),
            sentence: sentence.to_owned(),
        }
    }
}

/// A payload as one of the API's bodies; by way of text, which is what the parser names fields in.
fn from_value<T: serde::de::DeserializeOwned>(data: &Value) -> Result<(T, Vec<String>), Problem> {
    wire::parse(data.to_string().as_bytes())
}
