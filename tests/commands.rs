//! The commands that a result and `explain` print give what the program gives (promise 2), and the other commands
//! for people.

#![allow(clippy::disallowed_methods, reason = "tests start commands")]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{BINARY, Server, run};

/// What a shell could trip over, in a string of each language's.
const TRICKY: &str = r#"'one' $HOME `id` $(id) !! \\ %s OC_JOB <<EOF "#;

/// (language, source, file name): each prints a tricky text, its arguments and its input, writes to stderr, exits with 3.
fn programs() -> Vec<(&'static str, String, &'static str)> {
    let python = format!(
        "import sys\nprint(\"\"\"{TRICKY}ünïcödé 😀\nOC_JOB\n\"\"\")\nprint(sys.argv[1:])\nprint(repr(sys.stdin.read()))\nprint('err', file=sys.stderr)\nsys.exit(3)\n"
    );
    let javascript = format!(
        "console.log(\"{TRICKY}ünïcödé 😀\");\nconsole.log(`OC_JOB\n${{process.argv.slice(2)}}`);\nconsole.log(JSON.stringify(require('fs').readFileSync(0, 'utf8')));\nconsole.error('err');\nprocess.exit(3);\n"
    )
    // A string of JavaScript's ends at the double quote.
    .replace("<<EOF \"", "<<EOF \\\"");
    let c_text = TRICKY.replace('"', "\\\"").replace("%s", "%%s");
    let c = format!(
        "#include <stdio.h>\nint main(int argc, char **argv) {{\n  printf(\"{c_text}ünïcödé 😀\\n\");\n  for (int i = 1; i < argc; i++) printf(\"[%s]\\n\", argv[i]);\n  int c; while ((c = getchar()) != EOF) putchar(c);\n  fprintf(stderr, \"err\\n\"); return 3;\n}}\n"
    );
    let cpp = format!(
        "#include <iostream>\nint main(int argc, char **argv) {{\n  std::cout << R\"x({TRICKY}ünïcödé 😀\nOC_JOB\n)x\";\n  for (int i = 1; i < argc; i++) std::cout << \"[\" << argv[i] << \"]\\n\";\n  std::cout << std::cin.rdbuf() << std::flush; std::cerr << \"err\\n\"; return 3;\n}}\n"
    );
    let java = format!(
        "import java.io.*;\nimport java.nio.charset.StandardCharsets;\npublic class Tricky {{\n  public static void main(String[] args) throws IOException {{\n    var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);\n    out.println(\"{}ünïcödé 😀\");\n    for (var arg : args) out.println(arg.length());\n    System.in.transferTo(out); out.flush();\n    System.err.println(\"err\"); System.exit(3);\n  }}\n}}\n",
        TRICKY.replace('"', "\\\"")
    );
    vec![
        ("python", python, "tricky.py"),
        ("javascript", javascript, "tricky.js"),
        ("c", c, "tricky.c"),
        ("cpp", cpp, "tricky.cpp"),
        ("java", java, "Tricky.java"),
    ]
}

