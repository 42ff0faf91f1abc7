//! The agent's few calls that the standard library has no safe form of. The only `unsafe` of the agent.
#![expect(unsafe_code, reason = "fork and wait4 with resource usage have no safe form")]

use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::SigSet;

/// Makes PID 1 the last process the out-of-memory killer takes and the one that user code cannot touch.
/// The order matters: once it is not dumpable its own /proc files belong to root (proc(5)).
pub fn protect_from_user_code() -> io::Result<()> {
    // Not fatal: gVisor and some kernels refuse to lower what the engine has raised.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "0") {
        log::debug!("oom_score_adj stays as it is: {error}");
    }
    prctl::set_dumpable(false).map_err(io::Error::from)
}

/// Starts a stage's process: three pipes, a session of its own, first in line for the OOM killer.
#[expect(clippy::disallowed_methods, reason = "the agent's one place that starts processes")]
pub fn spawn(
    argv: &[&str],
    env: impl IntoIterator<Item = (String, String)>,
    folder: &str,
) -> io::Result<Child> {
    let (program, args) =
        argv.split_first().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the command is empty"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(env)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: the closure runs between fork and exec of a single-threaded process, so it may allocate and
    // take no lock that another thread holds; it touches only the child's own attributes.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            // What the agent reads by signalfd it has blocked, and the mask outlives exec (signal(7)): a program that
            // is born with SIGTERM or SIGCHLD blocked does not behave as it does elsewhere.
            SigSet::empty().thread_set_mask()?;
            // The child is a copy of a process that is not dumpable; it may write to its own /proc
            // only after it has become dumpable, and exec makes it so anyway.
            prctl::set_dumpable(true)?;
            // Best effort, for the same reason as above.
            let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
            Ok(())
        });
    }
    command.spawn()
}

/// A child that was reaped: how it ended and what it and its waited-for children used.
pub struct Reaped {
    pub pid: i32,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cpu: Duration,
    /// Largest resident set, bytes.
    pub memory_peak: u64,
}

/// What `reap` found.
pub enum Reap {
    One(Reaped),
    /// There are children, none of them has ended.
    NoneEnded,
    NoChildren,
}

/// Reaps one ended child, without waiting.
pub fn reap() -> io::Result<Reap> {
    let mut status = 0;
    // SAFETY: `rusage` is plain old data, for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the types wait4(2) asks for.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    if pid < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(Reap::NoChildren),
            _ => Err(error),
        };
    }
    if pid == 0 {
        return Ok(Reap::NoneEnded);
    }
    let exited = libc::WIFEXITED(status);
    Ok(Reap::One(Reaped {
        pid,
        exit_code: exited.then(|| libc::WEXITSTATUS(status)),
        signal: (!exited).then(|| libc::WTERMSIG(status)),
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        // ru_maxrss is in KiB on Linux (getrusage(2)).
        memory_peak: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
