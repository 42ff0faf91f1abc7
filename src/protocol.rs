//! The conversation between the server and the agent in the container: what is asked (`Work`), what is
//! reported (`Report`), and the frames that carry both over the container's stdin and stdout.
//!
//! A frame is one byte of kind, four bytes of length (big-endian) and the payload. The server speaks first
//! (`Hello`), because the same agent also takes a job as plain JSON from a person's shell, and must not print
//! anything before it knows which of the two it is talking to.
//!
//! ```text
//! server  Hello            Job  Run  Input… Eof          Run …   End
//! agent         Ready                Begin Out… Err… Credit… Exit   …     Done
//! ```

use std::collections::BTreeMap;

use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// Where the agent lives in the container: the mount point of its volume and the file in it.
pub const AGENT_DIR: &str = "/oc";
pub const AGENT_PATH: &str = "/oc/agent";

/// The work folder: where files are written, and the working directory of compiler and program.
pub const WORK_DIR: &str = "/box";

/// How many input bytes may be on their way to a run before the agent has said that it consumed some.
/// One window bounds the agent's memory; a pipe to a program holds another 64 KiB.
pub const INPUT_WINDOW: usize = 64 * 1024;

/// The longest frame either side accepts. A job carries the whole request body, base64 at worst.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;

const HEADER: usize = 5;

/// Everything one container is asked to do: build once, run any number of times.
/// This one value is written to the agent as frames and printed for people as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    pub job: Job,
    pub runs: Vec<Run>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub files: Vec<File>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<Stage>,
    pub run: Stage,
    /// Each run starts in a work folder as the compiler left it, with empty temporary folders.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

/// A file of the work folder. Its name is relative, already checked, with `/` between folders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    pub name: String,
    #[serde(flatten)]
    pub content: Content,
}

/// Bytes in JSON: as text where they are UTF-8, because people read printed jobs, else as base64.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    #[serde(rename = "content")]
    Text(String),
    #[serde(rename = "base64", with = "base64_text")]
    Binary(Vec<u8>),
}

/// One process to run, and what it may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    pub argv: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Elapsed time allowed, in milliseconds.
    pub wall_time: u64,
    /// Processor time allowed to all processes of the stage together, in milliseconds.
    pub cpu_time: u64,
    /// Bytes of stdout and stderr together that are passed on.
    pub output: u64,
}

/// One run of the program: what is appended to the argv of the job's `run`, and its standard input.
/// Over frames the input follows by itself, under credit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Content>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    Compile,
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How a stage ended. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Null when a signal ended the process.
    pub exit_code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// Why the agent ended it, when it did.
    pub stopped: Option<Stopped>,
    /// The kernel's out-of-memory killer struck while the stage ran.
    pub oom_kill: bool,
    /// Output was cut at the limit.
    pub truncated: bool,
    pub wall: f64,
    pub cpu: f64,
    pub memory_peak: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stopped {
    WallTime,
    CpuTime,
    Output,
    Killed,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Speak in frames; answered by `Reply::Ready`.
    Hello,
    Job(Job),
    Run(Run),
    Input(Vec<u8>),
    /// The input of the current run ends here.
    Eof,
    /// Kill the current stage, start none, report and end.
    Kill,
    /// No further run follows: end after the current one.
    End,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Ready,
    /// A stage begins: from here on what happens is the program's doing.
    Begin(StageName),
    Output(Stream, Vec<u8>),
    /// So many input bytes were consumed: as many more may be sent.
    Credit(u32),
    Exit(Report),
    /// The agent could not do what it was asked; nothing of the program's is to blame.
    Failed(String),
    /// Everything is killed and reaped, the agent ends.
    Done,
}

#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("frame of {0} bytes is longer than allowed")]
    TooLong(usize),
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    #[error("malformed payload in frame kind {kind:#04x}")]
    Payload { kind: u8, source: Option<serde_json::Error> },
}

/// Both directions are framed alike; only the meaning of the kind byte differs.
pub trait Message: Sized {
    /// Appends the frame to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(kind: u8, payload: &[u8]) -> Result<Self, ProtocolError>;
}

