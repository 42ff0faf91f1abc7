//! Containers that go missing, are used once, cannot be made: what their executions and the next ones see of it.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use support::traces::{self, Watched};
use support::{Server, docker, eventually, signal};

fn pooled() -> Watched {
    Watched::start(&[("LANGUAGES", "python"), ("POOL_SIZE", "2")], &[("python", 2)])
}

fn hello() -> Value {
    json!({"language": "python", "code": "print('hello')"})
}

/// Waits, having said so.
fn sitting() -> Value {
    json!({"language": "python", "code": "import time\nprint('before', flush=True)\ntime.sleep(1000)",
        "limits": {"wallTime": 60_000}})
}

/// An execution whose program has begun to wait.
fn sit(server: &Server) -> String {
    let id = server.submit(sitting());
    eventually("it runs", || server.state_of(&id)["state"] == "running");
    id
}

#[test]
fn a_warm_container_is_used_once() {
    let server = pooled();
    let code = "import os, time\nfor folder in ('/box', '/tmp', '/dev/shm'):\n  if os.path.exists(folder + '/mark'): \
                print('seen', folder)\n  open(folder + '/mark', 'w')\nprint(len([name for name in \
                os.listdir('/proc') if name.isdigit()]))";
    for _ in 0..4 {
        server.wait_for_warm("python", 1);
        let result = server.run_code("python", code);
        assert_eq!((&result["warm"], &result["output"]), (&json!(true), &json!("2\n")), "{result}");
    }
    server.wait_for_warm("python", 2);
    assert_eq!(server.containers().len(), 2);
}

#[test]
fn other_limits_than_the_pools_are_started_cold_and_hold() {
    let server = pooled();
    let mut body = hello();
    body["limits"] = json!({"memory": 128 << 20});
    let result = server.run(body);
    assert_eq!((&result["warm"], &result["output"]), (&json!(false), &json!("hello\n")), "{result}");
}

#[test]
fn a_warm_container_that_dies_is_replaced_and_nobody_notices() {
    for how in [["kill", "--signal=KILL"], ["kill", "--signal=TERM"], ["rm", "--force"]] {
        let server = pooled();
        let before = server.containers();
        for container in &before {
            docker(&[how[0], how[1], container]);
        }
        let result = server.run(hello());
        assert_eq!(result["output"], "hello\n", "{how:?}: {result}");
        eventually("all of them are replaced", || {
            let now = server.containers();
            now.len() == 2 && before.iter().all(|container| !now.contains(container))
        });
        server.wait_for_warm("python", 2);
    }
}

#[test]
fn a_docker_command_that_is_killed_is_not_blamed_on_the_program() {
    let server = Watched::start(&[("LANGUAGES", "python")], &[]);
    let id = sit(&server);
    let container = server.containers().pop().expect("one container");
    for command in traces::commands(server.child.id()) {
        signal(command, "KILL");
    }
    let result = server.result_of(&id);
    assert_eq!(result["status"], "internal_error", "{result}");
    assert!(result["message"].as_str().is_some_and(|message| message.ends_with('.')), "{result}");
    eventually("its container is removed", || !server.containers().contains(&container));
    assert_eq!(server.run(hello())["output"], "hello\n");
}

#[test]
fn a_container_that_is_told_to_stop_from_outside_is_not_blamed_on_the_program() {
    let server = Watched::start(&[("LANGUAGES", "python")], &[]);
    let id = sit(&server);
    docker(&["stop", "--time", "20", &server.containers().pop().expect("one container")]);
    let result = server.result_of(&id);
    assert_eq!(result["status"], "internal_error", "{result}");
}

#[test]
fn a_container_that_is_killed_from_outside_ends_its_execution() {
    let server = Watched::start(&[("LANGUAGES", "python")], &[]);
    let id = sit(&server);
    docker(&["kill", &server.containers().pop().expect("one container")]);
    let result = server.result_of(&id);
    // Nobody can tell this from a program that brought its container down.
    assert!(
        ["internal_error", "runtime_error"].contains(&result["status"].as_str().expect("text")),
        "{result}"
    );
    assert_eq!(server.run(hello())["output"], "hello\n");
}

