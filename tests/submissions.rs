//! What may be asked of an execution: files, arguments, limits and tests, each seen from what the program finds.

mod support;

use serde_json::{Value, json};
use support::Server;

fn statuses(result: &Value) -> Vec<&str> {
    let tests = result["tests"].as_array().expect("tests");
    tests.iter().map(|test| test["status"].as_str().expect("a status")).collect()
}

#[test]
fn files_lie_in_their_folders_byte_by_byte() {
    let server = Server::start(&[]);
    let result = server.run(json!({
        "language": "python",
        "code": "from lib import util\nprint(util.x, open('data/raw.bin', 'rb').read(), open('ü b.txt').read())",
        "files": [
            {"name": "lib/util.py", "content": "x = 5"},
            {"name": "data/raw.bin", "content": "AP8KgA==", "encoding": "base64"},
            {"name": "ü b.txt", "content": "😀", "encoding": "utf8"},
        ],
    }));
    assert_eq!(result["stdout"], "5 b'\\x00\\xff\\n\\x80' 😀\n", "{result}");
}

#[test]
fn files_replace_the_code() {
    let server = Server::start(&[]);
    let files = json!([
        {"name": "main.py", "content": "print('main')"},
        {"name": "other.py", "content": "print('other')"},
    ]);
    assert_eq!(server.run(json!({"language": "python", "files": files}))["stdout"], "main\n");
    let chosen = json!({"language": "python", "files": files, "entrypoint": "other.py"});
    assert_eq!(server.run(chosen)["stdout"], "other\n");
    let beside = json!({"language": "python", "code": "import other", "files": [files[1]]});
    assert_eq!(server.run(beside)["stdout"], "other\n");
}

#[test]
fn all_sources_are_compiled_together() {
    let server = Server::start(&[]);
    let c = json!({"language": "c", "files": [
        {"name": "main.c", "content": "#include \"lib/f.h\"\nint main(void) { return f(); }"},
        {"name": "lib/f.h", "content": "int f(void);"},
        {"name": "lib/f.c", "content": "#include \"f.h\"\nint f(void) { return 9; }"},
    ]});
    assert_eq!(server.run(c)["exitCode"], 9);
    let java = json!({"language": "java", "files": [
        {"name": "Helper.java", "content": "class Helper { static String x() { return \"helped\"; } }"},
        {"name": "Start.java",
         "content": "public class Start { public static void main(String[] a) { System.out.println(Helper.x()); } }"},
    ]});
    assert_eq!(server.run(java)["stdout"], "helped\n");
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let server = Server::start(&[]);
    let args = json!(["one two", "", "$HOME", "'\"`\\", "--help", "ü😀", "a\nb"]);
    let python = json!({"language": "python", "code": "import sys, json; print(json.dumps(sys.argv[1:]))", "args": args});
    let told: Value =
        serde_json::from_str(server.run(python)["stdout"].as_str().expect("text")).expect("JSON");
    assert_eq!(told, args);
    let node = json!({"language": "javascript", "args": args,
        "code": "console.log(JSON.stringify(process.argv.slice(2)))"});
    let told: Value = serde_json::from_str(server.run(node)["stdout"].as_str().expect("text")).expect("JSON");
    assert_eq!(told, args);
}

#[test]
fn input_is_there_and_ends() {
    let server = Server::start(&[]);
    let code = "import sys; print(repr(sys.stdin.read()))";
    let result = server.run(json!({"language": "python", "code": code, "input": "a\nb"}));
    assert_eq!(result["stdout"], "'a\\nb'\n");
    assert_eq!(server.run_code("python", code)["stdout"], "''\n", "without input it is empty, not open");
}

#[test]
fn a_request_may_lower_its_limits() {
    let server = Server::start(&[]);
    let with =
        |code: &str, limits: Value| server.run(json!({"language": "python", "code": code, "limits": limits}));
    let slept = with("print('begun', flush=True)\nimport time; time.sleep(60)", json!({"wallTime": 300}));
    assert_eq!((&slept["status"], &slept["output"]), (&json!("time_limit"), &json!("begun\n")));
    assert_eq!(slept["exitCode"], Value::Null);
    assert!(slept["message"].as_str().is_some_and(|told| told.contains("300 ms")), "{slept}");
    assert_eq!(with("while True: pass", json!({"cpuTime": 300}))["status"], "time_limit");
    let large = with("x = bytearray(100 << 20)", json!({"memory": 64 << 20}));
    assert_eq!(large["status"], "memory_limit", "{large}");
    let printed = with("print('x' * 1000)", json!({"output": 10}));
    assert_eq!(printed["status"], "output_limit", "{printed}");
    assert_eq!((&printed["output"], &printed["truncated"]), (&json!("xxxxxxxxxx"), &json!(true)));
    let forks =
        "import threading, time\nfor _ in range(30): threading.Thread(target=time.sleep, args=(1,)).start()";
    let crowded = with(forks, json!({"processes": 10}));
    assert_eq!(crowded["status"], "runtime_error", "{crowded}");
    assert_eq!(
        with("print(1)", json!({"wallTime": 5000, "memory": 64 << 20, "processes": 8}))["status"],
        "success"
    );
    let code = "#include <cstdio>\n#define A(x) x x x x x x x x x x\nint a[] = {A(A(A(A(A(A(A(1,)))))))}; int main() {}";
    let slow = server.run(json!({"language": "cpp", "code": code, "limits": {"compileTime": 100}}));
    assert_eq!(slow["status"], "compile_error", "{slow}");
    assert!(slow["message"].as_str().is_some_and(|told| told.contains("100 ms")), "{slow}");
}

