//! How an execution ended, in the words of the API, derived from what the agent measured.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;

use crate::limits::Limits;
use crate::protocol::{Report, StageName, Stopped};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Success,
    CompileError,
    RuntimeError,
    TimeLimit,
    MemoryLimit,
    OutputLimit,
    WrongAnswer,
    Cancelled,
    InternalError,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Success => "success",
            Status::CompileError => "compile_error",
            Status::RuntimeError => "runtime_error",
            Status::TimeLimit => "time_limit",
            Status::MemoryLimit => "memory_limit",
            Status::OutputLimit => "output_limit",
            Status::WrongAnswer => "wrong_answer",
            Status::Cancelled => "cancelled",
            Status::InternalError => "internal_error",
        }
    }
}

/// A status and one plain sentence for the person, unless it is success.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub status: Status,
    pub message: Option<String>,
}

impl Verdict {
    pub fn success() -> Self {
        Verdict { status: Status::Success, message: None }
    }

    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Verdict { status, message: Some(message.into()) }
    }

    pub fn cancelled() -> Self {
        Self::new(Status::Cancelled, "The execution was cancelled.")
    }

    /// A compiler has failed when it says so, and also when it did not come to an end.
    pub fn of_compile(report: &Report, limits: &Limits) -> Option<Self> {
        let sentence = match why(report) {
            Why::Exited(0) => return None,
            Why::Killed => return Some(Self::cancelled()),
            Why::WallTime | Why::CpuTime => {
                format!("The compiler did not finish within {}.", time(limits.compile_time))
            }
            Why::Memory => {
                format!("The compiler needed more than the {} of memory it may use.", size(limits.memory))
            }
            Why::Output | Why::Exited(_) => "The program could not be compiled.".to_owned(),
            Why::Signal(signal) => format!("The compiler was ended by {}.", signal_name(signal)),
        };
        Some(Self::new(Status::CompileError, sentence))
    }

    pub fn of_run(report: &Report, limits: &Limits) -> Self {
        match why(report) {
            Why::Exited(0) => Self::success(),
            Why::Killed => Self::cancelled(),
            Why::WallTime => Self::new(
                Status::TimeLimit,
                format!("The program ran longer than {}.", time(limits.wall_time)),
            ),
            Why::CpuTime => Self::new(
                Status::TimeLimit,
                format!("The program used more than {} of processor time.", time(limits.cpu_time)),
            ),
            Why::Memory => Self::new(
                Status::MemoryLimit,
                format!("The program needed more than the {} of memory it may use.", size(limits.memory)),
            ),
            Why::Output => Self::new(
                Status::OutputLimit,
                format!("The program printed more than {}.", size(limits.output)),
            ),
            Why::Exited(code) => {
                Self::new(Status::RuntimeError, format!("The program ended with exit code {code}."))
            }
            Why::Signal(signal) => {
                Self::new(Status::RuntimeError, format!("The program was ended by {}.", signal_name(signal)))
            }
        }
    }

    /// The container was lost after code of the program's had begun to be compiled or run in it.
    pub fn lost(stage: StageName, limits: &Limits) -> Self {
        let (status, who) = Self::of_stage(stage);
        let sentence = format!(
            "{who} brought the container down. It may use {} of memory, temporary files included, and {} processes.",
            size(limits.memory),
            limits.processes
        );
        Self::new(status, sentence)
    }

    /// The server's own deadline had to end the container, because the agent did not.
    pub fn overdue(stage: StageName, limits: &Limits) -> Self {
        let (status, who) = Self::of_stage(stage);
        let (status, allowed) = match stage {
            StageName::Compile => (status, limits.compile_time),
            StageName::Run => (Status::TimeLimit, limits.wall_time),
        };
        let allowed = time(allowed);
        Self::new(status, format!("{who} ran longer than {allowed} and the container had to be removed."))
    }

    fn of_stage(stage: StageName) -> (Status, &'static str) {
        match stage {
            StageName::Compile => (Status::CompileError, "The compiler"),
            StageName::Run => (Status::RuntimeError, "The program"),
        }
    }
}

