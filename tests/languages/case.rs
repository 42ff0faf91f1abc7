//! A case is a request and what is claimed about its result. Besides its own claims every result has to be
//! whole and consistent in itself, which is checked here for all of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Server, docker, eventually};

/// Each runs in a container with one core. More at a time would only make the time limits lie.
const AT_A_TIME: usize = 2;

const STATUSES: [&str; 9] = [
    "success",
    "compile_error",
    "runtime_error",
    "time_limit",
    "memory_limit",
    "output_limit",
    "wrong_answer",
    "cancelled",
    "internal_error",
];

pub struct Case {
    what: &'static str,
    body: Value,
    claims: Vec<(&'static str, Want)>,
}

/// What is wanted of the value at a place in the result.
enum Want {
    Is(Value),
    Has(String),
    Lacks(String),
    Length(usize),
    AtMost(f64),
}

/// A request's fields but for the language, which the table knows.
pub fn case(what: &'static str, body: Value) -> Case {
    Case { what, body, claims: Vec::new() }
}

/// A request with nothing but code.
pub fn code(what: &'static str, code: &str) -> Case {
    case(what, json!({ "code": code }))
}

/// A request with files, the first of which is run.
pub fn files(what: &'static str, files: &[(&str, &str)]) -> Case {
    let files: Vec<Value> =
        files.iter().map(|(name, content)| json!({ "name": name, "content": content })).collect();
    case(what, json!({ "files": files }))
}

impl Case {
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    /// The value at a JSON pointer is this.
    pub fn is(mut self, place: &'static str, value: impl Into<Value>) -> Self {
        self.claims.push((place, Want::Is(value.into())));
        self
    }

    pub fn has(mut self, place: &'static str, part: &str) -> Self {
        self.claims.push((place, Want::Has(part.to_owned())));
        self
    }

    pub fn lacks(mut self, place: &'static str, part: &str) -> Self {
        self.claims.push((place, Want::Lacks(part.to_owned())));
        self
    }

    pub fn length(mut self, place: &'static str, bytes: usize) -> Self {
        self.claims.push((place, Want::Length(bytes)));
        self
    }

    pub fn at_most(mut self, place: &'static str, number: f64) -> Self {
        self.claims.push((place, Want::AtMost(number)));
        self
    }

    /// It succeeds, prints this and says nothing on stderr.
    pub fn prints(self, stdout: &str) -> Self {
        self.is("/status", "success").is("/stdout", stdout).is("/stderr", "")
    }

    /// It ends by itself with this code.
    pub fn exits(self, exit_code: i32) -> Self {
        self.is("/status", "runtime_error").is("/exitCode", exit_code).is("/signal", Value::Null)
    }

    pub fn dies_of(self, signal: &str) -> Self {
        self.is("/status", "runtime_error").is("/exitCode", Value::Null).is("/signal", signal)
    }

    fn check(&self, result: &Value) -> Result<(), String> {
        let checked = check_invariants(result).and_then(|()| {
            self.claims.iter().try_for_each(|(place, want)| {
                let value = result.pointer(place).unwrap_or(&Value::Null);
                want.check(value).map_err(|problem| format!("{place} {problem}"))
            })
        });
        checked.map_err(|problem| format!("{}: {problem}\n{}", self.what, shortened(result)))
    }
}

impl Want {
    fn check(&self, value: &Value) -> Result<(), String> {
        let text = value.as_str().unwrap_or_default();
        match self {
            Want::Is(wanted) if value != wanted => Err(format!("should be {wanted}")),
            Want::Has(part) if !text.contains(part) => Err(format!("should contain {part:?}")),
            Want::Lacks(part) if text.contains(part) => Err(format!("should not contain {part:?}")),
            Want::Length(wanted) if text.len() != *wanted => {
                Err(format!("should have {wanted} bytes, not {}", text.len()))
            }
            Want::AtMost(most) if value.as_f64().is_none_or(|number| number > *most) => {
                Err(format!("should be at most {most}"))
            }
            _ => Ok(()),
        }
    }
}

/// Runs the cases on one server, a few at a time, and says all that went wrong at the end. The last case runs
/// alone: the server has outlived all the others then.
pub fn run(language: &str, cases: &[Case]) {
    let server = Server::start(&[]);
    check_version(&server, language);
    let attempt = |case: &Case| {
        let mut body = case.body.clone();
        body["language"] = language.into();
        let result = server.run(body);
        assert_eq!(result["language"], language);
        case.check(&result).err()
    };
    let (last, others) = cases.split_last().expect("there are cases");
    let next = AtomicUsize::new(0);
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = others.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let problem = attempt(case);
                    problems.lock().expect("no panic under lock").extend(problem);
                }
            });
        }
    });
    eventually("no container is left", || server.containers().is_empty());
    let mut problems = problems.into_inner().expect("no panic under lock");
    problems.extend(attempt(last));
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

