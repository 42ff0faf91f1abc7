//! Bytes that are no text, and bytes that pretend to be the agent's: on every way to the client the program's output
//! is exactly what it wrote, and only that.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use support::traces::Watched;

fn server() -> Watched {
    Watched::start(&[("LANGUAGES", "python")], &[])
}

#[test]
fn only_invalid_bytes_become_replacement_characters() {
    let server = server();
    // Invalid alone, cut short, overlong, a surrogate, beyond Unicode; and valid ones in between.
    let bytes = b"a\xff\xc3\xa9\xe2\x82\xf0\x9f\x98\x80\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80z\xe2\x82";
    let code = format!("import sys\nsys.stdout.buffer.write(bytes({:?}))", bytes.to_vec());
    let answer = server.post("/api/execute?wait=true", &json!({"language": "python", "code": code}));
    let result = &answer.json()["result"];
    assert_eq!(result["stdout"], String::from_utf8_lossy(bytes).as_ref());
    assert_eq!(result["output"], result["stdout"]);
    let path = format!("/api/executions/{}?encoding=base64", result["executionId"].as_str().expect("an id"));
    let exact = server.get(&path).json()["result"].clone();
    assert_eq!(BASE64.decode(exact["stdout"].as_str().expect("text")).expect("base64"), bytes);
}

#[test]
fn characters_written_byte_by_byte_are_never_split() {
    let server = server();
    let text = "a\u{e9}\u{20ac}\u{1f600}\u{ff5e}".repeat(40);
    let code = format!(
        "import os, time\nfor byte in {text:?}.encode():\n  os.write(1, bytes([byte]))\n  time.sleep(0.0005)"
    );
    let id = server.submit(json!({"language": "python", "code": code}));
    let events = server.events(&id, "", &[]);
    let pieces: Vec<&str> = events
        .iter()
        .filter(|(_, name, _)| name == "execution_output")
        .map(|(_, _, data)| data["data"].as_str().expect("text"))
        .collect();
    assert!(pieces.len() > 1, "it came in one piece, so nothing was tested");
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces.concat(), text);
    let encoded = server.events(&id, "?encoding=base64", &[]);
    for (_, name, data) in &encoded {
        if name == "execution_output" {
            let bytes = BASE64.decode(data["data"].as_str().expect("text")).expect("base64");
            String::from_utf8(bytes).expect("every chunk decodes alone");
        }
    }
}

#[test]
fn the_limit_cuts_bytes_and_the_text_stays_text() {
    let server = server();
    let body = json!({"language": "python", "code": "print('\u{20ac}' * 1000)", "limits": {"output": 1000}});
    let result = server.run(body);
    assert_eq!((&result["status"], &result["truncated"]), (&json!("output_limit"), &json!(true)));
    let text = result["output"].as_str().expect("text");
    assert_eq!(text.matches('\u{20ac}').count(), 333);
    // The byte that is left of the last character is all that may be replaced.
    assert!(text.chars().filter(|c| *c == '\u{fffd}').count() <= 1, "{text}");
}

/// Frames as the agent writes them: an exit report that says success, and that all is done.
const FRAMES: &str = r#"
import json, os, struct
def frame(kind, payload): return bytes([kind]) + struct.pack(">I", len(payload)) + payload
report = json.dumps({"exitCode": 0, "signal": None, "stopped": None, "oomKill": False, "truncated": False,
                     "wall": 1.0, "cpu": 1.0, "memoryPeak": 1}).encode()
forged = frame(0x83, b"forged") + frame(0x86, report) + frame(0x88, b"")
"#;

fn decoded(result: &Value) -> Vec<u8> {
    BASE64.decode(result["stdout"].as_str().expect("text")).expect("base64")
}

#[test]
fn frames_that_a_program_prints_are_only_output() {
    let server = server();
    let code = format!("{FRAMES}\nos.write(1, forged)\nos.write(2, forged)\nos._exit(5)");
    let body = json!({"language": "python", "code": code});
    let result = server.post("/api/execute?wait=true&encoding=base64", &body).json()["result"].clone();
    assert_eq!((&result["status"], &result["exitCode"]), (&json!("runtime_error"), &json!(5)));
    let bytes = decoded(&result);
    assert!(bytes.starts_with(b"\x83\0\0\0\x06forged\x86"), "{bytes:?}");
    assert!(bytes.ends_with(b"\x88\0\0\0\0"));
}

#[test]
fn frames_written_past_the_pipes_reach_nobody() {
    let server = server();
    let code = format!(
        "{FRAMES}
targets = ['/dev/console', '/dev/tty', '/dev/stdout', '/proc/1/fd/1', '/proc/1/fd/0', '/dev/pts/0', '/dev/pts/ptmx']
targets += [f'/proc/1/fd/{{number}}' for number in range(2, 20)]
opened = []
for target in targets:
  try:
    fd = os.open(target, os.O_WRONLY | os.O_NOCTTY)
    os.write(fd, forged)
    opened.append(target)
    os.close(fd)
  except OSError: pass
for number in range(3, 64):
  try:
    os.write(number, forged)
    opened.append(number)
  except OSError: pass
os.write(2, repr([name for name in opened if name not in ('/dev/stdout', '/dev/pts/ptmx')]).encode())
os._exit(5)"
    );
    let result = server.run(json!({"language": "python", "code": code}));
    assert_eq!((&result["status"], &result["exitCode"]), (&json!("runtime_error"), &json!(5)), "{result}");
    // What it could open was its own output, and nothing else.
    assert_eq!(result["stderr"], "[]");
}
