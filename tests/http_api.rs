//! Executions over plain HTTP: asked for, waited for, followed, fed and cancelled (docs/design.md, "Life of an
//! execution").

#![allow(clippy::disallowed_methods, reason = "tests start clients")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::{Server, eventually};

/// Greets, then waits for a line.
const WAITS: &str = "print('ready', flush=True)\nprint('got', input())";

fn waiting(server: &Server) -> String {
    server.submit(json!({"language": "python", "code": WAITS, "interactive": true}))
}

fn type_in(server: &Server, id: &str, body: &Value) -> u16 {
    server.post(&format!("/api/executions/{id}/input"), body).status
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn set<const N: usize>(keys: [&'static str; N]) -> BTreeSet<&'static str> {
    keys.into()
}

#[test]
fn an_execution_is_accepted_and_its_result_follows() {
    let server = Server::start(&[]);
    let answer = server.post("/api/execute", &json!({"language": "python", "code": "print(6*7)"}));
    assert_eq!(answer.status, 202);
    assert_eq!(keys(&answer.json()), set(["executionId", "message"]));
    assert_eq!(answer.json()["message"], "Code execution started");
    let id = answer.json()["executionId"].as_str().expect("an id").to_owned();
    assert_eq!(server.result_of(&id)["output"], "42\n");
}

#[test]
fn waiting_brings_the_result_with_the_answer_whatever_the_verdict() {
    let server = Server::start(&[]);
    let table = [("print(1)", "success", json!(0)), ("exit(7)", "runtime_error", json!(7))];
    for (code, status, exit_code) in table {
        let answer = server.post("/api/execute?wait=true", &json!({"language": "python", "code": code}));
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(keys(&body), set(["executionId", "message", "result"]));
        assert_eq!(body["message"], "Code execution completed");
        assert_eq!(body["result"]["executionId"], body["executionId"]);
        assert_eq!((&body["result"]["status"], &body["result"]["exitCode"]), (&json!(status), &exit_code));
        assert_eq!(body["result"]["message"].is_null(), status == "success", "{body}");
    }
}

#[test]
fn the_result_has_exactly_the_documented_fields() {
    let server = Server::start(&[]);
    let fields = set([
        "executionId",
        "language",
        "status",
        "output",
        "stdout",
        "stderr",
        "exitCode",
        "signal",
        "truncated",
        "message",
        "compile",
        "time",
        "memoryPeak",
        "tests",
        "warm",
        "command",
    ]);
    let code = "#include <stdio.h>\nint main(void) { puts(\"hi\"); fputs(\"oh\", stderr); return 3; }";
    let with_tests = json!({"language": "c", "code": code, "tests": [{"name": "t", "expectedOutput": "hi"}]});
    for body in [json!({"language": "c", "code": code}), with_tests] {
        let result = server.run(body);
        assert_eq!(keys(&result), fields);
        let compile = set(["stdout", "stderr", "exitCode", "signal", "wall", "cpu", "memoryPeak", "cached"]);
        assert_eq!(keys(&result["compile"]), compile);
        assert_eq!(keys(&result["time"]), set(["queued", "start", "wall", "cpu", "total"]));
        assert!(result["memoryPeak"].as_u64() > Some(0), "{result}");
        for test in result["tests"].as_array().into_iter().flatten() {
            let of_test = set([
                "name",
                "status",
                "stdout",
                "stderr",
                "exitCode",
                "signal",
                "truncated",
                "time",
                "memoryPeak",
                "message",
            ]);
            assert_eq!(keys(test), of_test);
            assert_eq!(keys(&test["time"]), set(["wall", "cpu"]));
        }
    }
    let refused = server.run_code("c", "int main(void) { return nothing; }");
    assert_eq!(keys(&refused), fields);
    assert_eq!(refused["status"], "compile_error");
    assert_eq!(refused["exitCode"], Value::Null);
    assert_eq!(refused["output"], refused["compile"]["stderr"]);
    assert_ne!(refused["output"], "");
}

#[test]
fn the_event_of_the_result_is_the_result_with_its_seq() {
    let server = Server::start(&[]);
    let id = server.submit(json!({"language": "python", "code": "print(1)"}));
    let mut polled = server.result_of(&id);
    let (seq, name, data) = server.events(&id, "", &[]).pop().expect("events");
    assert_eq!(name, "execution_result");
    polled["seq"] = json!(seq);
    assert_eq!(data, polled);
}

#[test]
fn without_exposed_commands_no_result_tells_the_command() {
    let server = Server::start(&[("EXPOSE_COMMANDS", "false")]);
    assert!(server.run_code("python", "1").get("command").is_none());
}

#[test]
fn polling_tells_the_state_and_long_polling_ends_with_the_execution() {
    let server = Server::start(&[("MAX_CONCURRENT", "1")]);
    let (running, queued) = (waiting(&server), waiting(&server));
    eventually("it runs", || server.state_of(&running)["state"] == "running");
    eventually("the other has its place", || server.state_of(&queued)["position"] == 1);
    let state = server.state_of(&queued);
    assert_eq!(keys(&state), set(["executionId", "language", "state", "position", "createdAt"]));
    assert_eq!((&state["state"], &state["language"]), (&json!("queued"), &json!("python")));
    assert_eq!(
        keys(&server.state_of(&running)),
        set(["executionId", "language", "state", "createdAt", "startedAt"])
    );

    // A poll that is too short tells the state as it is.
    let answer = server.get(&format!("/api/executions/{running}?wait=0.01"));
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("running")));

    std::thread::scope(|scope| {
        let poll = scope.spawn(|| server.get(&format!("/api/executions/{running}?wait=60")).json());
        assert_eq!(type_in(&server, &running, &json!({"data": "x\n"})), 204);
        let state = poll.join().expect("no panic");
        assert_eq!(state["state"], "finished");
        assert_eq!(state["result"]["output"], "ready\ngot x\n");
        assert!(state["finishedAt"].as_f64() >= state["startedAt"].as_f64(), "{state}");
        assert!(state["startedAt"].as_f64() >= state["createdAt"].as_f64(), "{state}");
    });
    assert_eq!(type_in(&server, &queued, &json!({"eof": true})), 204);
    assert_eq!(server.result_of(&queued)["status"], "runtime_error", "input() at the end is an EOFError");
}

#[test]
fn the_event_stream_resumes_at_every_place_with_the_same_events() {
    let server = Server::start(&[]);
    let code = "import sys\nfor n in range(3):\n    print(n, flush=True)\n    print(-n, file=sys.stderr, flush=True)";
    let id = server.submit(json!({"language": "python", "code": code}));
    let live = server.events(&id, "", &[]);
    assert!(live.len() >= 5, "{live:?}");
    for (index, (seq, _, data)) in live.iter().enumerate() {
        assert_eq!(*seq, index as u64);
        assert_eq!(data["seq"], *seq);
        assert_eq!(data["executionId"], id.as_str());
    }
    let states: Vec<_> = live.iter().filter_map(|(_, _, data)| data["state"].as_str()).collect();
    assert_eq!(states, ["queued", "starting", "running"]);
    assert_eq!(live.iter().filter(|(_, name, _)| name == "execution_result").count(), 1);
    for from in 0..live.len() {
        assert_eq!(server.events(&id, &format!("?from={from}"), &[]), live[from..], "from={from}");
    }
    for from in 0..live.len() - 1 {
        let last = from.to_string();
        let resumed = server.events(&id, "", &[("Last-Event-ID", &last)]);
        assert_eq!(resumed, live[from + 1..], "Last-Event-ID: {from}");
        // A browser that reconnects asks for the address it knows, and its own place counts.
        assert_eq!(server.events(&id, "?from=0", &[("Last-Event-ID", &last)]), live[from + 1..]);
    }
    assert_eq!(server.events(&id, "?from=1000", &[]), [], "past the end there is nothing, and it ends");
}

#[test]
fn the_output_events_add_up_to_the_result() {
    let server = Server::start(&[]);
    let code = "#include <iostream>\nint main() { int unused; std::cout << \"out\" << std::flush; std::cerr << \"err\"; }";
    let id = server.submit(json!({"language": "cpp", "code": code}));
    let result = server.result_of(&id);
    let events = server.events(&id, "", &[]);
    let said = |stage: &str, stream: Option<&str>| -> String {
        events
            .iter()
            .filter(|(_, name, data)| {
                name == "execution_output"
                    && data["stage"] == stage
                    && stream.is_none_or(|stream| data["stream"] == stream)
            })
            .filter_map(|(_, _, data)| data["data"].as_str())
            .collect()
    };
    assert_eq!(said("run", Some("stdout")), result["stdout"]);
    assert_eq!(said("run", Some("stderr")), result["stderr"]);
    assert_eq!(said("run", None), result["output"]);
    assert_eq!(said("compile", Some("stderr")), result["compile"]["stderr"]);
    assert!(said("compile", None).contains("unused"), "the warning of the compiler is told, too");
    let states: Vec<_> = events.iter().filter_map(|(_, _, data)| data["state"].as_str()).collect();
    assert_eq!(states, ["queued", "starting", "compiling", "running"]);
}

#[test]
fn input_reaches_a_running_program_until_its_end_was_sent() {
    let server = Server::start(&[]);
    let code = "import sys\nprint(repr(sys.stdin.buffer.read()))\nsys.stdout.flush()\nwhile True: pass";
    let id = server.submit(json!({"language": "python", "code": code, "interactive": true, "input": "a"}));
    assert_eq!(type_in(&server, &id, &json!({"data": "b"})), 204);
    assert_eq!(type_in(&server, &id, &json!({"data": "AP8=", "encoding": "base64"})), 204);
    assert_eq!(type_in(&server, &id, &json!({"data": "%%%", "encoding": "base64"})), 400);
    assert_eq!(type_in(&server, &id, &json!({})), 400);
    assert_eq!(type_in(&server, &id, &json!({"data": 5})), 400);
    assert_eq!(type_in(&server, &id, &json!({"data": "c", "eof": true})), 204);
    assert_eq!(type_in(&server, &id, &json!({"data": "d"})), 409, "the end was sent");
    assert_eq!(type_in(&server, &id, &json!({"eof": true})), 409);
    follow(&server, &id).until("b'ab\\\\x00\\\\xffc'");
    assert_eq!(server.delete(&format!("/api/executions/{id}")).status, 202);
    assert_eq!(server.result_of(&id)["stdout"], "b'ab\\x00\\xffc'\n");
    assert_eq!(type_in(&server, &id, &json!({"data": "e"})), 409, "it has ended");
}

#[test]
fn input_is_refused_where_nobody_would_read_it() {
    let server = Server::start(&[]);
    let id = server.submit(json!({"language": "python", "code": "print(1)"}));
    assert_eq!(type_in(&server, &id, &json!({"data": "x"})), 409, "not interactive");
    let unknown = "00000000-0000-4000-8000-000000000000";
    assert_eq!(type_in(&server, unknown, &json!({"data": "x"})), 404);
    server.result_of(&id);
    assert_eq!(type_in(&server, &id, &json!({"data": "x"})), 409);
}

#[test]
fn a_cancelled_execution_keeps_what_it_had_printed() {
    let server = Server::start(&[]);
    let id = waiting(&server);
    follow(&server, &id).until(r"ready\n");
    let path = format!("/api/executions/{id}");
    assert_eq!(server.delete(&path).status, 202);
    let result = server.result_of(&id);
    assert_eq!((&result["status"], &result["output"]), (&json!("cancelled"), &json!("ready\n")));
    assert_eq!(result["exitCode"], Value::Null);
    assert!(result["message"].is_string());
    assert_eq!(server.delete(&path).status, 409, "it has ended");
}

#[test]
fn an_execution_that_waits_can_be_cancelled() {
    let server = Server::start(&[("MAX_CONCURRENT", "1")]);
    let (first, second) = (waiting(&server), waiting(&server));
    assert_eq!(server.delete(&format!("/api/executions/{second}")).status, 202);
    assert_eq!(server.result_of(&second)["status"], "cancelled");
    assert_ne!(server.state_of(&first)["state"], "finished");
    assert_eq!(server.delete(&format!("/api/executions/{first}")).status, 202);
    assert_eq!(server.result_of(&first)["status"], "cancelled");
}

#[test]
fn a_client_that_hangs_up_while_it_waits_cancels_its_execution() {
    let server = Server::start(&[]);
    let body = json!({"language": "python", "code": "while True: pass"}).to_string();
    let address = server.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).expect("connects");
    write!(
        client,
        "POST /api/execute?wait=true HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("is taken");
    let counted = |line: &str| server.get("/metrics").text.lines().any(|told| told == line);
    eventually("it runs", || counted("online_compiler_running 1"));
    drop(client);
    let cancelled = r#"online_compiler_executions_total{language="python",status="cancelled"} 1"#;
    eventually("it is cancelled", || counted(cancelled));
}

#[test]
fn bytes_that_are_no_text_come_exactly_as_base64() {
    let server = Server::start(&[]);
    let code = "import sys\nsys.stdout.buffer.write(b'\\xff\\x00\\xc3\\xa4')\nsys.stderr.write('e')";
    let body = json!({"language": "python", "code": code});
    let answer = server.post("/api/execute?wait=true&encoding=base64", &body).json();
    assert_eq!(answer["result"]["stdout"], "/wDDpA==");
    assert_eq!(answer["result"]["stderr"], "ZQ==");
    let id = answer["executionId"].as_str().expect("an id").to_owned();
    let polled = server.get(&format!("/api/executions/{id}?encoding=base64")).json();
    assert_eq!(polled["result"], answer["result"]);
    let events = server.events(&id, "?encoding=base64", &[]);
    let data = |stream: &str| {
        let found = events.iter().find(|(_, _, data)| data["stream"] == stream);
        found.expect("output").2["data"].clone()
    };
    assert_eq!(data("stdout"), "/wDDpA==");
    assert_eq!(events.last().expect("a result").2["stdout"], "/wDDpA==");
    // As text, what is not UTF-8 is replaced.
    assert_eq!(server.result_of(&id)["stdout"], "\u{fffd}\0ä");
    let refused = server.post(
        "/api/execute?wait=true&encoding=base64",
        &json!({"language": "c", "code": "int main(void) { return x; }"}),
    );
    let compile = &refused.json()["result"]["compile"]["stderr"];
    assert!(compile.as_str().is_some_and(|text| !text.contains(' ') && !text.is_empty()), "{compile}");
}

#[test]
fn input_in_base64_may_hold_any_byte() {
    let server = Server::start(&[]);
    let result = server.run(json!({
        "language": "python", "code": "import sys; print(sys.stdin.buffer.read())",
        "input": "AAH/AA==", "inputEncoding": "base64",
    }));
    assert_eq!(result["stdout"], "b'\\x00\\x01\\xff\\x00'\n");
}

#[test]
fn a_repeated_request_finds_the_first_execution() {
    let server = Server::start(&[]);
    let body = json!({"language": "python", "code": "print(1)"});
    let send = |key: &str, body: &Value| server.post_with("/api/execute", &[("Idempotency-Key", key)], body);
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let answer = send("one", &body);
                    assert_eq!(answer.status, 202, "{}", answer.text);
                    answer.json()["executionId"].as_str().expect("an id").to_owned()
                })
            })
            .collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(ids.len(), 1, "ten requests at once are one execution");
    let id = ids.first().expect("one").clone();
    server.result_of(&id);
    assert_eq!(send("one", &body).json()["executionId"], id.as_str(), "also after its end");
    assert_ne!(send("two", &body).json()["executionId"], id.as_str(), "another key is another execution");
    let other = send("one", &json!({"language": "python", "code": "print(2)"}));
    assert_eq!(other.status, 422, "{}", other.text);
    let waited = server.post_with("/api/execute?wait=true", &[("Idempotency-Key", "one")], &body);
    assert_eq!((waited.status, &waited.json()["executionId"]), (200, &json!(id)));
    assert_eq!(send("", &body).status, 400);
    assert_eq!(send(&"k".repeat(256), &body).status, 400);
}