#[test]
fn tests_share_one_compilation() {
    let server = Server::start(&[]);
    // Each compilation would warn once more.
    let code = "#include <stdio.h>\nint main(void) { int spare_variable; int n; scanf(\"%d\", &n); printf(\"%d\\n\", n * n); }";
    let tests: Vec<Value> =
        (0..5).map(|n| json!({"name": format!("t{n}"), "input": format!("{n}"), "expectedOutput": format!("{}", n * n)})).collect();
    let id = server.submit(json!({"language": "c", "code": code, "tests": tests}));
    let result = server.result_of(&id);
    assert_eq!(result["status"], "success", "{result}");
    assert_eq!(statuses(&result), ["passed"; 5]);
    assert_eq!(
        (&result["output"], &result["stdout"], &result["stderr"]),
        (&json!(""), &json!(""), &json!(""))
    );
    let events = server.events(&id, "", &[]);
    let of = |stage: &'static str| events.iter().filter(move |(_, _, data)| data["stage"] == stage);
    let warnings: String = of("compile").filter_map(|(_, _, data)| data["data"].as_str()).collect();
    assert_eq!(warnings.matches("unused variable").count(), 1, "{warnings}");
    assert_eq!(events.iter().filter(|(_, _, data)| data["state"] == "compiling").count(), 1);
    let by_test: Vec<_> =
        of("run").map(|(_, _, data)| (data["test"].clone(), data["data"].clone())).collect();
    let expected: Vec<_> = (0..5).map(|n| (json!(n), json!(format!("{}\n", n * n)))).collect();
    assert_eq!(by_test, expected);
}

#[test]
fn a_test_that_fails_in_whatever_way_does_not_stop_the_others() {
    let server = Server::start(&[]);
    let code = "
import os, sys, time
what = input()
print(what, flush=True)
if what == 'crash': os.abort()
if what == 'exit': sys.exit(4)
if what == 'sleep': time.sleep(60)
if what == 'spin':
    while True: pass
if what == 'print': print('x' * 5000)
if what == 'eat': x = bytearray(1 << 30)
";
    let names = ["fine", "crash", "exit", "sleep", "spin", "print", "eat", "wrong", "unchecked"];
    let tests: Vec<Value> = names
        .iter()
        .map(|name| match *name {
            "wrong" => json!({"name": name, "input": "wrong", "expectedOutput": "right"}),
            "unchecked" => json!({"name": name, "input": "unchecked"}),
            _ => json!({"name": name, "input": name, "expectedOutput": name}),
        })
        .collect();
    let limits = json!({"wallTime": 1500, "cpuTime": 600, "output": 1000, "memory": 64 << 20});
    let result = server.run(json!({"language": "python", "code": code, "tests": tests, "limits": limits}));
    let expected = [
        "passed",
        "runtime_error",
        "runtime_error",
        "time_limit",
        "time_limit",
        "output_limit",
        "memory_limit",
        "wrong_answer",
        "passed",
    ];
    assert_eq!(statuses(&result), expected, "{result}");
    assert_eq!(result["status"], "runtime_error", "that of the first that did not pass");
    let tests = result["tests"].as_array().expect("tests");
    let told: Vec<_> = tests.iter().filter_map(|test| test["name"].as_str()).collect();
    assert_eq!(told, names, "one each, in order");
    assert_eq!(tests[1]["signal"], "SIGABRT");
    assert_eq!(tests[1]["exitCode"], Value::Null);
    assert_eq!(tests[2]["exitCode"], 4);
    assert_eq!(tests[3]["stdout"], "sleep\n", "what came before the end is kept");
    assert_eq!((&tests[3]["exitCode"], &tests[5]["truncated"]), (&Value::Null, &json!(true)));
    for (test, status) in tests.iter().zip(expected) {
        assert_eq!(test["message"].is_null(), status == "passed", "{test}");
    }
}

