//! The native WebSocket: JSON text frames `{event, data, id?}`, answered by `{ack, data | error}`.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use warp::ws::{Message, WebSocket};

use super::conversation::{Closed, Incoming, Outgoing, Wire};

const PING_EVERY: Duration = Duration::from_secs(15);

/// A peer that has said nothing for so long is dead; it is asked for a sign of life every `PING_EVERY`.
const DEAD_AFTER: Duration = Duration::from_secs(40);

/// RFC 6455, section 7.4.1.
const GOING_AWAY: u16 = 1001;

pub struct NativeSocket {
    socket: WebSocket,
    pings: Interval,
    heard: Instant,
}

#[derive(Deserialize)]
struct Frame {
    event: String,
    #[serde(default)]
    data: Value,
    id: Option<u64>,
}

impl NativeSocket {
    pub fn new(socket: WebSocket) -> Self {
        let mut pings = tokio::time::interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        NativeSocket { socket, pings, heard: Instant::now() }
    }
}

impl Wire for NativeSocket {
    async fn receive(&mut self) -> Option<Incoming> {
        enum Event {
            Message(Option<Result<Message, warp::Error>>),
            Ping,
        }
        loop {
            let event = tokio::select! {
                message = self.socket.next() => Event::Message(message),
                _ = self.pings.tick() => Event::Ping,
            };
            let message = match event {
                Event::Ping if self.heard.elapsed() > DEAD_AFTER => return None,
                Event::Ping => {
                    self.socket.send(Message::ping(Vec::new())).await.ok()?;
                    continue;
                }
                Event::Message(message) => message?.ok()?,
            };
            self.heard = Instant::now();
            if message.is_close() {
                return None;
            }
            let Ok(text) = message.to_str() else {
                continue; // Pings and pongs; binary frames mean nothing here.
            };
            match serde_json::from_str(text) {
                Ok(Frame { event, data, id }) => return Some(Incoming { event, data, ack: id }),
                Err(error) => {
                    let sentence = format!("frames are JSON objects with event and data: {error}");
                    let payload = json!({ "error": sentence, "message": sentence });
                    self.send(Outgoing::Event("execution_error", payload)).await.ok()?;
                }
            }
        }
    }

    async fn send(&mut self, message: Outgoing) -> Result<(), Closed> {
        let frame = match message {
            Outgoing::Event(event, data) => json!({ "event": event, "data": data }),
            Outgoing::Ack(id, Ok(data)) => json!({ "ack": id, "data": data }),
            Outgoing::Ack(id, Err(error)) => json!({ "ack": id, "error": error }),
        };
        self.socket.send(Message::text(frame.to_string())).await.map_err(|_| Closed)
    }

    async fn close(&mut self) {
        // The peer may be gone already.
        let _ = self.socket.send(Message::close_with(GOING_AWAY, "the server stops")).await;
    }
}
