//! Measures what the README promises. Everything is interleaved in one run, so that a machine that changes its speed
//! changes both sides of a ratio; medians and 95th percentiles are of whole requests and whole commands.
//!
//! `scripts/bench` prepares Docker, images and the release binary and calls this. `--json FILE` writes the figures,
//! `--rounds N` sets how often each is measured (15), `--smoke` measures once, to see that it works.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for people that starts programs"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_online-compiler");

/// A hello in each language, and the file it stands in.
const HELLOS: [(&str, &str, &str); 5] = [
    ("python", "main.py", "print('Hello, World!')\n"),
    ("javascript", "main.js", "console.log('Hello, World!');\n"),
    ("c", "main.c", "#include <stdio.h>\nint main(void) { puts(\"Hello, World!\"); }\n"),
    ("cpp", "main.cpp", "#include <iostream>\nint main() { std::cout << \"Hello, World!\\n\"; }\n"),
    (
        "java",
        "Main.java",
        "class Main { public static void main(String[] a) { System.out.println(\"Hello, World!\"); } }\n",
    ),
];

struct Options {
    rounds: usize,
    json: Option<String>,
}

fn options() -> Options {
    let mut options = Options { rounds: 15, json: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--smoke" => options.rounds = 1,
            "--rounds" => options.rounds = words.next().and_then(|n| n.parse().ok()).expect("--rounds N"),
            "--json" => options.json = Some(words.next().expect("--json FILE")),
            "--bench" => {} // cargo says so to every benchmark.
            other => panic!("{other} is not an option; there are --smoke, --rounds N and --json FILE"),
        }
    }
    options
}

struct Server {
    child: Child,
    url: String,
    agent: ureq::Agent,
}

impl Server {
    fn start(state: &Path) -> Server {
        let mut child = Command::new(BINARY)
            .arg("serve")
            .envs([("PORT", "0"), ("RUST_LOG", "info"), ("BUILD_IMAGES", "false")])
            .env("STATE_DIR", state)
            .current_dir(state)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let url = lines
            .find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()))
            .expect("the server listens");
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, url, agent: ureq::Agent::new_with_defaults() }
    }

    /// Waits until a language's pool is full, and the machine is quiet again.
    fn settle(&self) {
        loop {
            let mut answer = self.agent.get(format!("{}/api/languages", self.url)).call().expect("an answer");
            let languages: Value = answer.body_mut().read_json().expect("JSON");
            if languages.as_array().expect("a list").iter().all(|language| language["warm"] == 2) {
                // What the engine still does about the last containers is not to be measured.
                return std::thread::sleep(Duration::from_millis(300));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// From the first byte of the request to the last of the answer.
    fn hello(&self, language: &str, code: &str) -> Duration {
        let body = json!({ "language": language, "code": code });
        let started = Instant::now();
        let mut answer = self
            .agent
            .post(format!("{}/api/execute?wait=true", self.url))
            .send_json(&body)
            .expect("an answer");
        let answer: Value = answer.body_mut().read_json().expect("JSON");
        let took = started.elapsed();
        assert_eq!(answer["result"]["output"], "Hello, World!\n", "{answer}");
        assert_eq!(answer["result"]["warm"], true, "the pool was ready");
        took
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// The docker command that `explain` prints, as a shell runs it.
fn explained(state: &Path, language: &str, file: &str, code: &str) -> String {
    let path = state.join(file);
    std::fs::write(&path, code).expect("written");
    let output = Command::new(BINARY)
        .args(["explain", language])
        .arg(&path)
        .env("STATE_DIR", state)
        .current_dir(state)
        .output()
        .expect("explain runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A whole cold `docker run` of the same program under the same flags.
fn cold(command: &str) -> Duration {
    let started = Instant::now();
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    let took = started.elapsed();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, World!\n");
    took
}

struct Figures {
    median: f64,
    p95: f64,
}

fn figures(mut times: Vec<Duration>) -> Figures {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    Figures { median: at(0.5), p95: at(0.95) }
}

fn main() {
    let options = options();
    let state = tempfile::tempdir().expect("a temporary folder");
    let commands = HELLOS.map(|(language, file, code)| explained(state.path(), language, file, code));
    let server = Server::start(state.path());
    let mut warm: [Vec<Duration>; 5] = Default::default();
    let mut colds: [Vec<Duration>; 5] = Default::default();
    for round in 0..=options.rounds {
        for (index, (language, _, code)) in HELLOS.into_iter().enumerate() {
            server.settle();
            let (fast, slow) = (server.hello(language, code), cold(&commands[index]));
            // The first round fills the page cache.
            if round > 0 {
                warm[index].push(fast);
                colds[index].push(slow);
            }
        }
    }
    println!(
        "hello, POST to result with a warm pool, beside a cold `docker run` of the same ({} rounds)\n",
        options.rounds
    );
    println!(
        "{:<12} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "language", "warm p50", "p95", "cold p50", "p95", "ratio"
    );
    let mut rows = Vec::new();
    for ((language, _, _), (warm, colds)) in HELLOS.into_iter().zip(warm.into_iter().zip(colds)) {
        let (warm, cold) = (figures(warm), figures(colds));
        let ratio = warm.median / cold.median;
        println!(
            "{language:<12} {:>6.1} ms {:>6.1} ms {:>6.1} ms {:>6.1} ms {ratio:>8.2}",
            warm.median, warm.p95, cold.median, cold.p95
        );
        rows.push(json!({
            "language": language,
            "warm": { "p50": warm.median, "p95": warm.p95 },
            "cold": { "p50": cold.median, "p95": cold.p95 },
            "ratio": ratio,
        }));
    }
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&json!({ "rounds": options.rounds, "hello": rows }));
        std::fs::write(path, text.expect("serializable")).expect("written");
    }
}
