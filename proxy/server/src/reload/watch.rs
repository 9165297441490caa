//! Notices that the config, a module, a key file or a certificate has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use weir_config::{Config, ModuleRef};

use crate::reload::apply::Ask;
use crate::runtime::Runtime;

/// A writer is taken to have finished when two looks this far apart see the same.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);
/// Looks before a file that keeps changing is taken as it is.
pub(crate) const SETTLE_LOOKS_MAX: u32 = 20;

/// Sends a look every `reload.poll_ms`, and a forced one on SIGHUP, until the process ends.
pub(crate) async fn watch(runtime: Arc<Runtime>, asks: mpsc::Sender<Ask>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be heard");
            return;
        }
    };
    loop {
        let pause = Duration::from_millis(runtime.snapshot().config.reload.poll_ms);
        let ask = tokio::select! {
            () = tokio::time::sleep(pause) => Ask::Look,
            _ = hangups.recv() => Ask::Force { why: "signal", reply: None },
        };
        if asks.send(ask).await.is_err() {
            return;
        }
    }
}

/// The files a configuration is made of: its own, then those it names.
pub(crate) fn files(config_file: &Path, folder: &Path, config: &Config) -> Vec<PathBuf> {
    let mut files = vec![
        config_file.to_path_buf(),
        weir_config::resolve(folder, &config.functions_file),
    ];
    for filter in config.filters.values() {
        if let ModuleRef::Path(path) = &filter.module {
            files.push(weir_config::resolve(folder, path));
        }
    }
    for table in config.key_tables.values() {
        files.extend(
            table
                .file
                .iter()
                .map(|file| weir_config::resolve(folder, file)),
        );
    }
    let sets = config.key_sets.values();
    files.extend(sets.map(|set| weir_config::resolve(folder, &set.file)));
    for tls in config
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
        .chain(&config.workers.tls)
    {
        files.push(weir_config::resolve(folder, &tls.cert));
        files.push(weir_config::resolve(folder, &tls.key));
    }
    files
}

/// What a file's directory entry says: any write, rename or symlink swap changes it.
type Trace = Option<(u64, u64, u64, i64, i64, i64)>;

fn trace(file: &Path) -> Trace {
    // Follows symlinks: a ConfigMap swaps the link, not the file.
    let meta = std::fs::metadata(file).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime_nsec(),
    ))
}

/// Content hashes of a set of files, computed anew only for those whose entry has changed.
#[derive(Default)]
pub(crate) struct Fingerprints {
    known: BTreeMap<PathBuf, (Trace, [u8; 32])>,
}

impl Fingerprints {
    /// One hash over all files. A file that cannot be read counts as empty.
    pub(crate) fn of(&mut self, files: &[PathBuf]) -> [u8; 32] {
        self.known.retain(|file, _| files.contains(file));
        let mut whole = Sha256::new();
        for file in files {
            let now = trace(file);
            let hash = match self.known.get(file) {
                Some((then, hash)) if *then == now && now.is_some() => *hash,
                _ => {
                    let hash = Sha256::digest(std::fs::read(file).unwrap_or_default()).into();
                    self.known.insert(file.clone(), (now, hash));
                    hash
                }
            };
            whole.update(file.as_os_str().as_encoded_bytes());
            whole.update(hash);
        }
        whole.finalize().into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn writes_renames_and_link_swaps_are_seen_and_touches_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a"), "1").unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        let files = [at("link")];
        let mut prints = Fingerprints::default();
        let first = prints.of(&files);
        assert_eq!(first, prints.of(&files), "nothing happened");
        std::fs::write(at("a"), "2").unwrap();
        let second = prints.of(&files);
        assert_ne!(first, second, "written in place");
        std::fs::write(at("b"), "3").unwrap();
        std::fs::rename(at("b"), at("a")).unwrap();
        let third = prints.of(&files);
        assert_ne!(second, third, "renamed over");
        std::fs::write(at("c"), "1").unwrap();
        std::os::unix::fs::symlink(at("c"), at("new")).unwrap();
        std::fs::rename(at("new"), at("link")).unwrap();
        assert_eq!(
            first,
            prints.of(&files),
            "the link leads to the first content again"
        );
        std::fs::remove_file(at("link")).unwrap();
        assert_ne!(first, prints.of(&files), "gone");
    }
}
