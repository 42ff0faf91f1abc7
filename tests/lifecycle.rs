//! From submission to removal: cancelling, hanging up, waiting in line, stopping the server, killing it.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::traces::{self, Watched};
use support::{Answer, Server, docker, eventually, signal};

/// Runs until it is told to stop.
const ENDLESS: &str = "import time\nprint('before', flush=True)\nwhile True: time.sleep(1)";

fn endless() -> Value {
    json!({"language": "python", "code": ENDLESS, "limits": {"wallTime": 60_000}})
}

fn hello() -> Value {
    json!({"language": "python", "code": "print('hello')"})
}

fn server(settings: &[(&str, &str)]) -> Watched {
    let settings: Vec<_> = [("LANGUAGES", "python,c")].iter().chain(settings).copied().collect();
    Watched::start(&settings, &[])
}

fn path(id: &str) -> String {
    format!("/api/executions/{id}")
}

fn reach(server: &Server, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || server.state_of(id)["state"] == state);
}

/// Until the program has said something, so that there is output to be kept.
fn printing(server: &Server, body: Value) -> String {
    let id = server.submit(body);
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("connected");
    write!(stream, "GET {}/events HTTP/1.1\r\nHost: localhost\r\n\r\n", path(&id)).expect("sent");
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("execution_output") {
        let length = stream.read(&mut chunk).expect("events");
        assert!(length > 0, "the stream ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..length]);
    }
    id
}

fn cancel(server: &Server, id: &str) -> Value {
    assert_eq!(server.delete(&path(id)).status, 202);
    let result = server.result_of(id);
    assert_eq!(result["status"], "cancelled", "{result}");
    assert_eq!(result["exitCode"], Value::Null);
    let again = server.delete(&path(id));
    assert_eq!(again.status, 409, "{}", again.text);
    result
}

#[test]
fn a_running_program_is_cancelled_and_keeps_its_output() {
    let server = server(&[]);
    let id = printing(&server, endless());
    assert_eq!(cancel(&server, &id)["output"], "before\n");
}

#[test]
fn a_program_that_floods_is_cancelled_all_the_same() {
    let server = server(&[("OUTPUT_LIMIT", "1GiB"), ("RESULT_MEMORY", "2GiB")]);
    let code = "import os, signal\nfor number in range(1, 32):\n  try: signal.signal(number, signal.SIG_IGN)\n  \
                except OSError: pass\nwhile True: os.write(1, b'x')";
    let id = printing(&server, json!({"language": "python", "code": code, "limits": {"wallTime": 60_000}}));
    cancel(&server, &id);
}

#[test]
fn a_compiler_is_cancelled() {
    let server = server(&[]);
    let slow = "#define A(x) x x x x x x x x x x x x x x x x\n#define B(x) A(A(A(x)))\nint f(int i) { B(B(i += i * i;)) \
                return i; }\nint main(void) { return f(1); }";
    let id = server.submit(json!({"language": "c", "code": slow, "limits": {"compileTime": 60_000}}));
    reach(&server, &id, "compiling");
    let result = cancel(&server, &id);
    assert!(result["time"]["wall"].as_f64() == Some(0.0), "nothing was run: {result}");
}

#[test]
fn who_waits_in_line_is_cancelled_without_a_container() {
    let server = server(&[("MAX_CONCURRENT", "1")]);
    let first = printing(&server, endless());
    let second = server.submit(endless());
    assert_eq!(server.state_of(&second)["position"], 1);
    let result = cancel(&server, &second);
    assert_eq!(result["time"]["start"], 0.0, "{result}");
    cancel(&server, &first);
    assert_eq!(server.run(hello())["output"], "hello\n");
}

/// A request that waits for its result, on a connection that can be dropped.
fn waiting(server: &Server, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("connected");
    let body = body.to_string();
    write!(
        stream,
        "POST /api/execute?wait=true HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    stream
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[test]
fn who_hangs_up_gives_his_place_to_the_next() {
    let server = server(&[("MAX_CONCURRENT", "1")]);
    let running = waiting(&server, &endless());
    eventually("it runs", || !server.containers().is_empty());
    let queued = waiting(&server, &endless());
    eventually("one waits", || metric(&server, "online_compiler_queued") == 1.0);
    drop(queued);
    eventually("none waits", || metric(&server, "online_compiler_queued") == 0.0);
    drop(running);
    // A program of 60 seconds holds the only permit, unless hanging up has ended it.
    let result = server.run(hello());
    assert_eq!(result["output"], "hello\n");
    assert!(result["time"]["queued"].as_f64().expect("a time") < 30_000.0, "{result}");
}

fn submit_as(server: &Server, client: &str, body: &Value) -> Answer {
    server.post_with("/api/execute", &[("X-Forwarded-For", client)], body)
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let server = server(&[
        ("MAX_CONCURRENT", "1"),
        ("MAX_QUEUE", "2"),
        ("MAX_PER_CLIENT", "2"),
        ("TRUST_PROXY", "true"),
    ]);
    let accepted = |client| {
        let answer = submit_as(&server, client, &endless());
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["executionId"].as_str().expect("an id").to_owned()
    };
    let ids = [accepted("10.0.0.1"), accepted("10.0.0.1"), accepted("10.0.0.2")];
    for (client, status) in [("10.0.0.1", 429), ("10.0.0.3", 503)] {
        let answer = submit_as(&server, client, &hello());
        assert_eq!(answer.status, status, "{}", answer.text);
        let retry = answer.headers.get("retry-after").expect("Retry-After").to_str().expect("text");
        assert!(retry.parse::<u32>().expect("seconds") >= 1);
        assert!(answer.json()["error"].is_string());
    }
    for id in ids.iter().rev() {
        cancel(&server, id);
    }
    assert_eq!(submit_as(&server, "10.0.0.1", &hello()).status, 202, "there is room again");
}

#[test]
fn clients_take_turns_and_see_their_place_in_line() {
    let server = server(&[("MAX_CONCURRENT", "1"), ("TRUST_PROXY", "true")]);
    let submit = |client, body: &Value| {
        submit_as(&server, client, body).json()["executionId"].as_str().expect("an id").to_owned()
    };
    let first = submit("10.0.0.1", &endless());
    reach(&server, &first, "running");
    let busy: Vec<_> = (0..3).map(|_| submit("10.0.0.1", &hello())).collect();
    let other = submit("10.0.0.2", &hello());
    let positions =
        |ids: &[String]| ids.iter().map(|id| server.state_of(id)["position"].clone()).collect::<Vec<_>>();
    assert_eq!(positions(&busy), [1, 3, 4]);
    assert_eq!(positions(std::slice::from_ref(&other)), [2]);
    cancel(&server, &first);
    let last = busy.last().expect("three");
    assert_eq!(server.result_of(last)["status"], "success");
    let seen: Vec<_> = server
        .events(last, "", &[])
        .into_iter()
        .filter_map(|(_, _, data)| data["position"].as_u64())
        .collect();
    // The other client's turn comes before its own; from then on it only moves up.
    let last_in_line = seen.iter().position(|position| *position == 4).expect("it was told of its place");
    assert!(seen[last_in_line..].is_sorted_by(|a, b| a > b) && seen.last() == Some(&1), "{seen:?}");
    let finished = |id: &str| server.state_of(id)["finishedAt"].clone();
    let (second, third) = (finished(&busy[1]).to_string(), finished(&other).to_string());
    assert!(
        third <= second,
        "the other client had its turn before the second of the first's: {third} {second}"
    );
}

#[test]
fn results_are_forgotten_after_their_retention() {
    let server = server(&[("RESULT_RETENTION", "1s")]);
    let result = server.run(hello());
    let id = result["executionId"].as_str().expect("an id");
    eventually("it is forgotten", || server.get(&path(id)).status == 404);
    assert_eq!(server.delete(&path(id)).status, 404);
}

#[test]
fn a_server_that_is_told_to_stop_lets_programs_finish() {
    let mut server = Server::start(&[("LANGUAGES", "python"), ("DRAIN_TIME", "8s")]);
    let code = "import sys\nprint('before', flush=True)\nsys.stdin.readline()\nprint('after')";
    let body =
        json!({"language": "python", "code": code, "interactive": true, "limits": {"wallTime": 60_000}});
    let id = printing(&server, body);
    let mut stream = waiting(
        &server,
        &json!({"language": "python", "code": "import time\ntime.sleep(1.5)\nprint('late')"}),
    );
    eventually("both run", || server.containers().len() == 2);
    // Connections that were open before are served to the end.
    let mut events = TcpStream::connect(server.url.trim_start_matches("http://")).expect("connected");
    write!(events, "GET {}/events HTTP/1.1\r\nHost: localhost\r\n\r\n", path(&id)).expect("sent");
    let mut start = [0; 12];
    events.read_exact(&mut start).expect("answered");
    signal(server.child.id(), "TERM");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("late\\n"), "{answer}");
    // It waits for input that never comes: the drain time ends it, and that is its result.
    let mut rest = String::new();
    let _ = events.read_to_string(&mut rest);
    assert!(rest.contains("cancelled"), "{rest}");
    let status = server.child.wait().expect("it stops");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert_eq!(server.containers(), [""; 0]);
}

#[test]
fn the_door_stays_open_until_the_last_program_has_ended() {
    let mut server = Server::start(&[("LANGUAGES", "python")]);
    let code = "import sys\nprint('before', flush=True)\nprint(sys.stdin.readline())";
    let body =
        json!({"language": "python", "code": code, "interactive": true, "limits": {"wallTime": 60_000}});
    let id = printing(&server, body.clone());
    signal(server.child.id(), "TERM");
    eventually("it is stopping", || server.log().contains("stopping"));
    let refused = server.post("/api/execute", &body);
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.headers.contains_key("retry-after"));
    // A client that comes only now still gets to its program and to the result.
    let sent = server.post(&format!("{}/input", path(&id)), &json!({"data": "on\n", "eof": true}));
    assert_eq!(sent.status, 204, "{}", sent.text);
    assert_eq!(server.result_of(&id)["output"], "before\non\n\n");
    assert_eq!(server.child.wait().expect("it stops").code(), Some(0));
}

#[test]
fn a_killed_server_takes_its_containers_along() {
    let mut server = Server::start(&[("LANGUAGES", "python"), ("POOL_SIZE", "2")]);
    server.wait_for_warm("python", 2);
    let _running = printing(&server, endless());
    let commands = traces::commands(server.child.id());
    assert!(commands.len() >= 2);
    assert!(server.containers().len() >= 2);
    server.kill();
    eventually("its containers have ended by themselves", || server.containers().is_empty());
    eventually("so have its docker commands", || commands.iter().all(|pid| ended(*pid)));
}

/// Gone, or a zombie that its new parent has not reaped.
fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// A container made by hand that only exists.
fn left_behind(labels: &[&str]) -> String {
    let mut args = vec!["create", "--network", "none"];
    for label in labels {
        args.extend(["--label", label]);
    }
    args.extend(["debian:bookworm-slim", "true"]);
    docker(&args).trim().to_owned()
}

fn exists(container: &str) -> bool {
    docker(&["ps", "--all", "--quiet", "--no-trunc"]).lines().any(|line| line == container)
}

#[test]
fn a_start_sweeps_what_is_its_own_or_overdue_and_nothing_else() {
    let state = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(state.path().join("instance-0"), "abcdef01").expect("written");
    let future = "oc.expires=99999999999";
    let own = left_behind(&["oc.app=1", "oc.instance=abcdef01", "oc.epoch=old", future]);
    let others = left_behind(&["oc.app=1", "oc.instance=12345678", "oc.epoch=old", future]);
    let overdue = left_behind(&["oc.app=1", "oc.instance=12345678", "oc.epoch=old", "oc.expires=1000"]);
    let nobodys = left_behind(&["oc.app=1", "oc.expires=1000"]);
    let foreign = left_behind(&["oc.instance=abcdef01", "oc.epoch=old", "oc.expires=1000"]);
    let server = Watched::of(Server::start_in(state, &[("LANGUAGES", "python")]), &[]);
    let left = [&own, &others, &overdue, &nobodys, &foreign].map(|container| exists(container));
    docker(&["rm", &others, &nobodys, &foreign]);
    assert_eq!(left, [false, true, false, true, true]);
    assert_eq!(server.instance(), "abcdef01");
}
