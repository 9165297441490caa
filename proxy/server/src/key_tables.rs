//! Key tables from config and key files, hashed, with their principals interned.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use weir_config::{Config, ConfigError, KeyEntry as Written, Secret, WorkerToken, WorkersTable};
use weir_host::{KeyEntry, KeyTable, KeyTables};
use weir_pipeline::intern::Interner;
use weir_pipeline::principal::Principal;

use crate::compile::{Origin, located};

/// Reads all tables.
///
/// # Errors
/// Files that cannot be read or parsed, hashes that are none, ids given twice in one table.
pub(crate) fn read(
    config: &Config,
    text: &str,
    origin: &Origin,
    interner: &Interner,
) -> Result<KeyTables, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut tables = Vec::new();
    for (name, table) in &config.key_tables {
        let mut written = table.keys.clone();
        if let Some(file) = &table.file {
            let path = weir_config::resolve(&origin.folder, file);
            match std::fs::read_to_string(&path) {
                Ok(keys) => match weir_config::parse_keys(&keys, &path.display().to_string()) {
                    Ok(more) => written.extend(more),
                    Err(more) => errors.extend(more),
                },
                Err(error) => {
                    let key = format!("key_tables.{name}.file");
                    let message = format!("cannot read {}: {error}", path.display());
                    errors.push(located(
                        text,
                        &origin.file,
                        &key,
                        message,
                        "create the file with [[keys]] tables, or remove the key",
                    ));
                }
            }
        }
        let mut ids: Vec<&str> = written.iter().map(|entry| entry.id.as_str()).collect();
        ids.sort_unstable();
        if let Some([id, _]) = ids.windows(2).find(|pair| pair.first() == pair.last()) {
            let message = format!("key id `{id}` is given twice, in the config and in the file");
            errors.push(located(
                text,
                &origin.file,
                &format!("key_tables.{name}"),
                message,
                "give each key an id of its own",
            ));
        }
        let entries = written
            .iter()
            .filter_map(|entry| key_entry(entry, interner))
            .collect();
        tables.push(KeyTable::new(name, entries));
    }
    if errors.is_empty() {
        Ok(KeyTables::new(tables))
    } else {
        Err(errors)
    }
}

/// The tokens of workers as a table: the tenant of each is the function it serves.
pub(crate) fn worker_tokens(table: &WorkersTable, interner: &Interner) -> KeyTable {
    let entry = |token: &WorkerToken| {
        let sha256 = hash(token.sha256.as_deref(), token.token.as_ref())?;
        let function = weir_dialect::normal_routing_key(&token.function);
        let principal = Principal {
            id: interner.intern(&token.id),
            subject: Arc::from(token.id.as_str()),
            tenant: Arc::from(function.as_ref()),
            plan: Arc::default(),
            scopes: Vec::new(),
            models: Vec::new(),
            priority: None,
        };
        Some(KeyEntry {
            sha256,
            principal: Arc::new(principal),
        })
    };
    KeyTable::new("workers", table.tokens.iter().filter_map(entry).collect())
}

fn hash(sha256: Option<&str>, secret: Option<&Secret>) -> Option<[u8; 32]> {
    match (sha256, secret) {
        (Some(hash), _) => hex32(hash),
        (None, Some(secret)) => Some(Sha256::digest(secret.reveal()).into()),
        (None, None) => None,
    }
}

fn key_entry(written: &Written, interner: &Interner) -> Option<KeyEntry> {
    let sha256 = hash(written.sha256.as_deref(), written.key.as_ref())?;
    let principal = Principal {
        id: interner.intern(&written.id),
        subject: Arc::from(written.id.as_str()),
        tenant: Arc::from(written.tenant.as_str()),
        plan: Arc::from(written.plan.as_str()),
        scopes: written.scopes.clone(),
        models: written.models.clone(),
        priority: written.priority,
    };
    Some(KeyEntry {
        sha256,
        principal: Arc::new(principal),
    })
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if text.len() != 64 {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_64_hexadecimal_digits() {
        assert_eq!(hex32(&"ab".repeat(32)), Some([0xab; 32]));
        assert_eq!(hex32(&"ab".repeat(31)), None);
        assert_eq!(hex32(&"zz".repeat(32)), None);
        assert_eq!(hex32(&"é".repeat(32)), None);
    }
}
