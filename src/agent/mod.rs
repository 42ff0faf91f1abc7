//! The agent: PID 1 of every container. It waits for one job, writes the files, builds, runs, enforces the
//! inner limits, reports, kills whatever is left and ends.
//!
//! One thread, one `poll` loop per stage (`stage`); what it talks to is a `link` (frames from the server, or
//! one JSON document from a person's shell). It imports only the vocabulary and knows nothing of docker.
//!
//! Why user code of the same uid cannot impersonate or stop it:
//! - it is not dumpable, so `/proc/1/fd`, `/proc/1/mem` and ptrace are closed to other processes;
//! - its descriptors are close-on-exec, so a program sees only its own three pipes;
//! - as PID 1 of a namespace it is immune to SIGKILL from inside (pid_namespaces(7)); the signals it does
//!   listen to count only when the sender is outside the namespace (`si_pid` 0, signalfd(2)).

mod cgroup;
mod folder;
mod link;
mod stage;
mod sys;

use std::path::Path;
use std::process::ExitCode;

use crate::protocol::{Job, Reply, Report, Request, Run, StageName, Stopped, WORK_DIR};
use folder::Snapshot;
use link::Link;
use stage::{Input, Supervisor};

/// The agent itself could not go on. Not docker's 125: when a program was running, it is the one that has tied the
/// agent's hands, with prlimit(2) for one.
const HANDS_TIED: u8 = 120;

/// Folders a program can write to besides the work folder; emptied between the runs of a fresh job.
const SCRATCH_DIRS: [&str; 2] = ["/tmp", "/dev/shm"];

