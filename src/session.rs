//! One container at one submission: leads the agent through the job and turns what it reports into an outcome.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::engine::{Container, EngineError, Event as Happening};
use crate::execution::{Chunk, Execution, Outcome, State, TestOutcome, Times};
use crate::input::Piece;
use crate::output::Splitter;
use crate::protocol::{INPUT_WINDOW, Reply, Report, Request, StageName, Stream, Work};
use crate::submission::Submission;
use crate::verdict::{Status, Verdict};

/// The server's deadlines are so much longer than the agent's own.
const SLACK: Duration = Duration::from_secs(5);

/// How long the agent may take between stages: writing files, killing and reaping, restoring the work folder.
const BETWEEN_STAGES: Duration = Duration::from_secs(15);

/// How long a cancelled program may take to be killed by the agent before its container is.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// All tests together may print as much as this many single runs.
const TESTS_OUTPUT: u64 = 16;

/// Why a session ended without a verdict on the program.
pub enum Fault {
    /// The container was lost, or never there. `begun`: code of the program's had been started.
    Engine { error: EngineError, begun: bool },
    /// The agent could not do its part.
    Agent(String),
}

/// One container at one submission.
pub struct Session<'a> {
    execution: &'a Execution,
    submission: &'a Submission,
    pub container: Container,
    work: Work,
    /// The stage that is under way.
    stage: Option<StageName>,
    begun: bool,
    /// Which run is next or under way.
    run: usize,
    splitters: [Splitter; 2],
    /// Input bytes that may still be sent.
    credit: usize,
    /// Of a test: what of its input was sent.
    input_sent: usize,
    output_left: u64,
    /// All runs' output had to be cut because the tests together printed too much.
    overflow: bool,
    compile: Option<Report>,
    reports: Vec<Report>,
    deadline: Instant,
    killing: bool,
    /// The agent has done all it was asked, so that the container ends by itself.
    pub whole: bool,
}

impl<'a> Session<'a> {
    pub fn new(execution: &'a Execution, submission: &'a Submission, container: Container) -> Self {
        let runs = submission.runs.len() as u64;
        Session {
            execution,
            submission,
            container,
            work: submission.work(false),
            stage: None,
            begun: false,
            run: 0,
            splitters: Default::default(),
            credit: INPUT_WINDOW,
            input_sent: 0,
            output_left: submission.limits.output.saturating_mul(runs.clamp(1, TESTS_OUTPUT)),
            overflow: false,
            compile: None,
            reports: Vec::new(),
            deadline: Instant::now() + BETWEEN_STAGES,
            killing: false,
            whole: false,
        }
    }

    /// Leads the agent through the job.
    pub async fn lead(&mut self) -> Result<Outcome, Fault> {
        enum Event {
            Container(Happening),
            Input,
            Cancelled,
            Overdue,
        }
        let job = self.work.job.clone();
        self.container.send(&Request::Job(job));
        self.next_run();
        loop {
            let event = tokio::select! {
                happening = self.container.event() => Event::Container(happening),
                () = self.execution.input.more() => Event::Input,
                () = self.execution.cancel.cancelled(), if !self.killing => Event::Cancelled,
                () = tokio::time::sleep_until(self.deadline) => Event::Overdue,
            };
            match event {
                Event::Container(Happening::Reply(reply)) => {
                    if let Some(outcome) = self.reply(reply)? {
                        return Ok(outcome);
                    }
                }
                Event::Container(Happening::Lost) => return self.lost().await,
                Event::Input => self.send_input(),
                Event::Cancelled => {
                    self.killing = true;
                    self.container.send(&Request::Kill);
                    self.deadline = Instant::now() + KILL_GRACE;
                }
                Event::Overdue => return self.overdue(),
            }
        }
    }

    /// Takes in what the agent says; an outcome when it was the last that matters.
    fn reply(&mut self, reply: Reply) -> Result<Option<Outcome>, Fault> {
        match reply {
            Reply::Begin(stage) => self.begin(stage),
            Reply::Output(stream, bytes) => {
                if let Some(stage) = self.stage {
                    let piece = self.splitters[stream as usize].push(bytes);
                    self.output(stage, stream, piece);
                }
            }
            Reply::Credit(bytes) => {
                self.credit = (self.credit + bytes as usize).min(INPUT_WINDOW);
                self.send_input();
            }
            Reply::Exit(report) => {
                self.deadline = Instant::now() + BETWEEN_STAGES;
                return Ok(self.exit(report));
            }
            Reply::Failed(_) | Reply::Done if self.killing => return Ok(Some(self.cancelled())),
            // After a stage of the program's has ended, what the agent cannot do any more is its doing: it made a file that
            // cannot be started, or took from the agent what can be taken.
            Reply::Failed(sentence) if self.compile.is_some() || !self.reports.is_empty() => {
                let verdict =
                    Verdict::new(Status::RuntimeError, format!("The program could not be run: {sentence}."));
                return Ok(Some(self.broken_off(verdict)));
            }
            Reply::Failed(sentence) => return Err(Fault::Agent(sentence)),
            Reply::Done | Reply::Ready => {
                return Err(Fault::Agent("The agent ended before the program did.".to_owned()));
            }
        }
        Ok(None)
    }

