//! Bad input: every mistake of a caller is a 4xx with problem details that name what was wrong, and costs the server
//! nothing.

#![allow(clippy::disallowed_methods, reason = "tests start clients")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::{Answer, BINARY, PATIENCE, Server, run};

/// Checks the shape of a refusal and gives its sentence.
fn refusal(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text);
    let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    assert_eq!(kind, Some("application/problem+json"), "{}", answer.text);
    let body = answer.json();
    let keys: Vec<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["type", "title", "status", "detail", "error"]);
    assert_eq!(body["status"], status);
    assert_eq!(body["error"], body["detail"], "clients of the original read error");
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()));
    body["detail"].as_str().expect("a sentence").to_owned()
}

fn execute(server: &Server, body: &Value) -> Answer {
    server.post("/api/execute", body)
}

/// A program that is in order, with this changed.
fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"language": "python", "code": "print(1)"});
    body[field] = value;
    body
}

/// Talks to the server in bytes: sends them and reads what it says until it closes the connection.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let address = server.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).expect("connects");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // The server may answer and close while we still write.
    let _ = socket.write_all(bytes);
    let mut said = Vec::new();
    let mut part = [0; 4096];
    loop {
        match socket.read(&mut part) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&part[..count]),
            // Closed with bytes of ours unread; what was said before counts.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&said)),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_body_that_is_not_what_it_should_be_is_told_where() {
    let server = Server::start(&[]);
    let table = [
        ("{\"code\":", "not valid JSON"),
        ("", "not valid JSON"),
        ("not json", "not valid JSON"),
        ("{\"code\":\"1\",\"language\":\"c\"} trailing", "not valid JSON"),
        ("5", "expected an object with code and language"),
        ("null", "expected an object with code and language"),
        ("\"text\"", "expected an object with code and language"),
        ("{\"code\":\"1\",\"code\":\"2\",\"language\":\"c\"}", "duplicate field `code`"),
        ("{\"code\":\"\u{0}\",\"language\":\"c\"}", "not valid JSON"),
    ];
    for (body, expected) in table {
        let told = refusal(&server.post_raw("/api/execute", "application/json", body.as_bytes()), 400);
        assert!(told.contains(expected), "{body:?}: {told}");
    }
    let not_text = b"{\"code\":\"\xff\",\"language\":\"c\"}";
    refusal(&server.post_raw("/api/execute", "application/json", not_text), 400);
}

#[test]
fn a_wrong_type_is_told_with_its_field() {
    let server = Server::start(&[]);
    let table = [
        ("code", json!(5), "code"),
        ("language", json!(["python"]), "language"),
        ("input", json!({}), "input"),
        ("files", json!("main.py"), "files"),
        ("files", json!([{"name": 1, "content": ""}]), "files[0].name"),
        ("files", json!([{"name": "a"}]), "content"),
        ("files", json!([{"name": "a", "content": "%", "encoding": "base64"}]), "files[0].content"),
        ("files", json!([{"name": "a", "content": "x", "encoding": "latin1"}]), "files[0].encoding"),
        ("entrypoint", json!(true), "entrypoint"),
        ("entrypoint", json!("missing.py"), "entrypoint"),
        ("args", json!("x"), "args"),
        ("args", json!([1]), "args[0]"),
        ("args", json!(["a\u{0}b"]), "args"),
        ("inputEncoding", json!("hex"), "inputEncoding"),
        ("interactive", json!("yes"), "interactive"),
        ("limits", json!(5), "limits"),
        ("tests", json!({}), "tests"),
        ("tests", json!([]), "tests"),
        ("tests", json!([{"args": "x"}]), "tests[0].args"),
        ("tests", json!([{"expectedOutput": 1}]), "tests[0].expectedOutput"),
        ("compare", json!("fuzzy"), "compare"),
    ];
    for (field, value, named) in table {
        let told = refusal(&execute(&server, &with(field, value.clone())), 400);
        assert!(told.contains(named), "{field}: {value}: {told}");
    }
    let mut bad_input = with("inputEncoding", json!("base64"));
    bad_input["input"] = json!("%%%");
    assert!(refusal(&execute(&server, &bad_input), 400).contains("input"));
}

