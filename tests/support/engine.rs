//! Engines that fail: a dockerd of the test's own, which can be killed and started again without touching the
//! machine's, and a `docker` command that does as it is told.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{eventually, signal};

/// A second dockerd, with its own containerd, images and containers, and no network.
pub struct Engine {
    folder: TempDir,
    daemon: Option<Child>,
}

impl Engine {
    /// Not started yet.
    pub fn new() -> Engine {
        Engine { folder: tempfile::tempdir().expect("a temporary folder"), daemon: None }
    }

    /// With one image in it.
    pub fn with_image(image: &str) -> Engine {
        let mut engine = Engine::new();
        engine.start();
        let mut save =
            Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker");
        let loaded =
            engine.docker().arg("load").stdin(save.stdout.take().expect("piped")).output().expect("docker");
        assert!(save.wait().expect("docker").success() && loaded.status.success(), "{loaded:?}");
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host());
        command
    }

    /// What a docker command prints; nothing when it fails.
    pub fn ask(&self, words: &[&str]) -> String {
        let output = self.docker().args(words).output().expect("docker");
        if output.status.success() {
            String::from_utf8_lossy(&output.stdout).into_owned()
        } else {
            String::new()
        }
    }

    pub fn containers(&self) -> usize {
        self.ask(&["ps", "--all", "--quiet"]).lines().count()
    }

    /// Starts dockerd and waits until it answers.
    pub fn start(&mut self) {
        // A killed one leaves its pid files, and the next would wait for whoever has those pids, zombies included.
        for stale in ["pid", "exec/containerd/containerd.pid", "docker.sock"] {
            let _ = std::fs::remove_file(self.path(stale));
        }
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        // In a network namespace of its own: a dockerd without a bridge removes the one that it finds, which is the
        // machine's engine's. `unshare` without --fork becomes dockerd, so the pid is dockerd's.
        let daemon = Command::new("unshare")
            .args(["--net", "dockerd"])
            .args(["--data-root".as_ref(), self.path("data").as_os_str()])
            .args(["--exec-root".as_ref(), self.path("exec").as_os_str()])
            .args(["--pidfile".as_ref(), self.path("pid").as_os_str()])
            .args(["--host", &self.host(), "--bridge=none", "--iptables=false", "--storage-driver=overlay2"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd exists");
        self.daemon = Some(daemon);
        eventually("the engine answers", || {
            !self.ask(&["version", "--format", "{{.Server.Version}}"]).is_empty()
        });
    }

    /// `kill -9`: dockerd and its containerd are gone at once, what runs in containers is left to itself.
    pub fn kill(&mut self) {
        let containerd = std::fs::read_to_string(self.path("exec/containerd/containerd.pid"));
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().expect("it runs");
        daemon.wait().expect("killed");
        if let Ok(pid) = containerd.unwrap_or_default().trim().parse() {
            signal(pid, "KILL");
        }
    }

    /// SIGTERM, as by a package upgrade: containers are stopped first.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        signal(daemon.id(), "TERM");
        daemon.wait().expect("stopped");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            // Only a running one can end what a killed one has left.
            if self.path("data").exists() && !std::thread::panicking() {
                self.start();
            }
        }
        let left = self.ask(&["ps", "--all", "--quiet"]);
        for container in left.lines() {
            self.ask(&["rm", "--force", container]);
        }
        if self.daemon.is_some() {
            self.stop();
        }
        unmount_below(self.folder.path());
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the engine's log\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// Mounts keep the temporary folder from being removed.
fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
    for place in places.filter(|place| Path::new(place).starts_with(folder)) {
        let _ = Command::new("umount").args(["--lazy", place]).status();
    }
}

/// A `docker` that is the real one, until it is given a fault.
pub struct FakeDocker {
    folder: TempDir,
}

impl FakeDocker {
    /// `faults` are the branches of a shell `case` over the current fault; each sees docker's arguments as `$@`, and
    /// where it falls through the real docker follows.
    pub fn new(faults: &str) -> FakeDocker {
        let fake = FakeDocker { folder: tempfile::tempdir().expect("a temporary folder") };
        let script = format!(
            "#!/bin/sh\nhere={}\ncase \"$(cat \"$here/fault\" 2>/dev/null):$1\" in\n{faults}\nesac\nexec docker \"$@\"\n",
            fake.folder.path().display()
        );
        std::fs::write(fake.folder.path().join("docker"), script).expect("written");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(fake.folder.path().join("docker"), executable).expect("executable");
        fake
    }

    /// For `DOCKER`.
    pub fn command(&self) -> String {
        self.folder.path().join("docker").display().to_string()
    }

    pub fn fail(&self, fault: &str) {
        // Whole or not at all: a script may be reading it.
        let path = self.folder.path().join("fault");
        std::fs::write(path.with_extension("new"), fault).expect("written");
        std::fs::rename(path.with_extension("new"), path).expect("renamed");
    }

    /// A file of the script's, as `$here/NAME`.
    pub fn has(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }
}