    fn begin(&mut self, stage: StageName) {
        self.begun = true;
        self.execution.input.settle();
        self.stage = Some(stage);
        let limits = &self.submission.limits;
        let (state, allowed) = match stage {
            StageName::Compile => (State::Compiling, limits.compile_time),
            StageName::Run => (State::Running, limits.wall_time),
        };
        if !self.killing {
            self.deadline = Instant::now() + allowed + SLACK;
        }
        if self.run == 0 {
            self.execution.enter(state, None);
        }
    }

    fn exit(&mut self, mut report: Report) -> Option<Outcome> {
        let stage = self.stage?;
        self.flush();
        self.stage = None;
        report.truncated |= self.overflow;
        if stage == StageName::Compile {
            let failed = Verdict::of_compile(&report, &self.submission.limits);
            self.compile = Some(report);
            return failed.map(|verdict| {
                self.whole = true;
                self.outcome(verdict)
            });
        }
        self.reports.push(report);
        self.run += 1;
        if self.run < self.work.runs.len() && !self.killing && !self.overflow {
            self.next_run();
            return None;
        }
        self.whole = true;
        if self.killing {
            return Some(self.cancelled());
        }
        Some(self.conclude())
    }

    /// Passes on what was held back for want of the rest of a character.
    fn flush(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.splitters[stream as usize].finish();
            self.output(self.stage.unwrap_or(StageName::Run), stream, rest);
        }
    }

    /// The client wanted no more. What there was is kept.
    fn cancelled(&mut self) -> Outcome {
        self.broken_off(Verdict::cancelled())
    }

    /// Asks for the next run and sends what input there is for it.
    fn next_run(&mut self) {
        self.credit = INPUT_WINDOW;
        self.input_sent = 0;
        let run = self.work.runs[self.run].clone();
        self.container.send(&Request::Run(run));
        self.send_input();
        if self.run + 1 == self.work.runs.len() {
            self.container.send(&Request::End);
        }
    }

    /// Sends input as far as credit goes: a program that reads nothing must not hold up what else is to be said.
    fn send_input(&mut self) {
        while let Some(piece) = self.take_input() {
            match piece {
                Piece::Bytes(bytes) => {
                    self.credit -= bytes.len();
                    self.container.send(&Request::Input(bytes.into()));
                }
                Piece::Eof => self.container.send(&Request::Eof),
            }
        }
    }

    fn take_input(&mut self) -> Option<Piece> {
        let Some(tests) = &self.submission.tests else {
            return self.execution.input.take(self.credit);
        };
        let input = &tests[self.run].input;
        let rest = input.get(self.input_sent..)?;
        if rest.is_empty() {
            // One past the end says that the end was sent.
            self.input_sent = input.len() + 1;
            return Some(Piece::Eof);
        }
        let piece = &rest[..rest.len().min(self.credit)];
        self.input_sent += piece.len();
        (!piece.is_empty()).then(|| Piece::Bytes(Bytes::copy_from_slice(piece)))
    }

    fn output(&mut self, stage: StageName, stream: Stream, mut bytes: Vec<u8>) {
        let left = usize::try_from(self.output_left).unwrap_or(usize::MAX);
        if stage == StageName::Run && self.submission.tests.is_some() {
            self.overflow |= bytes.len() > left;
            bytes.truncate(left);
            self.output_left -= bytes.len() as u64;
        }
        if bytes.is_empty() {
            return;
        }
        let test = (stage == StageName::Run && self.submission.tests.is_some()).then_some(self.run);
        self.execution.output(Chunk { stage, stream, test, bytes: bytes.into() });
    }

    /// All runs have ended, or no more are wanted.
    fn conclude(&mut self) -> Outcome {
        match &self.submission.tests {
            None => {
                let verdict = Verdict::of_run(&self.reports[0], &self.submission.limits);
                self.outcome(verdict)
            }
            Some(_) => {
                let tests = self.judge_tests();
                let first_failed = tests.iter().find(|test| test.verdict.status != Status::Success);
                let verdict = first_failed.map_or_else(Verdict::success, |test| {
                    let sentence = test.verdict.message.clone().unwrap_or_default();
                    Verdict::new(test.verdict.status, format!("Test {:?}: {sentence}", test.name))
                });
                Outcome { tests: Some(tests), ..self.outcome(verdict) }
            }
        }
    }

    fn judge_tests(&self) -> Vec<TestOutcome> {
        let tests = self.submission.tests.iter().flatten().enumerate();
        tests
            .map(|(index, test)| {
                let report = self.reports.get(index).cloned();
                let verdict = match &report {
                    None if self.overflow => overflow(),
                    None => Verdict::cancelled(),
                    Some(_) if self.overflow && index + 1 == self.reports.len() => overflow(),
                    Some(report) => self.judge(index, test.expected.as_deref(), report),
                };
                TestOutcome { name: test.name.clone(), verdict, report: report.unwrap_or_default() }
            })
            .collect()
    }

    fn judge(&self, index: usize, expected: Option<&[u8]>, report: &Report) -> Verdict {
        let verdict = Verdict::of_run(report, &self.submission.limits);
        let Some(expected) = expected.filter(|_| verdict.status == Status::Success) else {
            return verdict;
        };
        let actual = self.execution.collect(StageName::Run, Some(index), Some(Stream::Stdout));
        if self.submission.compare.matches(&actual, expected) {
            return verdict;
        }
        Verdict::new(Status::WrongAnswer, "The output differs from the expected one.")
    }

    fn outcome(&self, verdict: Verdict) -> Outcome {
        let report = self.reports.last().filter(|_| self.submission.tests.is_none());
        let by_itself = report.filter(|report| report.stopped.is_none());
        let sum = |field: fn(&Report) -> f64| self.reports.iter().map(field).sum::<f64>();
        let compile_cut = self.compile.as_ref().is_some_and(|compile| compile.truncated);
        Outcome {
            exit_code: by_itself.and_then(|report| report.exit_code),
            signal: report.and_then(|report| report.signal),
            truncated: match report {
                Some(report) => report.truncated,
                None => compile_cut || self.reports.iter().any(|report| report.truncated),
            },
            compile: self.compile.clone(),
            time: Times {
                wall: sum(|report| report.wall),
                cpu: sum(|report| report.cpu),
                ..Times::default()
            },
            memory_peak: self.reports.iter().map(|report| report.memory_peak).max().unwrap_or(0),
            ..Outcome::without_run(verdict, Times::default())
        }
    }

    /// The container has fallen silent. What of the program was under way is to blame, unless the engine is.
    async fn lost(&mut self) -> Result<Outcome, Fault> {
        if self.killing {
            return Ok(self.cancelled());
        }
        let (error, by_program) = self.container.autopsy().await;
        if !(self.begun && by_program) {
            return Err(Fault::Engine { error, begun: self.begun });
        }
        log::info!("{}: the program brought its container down: {error}", self.execution.id);
        let verdict = Verdict::lost(self.stage.unwrap_or(StageName::Run), &self.submission.limits);
        Ok(self.broken_off(verdict))
    }

    /// The agent has missed the server's deadline.
    fn overdue(&mut self) -> Result<Outcome, Fault> {
        if self.killing {
            return Ok(self.cancelled());
        }
        if !self.begun {
            let error = EngineError::TooSlow {
                command: self.container.invocation().to_string(),
                deadline: BETWEEN_STAGES,
            };
            return Err(Fault::Engine { error, begun: false });
        }
        let verdict = Verdict::overdue(self.stage.unwrap_or(StageName::Run), &self.submission.limits);
        Ok(self.broken_off(verdict))
    }

    /// An outcome for work that did not come to its end.
    fn broken_off(&mut self, verdict: Verdict) -> Outcome {
        self.flush();
        if self.stage == Some(StageName::Compile) {
            self.compile = Some(Report::default());
        }
        if self.submission.tests.is_none() {
            return self.outcome(verdict);
        }
        let mut tests = self.judge_tests();
        for test in tests.iter_mut().skip(self.reports.len()) {
            test.verdict = verdict.clone();
        }
        Outcome { tests: Some(tests), ..self.outcome(verdict) }
    }
}

fn overflow() -> Verdict {
    Verdict::new(Status::OutputLimit, "The tests together printed more than is kept.")
}