#[test]
fn a_request_that_was_refused_for_want_of_room_can_be_repeated_with_its_key() {
    let server = Server::start(&[("MAX_PER_CLIENT", "1")]);
    let occupant = waiting(&server);
    let send = || {
        let body = json!({"language": "python", "code": "print(1)"});
        server.post_with("/api/execute", &[("Idempotency-Key", "again")], &body)
    };
    assert_eq!(send().status, 429);
    assert_eq!(server.delete(&format!("/api/executions/{occupant}")).status, 202);
    eventually("there is room", || send().status == 202);
    let id = send().json()["executionId"].as_str().expect("an id").to_owned();
    assert_eq!(server.result_of(&id)["output"], "1\n");
}

#[test]
fn a_key_belongs_to_its_client() {
    let server = Server::start(&[("TRUST_PROXY", "true")]);
    let send = |client: &str, code: &str| {
        let headers = [("Idempotency-Key", "same"), ("X-Forwarded-For", client)];
        server.post_with("/api/execute", &headers, &json!({"language": "python", "code": code}))
    };
    let (one, two) = (send("10.0.0.1", "print(1)"), send("10.0.0.2", "print(2)"));
    assert_eq!((one.status, two.status), (202, 202), "{}", two.text);
    assert_ne!(one.json()["executionId"], two.json()["executionId"]);
    assert_eq!(send("10.0.0.1", "print(1)").json(), one.json());
}

