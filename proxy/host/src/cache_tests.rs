//! Compiled modules on disk are used when they are ours, and only then.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::engine::{Host, HostOptions};
use crate::test_guest::guest;

/// Whether a new process would take the module from this folder.
fn cached(dir: &Path) -> bool {
    let options = HostOptions {
        cache_dir: Some(dir.to_owned()),
        ..HostOptions::default()
    };
    Host::new(options)
        .unwrap()
        .load(&guest(false))
        .unwrap()
        .cached
}

fn compiled(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .find(|path| path.extension().is_some_and(|end| end == "cwasm"))
        .unwrap()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_module_is_compiled_once() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("cache");
    assert!(!cached(&dir));
    assert!(cached(&dir));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&dir), mode(&compiled(&dir)), mode(&dir.join("key"))),
        (0o700, 0o600, 0o600)
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no temporary files");
}

#[test]
fn a_forged_file_is_not_used() {
    type Forge = fn(&Path);
    let forgeries: [(&str, Forge); 7] = [
        ("a byte of the code", |dir| flip(&compiled(dir), 5_000)),
        ("a byte of the tag", |dir| flip(&compiled(dir), 3)),
        ("cut short", |dir| {
            fs::write(compiled(dir), [0; 10]).unwrap()
        }),
        ("another key", |dir| flip(&dir.join("key"), 0)),
        ("readable by others", |dir| chmod(&compiled(dir), 0o644)),
        ("a key readable by others", |dir| {
            chmod(&dir.join("key"), 0o640)
        }),
        ("a link", |dir| {
            let (file, moved) = (compiled(dir), dir.join("moved"));
            fs::rename(&file, &moved).unwrap();
            std::os::unix::fs::symlink(&moved, &file).unwrap();
        }),
    ];
    for (name, forge) in forgeries {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cache");
        assert!(!cached(&dir), "{name}: compiled first");
        assert!(cached(&dir), "{name}: then not");
        forge(&dir);
        assert!(!cached(&dir), "{name}");
    }
}

#[test]
fn a_folder_open_to_others_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o755);
    assert!(!cached(dir.path()));
    assert!(!cached(dir.path()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
