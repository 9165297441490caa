//! A change of the configuration's own files by the process: compiled first, written only when good.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_config::{Config, ConfigError, Sources};

use crate::snapshot::Snapshot;

/// Works out a change from what the files say now; none when it will not be made.
pub(crate) type Editor = Box<dyn FnOnce(&Sources, &Config) -> Option<Change> + Send>;

/// A new text for one of the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// For the config file.
    Config(String),
    /// For the functions file, which need not be there yet.
    Functions(String),
}

/// What came of an edit.
pub(crate) enum Edited {
    /// It is written, and this is live.
    Applied(Arc<Snapshot>),
    /// The editor would not.
    Unwilling,
    /// The configuration it makes, or the one it starts from, is refused; nothing was written.
    Rejected(Vec<String>),
    /// There are no files: the embedded config serves.
    NoFile,
    /// The files say what was rolled back; an edit would bring that back.
    RolledBack,
    /// Somebody else wrote the file at the same moment; nothing was written.
    Raced,
    /// The file cannot be written; nothing is live.
    Unwritable(String),
}

impl Edited {
    /// Refused for these reasons.
    pub(super) fn rejected(errors: Vec<ConfigError>) -> Self {
        Self::Rejected(errors.iter().map(ToString::to_string).collect())
    }
}

impl Change {
    /// Puts the new text in the place of the old one; gives the file, what it said, and what it is
    /// to say.
    pub(super) fn put(self, sources: &mut Sources) -> (PathBuf, Option<String>, String) {
        match self {
            Self::Config(text) => {
                let before = std::mem::replace(&mut sources.text, text.clone());
                (sources.file.clone(), Some(before), text)
            }
            Self::Functions(text) => {
                let before = sources.functions.replace(text.clone());
                (sources.functions_file.clone(), before, text)
            }
        }
    }
}

/// Replaces the content of a file in one step, which a crash leaves done or not done. `before` is
/// what the file must say, `None` that it must not be there.
pub(super) fn replace(file: &Path, before: Option<&str>, text: &str) -> Result<(), Edited> {
    let unwritable =
        |error: io::Error| Edited::Unwritable(format!("cannot write {}: {error}", file.display()));
    // A link stays one: what it leads to is replaced.
    let file = match fs::canonicalize(file) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_path_buf(),
        Err(error) => return Err(unwritable(error)),
    };
    let (aside, mut new) = create_beside(&file).map_err(unwritable)?;
    let filled = fill(&mut new, &file, text).map_err(unwritable);
    let placed = filled.and_then(|()| match fs::read_to_string(&file) {
        Ok(now) if before == Some(now.as_str()) => fs::rename(&aside, &file).map_err(unwritable),
        Err(error) if error.kind() == io::ErrorKind::NotFound && before.is_none() => {
            // Unlike a rename this fails when the file has appeared meanwhile.
            fs::hard_link(&aside, &file).map_err(|_| Edited::Raced)?;
            fs::remove_file(&aside).map_err(unwritable)
        }
        _ => Err(Edited::Raced),
    });
    if placed.is_err() {
        // What is left beside the file does no harm.
        _ = fs::remove_file(&aside);
        return placed;
    }
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(unwritable)
}

fn create_beside(file: &Path) -> io::Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}-{number}.new", std::process::id()));
    let aside = file.with_file_name(name);
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside)?;
    Ok((aside, new))
}

fn fill(new: &mut File, file: &Path, text: &str) -> io::Result<()> {
    if let Ok(meta) = fs::metadata(file) {
        new.set_permissions(meta.permissions())?;
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_it_says_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert!(matches!(
            replace(&file, Some("x"), "new"),
            Err(Edited::Raced)
        ));
        assert!(names().is_empty(), "nothing is left behind");
        assert!(replace(&file, None, "1").is_ok());
        assert!(matches!(replace(&file, None, "2"), Err(Edited::Raced)));
        assert!(matches!(replace(&file, Some("0"), "2"), Err(Edited::Raced)));
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(replace(&link, Some("1"), "2").is_ok());
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "who may read it stays");
        assert_eq!(names(), ["f.toml", "link.toml"]);
        let nowhere = folder.path().join("no/f.toml");
        assert!(matches!(
            replace(&nowhere, None, "1"),
            Err(Edited::Unwritable(_))
        ));
    }
}
