//! The real clients against the real server: curl, Node's fetch, npm's socket.io-client and PyPI's python-socketio.
//! Each scenario is a small program in `tests/clients/` that says what differed.

#![allow(clippy::disallowed_methods, reason = "tests start clients")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Server, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a scenario; one that cannot run has failed, because nobody would notice that it was left out.
fn play(server: &Server, program: &Path, script: &str) {
    let script = Path::new(ROOT).join("tests/clients").join(script);
    let (code, stdout, stderr) = run(Command::new(program)
        .arg(&script)
        .arg(&server.url)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(server.state.path()));
    assert_eq!(code, Some(0), "{}:\n{stdout}{stderr}", script.display());
}

fn node(script: &str, settings: &[(&str, &str)]) {
    let installed = Path::new(ROOT).join("tests/clients/node_modules/socket.io-client");
    assert!(installed.exists(), "the JavaScript clients are not installed; run: scripts/test node");
    let found = Command::new("node").arg("--version").output();
    assert!(found.is_ok(), "node is not installed; install Node.js (Debian: apt-get install nodejs npm)");
    play(&Server::start(settings), Path::new("node"), script);
}

fn python(script: &str) {
    let program: PathBuf = Path::new(ROOT).join("target/venv/bin/python");
    assert!(program.exists(), "the Python clients are not installed; run: scripts/test python");
    play(&Server::start(&[]), &program, script);
}

#[test]
fn curl_gets_the_documented_answer() {
    let server = Server::start(&[]);
    let url = format!("{}/api/execute", server.url);
    let body = r#"{"code": "console.log('Hello, World!');", "language": "javascript", "input": ""}"#;
    let curl = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(Command::new("curl").args(["-sS"]).args(arguments));
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")
    };
    let answer = curl(&["-X", "POST", &url, "-H", "Content-Type: application/json", "-d", body]);
    assert_eq!(answer["message"], "Code execution started");
    let id = answer["executionId"].as_str().expect("an id").to_owned();
    assert_eq!(server.result_of(&id)["output"], "Hello, World!\n");

    let waited = format!("{url}?wait=true");
    let answer = curl(&["-X", "POST", &waited, "-H", "Content-Type: application/json", "-d", body]);
    assert_eq!(answer["result"]["output"], "Hello, World!\n");

    let health = curl(&[&format!("{}/api/health", server.url)]);
    assert_eq!((&health["status"], &health["message"]), (&"ok".into(), &"Server is running".into()));
}

#[test]
fn curl_follows_the_event_stream_while_the_program_runs() {
    use std::io::{BufRead as _, BufReader};
    let server = Server::start(&[]);
    let code = "print('ready', flush=True)\nprint('got', input())";
    let id = server.submit(serde_json::json!({"language": "python", "code": code, "interactive": true}));
    let mut curl = Command::new("curl")
        .args(["-sSN", "--max-time", "60", &format!("{}/api/executions/{id}/events", server.url)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("curl exists");
    let mut lines = BufReader::new(curl.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("data:") && line.contains(r"ready\n")), "no live output");
    // Only now does the program get what it waits for: what was read until here came before the end.
    server.post(&format!("/api/executions/{id}/input"), &serde_json::json!({"data": "it\n"}));
    assert!(lines.any(|line| line.trim() == "event:execution_result" || line == "event: execution_result"));
    assert!(lines.any(|line| line.contains(r"ready\ngot it\n")), "the result has all output");
    assert_eq!(lines.filter(|line| line.starts_with("data:")).count(), 0, "nothing follows the result");
    assert!(curl.wait().expect("it ends").success(), "the stream ends after the result");
}

#[test]
fn the_example_of_the_original_works_letter_for_letter() {
    node("original_example.mjs", &[]);
}

#[test]
fn the_known_client_of_the_original_gets_its_results() {
    node("original_client.mjs", &[]);
}

#[test]
fn joining_before_during_and_after_gives_the_same_events() {
    node("joining.mjs", &[("MAX_CONCURRENT", "1")]);
}

#[test]
fn socket_io_works_by_polling_by_websocket_and_by_upgrade() {
    node("transports.mjs", &[]);
}

#[test]
fn a_program_is_spoken_with_over_socket_io() {
    node("interactive.mjs", &[]);
}

#[test]
fn an_execution_is_cancelled_over_socket_io() {
    node("cancelling.mjs", &[]);
}

#[test]
fn a_mistake_is_told_and_the_connection_lives_on() {
    node("mistakes.mjs", &[]);
}

#[test]
fn two_clients_of_one_execution_get_the_same_events() {
    node("two_clients.mjs", &[]);
}

#[test]
fn a_mebibyte_of_output_arrives_whole_also_at_a_client_that_does_not_read() {
    node("large_output.mjs", &[]);
}

#[test]
fn socket_io_executes_and_answers_those_who_ask() {
    node("answers.mjs", &[]);
}

#[test]
fn thousands_of_messages_in_one_go_are_served() {
    node("burst.mjs", &[]);
}

#[test]
fn a_disconnect_leaves_the_execution_running() {
    node("disconnecting.mjs", &[]);
}

#[test]
fn pages_of_foreign_origins_cannot_connect() {
    node("origins.mjs", &[]);
}

#[test]
fn python_socketio_runs_the_example() {
    python("execute.py");
}

#[test]
fn python_socketio_speaks_with_a_program() {
    python("interactive.py");
}
