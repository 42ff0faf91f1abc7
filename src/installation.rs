//! Who we are to the engine: a name that stays the same from start to start, so that what an earlier start has left
//! can be told from what belongs to another server. It is held by a lock file: two servers of one user at the
//! same time are two installations.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use uuid::Uuid;

use crate::id::Instance;

/// Servers of one user and state folder at the same time.
const MOST: usize = 1000;

/// The identity, for as long as it is held.
pub struct Identity {
    pub instance: Instance,
    /// Unlocked when it is closed, by the kernel if need be (flock(2)).
    _lock: File,
}

impl Identity {
    /// The first identity of this folder that no running server holds.
    pub fn claim(folder: &Path) -> io::Result<Identity> {
        fs::create_dir_all(folder)?;
        for number in 0..MOST {
            let path = folder.join(format!("instance-{number}"));
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let mut name = String::new();
            file.read_to_string(&mut name)?;
            if !valid(&name) {
                name = random();
                file.set_len(0)?;
                file.write_all(name.as_bytes())?;
            }
            return Ok(Identity { instance: Instance { name, epoch: random() }, _lock: file });
        }
        Err(io::Error::other(format!("{MOST} servers hold an identity there already")))
    }
}

fn valid(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn random() -> String {
    Uuid::new_v4().simple().to_string().chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_from_start_to_start_and_held_by_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = Identity::claim(folder.path()).expect("claimed");
        let other = Identity::claim(folder.path()).expect("claimed");
        assert_ne!(first.instance.name, other.instance.name);
        let Instance { name, epoch } = first.instance.clone();
        drop(first);
        let again = Identity::claim(folder.path()).expect("claimed");
        assert_eq!(again.instance.name, name);
        assert_ne!(again.instance.epoch, epoch);
    }
}
