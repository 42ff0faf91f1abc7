//! The images of the built-in languages: their folders travel inside the binary, so that a server that is given
//! nothing but docker's socket can build what it needs.

use std::time::Duration;

use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::invocation::Invocation;
use super::parse::Failure;
use super::{COMMAND_DEADLINE, EngineError, process, volume};
use crate::language::Language;

static FOLDERS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/images");

/// The label that says which sources an image was built from.
const SOURCE_LABEL: &str = "oc.source";

/// Package mirrors can be slow; a stalled one should not hang a server's start for ever.
const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    Missing,
    /// Built from other sources than this binary's.
    Outdated,
    Ready,
}

/// Whether an image is there. For images that are not built by us only `Missing` and `Ready` exist.
pub async fn state(docker: &str, language: &Language) -> Result<ImageState, EngineError> {
    let format = format!("{{{{index .Config.Labels \"{SOURCE_LABEL}\"}}}}");
    let inspect = Invocation::new(docker).args(["image", "inspect", "--format", &format, &language.image]);
    match process::succeed(&inspect, b"", COMMAND_DEADLINE).await {
        Ok(label) => Ok(match source(language) {
            Some((_, hash)) if label.trim() != hash => ImageState::Outdated,
            _ => ImageState::Ready,
        }),
        Err(error) if error.failure() == Failure::Unreachable => Err(error),
        Err(EngineError::Failed { .. }) => Ok(ImageState::Missing),
        Err(error) => Err(error),
    }
}

/// Whether this binary can build the language's image.
pub fn can_build(language: &Language) -> bool {
    source(language).is_some()
}

/// Builds a language's image from the folder inside this binary. `progress` gets docker's lines.
pub async fn build(
    docker: &str,
    language: &Language,
    mut progress: impl FnMut(&str),
) -> Result<(), EngineError> {
    let Some((context, hash)) = source(language) else {
        return Err(EngineError::Failed {
            command: format!("{docker} pull {}", language.image),
            code: None,
            said: "the image is not one that this server can build; pull it".to_owned(),
            failure: Failure::ImageMissing,
        });
    };
    // The host's network: package mirrors are reached wherever the host reaches them.
    let invocation = Invocation::new(docker)
        .args(["build", "--network", "host", "--label", &format!("{SOURCE_LABEL}={hash}")])
        .args(["--tag", &language.image, "-"]);
    let mut child = process::start(&invocation)?;
    let (to, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut to) = to {
            // Docker says on stderr what it did not like.
            let _ = to.write_all(&context).await;
        }
    };
    let mut said = String::new();
    let mut lines = BufReader::new(out.expect("piped")).lines();
    let mut complaints = BufReader::new(err.expect("piped")).lines();
    let read = async {
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            tokio::select! {
                line = lines.next_line(), if out_open => match line {
                    Ok(Some(line)) => progress(&line),
                    _ => out_open = false,
                },
                line = complaints.next_line(), if err_open => match line {
                    Ok(Some(line)) => {
                        progress(&line);
                        // Only the last line is told: the legacy builder first advertises its successor.
                        said = line;
                    }
                    _ => err_open = false,
                },
            }
        }
    };
    let whole = async {
        tokio::join!(write, read);
        child.wait().await
    };
    match tokio::time::timeout(BUILD_DEADLINE, whole).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(EngineError::failed(&invocation, status.code(), &said)),
        Ok(Err(source)) => Err(EngineError::Spawn { command: invocation.to_string(), source }),
        Err(_) => Err(EngineError::TooSlow { command: invocation.to_string(), deadline: BUILD_DEADLINE }),
    }
}

/// The build context as a tar archive, and the hash of what it holds.
fn source(language: &Language) -> Option<(Vec<u8>, String)> {
    let folder = FOLDERS.get_dir(&language.id).filter(|_| language.built_in)?;
    let mut files: Vec<_> = folder.files().collect();
    files.sort_by_key(|file| file.path());
    let mut hash = Sha256::new();
    let mut entries: Vec<(&str, &[u8], u32)> = Vec::new();
    for file in files {
        let name = file.path().file_name()?.to_str()?;
        hash.update(name);
        hash.update([0]);
        hash.update(file.contents());
        entries.push((name, file.contents(), 0o644));
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some((volume::archive(&entries), hash))
}
