//! One batch container from start to removal: a `docker run -i` whose PID 1 is the agent, with frames over its
//! stdin and stdout.
//!
//! Removal is part of the value: what is left of a container, however it ends, goes as `Remains` to the reaper,
//! together with the seat and the permit it holds, so that neither is free before the container is gone.

use std::io;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;

use super::argv::{self, Sandbox};
use super::invocation::Invocation;
use super::parse::Failure;
use super::{Engine, EngineError, process};
use crate::admission::{Permit, Seat};
use crate::language::Language;
use crate::protocol::{self, Message as _, Reply, Request};

/// How long a container may take to become ready. A busy engine on a small machine takes seconds.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a failed docker command may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// After this another server may take a container for left behind: longer than a pool keeps one and its tests run.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A container that is ready for, or at, its one job.
pub struct Container {
    name: String,
    invocation: Invocation,
    pub started: Instant,
    /// Taken when it goes to the reaper.
    stdout: Option<ChildStdout>,
    stdin: Option<ChildStdin>,
    stderr: Option<ChildStderr>,
    received: BytesMut,
    unsent: BytesMut,
    /// Taken when it goes to the reaper.
    remains: Option<Remains>,
    reaper: mpsc::Sender<Remains>,
}

/// What is left of a container: a name to remove, and what becomes free once it is removed.
pub struct Remains {
    pub name: String,
    /// The docker command, which ends when the container has been removed.
    pub client: Child,
    /// What it still says. Were these closed, SIGPIPE would end the command before the container is gone.
    pipes: (Option<ChildStdout>, Option<ChildStderr>),
    /// The agent has said that it is done: the container ends by itself.
    pub ending: bool,
    seat: Seat,
    permit: Option<Permit>,
}

impl Remains {
    /// Waits for the docker command's end. Cancel-safe.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let (output, complaints) = &mut self.pipes;
        let (status, (), ()) = tokio::join!(self.client.wait(), drain(output), drain(complaints));
        status
    }

    /// Lets the next execution have its turn before the container is gone.
    pub fn release_permit(&mut self) {
        self.permit = None;
    }

    /// The container is gone.
    pub fn bury(self) {
        let Remains { name, client, pipes: _, ending: _, seat, permit } = self;
        log::trace!("{name} is gone");
        drop((client, permit, seat));
    }
}

/// What a container does next.
#[derive(Debug)]
pub enum Event {
    Reply(Reply),
    /// No further word will come.
    Lost,
}