/// What ended a stage. Our own reasons come first: a program that we kill dies of a signal, too.
enum Why {
    WallTime,
    CpuTime,
    Output,
    Killed,
    Memory,
    Exited(i32),
    Signal(i32),
}

fn why(report: &Report) -> Why {
    match (report.stopped, report.exit_code, report.signal) {
        (Some(Stopped::WallTime), _, _) => Why::WallTime,
        (Some(Stopped::CpuTime), _, _) => Why::CpuTime,
        (Some(Stopped::Output), _, _) => Why::Output,
        (Some(Stopped::Killed), _, _) => Why::Killed,
        // A program that has coped with the death of its child has succeeded.
        (None, Some(0), _) => Why::Exited(0),
        _ if report.oom_kill => Why::Memory,
        (None, Some(code), _) => Why::Exited(code),
        (None, None, Some(signal)) => Why::Signal(signal),
        (None, None, None) => Why::Exited(-1),
    }
}

/// `SIGSEGV` and so on. Real-time signals have no name of their own.
pub fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {number}"),
    }
}

fn time(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// Bytes for people: `256 MiB`, `10 bytes`.
pub fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    match bytes {
        _ if bytes >= MIB && bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ if bytes >= KIB && bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            wall_time: Duration::from_secs(10),
            cpu_time: Duration::from_millis(1500),
            compile_time: Duration::from_secs(30),
            memory: 256 << 20,
            output: 1000,
            processes: 64,
        }
    }

    fn exited(code: i32) -> Report {
        Report { exit_code: Some(code), ..Report::default() }
    }

    fn signalled(signal: i32) -> Report {
        Report { signal: Some(signal), ..Report::default() }
    }

    #[test]
    fn every_ending_has_its_verdict() {
        let stopped = |stopped| Report { stopped: Some(stopped), ..signalled(9) };
        let oom = |report| Report { oom_kill: true, ..report };
        let table = [
            (exited(0), Status::Success, None),
            (exited(3), Status::RuntimeError, Some("exit code 3")),
            (signalled(11), Status::RuntimeError, Some("SIGSEGV")),
            (signalled(9), Status::RuntimeError, Some("SIGKILL")),
            (signalled(40), Status::RuntimeError, Some("signal 40")),
            (oom(signalled(9)), Status::MemoryLimit, Some("256 MiB")),
            (oom(exited(1)), Status::MemoryLimit, Some("256 MiB")),
            (oom(exited(0)), Status::Success, None),
            (stopped(Stopped::WallTime), Status::TimeLimit, Some("10 s")),
            (stopped(Stopped::CpuTime), Status::TimeLimit, Some("1500 ms")),
            (stopped(Stopped::Output), Status::OutputLimit, Some("1000 bytes")),
            (stopped(Stopped::Killed), Status::Cancelled, Some("cancelled")),
            (oom(stopped(Stopped::WallTime)), Status::TimeLimit, Some("10 s")),
        ];
        for (report, status, said) in table {
            let verdict = Verdict::of_run(&report, &limits());
            assert_eq!(verdict.status, status, "{report:?}");
            match (said, &verdict.message) {
                (None, None) => {}
                (Some(said), Some(message)) => assert!(message.contains(said), "{message}"),
                _ => panic!("{report:?}: {:?}", verdict.message),
            }
        }
    }

    #[test]
    fn a_compiler_that_does_not_finish_is_a_compile_error() {
        assert_eq!(Verdict::of_compile(&exited(0), &limits()), None);
        for report in [exited(1), signalled(11)] {
            let verdict = Verdict::of_compile(&report, &limits()).expect("failed");
            assert_eq!(verdict.status, Status::CompileError);
        }
    }
}
