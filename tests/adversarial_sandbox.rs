//! What a program can do to the agent, the kernel and its neighbours: nothing.

mod support;

use serde_json::{Value, json};
use support::traces::Watched;

fn server() -> Watched {
    Watched::start(&[("LANGUAGES", "python,c")], &[])
}

fn ran(server: &Watched, code: &str) -> Value {
    let result = server.run(json!({"language": "python", "code": code, "limits": {"wallTime": 30_000}}));
    assert_eq!(result["status"], "success", "{result}");
    result
}

#[test]
fn no_signal_reaches_the_agent() {
    let server = server();
    let code = "import os, time\nfor number in range(1, 65):\n  try: os.kill(1, number)\n  except OSError: pass\n\
                time.sleep(0.3)\nprint('alive', flush=True)\nos._exit(9)";
    let result = server.run(json!({"language": "python", "code": code}));
    assert_eq!((&result["exitCode"], &result["output"]), (&json!(9), &json!("alive\n")), "{result}");
    // Each alone, too: one that worked might have hidden behind another.
    for number in ["HUP", "INT", "TERM", "CHLD", "KILL", "STOP", "QUIT", "SEGV", "ALRM", "IO"] {
        let code = format!(
            "import os, signal\nfor _ in range(100): os.kill(os.getppid(), signal.SIG{number})\nprint('alive')"
        );
        assert_eq!(ran(&server, &code)["output"], "alive\n", "{number}");
    }
}

#[test]
fn killing_everything_kills_only_oneself() {
    let server = server();
    let code = "import os, subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nos.kill(-1, 9)\n\
                print(child.wait())";
    assert_eq!(ran(&server, code)["output"], "-9\n");
    let group = server.run(json!({"language": "python", "code": "import os\nos.killpg(0, 9)"}));
    assert_eq!((&group["status"], &group["signal"]), (&json!("runtime_error"), &json!("SIGKILL")));
}

#[test]
fn a_program_is_born_with_the_signals_of_a_plain_command() {
    let server = server();
    let code = "for line in open('/proc/self/status'):\n  if line.startswith('SigBlk'): print(int(line.split()[1], 16))";
    assert_eq!(ran(&server, code)["output"], "0\n");
    let child = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nchild.terminate()\nprint(child.wait(5))";
    assert_eq!(ran(&server, child)["output"], "-15\n");
    let pipe = "import subprocess\nprint(subprocess.run('yes | head -1; echo ${PIPESTATUS[@]}', shell=True, \
                executable='/bin/bash', capture_output=True, text=True).stdout)";
    assert_eq!(ran(&server, pipe)["output"], "y\n141 0\n\n");
}

#[test]
fn the_agent_cannot_be_looked_into() {
    let server = server();
    let code = "
import ctypes, os
for path in ('mem', 'environ', 'maps', 'fd/0', 'fd/1', 'auxv', 'stack', 'syscall', 'exe', 'cwd', 'root'):
  try:
    if path in ('exe', 'cwd', 'root'): os.readlink(f'/proc/1/{path}')
    else: open(f'/proc/1/{path}', 'rb').read(1)
    print('read', path)
  except OSError: pass
for path in ('mem', 'oom_score_adj', 'fd/1', 'clear_refs', 'coredump_filter', 'attr/current', 'uid_map', 'comm'):
  try:
    with open(f'/proc/1/{path}', 'r+b', buffering=0) as file: file.write(b'1')
    print('wrote', path)
  except OSError: pass
try: print('listed', os.listdir('/proc/1/fd'))
except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
for request in (16, 0x4206): # PTRACE_ATTACH, PTRACE_SEIZE
  if libc.ptrace(request, 1, 0, 0) == 0: print('traced')
iov = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
if libc.process_vm_readv(1, iov, 1, iov, 1, 0) > 0: print('copied')
for number in range(3):
  fd = libc.syscall(438, libc.syscall(434, 1, 0), number, 0) # pidfd_getfd(pidfd_open(1))
  if fd >= 0: print('stolen', number)
print('end')
";
    assert_eq!(ran(&server, code)["output"], "end\n");
}

