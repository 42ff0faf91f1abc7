//! The native WebSocket, `/api/ws`: JSON frames with names, answers to those that carry an id, and the same events as
//! everywhere.

mod support;

use std::net::TcpStream;

use serde_json::{Value, json};
use support::{PATIENCE, Server};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Error, Message, WebSocket};

struct Socket {
    socket: WebSocket<TcpStream>,
    /// Events that came while something else was waited for.
    events: Vec<(String, Value)>,
}

impl Socket {
    fn open(server: &Server) -> Socket {
        Self::try_open(server, None).expect("the handshake succeeds")
    }

    fn try_open(server: &Server, origin: Option<&str>) -> Result<Socket, u16> {
        let address = server.url.trim_start_matches("http://");
        let mut request = format!("ws://{address}/api/ws").into_client_request().expect("valid");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("valid"));
        }
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Socket { socket, events: Vec::new() }),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("is taken");
    }

    fn frame(&mut self) -> Value {
        loop {
            match self.socket.read().expect("a frame arrives") {
                Message::Text(text) => return serde_json::from_str(&text).expect("frames are JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a frame with an id and gives the answer to it.
    fn ask(&mut self, id: u64, event: &str, data: &Value) -> Value {
        self.send(&json!({"event": event, "data": data, "id": id}));
        loop {
            let frame = self.frame();
            if frame["ack"] == id {
                return frame;
            }
            self.keep(frame);
        }
    }

    fn keep(&mut self, frame: Value) {
        let keys: Vec<&str> = frame.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["event", "data"], "{frame}");
        let name = frame["event"].as_str().expect("a name").to_owned();
        self.events.push((name, frame["data"].clone()));
    }

    /// The first event that is as wanted, of those that came and those to come.
    fn event(&mut self, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        loop {
            if let Some((_, data)) = self.events.iter().find(|(name, data)| wanted(name, data)) {
                return data.clone();
            }
            let frame = self.frame();
            self.keep(frame);
        }
    }

    fn result(&mut self, id: &str) -> Value {
        self.event(|name, data| name == "execution_result" && data["executionId"] == id)
    }

    /// Waits until the program has printed this.
    fn printed(&mut self, text: &str) {
        self.event(|name, data| {
            name == "execution_output" && data["data"].as_str().is_some_and(|data| data.contains(text))
        });
    }

    fn execute(&mut self, body: &Value) -> String {
        let answer = self.ask(1, "execute", body);
        assert_eq!(answer["data"]["message"], "Code execution started", "{answer}");
        answer["data"]["executionId"].as_str().expect("an id").to_owned()
    }

    /// Reads until the server has ended the connection.
    fn ended(mut self) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(_))
                | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                    return;
                }
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const WAITS: &str = "print('ready', flush=True)\nprint('got', input())";

fn waits() -> Value {
    json!({"language": "python", "code": WAITS, "interactive": true})
}

#[test]
fn execute_is_answered_like_a_post_and_the_socket_has_joined() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    let body = json!({"language": "python", "code": "print(6*7)", "colour": "red"});
    let answer = socket.ask(5, "execute", &body);
    let id = answer["data"]["executionId"].as_str().expect("an id").to_owned();
    assert!(answer["data"]["warnings"][0].as_str().is_some_and(|told| told.contains("colour")), "{answer}");
    assert_eq!(socket.result(&id)["stdout"], "42\n");
    let streamed: Vec<_> =
        server.events(&id, "", &[]).into_iter().map(|(_, name, data)| (name, data)).collect();
    assert_eq!(socket.events, streamed, "the same events as on the event stream");
}

#[test]
fn an_event_without_an_id_is_not_answered() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    socket.send(&json!({"event": "execute", "data": {"language": "python", "code": "print(1)"}}));
    socket.event(|name, _| name == "execution_result");
    let names: Vec<_> = socket.events.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.iter().all(|name| name.starts_with("execution_")), "{names:?}");
}

