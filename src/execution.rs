//! One execution as everybody sees it: an append-only log of events with a signal on its end. Whoever joins reads
//! from where he likes and gets the same events, before, during and after the run. The log is bounded, because
//! output is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::id::{Client, ExecutionId};
use crate::input::InputQueue;
use crate::protocol::{Report, StageName, Stream};
use crate::verdict::Verdict;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Queued,
    Starting,
    Compiling,
    Running,
    Finished,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Starting => "starting",
            State::Compiling => "compiling",
            State::Running => "running",
            State::Finished => "finished",
        }
    }
}

/// What happened. Its place in the log is its `seq`.
#[derive(Debug, Clone)]
pub enum Event {
    Status { state: State, position: Option<usize> },
    Output(Chunk),
    Result(Arc<Outcome>),
}

/// A piece of output. Never ends inside a character.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub stage: StageName,
    pub stream: Stream,
    /// Which test it belongs to.
    pub test: Option<usize>,
    pub bytes: Bytes,
}

/// How an execution ended. The output itself is in the log.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Of the run, when there is one run and it came to an end by itself.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub truncated: bool,
    pub compile: Option<Report>,
    pub time: Times,
    /// Bytes.
    pub memory_peak: u64,
    pub tests: Option<Vec<TestOutcome>>,
    pub warm: bool,
    /// The docker command that ran it, with its job.
    pub command: Option<String>,
}

impl Outcome {
    /// Bytes of its texts, roughly.
    fn weight(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let tests = self
            .tests
            .iter()
            .flatten()
            .map(|test| size_of::<TestOutcome>() + test.name.len() + length(&test.verdict.message));
        length(&self.command) + length(&self.verdict.message) + tests.sum::<usize>()
    }

    /// An ending without a report of the program's.
    pub fn without_run(verdict: Verdict, time: Times) -> Self {
        Outcome {
            verdict,
            exit_code: None,
            signal: None,
            truncated: false,
            compile: None,
            time,
            memory_peak: 0,
            tests: None,
            warm: false,
            command: None,
        }
    }
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub queued: f64,
    pub start: f64,
    pub wall: f64,
    pub cpu: f64,
    pub total: f64,
}

#[derive(Debug, Clone)]
pub struct TestOutcome {
    pub name: String,
    /// Success means passed.
    pub verdict: Verdict,
    pub report: Report,
}

pub struct Execution {
    pub id: ExecutionId,
    pub language: String,
    pub client: Client,
    pub interactive: bool,
    /// For the clock on the wall.
    pub created: SystemTime,
    /// For measuring.
    pub received: Instant,
    pub input: InputQueue,
    pub cancel: CancellationToken,
    inner: Mutex<Inner>,
    end: watch::Sender<usize>,
}

struct Inner {
    events: Vec<Event>,
    state: State,
    position: Option<usize>,
    started: Option<SystemTime>,
    finished: Option<SystemTime>,
    output_bytes: usize,
}

/// The execution at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub state: State,
    pub position: Option<usize>,
    pub started: Option<SystemTime>,
    pub finished: Option<SystemTime>,
    pub outcome: Option<Arc<Outcome>>,
}

impl Execution {
    pub fn new(
        language: &str,
        client: Client,
        input: Vec<u8>,
        interactive: bool,
        pending_limit: usize,
    ) -> Self {
        let execution = Execution {
            id: ExecutionId::random(),
            language: language.to_owned(),
            client,
            interactive,
            created: SystemTime::now(),
            received: Instant::now(),
            input: InputQueue::new(input, interactive, pending_limit),
            cancel: CancellationToken::new(),
            inner: Mutex::new(Inner {
                events: Vec::new(),
                state: State::Queued,
                position: None,
                started: None,
                finished: None,
                output_bytes: 0,
            }),
            end: watch::Sender::new(0),
        };
        execution.enter(State::Queued, None);
        execution
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds this lock")
    }

    /// Passes into a state, or to another place in the queue.
    pub fn enter(&self, state: State, position: Option<usize>) {
        let mut inner = self.lock();
        inner.state = state;
        inner.position = position;
        if inner.started.is_none() && state != State::Queued {
            inner.started = Some(SystemTime::now());
        }
        self.append(inner, Event::Status { state, position });
    }

    /// Another place in the queue, for those who ask; no event.
    pub fn move_to(&self, position: usize) {
        self.lock().position = Some(position);
    }

    pub fn output(&self, chunk: Chunk) {
        let mut inner = self.lock();
        inner.output_bytes += chunk.bytes.len();
        self.append(inner, Event::Output(chunk));
    }

    /// The end. Exactly once.
    pub fn finish(&self, outcome: Outcome) {
        self.input.close();
        let mut inner = self.lock();
        debug_assert!(inner.finished.is_none(), "an execution ends once");
        inner.state = State::Finished;
        inner.position = None;
        inner.finished = Some(SystemTime::now());
        self.append(inner, Event::Result(Arc::new(outcome)));
    }

