//! Python.

use crate::case::{Case, code, files, run};
use crate::common::{Failure, Programs, cases};

const PROGRAMS: Programs = Programs {
    hello: "print('Hello, World!')",
    echo: "import sys\nsys.stdout.write(sys.stdin.read())",
    lines: "import sys\nfor n, line in enumerate(sys.stdin, 1):\n    print(f'{n}:{line.rstrip()}')",
    args: "import sys\nfor arg in sys.argv[1:]:\n    print(f'[{arg}]')",
    two_files: [
        ("main.py", "import calculator\nprint('4 + 5 =', calculator.add(4, 5))"),
        ("calculator.py", "def add(a, b):\n    return a + b\n"),
    ],
    unicode: "größe = 'ünï→🎉'\nprint(größe)\nline = input()\nprint(line)\nprint(line[::-1][::-1])",
    broken: "print('never')\nif True print(1)\n",
    complaint: "  File \"/box/main.py\", line 2\n    if True print(1)\n            ^^^^^\nSyntaxError: ",
    exit_3: "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nsys.exit(3)",
    failing: "def f():\n    raise ValueError('boom')\nprint('before')\nf()\n",
    failure: Failure::Says(
        "Traceback (most recent call last):\n  \
           File \"/box/main.py\", line 4, in <module>\n    f()\n  \
           File \"/box/main.py\", line 2, in f\n    raise ValueError('boom')\n\
         ValueError: boom\n",
    ),
    endless: "print('before', flush=True)\nwhile True: pass",
    hog: "print('before', flush=True)\nkept = []\nwhile True: kept.append(bytearray(1 << 20))",
    flood: "while True: print('0123456789')",
    network: r#"
import socket, threading
def tell(what, attempt):
    try:
        attempt()
        print(what, 'yes')
    except OSError:
        print(what, 'no')
def itself():
    server = socket.create_server(('127.0.0.1', 0))
    client = socket.create_connection(server.getsockname(), 5)
    server.accept()[0].sendall(b'ping')
    assert client.recv(4) == b'ping'
tell('outside', lambda: socket.create_connection(('1.1.1.1', 80), 5))
tell('names', lambda: socket.getaddrinfo('example.com', 80))
tell('itself', itself)
"#,
    create: r#"
import sys
for name in sys.stdin.read().split():
    try:
        open(name, 'w').write('x')
        print(name, 'yes')
    except OSError:
        print(name, 'no')
"#,
    bomb: r#"
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"#,
};

#[test]
fn python_programs_run_as_by_the_plain_command() {
    let mut all = special();
    all.extend(cases(&PROGRAMS, false));
    run("python", &all);
}

fn special() -> Vec<Case> {
    let eof = "Traceback (most recent call last):\n  \
                 File \"/box/main.py\", line 1, in <module>\n    input()\n\
               EOFError: EOF when reading a line\n";
    vec![
        code("being the main program", "if __name__ == '__main__':\n    print('main')").prints("main\n"),
        code("its own name", "import sys\nprint(sys.argv)").prints("['main.py']\n"),
        code("its own source", "# é\nprint(open(__file__).read().splitlines()[0])").prints("# é\n"),
        files(
            "a package",
            &[
                ("main.py", "from shapes.square import area\nimport shapes\nprint(area(3), shapes.NAME)"),
                ("shapes/__init__.py", "NAME = 'shapes'"),
                ("shapes/square.py", "from . import NAME\ndef area(side):\n    return side * side"),
            ],
        )
        .prints("9 shapes\n"),
        code("input at the end of input", "input()").exits(1).is("/stderr", eof),
        // Its locks are semaphores in /dev/shm.
        code(
            "a pool of processes",
            "from multiprocessing import Pool\ndef square(n):\n    return n * n\n\
             if __name__ == '__main__':\n    with Pool(3) as pool:\n        print(pool.map(square, range(5)))",
        )
        .prints("[0, 1, 4, 9, 16]\n"),
        code(
            "threads",
            "from threading import Thread\nfound = []\n\
             threads = [Thread(target=found.append, args=(n,)) for n in range(20)]\n\
             for thread in threads: thread.start()\nfor thread in threads: thread.join()\nprint(sum(found))",
        )
        .prints("190\n"),
        code("a child that is left behind", "import os, time\nif os.fork() == 0: time.sleep(1000)\nprint('done')")
            .prints("done\n"),
    ]
}