#[test]
fn joining_gives_all_events_once_to_each_that_joined() {
    let server = Server::start(&[]);
    let id = server.submit(waits());
    let (mut one, mut two) = (Socket::open(&server), Socket::open(&server));
    assert_eq!(one.ask(1, "join_execution", &json!(id))["data"]["executionId"], id.as_str());
    assert_eq!(two.ask(1, "join_execution", &json!({"executionId": id}))["data"]["executionId"], id.as_str());
    one.printed("ready\n");
    assert_eq!(two.ask(2, "execution_input", &json!({"executionId": id, "data": "x\n"}))["data"], json!({}));
    assert_eq!(one.result(&id)["output"], "ready\ngot x\n");
    two.result(&id);
    // Joining again changes nothing.
    one.ask(3, "join_execution", &json!(id));
    one.ask(4, "join_execution", &json!(id));
    assert_eq!(one.events, two.events);
    let mut late = Socket::open(&server);
    late.ask(1, "join_execution", &json!(id));
    late.result(&id);
    assert_eq!(late.events, one.events);
}

#[test]
fn a_program_is_fed_until_the_end_of_its_input() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    let code = "import sys; print(repr(sys.stdin.buffer.read()))";
    let id = socket.execute(&json!({"language": "python", "code": code, "interactive": true}));
    socket.send(&json!({"event": "execution_input", "data": {"executionId": id, "data": "a"}}));
    let bytes = json!({"executionId": id, "data": "AP8=", "encoding": "base64"});
    socket.send(&json!({"event": "execution_input", "data": bytes}));
    assert_eq!(socket.ask(2, "execution_input", &json!({"executionId": id, "eof": true}))["data"], json!({}));
    let refused = socket.ask(3, "execution_input", &json!({"executionId": id, "data": "b"}));
    assert!(refused["error"]["message"].is_string(), "{refused}");
    assert_eq!(socket.result(&id)["stdout"], "b'a\\x00\\xff'\n");
}

#[test]
fn an_execution_is_cancelled_once() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    let id = socket.execute(&waits());
    socket.printed("ready");
    assert_eq!(socket.ask(2, "execution_cancel", &json!({"executionId": id}))["data"], json!({}));
    assert_eq!(socket.result(&id)["status"], "cancelled");
    let refused = socket.ask(3, "execution_cancel", &json!({"executionId": id}));
    assert_eq!(refused["error"]["executionId"], id.as_str(), "{refused}");
}

#[test]
fn a_mistake_is_an_error_for_the_ack_and_an_event() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    let unknown = "00000000-0000-4000-8000-000000000000";
    let table = [
        ("join_execution", json!(unknown), "no execution"),
        ("join_execution", json!(5), "missing"),
        ("join_execution", Value::Null, "missing"),
        ("join_execution", json!({}), "missing"),
        ("execution_input", json!({"executionId": unknown, "data": ""}), "no execution"),
        ("execution_cancel", json!([]), "missing"),
        ("execute", json!({"language": "cobol", "code": "1"}), "cobol"),
        ("execute", json!({"language": "python"}), "code"),
        ("execute", json!("print(1)"), "expected"),
        ("execute", json!({"language": "c", "code": "1", "limits": {"memory": 0}}), "limits.memory"),
        ("no_such_event", json!({}), "no_such_event"),
    ];
    for (number, (event, data, expected)) in table.into_iter().enumerate() {
        let answer = socket.ask(number as u64, event, &data);
        let keys: Vec<&str> = answer.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["ack", "error"]);
        let told = answer["error"]["message"].as_str().expect("a sentence");
        assert!(told.contains(expected), "{event} {data}: {told}");
        assert_eq!(answer["error"]["error"], told);
        let error = socket.event(|name, _| name == "execution_error");
        assert_eq!(error, answer["error"], "{event} {data}");
        socket.events.clear();
    }
    assert_eq!(socket.execute(&json!({"language": "python", "code": "1"})).len(), 36, "it lives on");
}