/// The version that clients are told is the one in the image.
fn check_version(server: &Server, language: &str) {
    let listed = server.get("/api/languages").json();
    let told = listed.as_array().expect("a list").iter().find(|entry| entry["id"] == language);
    let told = told.expect("the language is on")["version"].as_str().expect("a version").to_owned();

    let table: toml::Table =
        toml::from_str(include_str!("../../src/language/languages.toml")).expect("valid TOML");
    let entry = &table[language];
    assert_eq!(entry["version"].as_str(), Some(told.as_str()));
    let command = entry["version_command"].as_array().expect("a command");
    let mut argv = vec!["run", "--rm", "--network", "none", entry["image"].as_str().expect("a name")];
    argv.extend(command.iter().map(|word| word.as_str().expect("a word")));
    let printed = docker(&argv);
    // `v18.20.4`, `Python 3.11.2`, `openjdk 17.0.13 2024-10-15`, `g++ (Debian 12.2.0-14) 12.2.0`.
    let first_line = printed.lines().next().unwrap_or_default();
    let fits = |word: &str| {
        let rest = word.trim_start_matches('v').strip_prefix(&told);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    assert!(first_line.split_whitespace().any(fits), "{language} {told} is really {first_line:?}");
}

/// What is true of every result, whatever the program did.
fn check_invariants(result: &Value) -> Result<(), String> {
    let claim = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    check_shape(result)?;
    let text = |place: &str| result.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let number = |place: &str| result.pointer(place).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let status = text("/status");
    claim(STATUSES.contains(&status), "status is one of the known ones")?;
    claim(status != "internal_error", "the failure is ours")?;
    claim(result["message"].is_null() == (status == "success"), "message is null just for success")?;
    let compiled = matches!(text("/language"), "java" | "cpp" | "c");
    claim(result["compile"].is_object() == compiled, "compile is there just for compiled languages")?;

    let exited = result["exitCode"].is_number();
    claim(!exited || result["signal"].is_null(), "an exit code or a signal, not both")?;
    claim((result["exitCode"] == 0) == (status == "success"), "exit code 0 is success")?;
    claim(!exited || matches!(status, "success" | "runtime_error" | "memory_limit"), "it ended by itself")?;

    let (stdout, stderr) = match status {
        "compile_error" => ("/compile/stdout", "/compile/stderr"),
        _ => ("/stdout", "/stderr"),
    };
    if status == "compile_error" {
        claim(text("/stdout").is_empty() && text("/stderr").is_empty(), "what did not run prints nothing")?;
    } else {
        claim(number("/memoryPeak") > 0.0, "what ran needed memory")?;
    }
    let (output, stdout, stderr) = (text("/output"), text(stdout), text(stderr));
    claim(output.len() == stdout.len() + stderr.len(), "output is as long as stdout and stderr")?;
    claim(is_subsequence(stdout, output), "output holds stdout in order")?;
    claim(is_subsequence(stderr, output), "output holds stderr in order")?;

    for place in ["/time/queued", "/time/start", "/time/wall", "/time/cpu", "/time/total"] {
        claim(number(place) >= 0.0, place)?;
    }
    claim(number("/time/total") >= number("/time/wall"), "the total includes the run")?;
    claim(text("/command").starts_with("docker run "), "the command is shown")
}

type Fits = fn(&Value) -> bool;

/// All fields are there, with the types of the contract, and none besides.
fn check_shape(result: &Value) -> Result<(), String> {
    let text: Fits = Value::is_string;
    let number: Fits = Value::is_number;
    let truth: Fits = Value::is_boolean;
    let text_or_null: Fits = |value| value.is_string() || value.is_null();
    let code_or_null: Fits = |value| value.is_i64() || value.is_null();
    let object_or_null: Fits = |value| value.is_object() || value.is_null();
    let fields = [
        ("executionId", text),
        ("language", text),
        ("status", text),
        ("output", text),
        ("stdout", text),
        ("stderr", text),
        ("exitCode", code_or_null),
        ("signal", text_or_null),
        ("truncated", truth),
        ("message", text_or_null),
        ("compile", object_or_null),
        ("time", Value::is_object),
        ("memoryPeak", number),
        ("tests", Value::is_null),
        ("warm", truth),
        ("command", text),
    ];
    let times = ["queued", "start", "wall", "cpu", "total"].map(|name| (name, number));
    let compile_fields = [
        ("stdout", text),
        ("stderr", text),
        ("exitCode", code_or_null),
        ("signal", text_or_null),
        ("wall", number),
        ("cpu", number),
        ("memoryPeak", number),
        ("cached", truth),
    ];
    check_fields(result, &fields)?;
    check_fields(&result["time"], &times)?;
    if result["compile"].is_null() { Ok(()) } else { check_fields(&result["compile"], &compile_fields) }
}

fn check_fields(object: &Value, fields: &[(&str, Fits)]) -> Result<(), String> {
    let found = object.as_object().ok_or("not an object")?;
    for (name, fits) in fields {
        let value = found.get(*name).ok_or_else(|| format!("{name} is missing"))?;
        if !fits(value) {
            return Err(format!("{name} has the wrong type: {value}"));
        }
    }
    let known = |name: &String| fields.iter().any(|(known, _)| known == name);
    match found.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(format!("{name} is no field of the contract")),
    }
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut whole = whole.bytes();
    part.bytes().all(|byte| whole.any(|other| other == byte))
}

/// A result that a person can read, without the long command and the end of long texts.
fn shortened(result: &Value) -> String {
    const LONGEST: usize = 1000;
    let mut result = result.clone();
    for (_, value) in result.as_object_mut().into_iter().flatten() {
        if let Some(text) = value.as_str().filter(|text| text.chars().count() > LONGEST) {
            *value = text.chars().take(LONGEST).chain("…".chars()).collect::<String>().into();
        }
    }
    format!("{result:#}")
}
