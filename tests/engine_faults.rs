//! A `docker` that misbehaves: each fault ends in a result that says so, in the server's time and not in its own.

mod support;

use serde_json::{Value, json};
use support::engine::FakeDocker;
use support::traces::Watched;
use support::{Server, eventually};

/// `FAULT:SUBCOMMAND)` branches. A frame is a kind, four bytes of length and a payload (protocol.rs).
const FAULTS: &str = r#"
refuse:run) echo 'docker: Error response from daemon: OCI runtime create failed: no luck.' >&2; exit 125 ;;
once:run) rm "$here/fault"; echo 'docker: Error response from daemon: no luck.' >&2; exit 125 ;;
hang:run) touch "$here/hangs"; exec sleep 1000 ;;
garbage:run) echo 'this is not a frame, and longer than one'; exec cat >/dev/null ;;
giant:run) printf '\201\377\377\377\377'; exec cat >/dev/null ;;
lost:run) printf '\201\000\000\000\000'; head -c 1 >/dev/null; exit 1 ;;
lost-once:run) rm "$here/fault"; printf '\201\000\000\000\000'; head -c 1 >/dev/null; exit 1 ;;
begun:run) printf '\201\000\000\000\000'; head -c 1 >/dev/null; printf '\202\000\000\000\001r'; exit 125 ;;
done:run) printf '\201\000\000\000\000'; head -c 1 >/dev/null; printf '\202\000\000\000\001r\210\000\000\000\000'; exit 0 ;;
silent:run) exit 0 ;;
unreachable:*) echo 'Cannot connect to the Docker daemon at unix:///nowhere. Is the docker daemon running?' >&2; exit 1 ;;
blind:image) echo 'Cannot connect to the Docker daemon at unix:///nowhere. Is the docker daemon running?' >&2; touch "$here/asked"; exit 1 ;;
sticky:rm) touch "$here/stuck"; echo 'Error response from daemon: driver failed to remove root filesystem: device busy' >&2; exit 1 ;;
"#;

fn server() -> (FakeDocker, Watched) {
    let docker = FakeDocker::new(FAULTS);
    let settings = [("LANGUAGES", "python"), ("MAX_CONCURRENT", "1"), ("DOCKER", &docker.command())];
    let server = Watched::start(&settings, &[]);
    (docker, server)
}

fn hello() -> Value {
    json!({"language": "python", "code": "print('hello')"})
}

fn apologizes(server: &Server, fault: &str) {
    let result = server.run(hello());
    assert_eq!(result["status"], "internal_error", "{fault}: {result}");
    let message = result["message"].as_str().expect("a sentence");
    assert!(message.ends_with('.') && !message.starts_with("The program"), "{fault}: {message}");
    assert_eq!((&result["output"], &result["exitCode"]), (&json!(""), &Value::Null), "{fault}");
}

#[test]
fn every_fault_of_docker_is_an_internal_error() {
    let (docker, server) = server();
    for fault in ["refuse", "garbage", "giant", "lost", "begun", "done", "silent", "unreachable"] {
        docker.fail(fault);
        apologizes(&server, fault);
        docker.fail("none");
        assert_eq!(server.run(hello())["output"], "hello\n", "after {fault}");
    }
}

#[test]
fn a_start_that_fails_once_is_tried_again() {
    let (docker, server) = server();
    for fault in ["once", "lost-once"] {
        docker.fail(fault);
        let result = server.run(hello());
        assert_eq!(result["output"], "hello\n", "{fault}: {result}");
    }
}

#[test]
fn a_start_that_hangs_can_be_cancelled() {
    let (docker, server) = server();
    docker.fail("hang");
    let id = server.submit(hello());
    eventually("docker hangs", || docker.has("hangs"));
    assert_eq!(server.state_of(&id)["state"], "starting");
    docker.fail("none");
    assert_eq!(server.delete(&format!("/api/executions/{id}")).status, 202);
    let result = server.result_of(&id);
    assert_eq!(result["status"], "cancelled", "{result}");
    assert_eq!(server.run(hello())["output"], "hello\n");
}

#[test]
fn health_says_that_the_engine_is_gone_however_often_it_is_asked() {
    let (docker, server) = server();
    docker.fail("unreachable");
    // More failures than there can be containers: what they leave to be removed may not hold anybody up.
    for _ in 0..3 {
        apologizes(&server, "unreachable");
    }
    let answer = server.get("/api/health");
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.json()["status"], "degraded");
    assert!(
        answer.json()["reason"].as_str().is_some_and(|reason| reason.contains("reached")),
        "{}",
        answer.text
    );
    docker.fail("none");
    eventually("it is well again", || server.get("/api/health").status == 200);
    assert_eq!(server.run(hello())["output"], "hello\n");
}

#[test]
fn an_engine_that_leaves_while_it_is_made_ready_is_waited_for() {
    let docker = FakeDocker::new(FAULTS);
    docker.fail("blind");
    let server = Server::start(&[("LANGUAGES", "python"), ("DOCKER", &docker.command())]);
    eventually("the images were asked for in vain", || docker.has("asked"));
    assert_eq!(server.get("/api/health").status, 503);
    docker.fail("none");
    eventually("it is ready", || server.get("/api/health").status == 200);
    assert_eq!(server.run(hello())["output"], "hello\n");
}

#[test]
fn a_server_stops_although_no_engine_answers() {
    let docker = FakeDocker::new(FAULTS);
    let settings = [("LANGUAGES", "python"), ("POOL_SIZE", "1"), ("DOCKER", &docker.command())];
    let mut server = Server::start(&settings);
    server.wait_for_warm("python", 1);
    docker.fail("unreachable");
    server.terminate();
    assert_eq!(server.child.wait().expect("ended").code(), Some(0));
}

#[test]
fn a_container_that_cannot_be_removed_yet_holds_its_permit_and_no_result() {
    let (docker, server) = server();
    docker.fail("sticky");
    let body = json!({"language": "python", "code": "while True: pass"});
    let id = server.submit(body);
    eventually("it runs", || server.state_of(&id)["state"] == "running");
    assert_eq!(server.delete(&format!("/api/executions/{id}")).status, 202);
    assert_eq!(server.result_of(&id)["status"], "cancelled");
    docker.fail("none");
    assert_eq!(server.run(hello())["output"], "hello\n");
}