/// What ends the agent before its work is done. Nobody is left to tell, so it only says why.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the server is gone")]
    ServerGone,
    #[error("a signal came from outside the container")]
    Signalled,
    #[error("the agent runs only as PID 1 of a container, because it kills every process it can see")]
    NotInit,
    #[error("{0}")]
    Protocol(#[from] crate::protocol::ProtocolError),
    #[error("the job is not valid JSON: {0}")]
    Job(#[from] serde_json::Error),
    #[error("{doing}: {source}")]
    System { doing: &'static str, source: std::io::Error },
}

impl Ended {
    fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> Ended {
        move |source| Ended::System { doing, source }
    }
}

/// The agent's whole life. The exit code is the program's own when a person asked, else 0.
pub fn main() -> ExitCode {
    match live() {
        Ok(code) => ExitCode::from(code),
        Err(Ended::ServerGone | Ended::Signalled) => ExitCode::from(143),
        Err(ended) => {
            complain(&ended);
            ExitCode::from(HANDS_TIED)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the agent's last words; docker passes them on")]
fn complain(ended: &Ended) {
    eprintln!("{ended}");
}

fn live() -> Result<u8, Ended> {
    if std::process::id() != 1 {
        return Err(Ended::NotInit);
    }
    sys::protect_from_user_code().map_err(Ended::system("protect the agent"))?;
    let mut link = Link::new();
    let mut supervisor = Supervisor::new().map_err(Ended::system("prepare to supervise"))?;
    let outcome = match link.listen(&mut supervisor)? {
        link::Opening::Frames => serve(&mut link, &mut supervisor),
        link::Opening::Plain(work) => run_for_a_person(&mut link, &mut supervisor, *work),
    };
    supervisor.kill_everything();
    outcome
}

/// Frames: one job from the server, then its runs one by one.
fn serve(link: &mut Link, supervisor: &mut Supervisor) -> Result<u8, Ended> {
    link.send(&Reply::Ready);
    if let Some(Request::Job(job)) = next_request(link, supervisor)? {
        let mut workshop = Workshop::new(job);
        if workshop.prepare(link, supervisor)? {
            while let Some(Request::Run(run)) = next_request(link, supervisor)? {
                workshop.run(link, supervisor, &run, Input::from_server())?;
                if workshop.finished {
                    break;
                }
            }
        }
    }
    supervisor.kill_everything();
    link.send(&Reply::Done);
    link.flush(supervisor)?;
    Ok(0)
}

/// The next request that asks for work. Input for a run that has ended meanwhile is dropped.
fn next_request(link: &mut Link, supervisor: &mut Supervisor) -> Result<Option<Request>, Ended> {
    loop {
        match link.next(supervisor)? {
            Request::Input(_) | Request::Eof | Request::Hello => {}
            Request::Kill | Request::End => return Ok(None),
            request @ (Request::Job(_) | Request::Run(_)) => return Ok(Some(request)),
        }
    }
}

/// Plain: the same job as JSON, its runs in order; the exit code is that of the first that failed.
fn run_for_a_person(
    link: &mut Link,
    supervisor: &mut Supervisor,
    work: crate::protocol::Work,
) -> Result<u8, Ended> {
    let mut workshop = Workshop::new(work.job);
    if workshop.prepare(link, supervisor)? {
        for run in &work.runs {
            let input = run.input.as_ref().map_or(&[][..], |input| input.as_bytes());
            workshop.run(link, supervisor, run, Input::given(input))?;
        }
    }
    Ok(workshop.exit_code)
}

/// One job under way.
struct Workshop {
    job: Job,
    /// The work folder as the compiler left it, when every run starts afresh.
    snapshot: Option<Snapshot>,
    /// Set once the server wants no more.
    finished: bool,
    /// Of the first stage that failed, as a shell would show it.
    exit_code: u8,
}

impl Workshop {
    fn new(job: Job) -> Self {
        Workshop { job, snapshot: None, finished: false, exit_code: 0 }
    }

    /// Writes the files and compiles. False when there is nothing to run.
    fn prepare(&mut self, link: &mut Link, supervisor: &mut Supervisor) -> Result<bool, Ended> {
        let folder = Path::new(WORK_DIR);
        if let Err(error) = folder::write_files(folder, &self.job.files) {
            self.fail(link, &format!("the files could not be written: {error}"));
            return Ok(false);
        }
        // The sources are on disk; what stays in memory counts against the program's limit.
        self.job.files = Vec::new();
        if let Some(compile) = self.job.compile.take() {
            let name = StageName::Compile;
            match supervisor.run(link, name, &compile, &[], Input::given(&[]))? {
                Ok(report) => self.report(link, &report),
                Err(sentence) => self.fail(link, &sentence),
            }
            if self.exit_code != 0 || self.finished {
                return Ok(false);
            }
        }
        if self.job.fresh {
            match Snapshot::take(folder) {
                Ok(snapshot) => self.snapshot = Some(snapshot),
                Err(error) => {
                    self.fail(link, &format!("the work folder could not be kept: {error}"));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn run(
        &mut self,
        link: &mut Link,
        supervisor: &mut Supervisor,
        run: &Run,
        input: Input,
    ) -> Result<(), Ended> {
        let outcome = supervisor.run(link, StageName::Run, &self.job.run, &run.args, input)?;
        // The next run's folder is made ready before this one is reported: nobody waits for it then.
        let restored = self.restore();
        match (outcome, restored) {
            (Ok(report), Ok(())) => self.report(link, &report),
            (Ok(report), Err(error)) => {
                self.report(link, &report);
                self.fail(link, &format!("the work folder could not be restored: {error}"));
            }
            (Err(sentence), _) => self.fail(link, &sentence),
        }
        Ok(())
    }

    fn restore(&self) -> std::io::Result<()> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        for scratch in SCRATCH_DIRS {
            folder::empty(Path::new(scratch))?;
        }
        snapshot.restore(Path::new(WORK_DIR))
    }

    fn report(&mut self, link: &mut Link, report: &Report) {
        link.send(&Reply::Exit(report.clone()));
        link.explain(report);
        self.finished |= report.stopped == Some(Stopped::Killed);
        self.note_exit_code(shell_exit_code(report));
    }

    fn fail(&mut self, link: &mut Link, sentence: &str) {
        link.send(&Reply::Failed(sentence.to_owned()));
        self.finished = true;
        self.note_exit_code(125);
    }

    fn note_exit_code(&mut self, code: u8) {
        if self.exit_code == 0 {
            self.exit_code = code;
        }
    }
}

/// What a shell would show as `$?`: 128 + n for signals (bash(1)), 124 for a time limit (timeout(1)).
fn shell_exit_code(report: &Report) -> u8 {
    match (report.stopped, report.exit_code, report.signal) {
        (Some(Stopped::WallTime | Stopped::CpuTime), _, _) => 124,
        (_, Some(code), _) => u8::try_from(code & 0xff).expect("masked to eight bits"),
        (_, None, Some(signal)) => u8::try_from((128 + signal) & 0xff).expect("masked"),
        (_, None, None) => 125,
    }
}