    fn append(&self, mut inner: MutexGuard<'_, Inner>, event: Event) {
        inner.events.push(event);
        let end = inner.events.len();
        drop(inner);
        self.end.send_replace(end);
    }

    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let outcome = match inner.events.last() {
            Some(Event::Result(outcome)) => Some(Arc::clone(outcome)),
            _ => None,
        };
        Snapshot {
            state: inner.state,
            position: inner.position,
            started: inner.started,
            finished: inner.finished,
            outcome,
        }
    }

    pub fn is_finished(&self) -> bool {
        self.lock().finished.is_some()
    }

    /// Bytes that the log holds, roughly.
    pub fn weight(&self) -> usize {
        let inner = self.lock();
        let told = match inner.events.last() {
            Some(Event::Result(outcome)) => outcome.weight(),
            _ => 0,
        };
        inner.output_bytes + inner.events.len() * size_of::<Event>() + told + 1024
    }

    /// Output so far of a stage, of one test or of the run; of one stream or of both in order of arrival.
    pub fn collect(&self, stage: StageName, test: Option<usize>, stream: Option<Stream>) -> Vec<u8> {
        let inner = self.lock();
        let wanted = |chunk: &&Chunk| {
            chunk.stage == stage && chunk.test == test && stream.is_none_or(|stream| stream == chunk.stream)
        };
        let chunks = inner.events.iter().filter_map(|event| match event {
            Event::Output(chunk) => Some(chunk),
            _ => None,
        });
        chunks.filter(wanted).fold(Vec::new(), |mut bytes, chunk| {
            bytes.extend_from_slice(&chunk.bytes);
            bytes
        })
    }

    /// Waits for the end.
    pub async fn finished(self: &Arc<Self>) -> Arc<Outcome> {
        let mut end = self.end.subscribe();
        loop {
            if let Some(outcome) = self.snapshot().outcome {
                return outcome;
            }
            end.changed().await.expect("the sender lives in self");
        }
    }

    /// All output so far, by stage and test, in order of arrival.
    pub fn outputs(&self) -> HashMap<(StageName, Option<usize>), Vec<Chunk>> {
        let inner = self.lock();
        let mut outputs: HashMap<_, Vec<Chunk>> = HashMap::new();
        for event in &inner.events {
            if let Event::Output(chunk) = event {
                outputs.entry((chunk.stage, chunk.test)).or_default().push(chunk.clone());
            }
        }
        outputs
    }

    /// Finished, and no event has `seq` or comes after it.
    pub fn is_over_at(&self, seq: usize) -> bool {
        let inner = self.lock();
        inner.finished.is_some() && seq >= inner.events.len()
    }

    /// All events from `seq` on, and those to come.
    pub fn read(self: &Arc<Self>, seq: usize) -> Reader {
        Reader { execution: Arc::clone(self), next: seq, end: self.end.subscribe(), over: false }
    }
}

/// A reader of the log. Reading is cancel-safe.
pub struct Reader {
    execution: Arc<Execution>,
    next: usize,
    end: watch::Receiver<usize>,
    over: bool,
}

impl Reader {
    pub fn execution(&self) -> &Arc<Execution> {
        &self.execution
    }

    /// The next event with its `seq`; `None` after the result.
    pub async fn next(&mut self) -> Option<(usize, Event)> {
        loop {
            let found = {
                let inner = self.execution.lock();
                let event = inner.events.get(self.next).cloned();
                self.over |= event.is_none() && inner.finished.is_some();
                event
            };
            if self.over {
                return None;
            }
            if let Some(event) = found {
                self.next += 1;
                self.over = matches!(event, Event::Result(_));
                return Some((self.next - 1, event));
            }
            self.end.changed().await.expect("the sender lives in the execution");
        }
    }
}

/// Milliseconds, as the API gives them.
pub fn milliseconds(duration: Duration) -> f64 {
    microseconds_kept(duration.as_secs_f64() * 1000.0)
}

/// Milliseconds to the microsecond; more digits would only look exact.
pub fn microseconds_kept(milliseconds: f64) -> f64 {
    (milliseconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(interactive: bool) -> Arc<Execution> {
        Arc::new(Execution::new("python", Client::new("me"), b"abc".to_vec(), interactive, 10))
    }

    fn outcome() -> Outcome {
        Outcome::without_run(Verdict::success(), Times::default())
    }

    fn chunk(text: &'static str) -> Chunk {
        let bytes = Bytes::from_static(text.as_bytes());
        Chunk { stage: StageName::Run, stream: Stream::Stdout, test: None, bytes }
    }

    async fn all(mut reader: Reader) -> Vec<String> {
        let mut events = Vec::new();
        while let Some((seq, event)) = reader.next().await {
            events.push(match event {
                Event::Status { state, .. } => format!("{seq} {}", state.as_str()),
                Event::Output(chunk) => format!("{seq} {}", String::from_utf8_lossy(&chunk.bytes)),
                Event::Result(_) => format!("{seq} result"),
            });
        }
        events
    }

    #[tokio::test]
    async fn joining_before_during_and_after_gives_the_same_events() {
        let execution = execution(false);
        let before = tokio::spawn(all(execution.read(0)));
        execution.enter(State::Running, None);
        execution.output(chunk("x"));
        let during = tokio::spawn(all(execution.read(0)));
        tokio::task::yield_now().await;
        execution.output(chunk("y"));
        execution.finish(outcome());
        let after = all(execution.read(0)).await;
        assert_eq!(after, ["0 queued", "1 running", "2 x", "3 y", "4 result"]);
        assert_eq!(before.await.expect("ended"), after);
        assert_eq!(during.await.expect("ended"), after);
        assert_eq!(all(execution.read(3)).await, after[3..]);
        assert!(all(execution.read(99)).await.is_empty());
        assert_eq!(execution.collect(StageName::Run, None, None), b"xy");
    }
}