impl Container {
    /// Starts a container and waits until its agent is ready. Cancel-safe: what has been started goes to the
    /// reaper.
    pub async fn start(
        engine: &Engine,
        language: &Language,
        memory: u64,
        processes: u64,
        seat: Seat,
    ) -> Result<Container, EngineError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let installation = &engine.installation;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let sandbox = Sandbox {
            name: format!(
                "oc-{}-{}-{}-{serial}",
                installation.instance.name,
                installation.instance.epoch,
                seat.number()
            ),
            language: language.id.clone(),
            image: language.image.clone(),
            uid: seat.uid(),
            memory,
            processes,
            expires: SystemTime::now() + LIFETIME,
        };
        engine.starts.prepared().await;
        let started = Self::launch(engine, sandbox, seat).await;
        engine.starts.note(&started);
        started
    }

    async fn launch(engine: &Engine, sandbox: Sandbox, seat: Seat) -> Result<Container, EngineError> {
        let invocation = argv::run(&engine.installation, &sandbox);
        let mut client = process::start(&invocation)?;
        let (stdin, stdout, stderr) = (client.stdin.take(), client.stdout.take(), client.stderr.take());
        let mut container = Container {
            name: sandbox.name.clone(),
            invocation,
            started: Instant::now(),
            stdout,
            stdin,
            stderr,
            received: BytesMut::new(),
            unsent: BytesMut::new(),
            remains: Some(Remains {
                name: sandbox.name,
                client,
                pipes: (None, None),
                ending: false,
                seat,
                permit: None,
            }),
            reaper: engine.reaper.clone(),
        };
        container.send(&Request::Hello);
        let deadline = tokio::time::sleep(START_DEADLINE);
        tokio::select! {
            event = container.event() => match event {
                Event::Reply(Reply::Ready) => Ok(container),
                Event::Reply(_) | Event::Lost => Err(container.last_words().await),
            },
            () = deadline => Err(EngineError::TooSlow {
                command: container.invocation.to_string(),
                deadline: START_DEADLINE,
            }),
        }
    }

    /// The docker command that started it.
    pub fn invocation(&self) -> &Invocation {
        &self.invocation
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The permit stays with the container until it is gone.
    pub fn admit(&mut self, permit: Permit) {
        if let Some(remains) = &mut self.remains {
            remains.permit = Some(permit);
        }
    }

    /// Queues a request; `event` sends it.
    pub fn send(&mut self, request: &Request) {
        let mut frame = Vec::new();
        request.encode(&mut frame);
        self.unsent.extend_from_slice(&frame);
    }

    /// Sends what is queued and waits for the next reply. Cancel-safe: all progress is in `self`, and `read_buf`
    /// and `write_buf` have moved no byte when they are dropped unfinished (tokio's documentation says so).
    pub async fn event(&mut self) -> Event {
        enum Moved {
            Received(io::Result<usize>),
            Sent(io::Result<usize>),
        }
        loop {
            match protocol::parse(&self.received) {
                Ok(Some((reply, length))) => {
                    let _ = self.received.split_to(length);
                    return Event::Reply(reply);
                }
                Ok(None) => {}
                Err(error) => {
                    log::error!("{}: what the container says makes no sense: {error}", self.name);
                    return Event::Lost;
                }
            }
            let Some(stdout) = &mut self.stdout else { return Event::Lost };
            self.received.reserve(64 * 1024);
            let moved = match &mut self.stdin {
                Some(stdin) if !self.unsent.is_empty() => tokio::select! {
                    received = stdout.read_buf(&mut self.received) => Moved::Received(received),
                    sent = stdin.write_buf(&mut self.unsent) => Moved::Sent(sent),
                },
                _ => Moved::Received(stdout.read_buf(&mut self.received).await),
            };
            match moved {
                Moved::Received(Ok(0) | Err(_)) => return Event::Lost,
                Moved::Received(Ok(_)) | Moved::Sent(Ok(_)) => {}
                // It may still have something to say.
                Moved::Sent(Err(_)) => self.stdin = None,
            }
        }
    }

    /// The agent is done: what is left ends by itself, and nobody has to wait for it.
    pub fn retire(mut self) {
        if let Some(remains) = &mut self.remains {
            remains.ending = true;
        }
    }

    /// Takes the permit back from a container that was lost, for another try.
    pub fn readmit(&mut self) -> Option<Permit> {
        self.remains.as_mut()?.permit.take()
    }

    /// Why the container fell silent, and whether what ran in it is to blame. It is not where docker itself failed
    /// (125) or the agent was told from outside to end (143).
    pub async fn autopsy(&mut self) -> (EngineError, bool) {
        let error = self.last_words().await;
        let code = match &error {
            EngineError::Failed { code, .. } => *code,
            _ => None,
        };
        let by_program = !matches!(code, None | Some(125 | 143)) && error.failure() != Failure::Unreachable;
        (error, by_program)
    }

    /// Why docker gave up.
    async fn last_words(&mut self) -> EngineError {
        self.stdin = None;
        let mut words = Vec::new();
        let status = tokio::time::timeout(LAST_WORDS, async {
            if let Some(stderr) = &mut self.stderr {
                // Whatever could be read is better than nothing.
                let _ = stderr.take(64 * 1024).read_to_end(&mut words).await;
            }
            match &mut self.remains {
                Some(remains) => remains.client.wait().await.ok(),
                None => None,
            }
        })
        .await;
        let code = status.ok().flatten().and_then(|status| status.code());
        EngineError::failed(&self.invocation, code, &String::from_utf8_lossy(&words))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut remains) = self.remains.take() {
            remains.pipes = (self.stdout.take(), self.stderr.take());
            // There is room for as many as there are seats, and each holds one. When the reaper is gone the process
            // ends, and the agent ends with its stdin.
            if let Err(error) = self.reaper.try_send(remains) {
                log::debug!("{}: nobody is left to remove it: {error}", self.name);
            }
        }
    }
}

/// Reads a pipe to its end, for nobody.
async fn drain(pipe: &mut Option<impl AsyncRead + Unpin>) {
    if let Some(pipe) = pipe {
        let _ = tokio::io::copy(pipe, &mut tokio::io::sink()).await;
    }
}