/// Takes one whole frame off the front of `buffer` and says how many bytes it took; `None` while
/// it is not all there.
pub fn parse<M: Message>(buffer: &[u8]) -> Result<Option<(M, usize)>, ProtocolError> {
    let Some((header, rest)) = buffer.split_at_checked(HEADER) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > MAX_FRAME {
        return Err(ProtocolError::TooLong(length));
    }
    match rest.get(..length) {
        Some(payload) => Ok(Some((M::decode(header[0], payload)?, HEADER + length))),
        None => Ok(None),
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("payloads are bounded by MAX_FRAME");
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}

fn frame_json(out: &mut Vec<u8>, kind: u8, payload: &impl Serialize) {
    let json = serde_json::to_vec(payload).expect("protocol types have string keys only");
    frame(out, kind, &json);
}

fn from_json<'a, T: Deserialize<'a>>(kind: u8, payload: &'a [u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(payload).map_err(|source| ProtocolError::Payload { kind, source: Some(source) })
}

impl Message for Request {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Hello => frame(out, 0x01, b""),
            Request::Job(job) => frame_json(out, 0x02, job),
            Request::Run(run) => frame_json(out, 0x03, run),
            Request::Input(bytes) => frame(out, 0x04, bytes),
            Request::Eof => frame(out, 0x05, b""),
            Request::Kill => frame(out, 0x06, b""),
            Request::End => frame(out, 0x07, b""),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, ProtocolError> {
        Ok(match kind {
            0x01 => Request::Hello,
            0x02 => Request::Job(from_json(kind, payload)?),
            0x03 => Request::Run(from_json(kind, payload)?),
            0x04 => Request::Input(payload.to_vec()),
            0x05 => Request::Eof,
            0x06 => Request::Kill,
            0x07 => Request::End,
            _ => return Err(ProtocolError::UnknownKind(kind)),
        })
    }
}

impl Message for Reply {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Ready => frame(out, 0x81, b""),
            Reply::Begin(StageName::Compile) => frame(out, 0x82, b"c"),
            Reply::Begin(StageName::Run) => frame(out, 0x82, b"r"),
            Reply::Output(Stream::Stdout, bytes) => frame(out, 0x83, bytes),
            Reply::Output(Stream::Stderr, bytes) => frame(out, 0x84, bytes),
            Reply::Credit(bytes) => frame(out, 0x85, &bytes.to_be_bytes()),
            Reply::Exit(report) => frame_json(out, 0x86, report),
            Reply::Failed(sentence) => frame(out, 0x87, sentence.as_bytes()),
            Reply::Done => frame(out, 0x88, b""),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = || ProtocolError::Payload { kind, source: None };
        Ok(match kind {
            0x81 => Reply::Ready,
            0x82 => Reply::Begin(match payload {
                b"c" => StageName::Compile,
                b"r" => StageName::Run,
                _ => return Err(malformed()),
            }),
            0x83 => Reply::Output(Stream::Stdout, payload.to_vec()),
            0x84 => Reply::Output(Stream::Stderr, payload.to_vec()),
            0x85 => Reply::Credit(u32::from_be_bytes(payload.try_into().map_err(|_| malformed())?)),
            0x86 => Reply::Exit(from_json(kind, payload)?),
            0x87 => Reply::Failed(String::from_utf8_lossy(payload).into_owned()),
            0x88 => Reply::Done,
            _ => return Err(ProtocolError::UnknownKind(kind)),
        })
    }
}

impl Content {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Content::Text(text) => text.as_bytes(),
            Content::Binary(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Content::Text(text),
            Err(error) => Content::Binary(error.into_bytes()),
        }
    }
}

/// Sources and inputs belong to clients: logs tell how long they are, not what they hold.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.as_bytes().len())
    }
}

mod base64_text {
    use super::{BASE64, Deserialize};
    use base64::Engine as _;

    pub fn serialize<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_request() -> Vec<Request> {
        let stage = Stage {
            argv: vec!["python3".into(), "main.py".into()],
            env: BTreeMap::new(),
            wall_time: 10_000,
            cpu_time: 10_000,
            output: 1 << 20,
        };
        let files = [b"print('\xc3\xa4')".to_vec(), vec![0xff, 0x00]];
        vec![
            Request::Hello,
            Request::Job(Job {
                files: files.map(|bytes| File { name: "a/b".into(), content: bytes.into() }).into(),
                compile: Some(stage.clone()),
                run: stage,
                fresh: true,
            }),
            Request::Run(Run { args: vec!["-x".into()], input: None }),
            Request::Input(vec![0, 1, 2]),
            Request::Eof,
            Request::Kill,
            Request::End,
        ]
    }

    fn every_reply() -> Vec<Reply> {
        vec![
            Reply::Ready,
            Reply::Begin(StageName::Compile),
            Reply::Begin(StageName::Run),
            Reply::Output(Stream::Stdout, b"out".to_vec()),
            Reply::Output(Stream::Stderr, vec![]),
            Reply::Credit(4711),
            Reply::Exit(Report {
                signal: Some(9),
                stopped: Some(Stopped::WallTime),
                wall: 1.25,
                ..Report::default()
            }),
            Reply::Failed("no space".into()),
            Reply::Done,
        ]
    }

    fn fed_one_byte_at_a_time<M: Message + Clone + PartialEq + std::fmt::Debug>(sent: &[M]) {
        let mut stream = Vec::new();
        sent.iter().for_each(|message| message.encode(&mut stream));
        let (mut buffer, mut received) = (Vec::new(), Vec::new());
        for byte in stream {
            buffer.push(byte);
            while let Some((message, taken)) = parse::<M>(&buffer).expect("valid frames") {
                buffer.drain(..taken);
                received.push(message);
            }
        }
        assert_eq!(received, sent);
        assert!(buffer.is_empty());
    }

    #[test]
    fn every_message_survives_being_cut_into_single_bytes() {
        fed_one_byte_at_a_time(&every_request());
        fed_one_byte_at_a_time(&every_reply());
    }

    #[test]
    fn garbage_is_refused() {
        assert!(matches!(parse::<Reply>(&[0x99, 0, 0, 0, 0]), Err(ProtocolError::UnknownKind(0x99))));
        assert!(matches!(parse::<Reply>(&[0x83, 0xff, 0xff, 0xff, 0xff]), Err(ProtocolError::TooLong(_))));
        assert!(parse::<Reply>(&[0x85, 0, 0, 0, 1, 7]).is_err());
        assert!(parse::<Request>(&[0x02, 0, 0, 0, 1, b'{']).is_err());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_printed_as_base64() {
        let file = File { name: "x".into(), content: vec![0xff].into() };
        let json = serde_json::to_string(&file).expect("serializable");
        assert_eq!(json, r#"{"name":"x","base64":"/w=="}"#);
        assert_eq!(serde_json::from_str::<File>(&json).expect("valid"), file);
    }
}
