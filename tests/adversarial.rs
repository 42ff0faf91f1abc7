//! Programs that do not wish us well: whatever they do, a verdict arrives that says what happened, nothing of them is
//! left, and the agent and the server are none the worse for it.

mod support;

use serde_json::{Value, json};
use support::traces::Watched;

const MIB: u64 = 1024 * 1024;

fn server() -> Watched {
    Watched::start(&[("LANGUAGES", "python,c")], &[])
}

fn python(server: &Watched, code: &str) -> Value {
    server.run_code("python", code)
}

/// Far longer than any of these programs is expected to take, so that reaching it is a failure that shows.
fn patient(code: &str) -> Value {
    json!({"language": "python", "code": code, "limits": {"wallTime": 30_000, "cpuTime": 30_000}})
}

fn far_below_its_limit(result: &Value) {
    assert!(result["time"]["wall"].as_f64().expect("a time") < 20_000.0, "{result}");
}

fn output(result: &Value) -> &str {
    result["output"].as_str().expect("text")
}

#[test]
fn ten_gigabytes_of_output_are_cut_at_the_limit() {
    let server = server();
    let code = "import os\nblock = b'y\\n' * 500_000\nfor _ in range(10_000): os.write(1, block)";
    let result = server.run(patient(code));
    assert_eq!(result["status"], "output_limit");
    assert_eq!(result["truncated"], true);
    assert_eq!(result["exitCode"], Value::Null);
    assert_eq!(output(&result).len() as u64, MIB);
    assert!(output(&result).starts_with("y\ny\n"));
    far_below_its_limit(&result);
}

#[test]
fn input_that_nobody_reads_holds_nothing_up() {
    let server = server();
    let mut body = patient("print('done')");
    body["input"] = json!("x".repeat(10_000_000));
    let result = server.run(body);
    assert_eq!(result["status"], "success", "{}", result["message"]);
    assert_eq!(output(&result), "done\n");

    // Not even a cancellation, when the program sits on it for ever.
    let code = "import time\nprint('here', flush=True)\ntime.sleep(1000)";
    let id = server.submit(json!({"language": "python", "code": code, "input": "x".repeat(10_000_000),
        "limits": {"wallTime": 60_000}}));
    support::eventually("the program runs", || {
        server.get(&format!("/api/executions/{id}")).json()["state"] == "running"
    });
    assert_eq!(server.delete(&format!("/api/executions/{id}")).status, 202);
    assert_eq!(server.result_of(&id)["status"], "cancelled");
}

#[test]
fn large_input_arrives_whole_and_in_order() {
    use sha2::Digest as _;
    let server = server();
    let input: String = (0..1_300_000).map(|number| format!("{number:07}\n")).collect();
    let hash: String = sha2::Sha256::digest(&input).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut body = patient(
        "import sys, hashlib\ndata = sys.stdin.buffer.read()\nprint(len(data), hashlib.sha256(data).hexdigest())",
    );
    body["input"] = json!(input);
    let result = server.run(body.clone());
    assert_eq!(output(&result), format!("{} {hash}\n", input.len()), "{result}");

    // So does each test's.
    body.as_object_mut().expect("an object").remove("input");
    let expected = format!("{} {hash}", input.len());
    let test = |name: &str| json!({"name": name, "input": &input[..8_000], "expectedOutput": "no"});
    body["tests"] =
        json!([test("small"), {"name": "large", "input": input, "expectedOutput": expected}, test("last")]);
    let result = server.run(body);
    let statuses: Vec<_> =
        result["tests"].as_array().expect("tests").iter().map(|test| &test["status"]).collect();
    assert_eq!(statuses, ["wrong_answer", "passed", "wrong_answer"], "{result}");
}

#[test]
fn a_program_without_end_is_stopped_and_keeps_what_it_said() {
    let server = server();
    let code = "import time\nprint('before', flush=True)\nwhile True: time.sleep(1)";
    let result = server.run(json!({"language": "python", "code": code, "limits": {"wallTime": 700}}));
    assert_eq!(result["status"], "time_limit");
    assert_eq!(output(&result), "before\n");
    let busy = "while True: pass";
    let result = server.run(json!({"language": "python", "code": busy,
        "limits": {"wallTime": 60_000, "cpuTime": 500}}));
    assert_eq!(result["status"], "time_limit");
    assert!(result["message"].as_str().expect("said").contains("processor"), "{result}");
    let stopped = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)";
    let result = server.run(json!({"language": "python", "code": stopped, "limits": {"wallTime": 700}}));
    assert_eq!(result["status"], "time_limit");
}

#[test]
fn a_fork_bomb_ends_with_its_program() {
    let server = server();
    let bomb = "#include <unistd.h>\nint main(void) { for (;;) fork(); }";
    let result = server.run(json!({"language": "c", "code": bomb, "limits": {"wallTime": 1_000}}));
    assert_eq!(result["status"], "time_limit", "{result}");
    // The first process leaves, thousands of children would stay.
    let code = "import os\nfor _ in range(10_000):\n  try:\n    if os.fork() == 0:\n      while True: os.fork()\n  \
                except OSError: break\nprint('left')\nos._exit(7)";
    let result = server.run(patient(code));
    assert_eq!((&result["status"], &result["exitCode"]), (&json!("runtime_error"), &json!(7)), "{result}");
    far_below_its_limit(&result);
}

