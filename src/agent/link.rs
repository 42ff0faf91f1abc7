//! Whom the agent talks to: the server, in frames over stdin and stdout, or a person's shell, which gave one
//! JSON document on stdin and gets the program's plain output. Which of the two is told by the first byte.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Ended;
use super::stage::Supervisor;
use crate::protocol::{self, Reply, Report, Request, Stopped, Stream, Work};

/// The program's pipes are not read while so many bytes wait for the server.
const CONGESTED: usize = 256 * 1024;
const CHUNK: usize = 64 * 1024;

pub struct Link {
    form: Form,
    /// Bytes from stdin that are not yet a whole request.
    received: Vec<u8>,
    /// Requests in order, not yet acted upon. Bounded by the server's credit.
    requests: VecDeque<Request>,
    /// `Kill` overtakes everything.
    killed: bool,
    /// `End` was said: nothing but input follows. Not in line, since it is said while the last run's input still
    /// arrives.
    ending: bool,
    /// Frames that stdout has not taken yet.
    unsent: VecDeque<u8>,
}

#[derive(PartialEq)]
enum Form {
    Frames,
    Plain,
}

/// How the other side opened the conversation.
pub enum Opening {
    Frames,
    Plain(Box<Work>),
}

impl Link {
    pub fn new() -> Link {
        Link {
            form: Form::Plain,
            received: Vec::new(),
            requests: VecDeque::new(),
            killed: false,
            ending: false,
            unsent: VecDeque::new(),
        }
    }

    /// Waits for the first byte: `{` begins a job in JSON, which ends with stdin; a frame begins with `Hello`.
    pub fn listen(&mut self, supervisor: &mut Supervisor) -> Result<Opening, Ended> {
        while self.received.is_empty() {
            supervisor.wait_for_stdin()?;
            self.read_stdin()?;
        }
        if self.received[0] != b'{' {
            set_nonblocking(io::stdout().as_fd())?;
            self.form = Form::Frames;
            self.parse()?;
            return Ok(Opening::Frames);
        }
        loop {
            supervisor.wait_for_stdin()?;
            match self.read_stdin() {
                Ok(()) if self.received.len() <= protocol::MAX_FRAME => {}
                Ok(()) => return Err(protocol::ProtocolError::TooLong(self.received.len()).into()),
                Err(Ended::ServerGone) => break,
                Err(ended) => return Err(ended),
            }
        }
        let work = serde_json::from_slice(&self.received)?;
        self.received = Vec::new();
        Ok(Opening::Plain(work))
    }

    /// What to poll for reading: stdin, where it still means something.
    pub fn readable(&self) -> bool {
        self.form == Form::Frames
    }

    /// Whether stdout should be polled for writing.
    pub fn unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether the program's output should wait.
    pub fn congested(&self) -> bool {
        self.unsent.len() >= CONGESTED
    }

    pub fn killed(&self) -> bool {
        self.killed
    }

    /// Reads what stdin has. End of file means that the server is gone.
    pub fn receive(&mut self) -> Result<(), Ended> {
        self.read_stdin()?;
        self.parse()
    }

    fn read_stdin(&mut self) -> Result<(), Ended> {
        let mut chunk = [0; CHUNK];
        match nix::unistd::read(io::stdin(), &mut chunk).map_err(io::Error::from) {
            Ok(0) => Err(Ended::ServerGone),
            Ok(length) => {
                self.received.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Ended::system("read stdin")(error)),
        }
    }

    fn parse(&mut self) -> Result<(), Ended> {
        let mut taken = 0;
        while let Some((request, length)) = protocol::parse(&self.received[taken..])? {
            taken += length;
            match request {
                Request::Kill => self.killed = true,
                Request::End => self.ending = true,
                request => self.requests.push_back(request),
            }
        }
        self.received.drain(..taken);
        if self.received.capacity() > CHUNK && self.received.is_empty() {
            // A large job has passed; its buffer counts against the program's memory.
            self.received = Vec::new();
        }
        Ok(())
    }

    /// The next input for the current run, if the next request is one: `Some(None)` is its end.
    pub fn next_input(&mut self) -> Option<Option<Vec<u8>>> {
        match self.requests.pop_front_if(|next| matches!(next, Request::Input(_) | Request::Eof))? {
            Request::Input(bytes) => Some(Some(bytes)),
            _ => Some(None),
        }
    }

    /// The next request, waiting for it.
    pub fn next(&mut self, supervisor: &mut Supervisor) -> Result<Request, Ended> {
        loop {
            if self.killed {
                return Ok(Request::Kill);
            }
            if let Some(request) = self.requests.pop_front() {
                return Ok(request);
            }
            if self.ending {
                return Ok(Request::End);
            }
            supervisor.wait_for_link(self)?;
        }
    }

    /// Queues a reply and sends what stdout takes at once. For a person, output is written through and
    /// everything else is left out.
    pub fn send(&mut self, reply: &Reply) {
        match self.form {
            Form::Frames => {
                let mut bytes = Vec::new();
                protocol::Message::encode(reply, &mut bytes);
                self.unsent.extend(bytes);
                // A failure shows again at the next poll, as a closed stdin.
                let _ = self.write_unsent();
            }
            Form::Plain => match reply {
                Reply::Output(Stream::Stdout, bytes) => show(&mut io::stdout(), bytes),
                Reply::Output(Stream::Stderr, bytes) => show(&mut io::stderr(), bytes),
                Reply::Failed(sentence) => show(&mut io::stderr(), format!("{sentence}\n").as_bytes()),
                _ => {}
            },
        }
    }

    /// Tells a person what the exit code alone does not.
    pub fn explain(&mut self, report: &Report) {
        if self.form == Form::Frames {
            return;
        }
        let sentence = match report.stopped {
            Some(Stopped::WallTime) => "The time limit was reached.",
            Some(Stopped::CpuTime) => "The processor time limit was reached.",
            Some(Stopped::Output) => "The output limit was reached.",
            _ if report.oom_kill && report.exit_code != Some(0) => "The memory limit was reached.",
            _ => return,
        };
        show(&mut io::stderr(), format!("{sentence}\n").as_bytes());
    }

    pub fn write_unsent(&mut self) -> Result<(), Ended> {
        while !self.unsent.is_empty() {
            let written = match nix::unistd::write(io::stdout(), self.unsent.as_slices().0) {
                Ok(written) => written,
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EPIPE) => return Err(Ended::ServerGone),
                Err(error) => return Err(Ended::system("write stdout")(error.into())),
            };
            self.unsent.drain(..written);
        }
        Ok(())
    }

    /// Waits until stdout has taken everything.
    pub fn flush(&mut self, supervisor: &mut Supervisor) -> Result<(), Ended> {
        while self.unsent() {
            supervisor.wait_for_link(self)?;
        }
        Ok(())
    }
}

/// A person who has closed the pipe (`| head`) does not want the rest; the program runs on as it would.
fn show(to: &mut impl io::Write, bytes: &[u8]) {
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

/// The frames must never block the agent: it has a program to watch.
fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Ended> {
    let flags = fcntl(fd, FcntlArg::F_GETFL)
        .map(OFlag::from_bits_retain)
        .map_err(|error| Ended::system("read descriptor flags")(error.into()))?;
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
        .map(drop)
        .map_err(|error| Ended::system("set descriptor flags")(error.into()))
}