#[test]
fn a_wrong_answer_is_told_and_trimmed_or_exact_comparison_is_as_asked() {
    let server = Server::start(&[]);
    let judged = |compare: Value, printed: &str, expected: &str| {
        let code = format!("import sys; sys.stdout.write({})", json!(printed));
        let test = json!({"name": "t", "expectedOutput": expected});
        let mut body = json!({"language": "python", "code": code, "tests": [test]});
        if !compare.is_null() {
            body["compare"] = compare;
        }
        server.run(body)["status"].as_str().expect("a status").to_owned()
    };
    assert_eq!(judged(Value::Null, "a  \nb\n\n", "a\nb"), "success", "trimmed is the default");
    assert_eq!(judged(json!("trimmed"), "a\r\nb", "a\nb\n"), "success");
    assert_eq!(judged(json!("trimmed"), " a", "a"), "wrong_answer", "leading white space counts");
    assert_eq!(judged(json!("exact"), "a\n", "a"), "wrong_answer");
    assert_eq!(judged(json!("exact"), "a\n", "a\n"), "success");
    assert_eq!(judged(json!("exact"), "", ""), "success");
    assert_eq!(judged(json!("trimmed"), "", "a"), "wrong_answer");
}

#[test]
fn each_test_finds_a_clean_work_folder() {
    let server = Server::start(&[]);
    let code = "
import os, sys
print(sorted(os.listdir('.')), sorted(os.listdir('/tmp')), open('data.txt').read(), sys.argv[1:])
open('data.txt', 'w').write('changed')
open('left', 'w').write('x')
os.makedirs('folder/deep')
open('/tmp/left', 'w').write('x')
os.remove('main.py')
";
    let result = server.run(json!({
        "language": "python", "code": code, "args": ["shared"],
        "files": [{"name": "data.txt", "content": "original"}],
        "tests": [{"name": "a", "args": ["1"]}, {"name": "b", "args": ["2", "3"]}, {}],
    }));
    assert_eq!(result["status"], "success", "{result}");
    let tests = result["tests"].as_array().expect("tests");
    let own = ["['shared', '1']", "['shared', '2', '3']", "['shared']"];
    for (test, args) in tests.iter().zip(own) {
        assert_eq!(test["stdout"], format!("['data.txt', 'main.py'] [] original {args}\n"));
    }
    assert_eq!(tests[2]["name"], "3", "a test without a name has its number");
}

#[test]
fn no_process_of_one_test_lives_on_in_the_next() {
    let server = Server::start(&[]);
    let code = "
import os, time
others = [pid for pid in os.listdir('/proc') if pid.isdigit() and int(pid) not in (1, os.getpid())]
print(others)
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
";
    let tests = json!([{"expectedOutput": "[]"}, {"expectedOutput": "[]"}]);
    let result = server.run(json!({"language": "python", "code": code, "tests": tests}));
    assert_eq!(statuses(&result), ["passed", "passed"], "{result}");
}

#[test]
fn a_hundred_tests_are_taken_and_one_more_is_not() {
    let server = Server::start(&[]);
    let body = |count: usize| {
        let tests: Vec<Value> =
            (0..count).map(|n| json!({"input": n.to_string(), "expectedOutput": n.to_string()})).collect();
        json!({"language": "c", "tests": tests,
            "code": "#include <stdio.h>\nint main(void) { int n; scanf(\"%d\", &n); printf(\"%d\", n); }"})
    };
    let result = server.run(body(100));
    assert_eq!(statuses(&result), ["passed"; 100], "{}", result["message"]);
    let refused = server.post("/api/execute", &body(101));
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("101") && refused.text.contains("100"), "{}", refused.text);
}

#[test]
fn tests_do_not_run_when_nothing_was_compiled() {
    let server = Server::start(&[]);
    let result = server.run(json!({"language": "c", "code": "int main(", "tests": [{"name": "t"}]}));
    assert_eq!(result["status"], "compile_error");
    assert_ne!(result["output"], "");
    assert_eq!(result["tests"], Value::Null, "{result}");
}

#[test]
fn the_input_of_tests_may_be_base64_too() {
    let server = Server::start(&[]);
    let code = "import sys; print(sys.stdin.buffer.read())";
    let tests = json!([{"input": "AP8=", "expectedOutput": "b'\\x00\\xff'"}]);
    let body = json!({"language": "python", "code": code, "inputEncoding": "base64", "tests": tests});
    assert_eq!(server.run(body)["status"], "success");
}
