//! Docker, through its command line and nothing else. `argv` says what to run, `process` runs it, `parse`
//! understands the answer; `container` is the one thing that lives.

pub mod argv;
pub mod container;
pub mod images;
mod invocation;
pub mod parse;
mod process;
mod starts;
pub mod volume;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use argv::Installation;
pub use container::{Container, Event, Remains};
pub use invocation::Invocation;
use parse::{Failure, Listed};
pub use starts::Starts;

/// A docker command that only asks or removes. Removal under load has been seen to take seconds.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// Why docker did not do what it was asked. Each carries the command, so that the log line can be pasted.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{command}: cannot be started")]
    Spawn { command: String, source: std::io::Error },
    #[error("{command}: no answer within {deadline:?}")]
    TooSlow { command: String, deadline: Duration },
    #[error("no container was removed within {waited:?}, so that none can be started")]
    Stuck { waited: Duration },
    #[error("{command}: {said}")]
    Failed { command: String, code: Option<i32>, said: String, failure: Failure },
}

impl EngineError {
    fn failed(invocation: &Invocation, code: Option<i32>, stderr: &str) -> Self {
        EngineError::Failed {
            command: invocation.to_string(),
            code,
            said: parse::last_line(stderr).to_owned(),
            failure: parse::failure(stderr),
        }
    }

    pub fn failure(&self) -> Failure {
        match self {
            EngineError::Failed { failure, .. } => *failure,
            // Seats are short only where removals fail, and those are tried until an engine answers.
            EngineError::Spawn { .. } | EngineError::Stuck { .. } => Failure::Unreachable,
            EngineError::TooSlow { .. } => Failure::Other,
        }
    }
}

/// The way to the engine, shared by all who start and remove containers.
#[derive(Clone)]
pub struct Engine {
    pub installation: Arc<Installation>,
    /// Where what is left of containers goes.
    reaper: mpsc::Sender<Remains>,
    starts: Arc<Starts>,
}

impl Engine {
    /// The engine and the stream of what its containers leave behind. `seats` is how many containers there can be.
    pub fn new(installation: Installation, seats: usize) -> (Engine, mpsc::Receiver<Remains>) {
        let (reaper, remains) = mpsc::channel(seats.max(1));
        let engine = Engine { installation: Arc::new(installation), reaper, starts: Arc::default() };
        (engine, remains)
    }

    /// How the last starts went.
    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    fn docker(&self) -> Invocation {
        Invocation::new(&self.installation.docker)
    }

    /// Removes a container by force. That it is gone already is no failure.
    pub async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let invocation = self.docker().args(["rm", "--force", "--volumes", name]);
        match process::succeed(&invocation, b"", COMMAND_DEADLINE).await {
            Err(error) if error.failure() != Failure::Gone => Err(error),
            _ => Ok(()),
        }
    }

    /// All containers with our label, whatever state they are in, of every instance.
    pub async fn list(&self) -> Result<Vec<Listed>, EngineError> {
        let invocation = self.docker().args([
            "ps",
            "--all",
            "--no-trunc",
            "--filter",
            "label=oc.app=1",
            "--format",
            parse::LIST_FORMAT,
        ]);
        process::succeed(&invocation, b"", COMMAND_DEADLINE).await.map(|text| parse::listed(&text))
    }

    /// What a docker command prints, for questions that only `doctor` asks.
    pub async fn ask(&self, words: &[&str]) -> Result<String, EngineError> {
        let invocation = self.docker().args(words.iter().copied());
        process::succeed(&invocation, b"", COMMAND_DEADLINE).await.map(|text| text.trim().to_owned())
    }
}
