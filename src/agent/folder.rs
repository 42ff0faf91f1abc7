//! Files of the work folder: writing what the job brings, emptying folders that a program has filled with
//! anything it liked, and putting back what the compiler left.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::protocol::File;

/// Writes the job's files. Names are checked again here, because a pasted job never met the server.
pub fn write_files(folder: &Path, files: &[File]) -> io::Result<()> {
    for file in files {
        let name = Path::new(&file.name);
        let relative = name.components().all(|part| matches!(part, Component::Normal(_)));
        if file.name.is_empty() || !relative {
            let sentence = format!("{:?} is not a relative path below the work folder", file.name);
            return Err(io::Error::new(ErrorKind::InvalidInput, sentence));
        }
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| named(&file.name, &error))?;
        }
        write_file(&path, 0o644, file.content.as_bytes()).map_err(|error| named(&file.name, &error))?;
    }
    Ok(())
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

fn write_file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes)
}

/// Removes everything in a folder, whatever a program did to it. Everything there is ours: the container has one
/// uid. Trees are taken apart from the top, by moving folders up: a program can nest them deeper than a path is long,
/// than descriptors last and than a stack is high.
pub fn empty(folder: &Path) -> io::Result<()> {
    // A folder that is not ours, such as /dev/shm, cannot have been closed by a program either.
    let _ = fs::set_permissions(folder, Permissions::from_mode(0o700));
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    let mut moved = 0;
    while let Some(path) = folders.pop() {
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            // Moving a folder writes to it, too: its `..` changes (rename(2)).
            fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
            let place = free_name(folder, &mut moved);
            fs::rename(entry.path(), &place)?;
            folders.push(place);
        }
        fs::remove_dir(&path)?;
    }
    Ok(())
}

/// A name that nothing in a folder has.
fn free_name(folder: &Path, tried: &mut u64) -> PathBuf {
    loop {
        *tried += 1;
        let path = folder.join(format!(".removed-{tried}"));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
    }
}

/// A folder's content, held in the agent's memory where no program reaches it. Counted against the
/// container's memory, as the files themselves are.
pub struct Snapshot {
    entries: Vec<Entry>,
}

struct Entry {
    /// Relative to the folder; parents come before what is in them.
    path: PathBuf,
    mode: u32,
    kind: Kind,
}

enum Kind {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
}

impl Snapshot {
    pub fn take(folder: &Path) -> io::Result<Snapshot> {
        let mut entries = Vec::new();
        collect(folder, Path::new(""), &mut entries)?;
        Ok(Snapshot { entries })
    }

    /// Makes the folder hold exactly what it held when the snapshot was taken.
    pub fn restore(&self, folder: &Path) -> io::Result<()> {
        empty(folder)?;
        for entry in &self.entries {
            let path = folder.join(&entry.path);
            match &entry.kind {
                Kind::Folder => DirBuilder::new().mode(entry.mode).create(path)?,
                Kind::File(bytes) => write_file(&path, entry.mode, bytes)?,
                Kind::Link(target) => std::os::unix::fs::symlink(target, path)?,
            }
        }
        Ok(())
    }
}

fn collect(root: &Path, below: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let metadata = entry.metadata()?;
        let (mode, is_folder) = (metadata.permissions().mode() & 0o777, metadata.is_dir());
        let kind = if is_folder {
            Kind::Folder
        } else if metadata.is_symlink() {
            Kind::Link(fs::read_link(root.join(&path))?)
        } else if metadata.is_file() {
            Kind::File(fs::read(root.join(&path))?)
        } else {
            continue; // A socket or pipe left by a build step means nothing to a run.
        };
        entries.push(Entry { path: path.clone(), mode, kind });
        if is_folder {
            collect(root, &path, entries)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Content;

    fn file(name: &str, bytes: &[u8]) -> File {
        File { name: name.into(), content: Content::from(bytes.to_vec()) }
    }

    #[test]
    fn files_and_their_folders_are_written() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let files = [file("main.py", b"x"), file("lib/deep/util.py", b"\xff")];
        write_files(root.path(), &files).expect("written");
        let deep = fs::read(root.path().join("lib/deep/util.py")).expect("there");
        assert_eq!(deep, b"\xff");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for name in ["../x", "/etc/x", "a/../../x", "", "."] {
            let error = write_files(root.path(), &[file(name, b"")]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_both_file_and_folder_is_an_error() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let error = write_files(root.path(), &[file("a", b""), file("a/b", b"")]);
        assert!(error.expect_err("a is a file").to_string().starts_with("a/b"));
    }

    #[test]
    fn folders_are_emptied_however_deep_they_are() {
        let root = tempfile::tempdir().expect("a temporary folder");
        // Longer than PATH_MAX and deeper than there are descriptors: made from the inside out.
        fs::create_dir(root.path().join("inner")).expect("folder");
        fs::write(root.path().join(".removed-1"), b"taken").expect("written");
        for _ in 0..1100 {
            fs::create_dir(root.path().join("outer")).expect("folder");
            fs::rename(root.path().join("inner"), root.path().join("outer/inner")).expect("moved");
            fs::rename(root.path().join("outer"), root.path().join("inner")).expect("moved");
        }
        empty(root.path()).expect("emptied");
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 0);
    }

    #[test]
    fn restoring_undoes_whatever_a_program_did() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path();
        write_files(path, &[file("main", b"binary"), file("sub/x", b"1")]).expect("written");
        fs::set_permissions(path.join("main"), Permissions::from_mode(0o755)).expect("chmod");
        std::os::unix::fs::symlink("main", path.join("link")).expect("link");
        let snapshot = Snapshot::take(path).expect("taken");

        fs::write(path.join("main"), b"overwritten").expect("write");
        fs::create_dir_all(path.join("locked/inner")).expect("folder");
        fs::write(path.join("locked/inner/y"), b"").expect("write");
        fs::set_permissions(path.join("locked/inner"), Permissions::from_mode(0o000)).expect("chmod");
        fs::set_permissions(path.join("locked"), Permissions::from_mode(0o000)).expect("chmod");
        fs::remove_file(path.join("sub/x")).expect("remove");
        snapshot.restore(path).expect("restored");

        assert_eq!(fs::read(path.join("main")).expect("there"), b"binary");
        let mode = fs::metadata(path.join("main")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read(path.join("sub/x")).expect("there"), b"1");
        assert!(fs::symlink_metadata(path.join("link")).expect("there").is_symlink());
        assert!(!path.join("locked").exists());
    }
}