#[test]
fn a_warm_container_whose_command_is_killed_leaves_nothing() {
    let server = pooled();
    let before = server.containers();
    for command in traces::commands(server.child.id()) {
        signal(command, "KILL");
    }
    assert_eq!(server.run(hello())["output"], "hello\n");
    eventually("its containers are removed", || {
        before.iter().all(|container| !server.containers().contains(container))
    });
    server.wait_for_warm("python", 2);
}

fn languages_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    file
}

#[test]
fn a_language_is_four_lines_in_a_file() {
    let file = languages_file(
        "[shell]\nname = \"Shell\"\nimage = \"debian:bookworm-slim\"\nfile = \"main.sh\"\nrun = [\"sh\", \"{file}\"]\n",
    );
    let path = file.path().to_str().expect("UTF-8");
    let server = Watched::start(&[("LANGUAGES", "python"), ("LANGUAGES_FILE", path)], &[]);
    let body =
        json!({"language": "shell", "code": "read name; echo \"hello, $name\"; exit 3", "input": "you\n"});
    let result = server.run(body);
    assert_eq!((&result["output"], &result["exitCode"]), (&json!("hello, you\n"), &json!(3)), "{result}");
}

#[test]
fn a_missing_image_is_named_and_spoils_nothing_else() {
    let file = languages_file(
        "[ghost]\nname = \"Ghost\"\nimage = \"online-compiler/no-such-image\"\nfile = \"main\"\nrun = [\"sh\", \"{file}\"]\n",
    );
    let path = file.path().to_str().expect("UTF-8");
    let server = Watched::start(&[("LANGUAGES", "python"), ("LANGUAGES_FILE", path)], &[]);
    let result = server.run(json!({"language": "ghost", "code": "echo"}));
    assert_eq!(result["status"], "internal_error");
    let message = result["message"].as_str().expect("a sentence");
    assert!(message.contains("online-compiler/no-such-image"), "{message}");
    assert_eq!(server.get("/api/health").status, 200);
    assert_eq!(server.run(hello())["output"], "hello\n");
}

#[test]
fn a_volume_that_was_removed_is_filled_again() {
    // A build of its own, since the volume is everybody's who runs the same.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("server");
    let mut bytes = std::fs::read(support::BINARY).expect("the binary");
    bytes.extend_from_slice(b"another build");
    std::fs::write(&program, bytes).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let state = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_program(&program, state, &[("LANGUAGES", "python")]);
    let server = Watched::of(server, &[]);
    let command = server.run(hello())["command"].as_str().expect("shown").to_owned();
    let volume = command.split_whitespace().find_map(|word| word.strip_suffix(":/oc:ro")).expect("a volume");
    eventually("no container uses it", || server.containers().is_empty());
    docker(&["volume", "rm", volume]);
    let result = server.run(hello());
    assert_eq!(result["output"], "hello\n", "{result}");
    eventually("no container uses it", || server.containers().is_empty());
    docker(&["volume", "rm", volume]);
}

#[test]
fn a_frozen_warm_container_costs_time_but_no_result() {
    let server = pooled();
    for container in server.containers() {
        docker(&["pause", &container]);
    }
    let result = server.run(hello());
    assert_eq!(result["output"], "hello\n", "{result}");
}

#[test]
fn a_file_that_is_also_a_folder_is_the_callers_mistake() {
    let server = Watched::start(&[("LANGUAGES", "python")], &[]);
    let file = |name: &str| json!({"name": name, "content": ""});
    let body = json!({"language": "python", "code": "1", "files": [file("a"), file("a/b")]});
    let answer = server.post("/api/execute", &body);
    assert_eq!(answer.status, 400, "{}", answer.text);
}
