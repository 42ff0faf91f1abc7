//! Runs one stage: starts its process, moves bytes between it and the link, enforces time, processor and
//! output limits, and when it has ended kills and reaps everything it left behind.
//!
//! One `poll` over: signals (children that ended, signals from outside), the link, and the three pipes.
//! "Ended" is three conditions, in this order: the stage's own process was reaped; every other process was
//! killed and reaped, so that nobody holds a pipe any more; both output pipes are at their end.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::Ended;
use super::cgroup::Cgroup;
use super::link::Link;
use super::sys::{self, Reap, Reaped};
use crate::protocol::{Reply, Report, Stage, StageName, Stopped, Stream, WORK_DIR};

const CHUNK: usize = 32 * 1024;

/// Processor time is looked at no more often than this.
const CPU_CHECK: Duration = Duration::from_millis(5);

/// A program that writes byte by byte gets this many frames before its output is gathered, so that the number of
/// frames is bounded by time and not by its zeal.
const UNGATHERED_CHUNKS: u32 = 1000;
const GATHER: Duration = Duration::from_millis(5);

/// Where a stage's standard input comes from.
pub struct Input {
    unwritten: Vec<u8>,
    /// More may come from the server.
    open: bool,
    from_server: bool,
}

impl Input {
    pub fn given(bytes: &[u8]) -> Self {
        Input { unwritten: bytes.to_vec(), open: false, from_server: false }
    }

    pub fn from_server() -> Self {
        Input { unwritten: Vec::new(), open: true, from_server: true }
    }
}

/// PID 1's duties that outlive a stage: signals, reaping, the control group's counters.
pub struct Supervisor {
    signals: SignalFd,
    cgroup: Cgroup,
}

/// A stage under way.
struct Running {
    pid: i32,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    input: Input,
    output_left: u64,
    chunks: u32,
    gather_until: Option<Instant>,
    deadline: Instant,
    next_cpu_check: Instant,
    cpu_limit: Duration,
    cpu_before: Option<Duration>,
    stopped: Option<Stopped>,
    truncated: bool,
    ended: Option<(Reaped, Instant)>,
    all_reaped: bool,
}

impl Supervisor {
    pub fn new() -> io::Result<Supervisor> {
        let signals: SigSet =
            [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Supervisor { signals: SignalFd::with_flags(&signals, flags)?, cgroup: Cgroup::open() })
    }

    /// Runs a stage to its end. The inner error is a sentence: the process could not be started.
    pub fn run(
        &mut self,
        link: &mut Link,
        name: StageName,
        stage: &Stage,
        args: &[String],
        input: Input,
    ) -> Result<Result<Report, String>, Ended> {
        let argv: Vec<&str> = stage.argv.iter().chain(args).map(String::as_str).collect();
        let (oom_before, cpu_before) = (self.cgroup.oom_kills(), self.cgroup.cpu());
        let env = stage.env.iter().map(|(key, value)| (key.clone(), value.clone()));
        // Said before the program can do anything: from here on a lost agent is the program's doing.
        link.send(&Reply::Begin(name));
        let started = Instant::now();
        let mut child = match sys::spawn(&argv, env, WORK_DIR) {
            Ok(child) => child,
            Err(error) => {
                let program = argv.first().copied().unwrap_or_default();
                return Ok(Err(format!("{program} could not be started: {error}")));
            }
        };
        let mut running = Running {
            pid: i32::try_from(child.id()).expect("pid_t is an i32"),
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            input,
            output_left: stage.output,
            chunks: 0,
            gather_until: None,
            deadline: started + Duration::from_millis(stage.wall_time),
            next_cpu_check: started + (Duration::from_millis(stage.cpu_time) / 4).max(CPU_CHECK),
            cpu_limit: Duration::from_millis(stage.cpu_time),
            cpu_before,
            stopped: None,
            truncated: false,
            ended: None,
            all_reaped: false,
        };
        running.make_nonblocking().map_err(Ended::system("prepare the pipes"))?;
        let (reaped, ended) = loop {
            self.step(link, name, &mut running)?;
            if running.is_over()
                && let Some(ended) = running.ended.take()
            {
                break ended;
            }
        };
        Ok(Ok(Report {
            exit_code: reaped.exit_code,
            signal: reaped.signal,
            stopped: running.stopped,
            oom_kill: self.cgroup.oom_kills() > oom_before,
            truncated: running.truncated,
            wall: milliseconds(ended - started),
            cpu: milliseconds(reaped.cpu),
            memory_peak: reaped.memory_peak,
        }))
    }

