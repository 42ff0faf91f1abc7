//! Socket.IO, the original's protocol, as another wire of the conversation.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use socketioxide::extract::{AckSender, Event, HttpExtension, SocketRef, TryData};
use socketioxide::layer::SocketIoLayer;
use socketioxide::{SendError, SocketError, SocketIo};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conversation::{Closed, Incoming, Outgoing, Wire, converse};
use crate::id::Client;
use crate::service::Service;

/// Messages of one client that may wait to be acted upon: what a client sends in one go comes in one go, and nothing
/// here can make it wait. Together they may hold `BACKLOG_PAYLOADS` times what one may. More means a flood.
const BACKLOG: usize = 16_384;
const BACKLOG_PAYLOADS: usize = 2;

/// Packets that socketioxide queues for one client.
const PACKETS: usize = 256;

/// socketioxide does not tell when its queue has room again; so it is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// What every socket's conversation needs.
#[derive(Clone)]
pub struct Context {
    pub service: Arc<Service>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    /// Bytes of one message.
    pub max_payload: u64,
}

pub fn layer(context: Context) -> (SocketIoLayer, SocketIo) {
    let limit = usize::try_from(context.max_payload).unwrap_or(usize::MAX);
    let (layer, io) = SocketIo::builder()
        .max_buffer_size(PACKETS)
        .max_payload(context.max_payload)
        .ws_max_message_size(limit)
        .ws_max_frame_size(limit)
        .build_layer();
    io.ns("/", move |socket: SocketRef, HttpExtension(client): HttpExtension<Client>| {
        welcome(&context, socket, client);
        ready(())
    });
    (layer, io)
}

fn welcome(context: &Context, socket: SocketRef, client: Client) {
    let (give, messages) = mpsc::channel(BACKLOG);
    let most = usize::try_from(context.max_payload).unwrap_or(usize::MAX).saturating_mul(BACKLOG_PAYLOADS);
    let waiting = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&waiting);
    // socketioxide calls handlers in the order of arrival and spawns the futures they return, in which order would be
    // lost: so everything is done in the call.
    socket.on_fallback(
        move |socket: SocketRef, Event(event): Event, TryData(data): TryData<Value>, ack: AckSender| {
            let data = data.unwrap_or(Value::Null);
            let bytes = event.len() + weight(&data);
            let before = counted.fetch_add(bytes, Ordering::Relaxed);
            let full = matches!(give.try_send((event, data, ack)), Err(mpsc::error::TrySendError::Full(_)));
            if full || before.saturating_add(bytes) > most {
                log::info!("a Socket.IO client sends faster than it can be served; it is disconnected");
                let _ = socket.disconnect();
            }
            ready(())
        },
    );
    // Its end of the channel lives in the socket's handlers, which socketioxide drops with the socket.
    let gone = CancellationToken::new();
    let guard = gone.clone();
    socket.on_disconnect(move || {
        guard.cancel();
        ready(())
    });
    let wire = SocketIoWire { socket, messages, waiting, gone, acks: HashMap::new(), next_ack: 0 };
    let Context { service, tasks, stop, max_payload: _ } = context.clone();
    tasks.spawn(converse(wire, service, client, stop));
}

/// Bytes that a payload holds, roughly.
fn weight(data: &Value) -> usize {
    let inside = match data {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + inside
}

struct SocketIoWire {
    socket: SocketRef,
    messages: mpsc::Receiver<(String, Value, AckSender)>,
    /// Bytes that the waiting messages hold.
    waiting: Arc<AtomicUsize>,
    gone: CancellationToken,
    /// Answers that are owed.
    acks: HashMap<u64, AckSender>,
    next_ack: u64,
}

impl Wire for SocketIoWire {
    async fn receive(&mut self) -> Option<Incoming> {
        let (event, data, ack) = tokio::select! {
            message = self.messages.recv() => message?,
            () = self.gone.cancelled() => return None,
        };
        self.waiting.fetch_sub(event.len() + weight(&data), Ordering::Relaxed);
        let number = self.next_ack;
        self.next_ack += 1;
        self.acks.insert(number, ack);
        Some(Incoming { event, data, ack: Some(number) })
    }

    async fn send(&mut self, message: Outgoing) -> Result<(), Closed> {
        match message {
            Outgoing::Event(event, data) => loop {
                match self.socket.emit(event, &data) {
                    Ok(()) => return Ok(()),
                    Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                    Err(_) => return Err(Closed),
                }
            },
            Outgoing::Ack(number, answer) => {
                if let Some(ack) = self.acks.remove(&number) {
                    let answer = answer.unwrap_or_else(|error| error);
                    // Without a callback on the client's side there is nothing to send.
                    let _ = ack.send(&answer);
                }
                Ok(())
            }
        }
    }

    async fn close(&mut self) {
        let _ = self.socket.clone().disconnect();
    }
}