#[test]
fn a_malformed_frame_is_told_and_the_connection_lives_on() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    for text in ["", "not json", "[]", "5", "null", "{}", r#"{"data": 1}"#, r#"{"event": 5}"#, r#"{"event":"#]
    {
        socket.send_text(text);
        let error = socket.event(|name, _| name == "execution_error");
        assert!(error["message"].as_str().is_some_and(|told| told.contains("frames are JSON")), "{error}");
        socket.events.clear();
    }
    for id in [json!(-1), json!("text"), json!(1.5)] {
        socket.send(&json!({"event": "join_execution", "data": "x", "id": id}));
        socket.event(|name, _| name == "execution_error");
        socket.events.clear();
    }
    // Binary frames mean nothing here, and break nothing.
    socket.socket.send(Message::binary(vec![0, 1, 2])).expect("is taken");
    socket.execute(&json!({"language": "python", "code": "1"}));
}

#[test]
fn a_message_over_the_limit_ends_the_connection_and_not_the_server() {
    let server = Server::start(&[("BODY_LIMIT", "4KiB")]);
    let mut socket = Socket::open(&server);
    let large =
        json!({"event": "execute", "data": {"language": "python", "code": "#".repeat(5000)}, "id": 1});
    // The server may have hung up before all of it was written.
    let _ = socket.socket.send(Message::text(large.to_string()));
    socket.ended();
    let mut socket = Socket::open(&server);
    socket.execute(&json!({"language": "python", "code": "#".repeat(3000)}));
}

#[test]
fn a_ping_is_answered() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    socket.socket.send(Message::Ping(b"are you there".to_vec().into())).expect("is taken");
    let pong = loop {
        match socket.socket.read().expect("an answer") {
            Message::Pong(bytes) => break bytes,
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pong.as_ref(), b"are you there");
}

#[test]
fn a_client_that_closes_leaves_its_execution_running() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    let id = socket.execute(&waits());
    socket.printed("ready");
    socket.socket.close(None).expect("is taken");
    socket.ended();
    let mut other = Socket::open(&server);
    other.ask(1, "join_execution", &json!(id));
    other.printed("ready");
    other.ask(2, "execution_input", &json!({"executionId": id, "data": "x\n"}));
    assert_eq!(other.result(&id)["status"], "success");
}

#[test]
fn a_page_of_a_foreign_origin_gets_no_socket() {
    let server = Server::start(&[]);
    assert_eq!(Socket::try_open(&server, Some("https://evil.example")).err(), Some(403));
    assert!(Socket::try_open(&server, Some("http://localhost:5173")).is_ok());
    assert_eq!(server.get("/api/ws").status, 400, "without a handshake there is nothing to see");
}

#[test]
fn a_mebibyte_of_output_arrives_whole_and_in_order() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(&server);
    let code = "for line in range(131072): print(f'{line:07}')";
    let id = socket.execute(&json!({"language": "python", "code": code}));
    let result = socket.result(&id);
    assert_eq!((&result["status"], &result["truncated"]), (&json!("success"), &json!(false)));
    let said: String = socket.events.iter().filter_map(|(_, data)| data["data"].as_str()).collect();
    let expected: String = (0..131_072).map(|line| format!("{line:07}\n")).collect();
    assert!(said == expected, "{} bytes that differ", said.len());
    for (index, (_, data)) in socket.events.iter().enumerate() {
        assert_eq!(data["seq"], index);
    }
}

#[test]
fn a_server_that_stops_takes_leave() {
    let mut server = Server::start(&[("DRAIN_TIME", "1ms")]);
    let mut socket = Socket::open(&server);
    let id = socket.execute(&waits());
    socket.printed("ready");
    support::signal(server.child.id(), "TERM");
    let mut last = None;
    while let Ok(message) = socket.socket.read() {
        match message {
            Message::Text(text) => last = serde_json::from_str::<Value>(&text).ok(),
            Message::Close(frame) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1001));
                break;
            }
            _ => {}
        }
    }
    server.terminate();
    if let Some(last) = last {
        assert_eq!(last["data"]["executionId"], id.as_str(), "{last}");
    }
}