    /// One turn of the loop: wait for anything, then do all that can be done without waiting.
    fn step(&mut self, link: &mut Link, name: StageName, running: &mut Running) -> Result<(), Ended> {
        // Input may have arrived with the job, long before the poll below could tell.
        if name == StageName::Run {
            running.take_input(link);
        }
        running.write_input(link);
        let stdin = running.stdin.as_ref().filter(|_| running.wants_to_write());
        let gathering = running.gather_until.is_some_and(|until| Instant::now() < until);
        let reading = !link.congested() && !gathering;
        let stdout = running.stdout.as_ref().filter(|_| reading);
        let stderr = running.stderr.as_ref().filter(|_| reading);
        let (link_in, link_out) = (io::stdin(), io::stdout());
        let [_, from_server, to_server, _, ready_out, ready_err] = wait(
            [
                Some((self.signals.as_fd(), PollFlags::POLLIN)),
                link.readable().then(|| (link_in.as_fd(), PollFlags::POLLIN)),
                link.unsent().then(|| (link_out.as_fd(), PollFlags::POLLOUT)),
                stdin.map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT)),
                stdout.map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)),
                stderr.map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)),
            ],
            Some(running.next_wake(gathering)),
        )?;
        if to_server {
            link.write_unsent()?;
        }
        if from_server {
            link.receive()?;
        }
        if link.killed() {
            self.stop(running, Stopped::Killed);
        }
        if ready_out {
            let pipe = running.stdout.take();
            running.stdout = self.pass_on(link, running, pipe, name, Stream::Stdout);
        }
        if ready_err {
            let pipe = running.stderr.take();
            running.stderr = self.pass_on(link, running, pipe, name, Stream::Stderr);
        }
        self.check_limits(running);
        self.handle_signals(Some(running))
    }

    /// Reads what a pipe has and sends it on, up to the limit. Gives the pipe back while it is open.
    fn pass_on<P: io::Read>(
        &self,
        link: &mut Link,
        running: &mut Running,
        pipe: Option<P>,
        name: StageName,
        stream: Stream,
    ) -> Option<P> {
        let mut pipe = pipe?;
        let mut chunk = [0; CHUNK];
        let length = match pipe.read(&mut chunk) {
            Ok(0) => return None,
            Ok(length) => length,
            Err(error) if again(&error) => return Some(pipe),
            Err(_) => return None,
        };
        running.pace_output(length);
        let allowed = usize::try_from(running.output_left).unwrap_or(usize::MAX).min(length);
        running.output_left -= allowed as u64;
        if allowed > 0 {
            link.send(&Reply::Output(stream, chunk[..allowed].to_vec()));
        }
        if allowed < length {
            running.truncated = true;
            // A compiler may finish what it has to say unheard; its exit code is still worth having.
            if name == StageName::Run {
                self.stop(running, Stopped::Output);
            }
        }
        Some(pipe)
    }

    fn check_limits(&self, running: &mut Running) {
        if running.stopped.is_some() || running.ended.is_some() {
            return;
        }
        let now = Instant::now();
        if now >= running.deadline {
            self.stop(running, Stopped::WallTime);
        } else if now >= running.next_cpu_check {
            let used = match (self.cgroup.cpu(), running.cpu_before) {
                (Some(now), Some(before)) => now.saturating_sub(before),
                _ => process_cpu(running.pid).unwrap_or_default(),
            };
            let left = running.cpu_limit.saturating_sub(used);
            if left.is_zero() {
                self.stop(running, Stopped::CpuTime);
            } else {
                // More than one core can be at work, so the rest may be used up sooner than it lasts.
                running.next_cpu_check = now + (left / 4).max(CPU_CHECK);
            }
        }
    }

    fn stop(&self, running: &mut Running, why: Stopped) {
        if running.ended.is_none() && running.stopped.is_none() {
            running.stopped = Some(why);
            kill_all_processes();
        }
    }

    /// Reads all pending signals, and reaps. A stage whose own process has ended loses all the others.
    fn handle_signals(&mut self, running: Option<&mut Running>) -> Result<(), Ended> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let is_child = info.ssi_signo == Signal::SIGCHLD as u32;
            // Only the kernel and processes outside the pid namespace have no pid in here.
            if !is_child && info.ssi_pid == 0 {
                return Err(Ended::Signalled);
            }
        }
        let mut own = running;
        loop {
            match sys::reap().map_err(Ended::system("reap"))? {
                Reap::One(reaped) => {
                    if let Some(running) = own.as_deref_mut()
                        && running.pid == reaped.pid
                    {
                        running.ended = Some((reaped, Instant::now()));
                        kill_all_processes();
                    }
                }
                Reap::NoneEnded => return Ok(()),
                Reap::NoChildren => {
                    if let Some(running) = own {
                        running.all_reaped = true;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Waits for anything on stdin, before any program runs.
    pub fn wait_for_stdin(&mut self) -> Result<(), Ended> {
        let stdin = io::stdin();
        let signals = (self.signals.as_fd(), PollFlags::POLLIN);
        wait([Some(signals), Some((stdin.as_fd(), PollFlags::POLLIN))], None)?;
        self.handle_signals(None)
    }

    /// Waits until the link has moved: something received, or something sent.
    pub fn wait_for_link(&mut self, link: &mut Link) -> Result<(), Ended> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let [_, from_server, to_server] = wait(
            [
                Some((self.signals.as_fd(), PollFlags::POLLIN)),
                Some((stdin.as_fd(), PollFlags::POLLIN)),
                link.unsent().then(|| (stdout.as_fd(), PollFlags::POLLOUT)),
            ],
            None,
        )?;
        if to_server {
            link.write_unsent()?;
        }
        if from_server {
            link.receive()?;
        }
        self.handle_signals(None)
    }

    /// Kills and reaps every process of the container but this one. A process that the kernel cannot end at
    /// once is left to the container's own end.
    pub fn kill_everything(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            kill_all_processes();
            loop {
                match sys::reap() {
                    Ok(Reap::One(_)) => {}
                    Ok(Reap::NoneEnded) => break,
                    Ok(Reap::NoChildren) | Err(_) => return,
                }
            }
            let signals = (self.signals.as_fd(), PollFlags::POLLIN);
            let _ = wait([Some(signals)], Some(Instant::now() + CPU_CHECK));
            let _ = self.signals.read_signal();
        }
    }
}

impl Running {
    fn is_over(&self) -> bool {
        self.ended.is_some() && self.all_reaped && self.stdout.is_none() && self.stderr.is_none()
    }

    fn make_nonblocking(&self) -> io::Result<()> {
        let pipes: [Option<BorrowedFd<'_>>; 3] = [
            self.stdin.as_ref().map(|pipe| pipe.as_fd()),
            self.stdout.as_ref().map(|pipe| pipe.as_fd()),
            self.stderr.as_ref().map(|pipe| pipe.as_fd()),
        ];
        for pipe in pipes.into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }

    fn wants_to_write(&self) -> bool {
        !self.input.unwritten.is_empty()
    }

    /// Moves input that has arrived from the server into the stage's own buffer.
    fn take_input(&mut self, link: &mut Link) {
        while self.input.from_server
            && let Some(input) = link.next_input()
        {
            match input {
                Some(bytes) => self.input.unwritten.extend_from_slice(&bytes),
                None => self.input.open = false,
            }
        }
    }

    /// Writes as much input as the program's pipe takes. Input for a program that has closed its stdin is
    /// consumed unread, so that the sender is not held up.
    fn write_input(&mut self, link: &mut Link) {
        let mut consumed = 0;
        while consumed < self.input.unwritten.len() {
            let Some(stdin) = &mut self.stdin else {
                consumed = self.input.unwritten.len();
                break;
            };
            match stdin.write(&self.input.unwritten[consumed..]) {
                Ok(length) => consumed += length,
                Err(error) if again(&error) => break,
                Err(_) => self.stdin = None,
            }
        }
        self.input.unwritten.drain(..consumed);
        if consumed > 0 && self.input.from_server {
            link.send(&Reply::Credit(u32::try_from(consumed).expect("bounded by the input window")));
        }
        if !self.input.open && self.input.unwritten.is_empty() {
            self.stdin = None;
        }
    }

    /// After many small chunks, waits a little before the next read so that they come gathered.
    fn pace_output(&mut self, length: usize) {
        self.chunks = self.chunks.saturating_add(1);
        self.gather_until =
            (self.chunks > UNGATHERED_CHUNKS && length < CHUNK).then(|| Instant::now() + GATHER);
    }

    fn next_wake(&self, gathering: bool) -> Instant {
        let limits = if self.stopped.is_some() || self.ended.is_some() {
            // Only reaping and draining are left; both wake the poll by themselves. The bound is a net.
            Instant::now() + Duration::from_millis(100)
        } else {
            self.deadline.min(self.next_cpu_check)
        };
        match self.gather_until {
            Some(until) if gathering => limits.min(until),
            _ => limits,
        }
    }
}

/// kill(2): pid -1 signals every process of the namespace but the caller, in one step that fork cannot outrun.
fn kill_all_processes() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// Processor time of one process and its waited-for children, where there is no cgroup to ask: fields
/// 14 to 17 of /proc/PID/stat, in clock ticks of 10 ms (proc(5)).
fn process_cpu(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 10))
}

/// Polls those descriptors that are given, until one is ready or the time has come; says which are ready.
/// Being hung up or broken counts as ready: the read or write that follows tells.
fn wait<const N: usize>(
    wanted: [Option<(BorrowedFd<'_>, PollFlags)>; N],
    until: Option<Instant>,
) -> Result<[bool; N], Ended> {
    let mut fds: Vec<PollFd<'_>> =
        wanted.iter().flatten().map(|&(fd, flags)| PollFd::new(fd, flags)).collect();
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up: waking a moment early would spin until the moment has come.
        PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(Ended::system("poll")(error.into())),
    }
    let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(wanted.map(|fd| fd.is_some() && ready.next().unwrap_or(false)))
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
