//! What the server tells about itself: health, languages, metrics.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::Server;

#[test]
fn a_healthy_server_says_what_the_original_says() {
    let server = Server::start(&[]);
    let answer = server.get("/api/health");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.get("content-type").expect("a type"), "application/json");
    assert_eq!(answer.json()["status"], "ok");
    assert_eq!(answer.json()["message"], "Server is running");
}

#[test]
fn a_head_request_gets_the_head_of_the_answer() {
    use std::io::{Read as _, Write as _};
    let server = Server::start(&[]);
    let mut socket =
        std::net::TcpStream::connect(server.url.trim_start_matches("http://")).expect("connects");
    socket
        .write_all(b"HEAD /api/languages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("is taken");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let length = server.get("/api/languages").text.len();
    assert!(said.contains(&format!("content-length: {length}\r\n")), "{said}");
    assert!(said.ends_with("\r\n\r\n"), "no body follows: {said}");
}

#[test]
fn a_server_without_an_engine_is_degraded_and_says_why() {
    let server = Server::start(&[("DOCKER", "/bin/false")]);
    let answer = server.get("/api/health");
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.json()["status"], "degraded");
    assert!(answer.json()["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{}", answer.text);
}

#[test]
fn every_language_is_listed_and_its_sample_runs_by_id_and_alias() {
    let server = Server::start(&[]);
    let answer = server.get("/api/languages");
    assert_eq!(answer.status, 200);
    let languages = answer.json();
    let languages = languages.as_array().expect("a list");
    let ids: Vec<_> = languages.iter().filter_map(|language| language["id"].as_str()).collect();
    assert_eq!(ids, ["javascript", "python", "java", "cpp", "c"]);
    let compiled: Vec<_> = languages.iter().filter_map(|language| language["compiled"].as_bool()).collect();
    assert_eq!(compiled, [false, false, true, true, true]);
    for language in languages {
        let keys: Vec<_> = language.as_object().expect("an object").keys().map(String::as_str).collect();
        let documented =
            ["id", "name", "version", "aliases", "compiled", "fileName", "sample", "limits", "warm"];
        assert_eq!(keys, documented);
        let limits: Vec<_> =
            language["limits"].as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(limits, ["wallTime", "cpuTime", "compileTime", "memory", "output", "processes"]);
        assert_eq!(language["warm"], 0, "the tests' server keeps none");
        let run = |name: &Value| {
            let body = json!({"language": name, "code": language["sample"], "input": "Ada\n"});
            assert_eq!(server.run(body)["stdout"], "Hello, Ada!\n", "{name}");
        };
        run(&language["id"]);
        language["aliases"].as_array().expect("a list").iter().take(1).for_each(run);
    }
}

#[test]
fn only_the_languages_that_are_on_are_there() {
    let server = Server::start(&[("LANGUAGES", "c,python")]);
    let languages = server.get("/api/languages").json();
    let ids: Vec<_> =
        languages.as_array().expect("a list").iter().filter_map(|language| language["id"].as_str()).collect();
    assert_eq!(ids, ["c", "python"]);
    let refused = server.post("/api/execute", &json!({"language": "java", "code": "x"}));
    assert_eq!(refused.status, 400);
}

/// OpenMetrics text, read strictly: the samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "the end is marked");
    let mut families: Vec<&str> = Vec::new();
    let mut samples = BTreeMap::new();
    for line in text.trim_end_matches("# EOF\n").lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (kind, rest) = comment.split_once(' ').expect("HELP, TYPE or UNIT");
            let (family, about) = rest.split_once(' ').expect("a family and what is told of it");
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            if kind == "HELP" {
                assert!(!families.contains(&family), "{family} is told of twice");
                families.push(family);
            }
            if kind == "UNIT" {
                assert!(family.ends_with(about), "{line}: a family's name ends in its unit");
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let family = families.last().expect("metadata comes first");
        assert!(name.starts_with(family), "{line} is not of {family}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(name.to_owned(), value).is_none(), "{name} is told twice");
    }
    samples
}

#[test]
fn metrics_count_what_was_done() {
    let server = Server::start(&[("MAX_PER_CLIENT", "1")]);
    let read = || {
        let answer = server.get("/metrics");
        assert_eq!(answer.status, 200);
        let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        samples(&answer.text)
    };
    let before = read();
    assert_eq!(before["online_compiler_running"], 0.0);
    assert!(!before.keys().any(|name| name.contains("executions_total{")), "{before:?}");

    for code in ["print(1)", "print(2)", "exit(1)"] {
        server.run_code("python", code);
        // The permit comes back a moment after the result, and one is all this client has.
        support::eventually("the permit is back", || read()["online_compiler_running"] == 0.0);
    }
    let id = server.submit(json!({"language": "c", "interactive": true,
        "code": "#include <stdio.h>\nint main(void) { puts(\"ready\"); fflush(stdout); getchar(); }"}));
    support::eventually("it runs", || server.state_of(&id)["state"] == "running");
    assert_eq!(read()["online_compiler_running"], 1.0);
    let refused = server.post("/api/execute", &json!({"language": "python", "code": "1"}));
    assert_eq!(refused.status, 429);
    server.delete(&format!("/api/executions/{id}"));
    server.result_of(&id);

    let after = read();
    let counted = |labels: &str| after.get(&format!("online_compiler_executions_total{{{labels}}}")).copied();
    assert_eq!(counted(r#"language="python",status="success""#), Some(2.0), "{after:?}");
    assert_eq!(counted(r#"language="python",status="runtime_error""#), Some(1.0));
    assert_eq!(counted(r#"language="c",status="cancelled""#), Some(1.0));
    assert_eq!(after[r#"online_compiler_refusals_total{reason="client"}"#], 1.0);
    assert_eq!(after[r#"online_compiler_execution_seconds_count{language="python"}"#], 3.0);
    assert_eq!(after[r#"online_compiler_container_start_seconds_count{language="python",way="cold"}"#], 3.0);
    assert!(after["online_compiler_program_cpu_seconds_total"] > 0.0);
}
