//! What a server may leave in its own process: nothing. A `Watched` server is compared with itself when it ends its
//! test: the same docker commands, descriptors and threads as before.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use super::{PATIENCE, Server, eventually};

/// A server whose traces are looked at before it is dropped.
pub struct Watched {
    pub server: Server,
    before: Traces,
}

/// What can be counted of a process from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Traces {
    commands: usize,
    descriptors: usize,
    threads: usize,
}

impl Watched {
    /// A server that has come to rest after its start: the engine is ready, the pool is as full as is asked.
    pub fn start(settings: &[(&str, &str)], warm: &[(&str, u64)]) -> Watched {
        Self::of(Server::start(settings), warm)
    }

    pub fn of(mut server: Server, warm: &[(&str, u64)]) -> Watched {
        eventually("containers can be started", || server.get("/api/health").status == 200);
        for (language, count) in warm {
            server.wait_for_warm(language, *count);
        }
        let ready: usize = warm.iter().map(|(_, count)| usize::try_from(*count).expect("few")).sum();
        server.hang_up();
        let pid = server.child.id();
        eventually("the trial container's command has ended", || Traces::of(pid).commands == ready);
        // Connections that were hung up are closed in their own time.
        eventually("no connection is open", || connections(pid) == 0);
        Watched { before: Traces::of(pid), server }
    }
}

impl Traces {
    fn of(pid: u32) -> Traces {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        Traces { commands: commands(pid).len(), descriptors: count("fd"), threads: count("task") }
    }

    fn within(&self, before: &Traces) -> bool {
        self.commands <= before.commands
            && self.descriptors <= before.descriptors
            && self.threads <= before.threads
    }
}

/// The docker commands that a server has running now.
pub fn commands(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// TCP connections that a process holds, its listening socket not counted.
fn connections(pid: u32) -> usize {
    let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")) else {
        return 0;
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links: Vec<_> = descriptors
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // Fields of proc_net_tcp: the fourth is the state (0A listens), the tenth the inode.
    rows.filter(|row| row.get(3) != Some(&"0A"))
        .filter(|row| row.get(9).is_some_and(|inode| links.contains(&format!("socket:[{inode}]"))))
        .count()
}

impl Server {
    /// Closes the connections that are kept for further requests.
    pub fn hang_up(&mut self) {
        let config = self.agent.config().clone();
        self.agent = ureq::Agent::new_with_config(config);
    }
}

impl Deref for Watched {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let pid = self.server.child.id();
        if std::thread::panicking() || !matches!(self.server.child.try_wait(), Ok(None)) {
            return;
        }
        self.server.hang_up();
        let deadline = Instant::now() + PATIENCE;
        while !Traces::of(pid).within(&self.before) {
            let now = Traces::of(pid);
            assert!(Instant::now() < deadline, "the server had {:?} and has {now:?}", self.before);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
