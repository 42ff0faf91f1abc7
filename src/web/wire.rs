//! The JSON of the native API, both ways. These types stay here: what comes in is taken apart whole into the core's
//! own types, what goes out is made from them.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::execution::{Chunk, Event, Execution, Outcome, microseconds_kept};
use crate::language::Language;
use crate::limits::{Limits, WantedLimits};
use crate::output::Compare;
use crate::protocol::{File, Report, StageName, Stream};
use crate::submission::{Request, TestCase};
use crate::verdict::{Status, signal_name};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Utf8,
    Base64,
}

impl Encoding {
    /// Bytes as the client wants them. What is not UTF-8 becomes U+FFFD in text.
    fn show(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Encoding::Base64 => BASE64.encode(bytes),
        }
    }

    fn read(self, text: String, field: &str) -> Result<Vec<u8>, Problem> {
        match self {
            Encoding::Utf8 => Ok(text.into_bytes()),
            Encoding::Base64 => BASE64
                .decode(text)
                .map_err(|error| Problem::bad_request(format!("{field} is not valid base64: {error}"))),
        }
    }
}

/// The body of `POST /api/execute`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object with code and language")]
pub struct ExecuteBody {
    code: Option<String>,
    language: Option<String>,
    input: Option<String>,
    files: Option<Vec<FileBody>>,
    entrypoint: Option<String>,
    args: Option<Vec<String>>,
    input_encoding: Option<Encoding>,
    interactive: Option<bool>,
    limits: Option<LimitsBody>,
    tests: Option<Vec<TestBody>>,
    compare: Option<CompareBody>,
}