#[test]
fn privileges_are_none_and_none_can_be_had() {
    let server = server();
    let code = "
import os, stat
fields = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'): assert int(fields[name], 16) == 0, name
assert fields['NoNewPrivs'] == '1' and fields['Seccomp'] == '2'
assert 0 not in map(int, fields['Uid'].split()) and 0 not in map(int, fields['Gid'].split())
assert fields['Groups'].split() in ([], [str(os.getgid())]), fields['Groups']
assert sorted(name for name in os.listdir('/proc') if name.isdigit()) == ['1', str(os.getpid())]
assert os.listdir('/sys/class/net') == ['lo']
for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.chroot('/tmp'), lambda: os.nice(-5),
            lambda: os.mknod('/tmp/d', stat.S_IFBLK | 0o666, os.makedev(8, 0)), lambda: os.sethostname('x') if hasattr(os, 'sethostname') else os.setuid(0),
            lambda: open('/etc/passwd', 'a'), lambda: open('/oc/agent', 'r+b'), lambda: open('/new', 'w'),
            lambda: open('/proc/sys/kernel/core_pattern', 'w'), lambda: open('/proc/sysrq-trigger', 'w'),
            lambda: open('/sys/fs/cgroup/memory/memory.limit_in_bytes', 'w') if os.path.exists('/sys/fs/cgroup/memory') else open('/sys/fs/cgroup/memory.max', 'w'),
            lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')):
  try: act()
  except OSError: continue
  except AttributeError: continue
  print('possible', act.__code__.co_firstlineno)
import socket
try: socket.create_connection(('1.1.1.1', 53), 2); print('network')
except OSError: pass
print('end')
";
    assert_eq!(ran(&server, code)["output"], "end\n");
}

#[test]
fn the_kernels_back_doors_are_shut() {
    let server = server();
    let code = "
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
calls = dict(unshare_user=(272, 0x10000000), unshare_net=(272, 0x40000000), unshare_mount=(272, 0x20000),
  mount=(165, b'none', b'/tmp', b'tmpfs', 0, 0), umount=(166, b'/tmp', 2), pivot_root=(155, b'/tmp', b'/tmp'), bpf=(321, 0, 0, 0),
  add_key=(248, b'user', b'a', b'b', 1, -3), request_key=(249, b'user', b'a', 0, 0), keyctl=(250, 0, -3, 0),
  perf_event_open=(298, 0, 0, 0, 0, 0), userfaultfd=(323, 0), kexec_load=(246, 0, 0, 0, 0),
  init_module=(175, 0, 0, b''), reboot=(169, 0xfee1dead, 672274793, 0), open_by_handle_at=(304, -100, 0, 0),
  clone3_user=(56, 0x10000000 | 17, 0, 0, 0, 0), setns=(308, 0, 0), swapon=(167, b'/tmp/x', 0), settime=(227, 0, 0), iopl=(172, 3),
  name_to_handle=(303, -100, b'/', 0, 0, 0), vsock=(41, 40, 1, 0), packet=(41, 17, 3, 0), netlink_audit=(41, 16, 3, 9), raw=(41, 2, 3, 1))
possible = []
for name, (number, *args) in calls.items():
  if libc.syscall(number, *args) >= 0: possible.append(name)
print(possible)
";
    let result = ran(&server, code);
    let possible = result["output"].as_str().expect("text").trim().to_owned();
    // Some engines let sockets of these families be made; there is nobody to talk to in a network of its own.
    let harmless = ["'netlink_audit'", "'vsock'"];
    let names = possible.trim_matches(['[', ']']).split(", ").filter(|name| !name.is_empty());
    let grave: Vec<_> = names.filter(|name| !harmless.contains(name)).collect();
    assert!(grave.is_empty(), "{grave:?}");
}

#[test]
fn no_program_in_the_image_lends_privileges_that_count() {
    let server = server();
    let code = "
import os, subprocess
for program in ('su', 'mount', 'passwd', 'newgrp', 'chsh'):
  try: result = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=5)
  except (OSError, subprocess.TimeoutExpired): pass
with open('/tmp/shell', 'wb') as out: out.write(open('/bin/sh', 'rb').read())
os.chmod('/tmp/shell', 0o6755)
print(subprocess.run(['/tmp/shell', '-c', 'id -u'], capture_output=True, text=True).stdout.strip() == str(os.getuid()))
";
    assert_eq!(ran(&server, code)["output"], "True\n");
}

