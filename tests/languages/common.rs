//! What a program of every language may count on. Each language says the same things in its own words (`Programs`);
//! what they must lead to is written down once.

use serde_json::json;

use crate::case::{Case, case, code, files};

/// One program per behaviour, in one language.
pub struct Programs {
    /// Prints `Hello, World!`.
    pub hello: &'static str,
    /// Copies stdin to stdout.
    pub echo: &'static str,
    /// Prints each line of stdin with its number, `1:first`.
    pub lines: &'static str,
    /// Prints each argument on a line of its own, in brackets.
    pub args: &'static str,
    /// A program in two files, which prints `4 + 5 = 9`.
    pub two_files: [(&'static str, &'static str); 2],
    /// Prints `ünï→🎉`, then the first line of stdin twice.
    pub unicode: &'static str,
    /// Cannot be compiled, or not be read by the interpreter.
    pub broken: &'static str,
    /// What is said about it.
    pub complaint: &'static str,
    /// Prints `out` and to stderr `err`, and ends with exit code 3.
    pub exit_3: &'static str,
    /// Fails in the language's usual way.
    pub failing: &'static str,
    pub failure: Failure,
    /// Prints `before`, flushed, and goes on for ever without waiting for anything.
    pub endless: &'static str,
    /// Prints `before`, flushed, and takes memory for ever, piece by piece.
    pub hog: &'static str,
    /// Prints `0123456789` lines for ever.
    pub flood: &'static str,
    /// Says of a connection to 1.1.1.1:80, of the name example.com and of a connection to itself `yes` or `no`.
    pub network: &'static str,
    /// Says of each of the names on stdin whether a file can be created there.
    pub create: &'static str,
    /// Starts processes or threads for ever.
    pub bomb: &'static str,
}

/// How `failing` ends.
pub enum Failure {
    /// With exit code 1 and a text on stderr that begins so.
    Says(&'static str),
    /// By a signal, with this text on stderr.
    Dies(&'static str, &'static str),
}

/// Longer than any runtime takes to print its first line, even where many containers share the machine.
const SHORT: u32 = 4000;
/// Longer than anything a case does.
const LONG: u32 = 30_000;

pub fn cases(programs: &Programs, compiled: bool) -> Vec<Case> {
    let mut cases = input_and_output(programs);
    cases.extend(endings(programs, compiled));
    cases.extend(limits(programs));
    cases.extend(confinement(programs));
    cases.push(code("hello after all that", programs.hello).prints("Hello, World!\n"));
    cases
}

fn input_and_output(programs: &Programs) -> Vec<Case> {
    let [(_, main), second] = programs.two_files;
    let (name, content) = second;
    // Larger than a pipe and than the window of input that is sent ahead.
    let much = "0123456789abcde\n".repeat(20_000);
    vec![
        code("hello", programs.hello).prints("Hello, World!\n"),
        code("no input at all", programs.echo).prints(""),
        code("input without a last line end", programs.echo).with("input", "a\n\n b").prints("a\n\n b"),
        code("much input", programs.echo).with("input", &*much).prints(&much),
        code("input line by line", programs.lines)
            .with("input", "one\n\nthree")
            .prints("1:one\n2:\n3:three\n"),
        code("arguments", programs.args)
            .with("args", json!(["one", "two words", "", "ünï", "--help", "$HOME", "*"]))
            .prints("[one]\n[two words]\n[]\n[ünï]\n[--help]\n[$HOME]\n[*]\n"),
        files("two files", &programs.two_files).prints("4 + 5 = 9\n"),
        case("code and a file", json!({ "code": main, "files": [{ "name": name, "content": content }] }))
            .prints("4 + 5 = 9\n"),
        code("unicode", programs.unicode)
            .with("input", "Grüße, 世界 🎉\n")
            .prints("ünï→🎉\nGrüße, 世界 🎉\nGrüße, 世界 🎉\n"),
    ]
}

fn endings(programs: &Programs, compiled: bool) -> Vec<Case> {
    let broken = code("a program that is no program", programs.broken).has("/output", programs.complaint);
    let broken = match compiled {
        true => broken
            .is("/status", "compile_error")
            .is("/exitCode", json!(null))
            .is("/compile/exitCode", 1)
            .has("/compile/stderr", programs.complaint),
        false => broken.exits(1).has("/stderr", programs.complaint).is("/stdout", ""),
    };
    let failing = code("a failure that nothing catches", programs.failing);
    let failing = match programs.failure {
        Failure::Says(text) => failing.exits(1).has("/stderr", text),
        Failure::Dies(signal, text) => failing.dies_of(signal).is("/stderr", text),
    };
    vec![
        broken,
        code("exit code 3", programs.exit_3)
            .exits(3)
            .is("/stdout", "out\n")
            .is("/stderr", "err\n")
            .has("/message", "exit code 3"),
        failing.is("/stdout", "before\n"),
    ]
}

fn limits(programs: &Programs) -> Vec<Case> {
    const OUTPUT: usize = 10_007;
    vec![
        code("an endless loop", programs.endless)
            .with("limits", json!({ "wallTime": SHORT, "cpuTime": LONG }))
            .is("/status", "time_limit")
            .is("/exitCode", json!(null))
            .is("/output", "before\n")
            .has("/message", "longer than 4 s"),
        code("too much processor time", programs.endless)
            .with("limits", json!({ "wallTime": LONG, "cpuTime": 1000 }))
            .is("/status", "time_limit")
            .is("/exitCode", json!(null))
            .is("/output", "before\n")
            .has("/message", "processor time"),
        code("too much memory", programs.hog)
            .with("limits", json!({ "wallTime": LONG, "cpuTime": LONG }))
            .is("/status", "memory_limit")
            .is("/output", "before\n"),
        code("too much output", programs.flood)
            .with("limits", json!({ "wallTime": LONG, "cpuTime": LONG, "output": OUTPUT }))
            .is("/status", "output_limit")
            .is("/exitCode", json!(null))
            .is("/truncated", true)
            .length("/output", OUTPUT)
            .is("/output", "0123456789\n".repeat(OUTPUT / 11 + 1)[..OUTPUT].to_owned()),
    ]
}

fn confinement(programs: &Programs) -> Vec<Case> {
    let places = "/etc/x\n/usr/x\n/oc/x\n/x\n/box/x\nx2\n/tmp/x\n";
    vec![
        code("the network", programs.network).prints("outside no\nnames no\nitself yes\n"),
        code("creating files", programs.create)
            .with("input", places)
            .prints("/etc/x no\n/usr/x no\n/oc/x no\n/x no\n/box/x yes\nx2 yes\n/tmp/x yes\n"),
        // Which verdict depends on what the bomb does when it gets no more; the server's own deadline must not be
        // what ends it.
        code("a bomb of processes or threads", programs.bomb)
            .with("limits", json!({ "wallTime": SHORT, "cpuTime": LONG }))
            .lacks("/status", "success")
            .lacks("/message", "had to be removed"),
    ]
}