#[test]
fn what_is_required_is_asked_for() {
    let server = Server::start(&[]);
    assert!(refusal(&execute(&server, &json!({"code": "1"})), 400).contains("language"));
    assert!(refusal(&execute(&server, &json!({"language": "python"})), 400).contains("code"));
    assert!(refusal(&execute(&server, &with("code", json!(""))), 400).contains("code is empty"));
    let told = refusal(&execute(&server, &with("language", json!("cobol"))), 400);
    for word in ["cobol", "javascript", "python", "java", "cpp", "c"] {
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn a_bad_file_name_is_refused_with_the_name() {
    let server = Server::start(&[]);
    let long = "n".repeat(300);
    let names =
        ["../up.py", "a/../b", "..", "/etc/passwd", "nul\u{0}", "", "a//b", "./a", "a/", long.as_str()];
    for name in names {
        let answer = execute(&server, &with("files", json!([{"name": name, "content": "x"}])));
        let told = refusal(&answer, 400);
        assert!(told.contains("file name"), "{name:?}: {told}");
    }
    let twice = json!([{"name": "a.py", "content": "1"}, {"name": "a.py", "content": "2"}]);
    assert!(refusal(&execute(&server, &with("files", twice)), 400).contains("twice"));
    let as_code = json!([{"name": "main.py", "content": "1"}]);
    assert!(refusal(&execute(&server, &with("files", as_code)), 400).contains("twice"));
    let both = json!([{"name": "a", "content": "1"}, {"name": "a/b", "content": "2"}]);
    assert!(refusal(&execute(&server, &with("files", both)), 400).contains("folder"));
    // 255 bytes are the most that file systems take; one such name is no mistake.
    let longest = json!([{"name": "n".repeat(255), "content": ""}]);
    assert_eq!(server.run(with("files", longest))["status"], "success");
}

#[test]
fn a_bad_limit_is_told_with_field_value_and_ceiling() {
    let server = Server::start(&[
        ("MAX_WALL_TIME", "20s"),
        ("MAX_CPU_TIME", "21s"),
        ("MAX_COMPILE_TIME", "31s"),
        ("MAX_MEMORY", "600MiB"),
        ("OUTPUT_LIMIT", "1000"),
        ("MAX_PROCESSES", "100"),
    ]);
    let fields = [
        ("wallTime", 20_000),
        ("cpuTime", 21_000),
        ("compileTime", 31_000),
        ("memory", 629_145_600_u64),
        ("output", 1000),
        ("processes", 100),
    ];
    for (name, ceiling) in fields {
        for value in
            [json!(0), json!(-5), json!("10"), json!(ceiling + 1), json!([]), json!(true), json!(1e300)]
        {
            let told = refusal(&execute(&server, &with("limits", json!({name: value}))), 400);
            for word in [format!("limits.{name}"), value.to_string(), ceiling.to_string()] {
                assert!(told.contains(&word), "{word} is not in: {told}");
            }
        }
        let answer = execute(&server, &with("limits", json!({name: ceiling})));
        assert_eq!(answer.status, 202, "the ceiling itself is allowed: {}", answer.text);
    }
}

#[test]
fn code_over_the_limit_is_too_large() {
    let server = Server::start(&[("CODE_LIMIT", "100")]);
    let told = refusal(&execute(&server, &with("code", json!("#".repeat(101)))), 413);
    assert!(told.contains("100"), "{told}");
    let mut split = with("code", json!("#".repeat(60)));
    split["files"] = json!([{"name": "a", "content": "#".repeat(60)}]);
    refusal(&execute(&server, &split), 413);
    assert_eq!(server.run(with("code", json!("#".repeat(100))))["status"], "success");
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let server = Server::start(&[("BODY_LIMIT", "2KiB"), ("DRAIN_TIME", "1ms")]);
    let told = refusal(&execute(&server, &with("input", json!("x".repeat(3000)))), 413);
    assert!(told.contains("2048"), "{told}");
    let id = server.submit(with("interactive", json!(true)));
    let path = format!("/api/executions/{id}/input");
    refusal(&server.post(&path, &json!({"data": "x".repeat(3000)})), 413);
}

#[test]
fn an_announced_body_over_the_limit_is_refused_before_it_comes() {
    let server = Server::start(&[]);
    let host = server.url.trim_start_matches("http://");
    let head = format!("POST /api/execute HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000000\r\n\r\n");
    // Not one byte of the body is sent: an answer can only come from the head.
    let said = raw(&server, head.as_bytes());
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
}

#[test]
fn a_chunked_body_is_read_no_further_than_the_limit() {
    let server = Server::start(&[("BODY_LIMIT", "64KiB")]);
    let address = server.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).expect("connects");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    let head = format!("POST /api/execute HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("is taken");
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
    // The body never ends. Sockets' buffers take some megabytes; what takes a gigabyte reads on.
    let taken = (0..262_144).take_while(|_| socket.write_all(&chunk).is_ok()).count();
    assert!(taken < 262_144, "the whole gigabyte was taken");
    assert!(server.get("/api/languages").status == 200, "and the server lives on");
}

#[test]
fn a_chunked_body_over_the_limit_is_answered() {
    let server = Server::start(&[("BODY_LIMIT", "4KiB")]);
    let host = server.url.trim_start_matches("http://");
    let head = format!("POST /api/execute HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = format!("1001\r\n{}\r\n", " ".repeat(0x1001));
    let said = raw(&server, format!("{head}{body}").as_bytes());
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
}

#[test]
fn a_body_that_is_not_called_json_is_refused_and_one_without_a_name_is_taken() {
    let server = Server::start(&[]);
    let body = with("input", json!("")).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let told = refusal(&server.post_raw("/api/execute", kind, body.as_bytes()), 415);
        assert!(told.contains("application/json"), "{told}");
    }
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(server.post_raw("/api/execute", kind, body.as_bytes()).status, 202, "{kind}");
    }
    let host = server.url.trim_start_matches("http://");
    let length = body.len();
    let said = raw(
        &server,
        format!("POST /api/execute HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .as_bytes(),
    );
    assert!(said.starts_with("HTTP/1.1 202"), "{said}");
}

#[test]
fn an_unknown_path_id_or_method_is_told_apart() {
    let server = Server::start(&[]);
    let unknown = "/api/executions/00000000-0000-4000-8000-000000000000";
    for path in ["/nothing", "/api", "/api/executes", "/api/executions", "/api/execute/more"] {
        refusal(&server.get(path), 404);
    }
    for path in [unknown, "/api/executions/no-uuid", "/api/executions/%00", &format!("{unknown}/events")] {
        assert!(refusal(&server.get(path), 404).contains("no execution"), "{path}");
    }
    refusal(&server.delete(unknown), 404);
    refusal(&server.get("/api/execute"), 405);
    refusal(&server.delete("/api/health"), 405);
    refusal(&server.post("/api/languages", &json!({})), 405);
    refusal(&server.post(unknown, &json!({})), 405);
    refusal(&server.get(&format!("{unknown}/input")), 405);
    refusal(&server.post("/metrics", &json!({})), 405);
}

#[test]
fn a_bad_query_is_told() {
    let server = Server::start(&[]);
    let body = with("input", json!(""));
    assert!(refusal(&server.post("/api/execute?wait=maybe", &body), 400).contains("wait"));
    assert!(refusal(&server.post("/api/execute?encoding=hex", &body), 400).contains("encoding"));
    let id = server.submit(body);
    for (query, named) in [
        ("?wait=soon", "wait"),
        ("?wait=-1", "wait"),
        ("?wait=NaN", "wait"),
        ("?wait=1e9", "wait"),
        ("?encoding=hex", "encoding"),
        ("/events?from=x", "from"),
        ("/events?from=-1", "from"),
        ("/events?encoding=hex", "encoding"),
    ] {
        let told = refusal(&server.get(&format!("/api/executions/{id}{query}")), 400);
        assert!(told.contains(named), "{query}: {told}");
    }
}

#[test]
fn more_than_a_client_may_have_is_refused_for_a_while() {
    let server = Server::start(&[
        ("MAX_PER_CLIENT", "1"),
        ("TRUST_PROXY", "true"),
        ("MAX_CONCURRENT", "1"),
        ("MAX_QUEUE", "1"),
    ]);
    let waits = json!({"language": "python", "code": "input()", "interactive": true});
    let of = |client: &str| server.post_with("/api/execute", &[("X-Forwarded-For", client)], &waits);
    let first = of("10.0.0.1");
    assert_eq!(first.status, 202, "{}", first.text);
    let refused = of("10.0.0.1");
    refusal(&refused, 429);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(of("10.0.0.2").status, 202, "another client waits");
    let refused = of("10.0.0.3");
    assert!(refusal(&refused, 503).contains("queue"));
    assert!(refused.headers.contains_key("retry-after"));
    let id = first.json()["executionId"].as_str().expect("an id").to_owned();
    assert_eq!(server.delete(&format!("/api/executions/{id}")).status, 202);
    server.result_of(&id);
    support::eventually("there is room again", || of("10.0.0.1").status == 202);
}

#[test]
fn foreign_pages_may_look_and_not_act() {
    let server = Server::start(&[]);
    let post =
        |origin: &str| server.post_with("/api/execute", &[("Origin", origin)], &with("input", json!("")));
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let refused = post(origin);
        refusal(&refused, 403);
        assert!(!refused.headers.contains_key("access-control-allow-origin"));
    }
    for origin in ["http://localhost:5173", "http://127.0.0.1:8080", server.url.as_str()] {
        let answer = post(origin);
        assert_eq!(answer.status, 202, "{origin}: {}", answer.text);
        let allowed = answer.headers.get("access-control-allow-origin").expect("CORS");
        assert_eq!(allowed, origin);
    }
    assert_eq!(post("http://localhost").headers.get("vary").expect("Vary"), "Origin");
}

#[test]
fn a_preflight_allows_what_the_api_takes() {
    let server = Server::start(&[("CORS_ORIGIN", "https://school.example")]);
    let host = server.url.trim_start_matches("http://");
    let preflight = |origin: &str| {
        raw(
            &server,
            format!(
                "OPTIONS /api/execute HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: close\r\n\
                 Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n"
            )
            .as_bytes(),
        )
        .to_ascii_lowercase()
    };
    let said = preflight("https://school.example");
    assert!(said.starts_with("http/1.1 204"), "{said}");
    assert!(said.contains("access-control-allow-origin: https://school.example\r\n"), "{said}");
    let line = |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    for method in ["get", "post", "delete"] {
        assert!(line("access-control-allow-methods").contains(method), "{said}");
    }
    for header in ["content-type", "authorization", "x-api-key", "idempotency-key", "last-event-id"] {
        assert!(line("access-control-allow-headers").contains(header), "{said}");
    }
    assert!(!preflight("https://evil.example").contains("access-control-allow"));
    assert!(!preflight("http://localhost:5173").contains("access-control-allow"), "the list is exact");
}

#[test]
fn a_name_that_was_made_to_point_here_is_refused() {
    let server = Server::start(&[]);
    let ask = |host: &str| {
        raw(
            &server,
            format!("GET /api/languages HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    };
    assert!(ask("evil.example").starts_with("HTTP/1.1 403"));
    assert!(ask("localhost").starts_with("HTTP/1.1 200"));
    assert!(ask("127.0.0.1:1").starts_with("HTTP/1.1 200"));
}

#[test]
fn wrong_settings_are_told_all_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings =
        [("PORT", "99999"), ("MEMORY", "lots"), ("POOL_SIZE", "-1"), ("HOST", "0.0.0.0"), ("CPUS", "0")];
    let (code, stdout, stderr) = run(std::process::Command::new(BINARY)
        .arg("serve")
        .envs(settings)
        .env("STATE_DIR", folder.path())
        .current_dir(folder.path()));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    for (name, value) in settings {
        let told = stderr.lines().any(|line| line.contains(name) && line.contains(value));
        assert!(told, "{name}={value} is not told:\n{stderr}");
    }
}
