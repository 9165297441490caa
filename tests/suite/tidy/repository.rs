//! The files of the repository as values.

use std::path::{Path, PathBuf};

/// A file of the repository: its path from the top, with `/`, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn complain(bad: bool, file: &File, message: &str) -> Vec<String> {
    if bad {
        vec![format!("{}: {message}", file.path)]
    } else {
        Vec::new()
    }
}

pub(crate) fn none(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files by path, without what was built.
pub(crate) fn repository() -> Vec<File> {
    let top = top();
    let mut folders = vec![top.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let kind = entry.file_type().unwrap();
            if kind.is_dir()
                && !["target", ".git", "__pycache__"]
                    .iter()
                    .any(|skip| name == *skip)
            {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap();
                let path = entry
                    .path()
                    .strip_prefix(&top)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.extend(
                    String::from_utf8(bytes)
                        .ok()
                        .map(|text| File { path, text }),
                );
            }
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    files
}

/// A made-up file.
pub(crate) fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
