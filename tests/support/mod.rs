//! A real server on a free port with real Docker, and the few ways in which tests talk to it.
//!
//! Each test starts its own server with its own state folder, so that "nothing is left" can be said of exactly
//! what this test has started: dropping the server stops it and looks for containers with its label.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::disallowed_methods, reason = "tests start servers and clients")]
#![allow(clippy::print_stderr, reason = "a failed test shows the log of its server")]

pub mod engine;
pub mod traces;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const BINARY: &str = env!("CARGO_BIN_EXE_online-compiler");

/// How long anything may take that has no limit of its own. Never what is tested.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    pub state: tempfile::TempDir,
    log: Arc<Mutex<String>>,
    agent: ureq::Agent,
}

/// An answer, whatever its status.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text))
    }
}

impl Server {
    /// Without a pool and with commands shown, unless the settings say otherwise.
    pub fn start(settings: &[(&str, &str)]) -> Server {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), settings)
    }

    /// A server that continues the identity of an earlier one.
    pub fn start_in(state: tempfile::TempDir, settings: &[(&str, &str)]) -> Server {
        Self::start_program(Path::new(BINARY), state, settings)
    }

    /// A server of another build: a copy of the binary with a tail is one, and has an agent volume of its own.
    pub fn start_program(program: &Path, state: tempfile::TempDir, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env("STATE_DIR", state.path())
            .env("PORT", "0")
            .env("POOL_SIZE", "0")
            .env("EXPOSE_COMMANDS", "true")
            .env("RUST_LOG", "debug")
            .envs(settings.iter().copied())
            // No .env of a developer's.
            .current_dir(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(String::new()));
        let (found, url) = std::sync::mpsc::channel();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("listening on ") {
                    let _ = found.send(url.trim().to_owned());
                }
                let mut log = kept.lock().expect("no panic under lock");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let url = match url.recv_timeout(PATIENCE) {
            Ok(url) => url,
            Err(_) => panic!("the server does not listen: {}", log.lock().expect("no panic under lock")),
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Server { child, url, state, log, agent: config.into() }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("no panic under lock").clone()
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(self.agent.delete(format!("{}{path}", self.url)).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body)
    }

    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send_json(body))
    }

    pub fn post_raw(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        answer(self.agent.post(format!("{}{path}", self.url)).header("content-type", content_type).send(body))
    }

    /// Runs to the end and gives the result.
    pub fn run(&self, body: Value) -> Value {
        let answer = self.post("/api/execute?wait=true", &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["result"].clone()
    }

    pub fn run_code(&self, language: &str, code: &str) -> Value {
        self.run(json!({ "language": language, "code": code }))
    }

    /// Starts an execution and gives its id.
    pub fn submit(&self, body: Value) -> String {
        let answer = self.post("/api/execute", &body);
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["executionId"].as_str().expect("an id").to_owned()
    }

    pub fn state_of(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/executions/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Waits for the end of an execution.
    pub fn result_of(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/executions/{id}?wait=100"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["result"].clone()
    }

    /// All events of an execution as (seq, name, data), read from the event stream to its end.
    pub fn events(&self, id: &str, query: &str, headers: &[(&str, &str)]) -> Vec<(u64, String, Value)> {
        let mut request = self.agent.get(format!("{}/api/executions/{id}/events{query}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.call().expect("an event stream");
        assert_eq!(response.status(), 200);
        let mut text = String::new();
        response.into_body().into_reader().read_to_string(&mut text).expect("read to the end");
        text.split("\n\n").filter(|block| block.contains("data:")).map(event).collect()
    }

    /// Waits until the pool of a language has so many ready containers.
    pub fn wait_for_warm(&self, language: &str, count: u64) {
        eventually("the pool is filled", || {
            let languages = self.get("/api/languages").json();
            let languages = languages.as_array().expect("a list").clone();
            languages.iter().any(|entry| entry["id"] == language && entry["warm"].as_u64() >= Some(count))
        });
    }

    /// The name that all containers of this server carry as a label.
    pub fn instance(&self) -> String {
        std::fs::read_to_string(self.state.path().join("instance-0")).expect("the identity is kept")
    }

    /// Names of the containers of this server.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=oc.instance={}", self.instance());
        docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Asks the server to stop, as an operator would.
    pub fn terminate(&mut self) {
        signal(self.child.id(), "TERM");
        eventually("the server has stopped", || matches!(self.child.try_wait(), Ok(Some(_))));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), "TERM");
            let deadline = Instant::now() + PATIENCE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.containers().is_empty() {
            assert!(
                Instant::now() < deadline,
                "containers are left: {:?}\n{}",
                self.containers(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

fn answer(response: Result<http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let response = response.expect("the server answers");
    let (parts, mut body) = response.into_parts();
    let text = body.with_config().limit(1 << 30).read_to_string().expect("a body");
    Answer { status: parts.status.as_u16(), headers: parts.headers, text }
}

fn event(block: &str) -> (u64, String, Value) {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {block}")).trim().to_owned()
    };
    let data = serde_json::from_str(&field("data:")).expect("JSON");
    (field("id:").parse().expect("a number"), field("event:"), data)
}

/// Waits for a condition.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(PATIENCE, what, condition);
}

pub fn within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come true that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.expect("kill exists").success());
}

pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker exists");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end: exit code, stdout, stderr.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
