//! The command line: dispatches to what the binary can be.

use std::process::ExitCode;

use clap::Parser as _;
use online_compiler::cli::Cli;

fn main() -> ExitCode {
    // PID 1 of a container first: it must be quick, and it reads neither settings nor arguments of ours.
    if std::env::args_os().nth(1).is_some_and(|word| word == "agent") {
        return online_compiler::agent::main();
    }
    Cli::parse().run()
}
