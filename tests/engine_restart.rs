//! dockerd comes late, dies and comes again, under a server that stays. The engine is the test's own.

mod support;

use serde_json::{Value, json};
use support::engine::Engine;
use support::{Server, eventually};

const IMAGE: &str = "online-compiler/python";

fn hello() -> Value {
    json!({"language": "python", "code": "print('hello')"})
}

fn server(engine: &Engine, settings: &[(&str, &str)]) -> Server {
    let host = engine.host();
    let own = [("LANGUAGES", "python"), ("BUILD_IMAGES", "false"), ("DOCKER_HOST", host.as_str())];
    Server::start(&own.iter().chain(settings).copied().collect::<Vec<_>>())
}

fn healthy(server: &Server) -> bool {
    server.get("/api/health").status == 200
}

fn degraded(server: &Server) {
    eventually("health says that the engine is gone", || {
        let answer = server.get("/api/health");
        answer.status == 503 && answer.json()["reason"].is_string()
    });
}

/// A program that waits for its end, in a container of an engine that is about to fail.
fn sit(server: &Server) -> String {
    let code = "import time\nprint('before', flush=True)\ntime.sleep(1000)";
    let id = server.submit(json!({"language": "python", "code": code, "limits": {"wallTime": 60_000}}));
    eventually("it runs", || server.state_of(&id)["state"] == "running");
    id
}

fn not_blamed(server: &Server, id: &str) {
    let result = server.result_of(id);
    assert_eq!(result["status"], "internal_error", "{result}");
    assert_eq!(result["exitCode"], Value::Null);
}

#[test]
fn a_server_waits_for_an_engine_that_comes_late() {
    let mut engine = Engine::with_image(IMAGE);
    engine.stop();
    let server = server(&engine, &[]);
    let answer = server.get("/api/health");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("degraded")));
    // Longer than a start waits for the engine.
    let early = server.run(hello());
    assert_eq!(early["status"], "internal_error", "{early}");
    assert!(early["message"].as_str().expect("a sentence").contains("engine"), "{early}");
    engine.start();
    eventually("it is well", || healthy(&server));
    assert_eq!(server.run(hello())["output"], "hello\n");
    drop(server);
    eventually("nothing is left", || engine.containers() == 0);
}

#[test]
fn a_killed_engine_is_not_blamed_on_programs_and_all_is_well_when_it_is_back() {
    let mut engine = Engine::with_image(IMAGE);
    let server = server(&engine, &[("POOL_SIZE", "2")]);
    server.wait_for_warm("python", 2);
    let id = sit(&server);
    engine.kill();
    not_blamed(&server, &id);
    degraded(&server);
    engine.start();
    eventually("it is well again", || healthy(&server));
    assert_eq!(server.run(hello())["output"], "hello\n");
    server.wait_for_warm("python", 2);
    eventually("only the pool is there", || engine.containers() == 2);
    drop(server);
    eventually("nothing is left", || engine.containers() == 0);
}

#[test]
fn an_engine_that_is_stopped_is_not_blamed_on_programs() {
    let mut engine = Engine::with_image(IMAGE);
    let server = server(&engine, &[("POOL_SIZE", "1"), ("MAX_CONCURRENT", "1")]);
    server.wait_for_warm("python", 1);
    let id = sit(&server);
    engine.stop();
    not_blamed(&server, &id);
    degraded(&server);
    // The one permit does not wait for a container that nobody can remove now.
    let meanwhile = server.run(hello());
    assert_eq!(meanwhile["status"], "internal_error", "{meanwhile}");
    assert!(meanwhile["message"].as_str().expect("a sentence").contains("engine"), "{meanwhile}");
    engine.start();
    eventually("it is well again", || healthy(&server));
    assert_eq!(server.run(hello())["output"], "hello\n");
    server.wait_for_warm("python", 1);
    eventually("only the pool is there", || engine.containers() == 1);
    drop(server);
    eventually("nothing is left", || engine.containers() == 0);
}
