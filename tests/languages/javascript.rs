//! JavaScript, by Node.js.

use serde_json::json;

use crate::case::{Case, code, files, run};
use crate::common::{Failure, Programs, cases};

const PROGRAMS: Programs = Programs {
    hello: "console.log('Hello, World!')",
    echo: "process.stdin.pipe(process.stdout)",
    lines: "let n = 0;\n\
            require('readline').createInterface({ input: process.stdin })\n  \
              .on('line', line => console.log(`${++n}:${line}`));",
    args: "for (const arg of process.argv.slice(2)) console.log(`[${arg}]`);",
    two_files: [
        ("main.js", "const { add } = require('./calculator');\nconsole.log(`4 + 5 = ${add(4, 5)}`);"),
        ("calculator.js", "exports.add = (a, b) => a + b;"),
    ],
    unicode: "const größe = 'ünï→🎉';\nconsole.log(größe);\n\
              const line = require('fs').readFileSync(0, 'utf8').trimEnd();\n\
              console.log(line);\nconsole.log([...line].join(''));",
    broken: "console.log('never');\nlet = = 1;\n",
    complaint: "/box/main.js:2\nlet = = 1;\n      ^\n\nSyntaxError: Unexpected token '='\n",
    exit_3: "console.log('out');\nconsole.error('err');\nprocess.exit(3);",
    failing: "function fail() {\n  throw new Error('boom');\n}\nconsole.log('before');\nfail();\n",
    failure: Failure::Says(
        "/box/main.js:2\n  throw new Error('boom');\n  ^\n\nError: boom\n    \
           at fail (/box/main.js:2:9)\n    at Object.<anonymous> (/box/main.js:5:1)\n    \
           at Module._compile (node:internal",
    ),
    endless: "console.log('before');\nwhile (true);",
    hog: "console.log('before');\nconst kept = [];\nwhile (true) kept.push({ n: [1, 2, 3], text: 'x' + kept.length });",
    flood: "while (true) console.log('0123456789');",
    network: r#"
const net = require('net');
const told = (what, attempt) => attempt.then(() => 'yes', () => 'no').then(said => console.log(what, said));
const connection = options => new Promise((resolve, reject) =>
  net.connect({ timeout: 5000, ...options }).on('connect', resolve).on('error', reject).on('timeout', reject));
const itself = () => new Promise((resolve, reject) => {
  const server = net.createServer(socket => { socket.end(); server.close(); });
  server.listen(0, '127.0.0.1', () => connection(server.address()).then(resolve, reject));
});
(async () => {
  await told('outside', connection({ host: '1.1.1.1', port: 80 }));
  await told('names', require('dns').promises.lookup('example.com'));
  await told('itself', itself());
  process.exit();
})();
"#,
    create: r#"
const fs = require('fs');
for (const name of fs.readFileSync(0, 'utf8').trim().split('\n')) {
  try {
    fs.writeFileSync(name, 'x');
    console.log(name, 'yes');
  } catch {
    console.log(name, 'no');
  }
}
"#,
    bomb: "const { spawn } = require('child_process');\n\
           setInterval(() => spawn(process.execPath, [__filename]).on('error', () => {}), 1);",
};

#[test]
fn javascript_programs_run_as_by_the_plain_command() {
    let mut all = special();
    all.extend(cases(&PROGRAMS, false));
    run("javascript", &all);
}

fn special() -> Vec<Case> {
    let churn = "const kept = new Map();\n\
                 for (let i = 0; i < 1e6; i++) kept.set(i % 50000, { i, list: [i, i + 1], text: 'x' + i });\n\
                 for (let i = 0; i < 2000; i++) kept.set('buffer' + i % 50, Buffer.alloc(1 << 20, 1));\n\
                 console.log(kept.size);";
    vec![
        files(
            "modules",
            &[
                ("main.mjs", "import { twice } from './lib/twice.mjs';\nconsole.log(await twice(21));"),
                ("lib/twice.mjs", "export const twice = async n => 2 * n;"),
            ],
        )
        .prints("42\n"),
        files(
            "a file of data",
            &[
                ("main.js", "console.log(require('./data').list.length);"),
                ("data.json", r#"{"list":[1,2,3]}"#),
            ],
        )
        .prints("3\n"),
        code(
            "its own name",
            "console.log(process.argv.slice(1), __filename, require.main === module, process.cwd());",
        )
        .with("args", json!(["x"]))
        .prints("[ '/box/main.js', 'x' ] /box/main.js true /box\n"),
        code("a rejection that nothing handles", "Promise.reject(new Error('lost'));")
            .exits(1)
            .has("/stderr", "Error: lost\n    at Object.<anonymous> (/box/main.js:1:16)"),
        code("an exit code set beforehand", "process.exitCode = 4; console.log('end');")
            .exits(4)
            .is("/stdout", "end\n"),
        code("timers", "setTimeout(() => { console.log(1); setTimeout(() => console.log(2), 20); }, 20);")
            .prints("1\n2\n"),
        code(
            "worker threads",
            "const { Worker, isMainThread, parentPort } = require('worker_threads');\n\
             if (isMainThread) new Worker(__filename).on('message', console.log);\n\
             else parentPort.postMessage('from the worker');",
        )
        .prints("from the worker\n"),
        // Two gigabytes of garbage, 80 MiB of it alive.
        code("much garbage", churn)
            .with("limits", json!({ "wallTime": 60_000, "cpuTime": 60_000 }))
            .prints("50050\n"),
    ]
}