#[test]
fn a_daemon_that_holds_the_output_open_does_not_delay_the_result() {
    let server = server();
    let code = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    \
                print('daemon', flush=True)\n    time.sleep(1000)\n  os._exit(0)\nos.wait()\ntime.sleep(0.2)\nprint('parent')";
    let result = server.run(patient(code));
    assert_eq!(result["status"], "success", "{result}");
    assert_eq!(output(&result), "daemon\nparent\n");
    far_below_its_limit(&result);
    let many = "import os, time\nfor _ in range(30):\n  if os.fork() == 0: time.sleep(1000)\nprint('gone')";
    let result = server.run(patient(many));
    assert_eq!((&result["status"], output(&result)), (&json!("success"), "gone\n"));
    far_below_its_limit(&result);
}

#[test]
fn the_next_test_does_not_meet_the_processes_of_the_last() {
    let server = server();
    let code = "import os, time\nprint(len([name for name in os.listdir('/proc') if name.isdigit()]), flush=True)\n\
                if os.fork() == 0:\n  os.setsid()\n  time.sleep(1000)\n";
    let test = json!({"name": "alone", "expectedOutput": "2"});
    let mut body = patient(code);
    body["tests"] = json!([test, test, test]);
    let result = server.run(body);
    assert_eq!(result["status"], "success", "{result}");
}

#[test]
fn full_folders_are_the_programs_problem() {
    let server = server();
    for folder in ["/box", "/tmp", "/dev/shm"] {
        let code = format!(
            "import errno\ntry:\n  with open('{folder}/fill', 'wb') as file:\n    while True: file.write(b'x' * 65536)\n\
             except OSError as error: print(errno.errorcode[error.errno])"
        );
        let result = server.run(patient(&code));
        assert_eq!(result["status"], "success", "{folder}: {result}");
        assert!(["ENOSPC\n", "EFBIG\n"].contains(&output(&result)), "{folder}: {result}");
    }
    // All of them, and memory besides: somebody has to go, and it is not the agent.
    let code = "for folder in ('/box', '/tmp', '/dev/shm'):\n  for number in range(10):\n    try:\n      \
                with open(f'{folder}/{number}', 'wb') as file:\n        while True: file.write(b'x' * 65536)\n    \
                except OSError: pass\nprint('full', flush=True)\nkeep = []\nwhile True: keep.append(bytearray(1 << 20))";
    let result = server.run(patient(code));
    assert!(
        ["memory_limit", "runtime_error"].contains(&result["status"].as_str().expect("text")),
        "{result}"
    );
    assert_eq!(result["status"], "memory_limit", "{result}");
    assert_eq!(output(&result), "full\n");
}

#[test]
fn memory_is_limited_and_a_child_that_dies_of_it_is_not_its_parent() {
    let server = server();
    let hungry = "keep = []\nwhile True: keep.append(bytearray(1 << 20))";
    assert_eq!(server.run(patient(hungry))["status"], "memory_limit");
    let coping = "import os\nif os.fork() == 0:\n  keep = []\n  while True: keep.append(bytearray(1 << 20))\n\
                  _, status = os.wait()\nprint(os.WTERMSIG(status))";
    let result = server.run(patient(coping));
    assert_eq!((&result["status"], output(&result)), (&json!("success"), "9\n"), "{result}");
    let own = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)";
    let result = server.run(patient(own));
    assert_eq!(
        (&result["status"], &result["signal"]),
        (&json!("runtime_error"), &json!("SIGKILL")),
        "{result}"
    );
    assert_eq!(result["exitCode"], Value::Null);
}

#[test]
fn every_exit_code_is_the_programs_own() {
    let server = server();
    for code in [0, 1, 2, 124, 125, 126, 127, 137, 143, 255] {
        let result = python(&server, &format!("import os; os._exit({code})"));
        assert_eq!(result["exitCode"], code, "{result}");
        assert_eq!(result["status"], if code == 0 { "success" } else { "runtime_error" });
    }
}

#[test]
fn output_after_closing_the_streams_is_nobodys() {
    let server = server();
    let code = "import os\nfor fd in range(3): os.close(fd)\nos._exit(3)";
    let result = server.run(patient(code));
    assert_eq!((&result["exitCode"], output(&result)), (&json!(3), ""), "{result}");
    // Closed streams are not the end of the program.
    let code = "import os, time\nfor fd in range(3): os.close(fd)\ntime.sleep(0.5)\nos._exit(4)";
    let result = server.run(patient(code));
    assert_eq!(result["exitCode"], 4, "{result}");
    assert!(result["time"]["wall"].as_f64() >= Some(500.0), "{result}");
}

#[test]
fn a_compiler_bomb_is_a_compile_error() {
    let server = server();
    let result = server.run(json!({"language": "c", "code": "#include \"/dev/zero\"\nint main(void) {}",
        "limits": {"compileTime": 5_000}}));
    assert_eq!(result["status"], "compile_error", "{result}");
    let endless = server.run(json!({"language": "c", "code": "#include __FILE__\n#include __FILE__\n",
        "limits": {"compileTime": 5_000}}));
    assert_eq!(endless["status"], "compile_error");
    let large = "int big[1 << 28] = {1};\nint main(void) { return 0; }";
    let result = server.run(json!({"language": "c", "code": large}));
    assert_eq!(result["status"], "compile_error", "{result}");
    assert!(!result["compile"].is_null());
}

#[test]
fn a_test_that_ties_the_agents_hands_spoils_nobody_elses_verdict() {
    let server = server();
    // The same uid may change PID 1's limits: prlimit(2) looks at uids only.
    let code = "import resource, sys\nif input() == 'tie': resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))\nprint('ok')";
    let test = |input: &str| json!({"input": input, "expectedOutput": "ok"});
    let result =
        server.run(json!({"language": "python", "code": code, "tests": [test("x"), test("tie"), test("x")]}));
    assert_eq!(result["tests"][0]["status"], "passed", "{result}");
    assert_ne!(result["status"], "internal_error", "{result}");
    assert_ne!(result["tests"][2]["status"], "passed", "it could not be run any more: {result}");
}