#[test]
fn neighbours_do_not_see_each_other() {
    let server = server();
    let wait = "import os, sys\nprint(os.getuid(), flush=True)\nopen('/dev/shm/mark', 'w')\nopen('/tmp/mark', 'w')\n\
                sys.stdin.read()\nprint(sorted(name for name in os.listdir('/proc') if name.isdigit()) == ['1', \
                str(os.getpid())])";
    let body = json!({"language": "python", "code": wait, "interactive": true});
    let ids = [server.submit(body.clone()), server.submit(body)];
    let running = |id: &String| {
        let events = server.get(&format!("/api/executions/{id}")).json();
        events["state"] == "running"
    };
    support::eventually("both run", || ids.iter().all(running));
    for id in &ids {
        let answer = server.post(&format!("/api/executions/{id}/input"), &json!({"data": "", "eof": true}));
        assert_eq!(answer.status, 204, "{}", answer.text);
    }
    let outputs: Vec<_> = ids.iter().map(|id| server.result_of(id)["output"].clone()).collect();
    let uids: Vec<_> = outputs
        .iter()
        .map(|text| text.as_str().expect("text").split_once('\n').expect("two lines"))
        .collect();
    assert_eq!((uids[0].1, uids[1].1), ("True\n", "True\n"));
    assert_ne!(uids[0].0, uids[1].0);
}

/// Whether the second test finds its folders as if the first had not been, whatever the first did.
fn second_test_is_clean_after(server: &Watched, mischief: &str) {
    let code = format!(
        "import os, sys\nif sys.argv[1:] == ['first']:\n  {}\nelse:\n  \
         print(sorted(os.listdir('/box')), os.listdir('/tmp'), os.listdir('/dev/shm'), open('lib/data').read())",
        mischief.replace('\n', "\n  ")
    );
    let clean = json!({"name": "second", "expectedOutput": "['lib', 'main.py'] [] [] precious"});
    let body = json!({"language": "python", "code": code,
        "files": [{"name": "lib/data", "content": "precious"}],
        "limits": {"wallTime": 60_000, "cpuTime": 60_000},
        "tests": [{"name": "first", "args": ["first"]}, clean, clean]});
    let result = server.run(body);
    assert_eq!(result["tests"][1]["status"], "passed", "{mischief}: {result}");
    assert_eq!(result["tests"][2]["status"], "passed", "{mischief}: {result}");
}

#[test]
fn each_test_has_clean_folders_whatever_the_last_one_did() {
    let server = server();
    let mischief = [
        "import shutil\nshutil.rmtree('/box/lib')\nos.remove('/box/main.py')\nopen('/box/main.py', 'w').write('print(1)')",
        "os.chmod('/box/lib', 0)\nos.chmod('/box', 0)\nos.chmod('/tmp', 0)",
        "for folder in ('/box', '/tmp', '/dev/shm'):\n  try: open(folder + '/full', 'wb').write(b'x' * (100 << 20))\n  except OSError: pass",
        "for number in range(100_000): os.close(os.open(f'/tmp/{number}', os.O_CREAT | os.O_WRONLY)) if number % 2 else os.mkdir(f'/dev/shm/{number}') if number < 20_000 else None",
        "os.chdir('/tmp')\nfor _ in range(4000):\n  os.mkdir('d')\n  os.chdir('d')",
        "os.chdir('/dev/shm')\nfor _ in range(1500):\n  os.mkdir('d' * 200)\n  os.chdir('d' * 200)\nopen('end', 'w')",
        "os.mkdir('/box/a')\nos.mkdir('/box/a/b')\nos.mkfifo('/box/a/b/fifo')\nos.symlink('/', '/box/a/b/root')\nos.symlink('/oc', '/tmp/oc')\nos.chmod('/box/a/b', 0)\nos.chmod('/box/a', 0o100)",
        "import socket\nsocket.socket(socket.AF_UNIX).bind('/tmp/socket')\nif os.fork() == 0:\n  while True: open('/box/again', 'w')",
    ];
    for mischief in mischief {
        second_test_is_clean_after(&server, mischief);
    }
}

#[test]
fn odd_but_honest_requests_are_run() {
    let server = server();
    let args: Vec<String> = (0..1000).map(|number| "x".repeat(number % 200)).collect();
    let code = "import sys\nprint(len(sys.argv), sum(map(len, sys.argv[1:])))";
    let result = server.run(json!({"language": "python", "code": code, "args": args}));
    assert_eq!(
        result["output"],
        format!("1001 {}\n", args.iter().map(String::len).sum::<usize>()),
        "{result}"
    );
    // The longest that is taken is one that the kernel takes.
    let longest = |length| json!({"language": "python", "code": code, "args": ["x".repeat(length)]});
    assert_eq!(server.run(longest(131_071))["output"], "2 131071\n");
    assert_eq!(server.post("/api/execute", &longest(131_072)).status, 400);
}