#[test]
fn unknown_fields_are_named_in_warnings() {
    let server = Server::start(&[]);
    let body = json!({"language": "python", "code": "print(1)", "colour": "red", "limits": {"wallTme": 5}});
    let answer = server.post("/api/execute?wait=true", &body);
    assert_eq!(answer.status, 200);
    let warnings = answer.json()["warnings"].clone();
    let warnings: Vec<_> = warnings.as_array().expect("warnings").iter().filter_map(Value::as_str).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("colour") && warnings[1].contains("limits.wallTme"), "{warnings:?}");
    assert_eq!(answer.json()["result"]["output"], "1\n", "and ignored");
}

#[test]
fn an_event_source_that_has_seen_the_result_is_told_not_to_come_back() {
    let server = Server::start(&[]);
    let id = server.submit(json!({"language": "python", "code": WAITS, "interactive": true}));
    let comes_back = |last: u64| {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("connects");
        let path = format!("/api/executions/{id}/events");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last}\r\n\r\n")
            .expect("is taken");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        String::from_utf8_lossy(&head).into_owned()
    };
    assert_eq!(comes_back(1000), "HTTP/1.1 200", "there is more to come");
    assert_eq!(type_in(&server, &id, &json!({"data": "x\n"})), 204);
    server.result_of(&id);
    let last = server.events(&id, "", &[]).last().expect("a result").0;
    assert_eq!(comes_back(last - 1), "HTTP/1.1 200", "the result is to come");
    assert_eq!(comes_back(last), "HTTP/1.1 204");
}

