//! The commands for people: `serve`, and those that help to set up and understand.

mod doctor;
mod explain;
mod health;
mod images;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::server;

/// Runs strangers' code in throw-away Docker containers and streams what happens.
#[derive(Parser)]
#[command(name = "online-compiler", version, after_help = settings_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (what happens without a command).
    Serve,
    /// Check Docker, its versions, the images and the control groups, and say how to mend what is wrong.
    Doctor,
    /// Print the one docker command that runs a file, to be pasted into a shell.
    Explain {
        /// The language's id or alias, such as python.
        language: String,
        /// The program's source.
        file: PathBuf,
        /// The program's arguments.
        args: Vec<String>,
    },
    /// Build the images of the languages that are missing or outdated.
    Images,
    /// Ask the running server how it is; the exit code is 0 when it is well.
    Health,
}

fn settings_help() -> String {
    format!("Settings, from the environment or .env:\n{}", config::help())
}

impl Cli {
    pub fn run(self) -> ExitCode {
        let config = match Config::from_environment() {
            Ok(config) => config,
            Err(mistakes) => return complain(&mistakes),
        };
        env_logger::Builder::new().parse_filters(&config.log_filter).format_target(false).init();
        let runtime = match Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return complain(&error),
        };
        runtime.block_on(async {
            match self.command.unwrap_or(Command::Serve) {
                Command::Serve => serve(config).await,
                Command::Doctor => doctor::run(&config).await,
                Command::Explain { language, file, args } => {
                    explain::run(&config, &language, &file, args).await
                }
                Command::Images => images::run(&config).await,
                Command::Health => health::run(&config).await,
            }
        })
    }
}

async fn serve(config: Config) -> ExitCode {
    let stop = CancellationToken::new();
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
        return complain(&"signals cannot be listened for");
    };
    let told = stop.clone();
    let listening = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
        // Whoever asks a second time does not want to wait; containers end with their stdin.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        served = server::serve(config, stop.clone()) => match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&Chain(&error)),
        },
        () = listening => ExitCode::from(130),
    }
}

/// An error with what caused it, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "a command's error, for the person who gave it")]
fn complain(sentence: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("online-compiler: {sentence}");
    ExitCode::FAILURE
}

/// What a command was asked for.
#[expect(clippy::print_stdout, reason = "a command's answer, for the person who gave it")]
fn say(line: &dyn std::fmt::Display) {
    println!("{line}");
}
