//! Starts docker command lines: the only place of the server that spawns a process. Everything it starts is in a
//! process group of its own, so that Ctrl-C at the server's terminal reaches the server alone, and is killed when
//! its owner drops it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::EngineError;
use super::invocation::Invocation;

/// Output of a short command that is kept; docker's answers are far below it.
const OUTPUT_CAP: u64 = 16 * 1024 * 1024;

/// What a command that has ended said.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Starts a command with three pipes.
pub fn start(invocation: &Invocation) -> Result<Child, EngineError> {
    #[expect(clippy::disallowed_methods, reason = "the server's one place that starts processes")]
    let mut command = Command::new(invocation.program());
    command
        .args(invocation.argv())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    log::trace!("{invocation}");
    command.spawn().map_err(|source| EngineError::Spawn { command: invocation.to_string(), source })
}

/// Runs a command to its end, whatever its exit code.
pub async fn output(
    invocation: &Invocation,
    stdin: &[u8],
    deadline: Duration,
) -> Result<Output, EngineError> {
    let mut child = start(invocation)?;
    let (mut to, from, error) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let write = async {
            if let Some(to) = &mut to {
                // A command that does not want its input says why on stderr.
                let _ = to.write_all(stdin).await;
            }
            to = None;
        };
        let ((), stdout, stderr) = tokio::join!(write, read(from), read(error));
        (child.wait().await, stdout, stderr)
    };
    match tokio::time::timeout(deadline, talk).await {
        Ok((Ok(status), stdout, stderr)) => Ok(Output { status, stdout, stderr }),
        Ok((Err(source), _, _)) => Err(EngineError::Spawn { command: invocation.to_string(), source }),
        Err(_) => Err(EngineError::TooSlow { command: invocation.to_string(), deadline }),
    }
}

/// Runs a command that has to succeed, and gives its stdout.
pub async fn succeed(
    invocation: &Invocation,
    stdin: &[u8],
    deadline: Duration,
) -> Result<String, EngineError> {
    let output = output(invocation, stdin, deadline).await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(EngineError::failed(invocation, output.status.code(), &output.stderr))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read before an error is still worth having.
        let _ = pipe.take(OUTPUT_CAP).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