#[derive(Deserialize)]
struct FileBody {
    name: String,
    content: String,
    encoding: Option<Encoding>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct LimitsBody {
    wall_time: Option<Value>,
    cpu_time: Option<Value>,
    compile_time: Option<Value>,
    memory: Option<Value>,
    output: Option<Value>,
    processes: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestBody {
    name: Option<String>,
    input: Option<String>,
    args: Option<Vec<String>>,
    expected_output: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum CompareBody {
    Trimmed,
    Exact,
}

/// The body of `POST /api/executions/{id}/input`, and of the socket's `execution_input`.
#[derive(Deserialize)]
#[serde(expecting = "an object with data")]
pub struct InputBody {
    data: Option<String>,
    encoding: Option<Encoding>,
    eof: Option<bool>,
}

impl InputBody {
    pub fn into_parts(self) -> Result<(Vec<u8>, bool), Problem> {
        let InputBody { data, encoding, eof } = self;
        if data.is_none() && eof != Some(true) {
            return Err(Problem::bad_request("data is missing; it holds the input, or eof is true"));
        }
        let bytes = encoding.unwrap_or_default().read(data.unwrap_or_default(), "data")?;
        Ok((bytes, eof.unwrap_or(false)))
    }
}

/// What is said of a body is bounded, whatever the body says.
const MOST_WARNINGS: usize = 20;
const LONGEST_PATH: usize = 100;

/// Reads JSON. A wrong type is named with the path of its field; fields that are not known are named in the
/// warnings.
pub fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<(T, Vec<String>), Problem> {
    let mut warnings = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let parsed = serde_ignored::deserialize(tracked, |path| {
        // serde_ignored writes an optional field as `name.?`.
        let path: String = path.to_string().replace(".?", "").chars().take(LONGEST_PATH).collect();
        match warnings.len() {
            0..MOST_WARNINGS => warnings.push(format!("{path} is not a known field and was ignored")),
            MOST_WARNINGS => warnings.push("and there are more".to_owned()),
            _ => {}
        }
    });
    let parsed = parsed.and_then(|value| json.end().map(|()| value));
    match parsed {
        Ok(value) => Ok((value, warnings)),
        Err(error) if error.is_data() => {
            let path = track.path().to_string();
            let field = if path == "." { "the body" } else { &path };
            Err(Problem::bad_request(format!("{field}: {error}")))
        }
        Err(error) => Err(Problem::bad_request(format!("the body is not valid JSON: {error}"))),
    }
}

impl ExecuteBody {
    pub fn into_request(self) -> Result<Request, Problem> {
        let ExecuteBody {
            code,
            language,
            input,
            files,
            entrypoint,
            args,
            input_encoding,
            interactive,
            limits,
            tests,
            compare,
        } = self;
        let encoding = input_encoding.unwrap_or_default();
        let files = files.unwrap_or_default().into_iter().enumerate().map(|(index, file)| {
            let FileBody { name, content, encoding } = file;
            let content = encoding.unwrap_or_default().read(content, &format!("files[{index}].content"))?;
            Ok(File { name, content: content.into() })
        });
        let tests = tests.map(|tests| {
            let tests = tests.into_iter().enumerate().map(|(index, test)| {
                let TestBody { name, input, args, expected_output } = test;
                let input = encoding.read(input.unwrap_or_default(), &format!("tests[{index}].input"))?;
                Ok(TestCase {
                    name: name.unwrap_or_else(|| (index + 1).to_string()),
                    input,
                    args: args.unwrap_or_default(),
                    expected: expected_output.map(String::into_bytes),
                })
            });
            tests.collect::<Result<Vec<_>, Problem>>()
        });
        let LimitsBody { wall_time, cpu_time, compile_time, memory, output, processes } =
            limits.unwrap_or_default();
        Ok(Request {
            language: language.ok_or_else(|| Problem::bad_request("language is missing"))?,
            code,
            files: files.collect::<Result<Vec<_>, Problem>>()?,
            entrypoint,
            args: args.unwrap_or_default(),
            input: encoding.read(input.unwrap_or_default(), "input")?,
            interactive: interactive.unwrap_or(false),
            limits: WantedLimits { wall_time, cpu_time, compile_time, memory, output, processes },
            tests: tests.transpose()?,
            compare: match compare {
                None | Some(CompareBody::Trimmed) => Compare::Trimmed,
                Some(CompareBody::Exact) => Compare::Exact,
            },
        })
    }
}

/// The answer to a request that was taken.
pub fn accepted(execution: &Execution, warnings: &[String]) -> Value {
    let mut answer = json!({ "executionId": execution.id.to_string(), "message": "Code execution started" });
    warn(&mut answer, warnings);
    answer
}

/// The answer to `?wait=true`.
pub fn completed(execution: &Execution, outcome: &Outcome, warnings: &[String], encoding: Encoding) -> Value {
    let mut answer = json!({
        "executionId": execution.id.to_string(),
        "message": "Code execution completed",
        "result": result(execution, outcome, encoding),
    });
    warn(&mut answer, warnings);
    answer
}

fn warn(answer: &mut Value, warnings: &[String]) {
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
}

/// `GET /api/executions/{id}`.
pub fn status(execution: &Execution, encoding: Encoding) -> Value {
    let now = execution.snapshot();
    let mut answer = json!({
        "executionId": execution.id.to_string(),
        "language": execution.language,
        "state": now.state.as_str(),
        "createdAt": epoch_milliseconds(execution.created),
    });
    let optional = [
        ("position", now.position.map(|position| json!(position))),
        ("startedAt", now.started.map(epoch_milliseconds)),
        ("finishedAt", now.finished.map(epoch_milliseconds)),
        ("result", now.outcome.map(|outcome| json!(result(execution, &outcome, encoding)))),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            answer[field] = value;
        }
    }
    answer
}

fn epoch_milliseconds(time: SystemTime) -> Value {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The execution result, the same everywhere.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultBody {
    execution_id: String,
    language: String,
    status: Status,
    output: String,
    stdout: String,
    stderr: String,
    exit_code: Option<i32>,
    signal: Option<String>,
    truncated: bool,
    message: Option<String>,
    compile: Option<CompileResult>,
    time: TimeResult,
    memory_peak: u64,
    tests: Option<Vec<TestResult>>,
    warm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompileResult {
    stdout: String,
    stderr: String,
    exit_code: Option<i32>,
    signal: Option<String>,
    wall: f64,
    cpu: f64,
    memory_peak: u64,
    cached: bool,
}

#[derive(Serialize)]
struct TimeResult {
    queued: f64,
    start: f64,
    wall: f64,
    cpu: f64,
    total: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestResult {
    name: String,
    status: &'static str,
    stdout: String,
    stderr: String,
    exit_code: Option<i32>,
    signal: Option<String>,
    truncated: bool,
    time: TestTime,
    memory_peak: u64,
    message: Option<String>,
}

#[derive(Serialize)]
struct TestTime {
    wall: f64,
    cpu: f64,
}

pub fn result(execution: &Execution, outcome: &Outcome, encoding: Encoding) -> ResultBody {
    let Outcome { verdict, exit_code, signal, truncated, compile, time, memory_peak, tests, warm, command } =
        outcome;
    let outputs = execution.outputs();
    let collect = |stage, test, stream: Option<Stream>| {
        let chunks = outputs.get(&(stage, test)).into_iter().flatten();
        let wanted = chunks.filter(|chunk| stream.is_none_or(|stream| stream == chunk.stream));
        encoding.show(&wanted.flat_map(|chunk| chunk.bytes.iter().copied()).collect::<Vec<u8>>())
    };
    let (shown_stage, with_streams) = match verdict.status {
        Status::CompileError => (StageName::Compile, false),
        _ => (StageName::Run, true),
    };
    let stream = |stream| match with_streams {
        true => collect(StageName::Run, None, Some(stream)),
        false => String::new(),
    };
    ResultBody {
        execution_id: execution.id.to_string(),
        language: execution.language.clone(),
        status: verdict.status,
        output: collect(shown_stage, None, None),
        stdout: stream(Stream::Stdout),
        stderr: stream(Stream::Stderr),
        exit_code: *exit_code,
        signal: signal.map(signal_name),
        truncated: *truncated,
        message: verdict.message.clone(),
        compile: compile.as_ref().map(|report| CompileResult {
            stdout: collect(StageName::Compile, None, Some(Stream::Stdout)),
            stderr: collect(StageName::Compile, None, Some(Stream::Stderr)),
            exit_code: exit_code_of(report),
            signal: report.signal.map(signal_name),
            wall: microseconds_kept(report.wall),
            cpu: microseconds_kept(report.cpu),
            memory_peak: report.memory_peak,
            cached: false,
        }),
        time: TimeResult {
            queued: time.queued,
            start: time.start,
            wall: microseconds_kept(time.wall),
            cpu: microseconds_kept(time.cpu),
            total: time.total,
        },
        memory_peak: *memory_peak,
        tests: tests.as_ref().map(|tests| {
            let tests = tests.iter().enumerate().map(|(index, test)| TestResult {
                name: test.name.clone(),
                status: match test.verdict.status {
                    Status::Success => "passed",
                    status => status.as_str(),
                },
                stdout: collect(StageName::Run, Some(index), Some(Stream::Stdout)),
                stderr: collect(StageName::Run, Some(index), Some(Stream::Stderr)),
                exit_code: exit_code_of(&test.report),
                signal: test.report.signal.map(signal_name),
                truncated: test.report.truncated,
                time: TestTime {
                    wall: microseconds_kept(test.report.wall),
                    cpu: microseconds_kept(test.report.cpu),
                },
                memory_peak: test.report.memory_peak,
                message: test.verdict.message.clone(),
            });
            tests.collect()
        }),
        warm: *warm,
        command: command.clone(),
    }
}

/// Null when we stopped it: the code would be that of our signal.
fn exit_code_of(report: &Report) -> Option<i32> {
    report.exit_code.filter(|_| report.stopped.is_none())
}

/// An event's name and payload, the same on every stream.
pub fn event(
    execution: &Arc<Execution>,
    seq: usize,
    event: &Event,
    encoding: Encoding,
) -> (&'static str, Value) {
    let id = execution.id.to_string();
    match event {
        Event::Status { state, position } => {
            let mut data = json!({ "executionId": id, "seq": seq, "state": state.as_str() });
            if let Some(position) = position {
                data["position"] = json!(position);
            }
            ("execution_status", data)
        }
        Event::Output(Chunk { stage, stream, test, bytes }) => {
            let mut data = json!({
                "executionId": id,
                "seq": seq,
                "stream": stream,
                "stage": stage,
                "data": encoding.show(bytes),
            });
            if let Some(test) = test {
                data["test"] = json!(test);
            }
            ("execution_output", data)
        }
        Event::Result(outcome) => {
            let mut data = json!(result(execution, outcome, encoding));
            data["seq"] = json!(seq);
            ("execution_result", data)
        }
    }
}

pub fn language(language: &Language, limits: &Limits, warm: usize) -> Value {
    let milliseconds = |time: std::time::Duration| json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    json!({
        "id": language.id,
        "name": language.name,
        "version": language.version,
        "aliases": language.aliases,
        "compiled": language.compiled(),
        "fileName": language.file_name,
        "sample": language.sample,
        "limits": {
            "wallTime": milliseconds(limits.wall_time),
            "cpuTime": milliseconds(limits.cpu_time),
            "compileTime": milliseconds(limits.compile_time),
            "memory": limits.memory,
            "output": limits.output,
            "processes": limits.processes,
        },
        "warm": warm,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        let parsed = parse::<ExecuteBody>(body.as_bytes()).and_then(|(body, _)| body.into_request());
        parsed.expect_err(body).detail().to_owned()
    }

    #[test]
    fn unknown_fields_are_named_and_ignored() {
        let body = br#"{"code":"1","language":"c","colour":3,"limits":{"wallTme":5},"files":[{"name":"a","content":"","x":1}]}"#;
        let (_, warnings) = parse::<ExecuteBody>(body).map_err(|p| p.detail().to_owned()).expect("valid");
        let named: Vec<_> = warnings.iter().filter_map(|warning| warning.split(' ').next()).collect();
        assert_eq!(named, ["colour", "limits.wallTme", "files.0.x"]);
    }

    #[test]
    fn mistakes_name_the_field() {
        let table = [
            (r#"{"code":5,"language":"c"}"#, "code: invalid type: integer `5`, expected a string"),
            (r#"{"code":"1"}"#, "language is missing"),
            (r#"{"code":"1","language":"c","files":[{"name":1,"content":""}]}"#, "files[0].name"),
            (r#"{"code":"1","language":"c","tests":[{"args":"x"}]}"#, "tests[0].args"),
            (r#"{"code":"1","language":"c","compare":"fuzzy"}"#, "compare"),
            (
                r#"{"code":"1","language":"c","inputEncoding":"base64","input":"%"}"#,
                "input is not valid base64",
            ),
            (r#"{"code":"#, "not valid JSON"),
            (r#"{"code":"1","language":"c"} x"#, "not valid JSON"),
            ("", "not valid JSON"),
            ("5", "the body: invalid type: integer `5`, expected an object with code and language"),
            (r#"{"code":"1","code":"2"}"#, "the body: duplicate field `code`"),
        ];
        for (body, expected) in table {
            let told = refusal(body);
            assert!(told.contains(expected), "{body}: {told}");
        }
    }
}