fn shell(line: &str) -> (Option<i32>, String, String) {
    run(Command::new("sh").args(["-c", line]))
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

#[test]
fn the_command_of_a_result_gives_the_programs_own_output_and_exit_code() {
    let server = Server::start(&[]);
    for (language, code, _) in programs() {
        let result = server.run(json!({
            "language": language, "code": code,
            "input": "line 'one' $x\n`two` \"ü\"\n", "args": ["a b", "$HOME", "'\"`", "ü\n"],
        }));
        assert_eq!(result["exitCode"], 3, "{result}");
        assert_ne!(result["stdout"], "");
        let command = text(&result["command"]);
        let (exit_code, stdout, stderr) = shell(&command);
        assert_eq!(stdout, text(&result["stdout"]), "{language}: {command}");
        assert_eq!(stderr, text(&result["stderr"]), "{language}: {command}");
        assert_eq!(exit_code, Some(3), "{language}: {command}");
        for hidden in ["--name", "--label", "oc.instance"] {
            assert!(!command.contains(hidden), "a paste must neither clash nor be swept: {command}");
        }
    }
}

#[test]
fn the_command_of_a_program_that_was_not_compiled_tells_what_the_compiler_said() {
    let server = Server::start(&[]);
    let result = server.run_code("c", "int main(void) { return nothing; }");
    let (code, stdout, stderr) = shell(&text(&result["command"]));
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert_eq!(stderr + &stdout, text(&result["output"]));
}

#[test]
fn what_explain_prints_runs_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (language, code, name) in programs() {
        let path = folder.path().join(name);
        std::fs::write(&path, code).expect("written");
        let (exit_code, line, stderr) = run(Command::new(BINARY)
            .args(["explain", language])
            .arg(&path)
            .args(["a b", "$HOME"])
            .env("STATE_DIR", folder.path())
            .current_dir(folder.path()));
        assert_eq!(exit_code, Some(0), "{stderr}");
        assert!(line.starts_with("docker run "), "{line}");
        let (exit_code, stdout, stderr) = shell(&line);
        assert_eq!(exit_code, Some(3), "{language}: {stdout}{stderr}");
        assert_eq!(stderr, "err\n", "{language}");
        assert!(stdout.contains("'one' $HOME `id` $(id) !!"), "{language}: {stdout}");
        assert!(stdout.contains("ünïcödé 😀"), "{language}: {stdout}");
    }
}

#[test]
fn explain_tells_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let explain = |language: &str, file: &str| {
        let mut command = Command::new(BINARY);
        command.args(["explain", language, file]).env("STATE_DIR", folder.path()).current_dir(folder.path());
        let (code, stdout, stderr) = run(&mut command);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        stderr
    };
    assert!(explain("python", "missing.py").contains("missing.py"));
    std::fs::write(folder.path().join("a.py"), "1").expect("written");
    let told = explain("cobol", "a.py");
    assert!(told.contains("cobol") && told.contains("python"), "{told}");
}

#[test]
fn doctor_finds_nothing_broken_where_the_tests_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(BINARY);
    command.arg("doctor").env("STATE_DIR", folder.path()).current_dir(folder.path());
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(!stdout.contains("broken"), "{stdout}");
    for what in ["docker: client", "runc", "cgroup", "image online-compiler/java", "container was ready"] {
        assert!(stdout.contains(what), "{what} is not in:\n{stdout}");
    }
}

#[test]
fn doctor_says_what_to_do_without_an_engine() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(BINARY);
    command.arg("doctor").env("STATE_DIR", folder.path()).current_dir(folder.path());
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let (code, stdout, _) = run(&mut command);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("broken") && stdout.contains("mend:"), "{stdout}");
}

#[test]
fn help_lists_every_setting_of_the_example_file() {
    let (code, help, stderr) = run(Command::new(BINARY).arg("--help"));
    assert_eq!(code, Some(0), "{stderr}");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let example = std::fs::read_to_string(example).expect("the example file");
    let settings = example.lines().filter_map(|line| {
        let (name, default) = line.trim_start_matches(['#', ' ']).split_once('=')?;
        let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        named.then_some((name, default))
    });
    let settings: Vec<_> = settings.collect();
    assert!(settings.len() > 30, "{settings:?}");
    for (name, default) in settings {
        let line = help.lines().find(|line| line.split_whitespace().next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in --help:\n{help}"));
        assert!(line.contains(default), "{name}: {default} is not in {line}");
    }
    for command in ["serve", "doctor", "explain", "images", "health"] {
        assert!(help.contains(command), "{command} is not in:\n{help}");
    }
}

#[test]
fn the_health_command_speaks_with_the_server() {
    let server = Server::start(&[]);
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    let ask = |port: &str| {
        let mut command = Command::new(BINARY);
        run(command
            .arg("health")
            .env("PORT", port)
            .env("STATE_DIR", server.state.path())
            .current_dir(server.state.path()))
        .0
    };
    assert_eq!(ask(&port), Some(0));
    assert_ne!(ask("1"), Some(0), "nobody is there");
}