#[test]
fn a_finished_execution_is_forgotten_after_its_retention() {
    let server = Server::start(&[("RESULT_RETENTION", "1s")]);
    let answer = server.post("/api/execute?wait=true", &json!({"language": "python", "code": "1"})).json();
    let id = answer["executionId"].as_str().expect("an id");
    eventually("it is forgotten", || server.get(&format!("/api/executions/{id}")).status == 404);
    assert_eq!(server.get(&format!("/api/executions/{id}/events")).status, 404);
}

#[test]
fn a_server_that_is_stopped_at_once_still_runs_what_it_has_accepted() {
    let server = Server::start(&[]);
    let id = server.submit(json!({"language": "python", "code": "print(6*7)"}));
    let mut stream = follow(&server, &id);
    stream.until("queued");
    support::signal(server.child.id(), "TERM");
    stream.until(r#""status":"success""#);
}

/// The event stream as its bytes arrive.
struct Stream(TcpStream);

fn follow(server: &Server, id: &str) -> Stream {
    let address = server.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).expect("connects");
    client.set_read_timeout(Some(support::PATIENCE)).expect("a time limit");
    write!(client, "GET /api/executions/{id}/events HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("is taken");
    Stream(client)
}

impl Stream {
    /// Reads until this has arrived.
    fn until(&mut self, wanted: &str) {
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let count = self.0.read(&mut part).expect("more arrives in time");
            assert!(count > 0, "{wanted:?} is not in {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&part[..count]);
        }
    }
}
