//! Compiled modules on disk. A forged file would be native code of the forger's in our process:
//! every file is authenticated with a key that only we can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

mod deserialize;

/// A folder of compiled modules.
pub(crate) struct Cache {
    dir: PathBuf,
    /// Keyed, nothing hashed yet.
    mac: Hmac<Sha256>,
    /// Of the engine: what another version or other settings compiled is not ours.
    compatibility: u64,
}

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(
        "{what} must belong to uid {uid} and be closed to others: it belongs to {owner}, mode {mode:o}"
    )]
    Unsafe {
        what: String,
        uid: u32,
        owner: u32,
        mode: u32,
    },
    #[error("its key is {0} bytes long, not 32: remove the folder")]
    Key(usize),
}

impl Cache {
    /// Opens a folder; makes it, and its key, if missing.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Self, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // Followed by name only after this: nobody else can swap what is in a folder of ours.
        check("the folder", &std::fs::symlink_metadata(dir)?)?;
        let path = dir.join("key");
        let key = match read_key(&path) {
            Err(CacheError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                make_key(dir, &path)?;
                read_key(&path)?
            }
            read => read?,
        };
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let mac = Hmac::new_from_slice(&key).map_err(|_| CacheError::Key(key.len()))?;
        Ok(Self {
            dir: dir.to_owned(),
            mac,
            compatibility: hasher.finish(),
        })
    }

    /// The compiled form of the module with this hash, if it is here and is ours.
    pub(crate) fn load(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let name = self.name(sha256);
        let path = self.dir.join(&name);
        let bytes = match read_private(&path) {
            Ok(bytes) => bytes,
            Err(CacheError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return None;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled filter refused");
                return None;
            }
        };
        let (tag, code) = bytes.split_at_checked(TAG_BYTES)?;
        if self.mac(&name, code).verify_slice(tag).is_err() {
            tracing::warn!(path = %path.display(), "compiled filter refused: not written by this gateway");
            return None;
        }
        match deserialize::authenticated(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "compiled filter not usable");
                None
            }
        }
    }

    /// Keeps a compiled module. A failure costs the next start a compilation, nothing else.
    pub(crate) fn store(&self, component: &Component, sha256: &str) {
        let name = self.name(sha256);
        let written = component
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|code| {
                let tag = self.mac(&name, &code).finalize().into_bytes();
                write_private(&self.dir, &self.dir.join(&name), &[&tag, &code])
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = written {
            tracing::warn!(%error, "compiled filter not kept");
        }
    }

    fn name(&self, sha256: &str) -> String {
        format!("{sha256}-{:016x}.cwasm", self.compatibility)
    }

    /// Over the name too, so that one file cannot stand for another.
    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(code);
        mac
    }
}

fn check(what: &str, metadata: &std::fs::Metadata) -> Result<(), CacheError> {
    let uid = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner == uid && mode & 0o077 == 0 && !metadata.is_symlink() {
        return Ok(());
    }
    Err(CacheError::Unsafe {
        what: what.to_owned(),
        uid,
        owner,
        mode,
    })
}

fn read_private(path: &Path) -> Result<Vec<u8>, CacheError> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW)
        .open(path)?;
    check("the file", &file.metadata()?)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_key(path: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let bytes = read_private(path)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| CacheError::Key(length))
}

/// Linked into place, not renamed: of two processes that start together, one key wins.
fn make_key(dir: &Path, path: &Path) -> Result<(), CacheError> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let temporary = dir.join(temporary_name());
    write_new(&temporary, &[&key])?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

fn write_private(dir: &Path, path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let temporary = dir.join(temporary_name());
    let written = write_new(&temporary, parts).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    written
}

fn write_new(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

fn temporary_name() -> String {
    format!("new-{}-{:016x}", std::process::id(), fastrand::u64(..))
}

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
