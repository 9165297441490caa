//! The one task that changes the live configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_config::{Config, ConfigError, Sources};

use crate::compile::{Compiler, Origin, located};
use crate::reload::edit::{Edited, Editor, replace};
use crate::reload::history::{Rejected, unix_ms};
use crate::reload::watch::{Fingerprints, SETTLE, SETTLE_LOOKS_MAX, files};
use crate::runtime::Runtime;
use crate::snapshot::Snapshot;
use crate::tls::LiveCertificate;

/// What the reloader is asked.
pub(crate) enum Ask {
    /// See whether something has changed.
    Look,
    /// Read everything anew.
    Force {
        /// `signal` or `api`.
        why: &'static str,
        /// Who wants to know.
        reply: Option<oneshot::Sender<Reply>>,
    },
    /// Make a past configuration live again.
    Rollback {
        /// Its number; none = the one before.
        number: Option<u64>,
        /// Who wants to know.
        reply: Option<oneshot::Sender<Reply>>,
    },
    /// Change a file of the configuration, and make that live.
    Edit {
        /// Works out the change.
        editor: Editor,
        /// Who wants to know.
        reply: oneshot::Sender<Edited>,
    },
    /// A filter of the live configuration has tripped its breaker.
    Tripped {
        /// Name of the filter.
        filter: Arc<str>,
    },
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The configuration of this number is live now.
    Applied {
        /// Its number.
        number: u64,
        /// What changed.
        changes: Vec<String>,
        /// Changed keys that need a restart.
        needs_restart: Vec<String>,
    },
    /// Nothing has changed.
    Unchanged {
        /// The live number.
        number: u64,
    },
    /// Refused; the live one goes on.
    Rejected {
        /// Every reason.
        errors: Vec<String>,
    },
}

/// Holds what a reload needs.
pub(crate) struct Reloader {
    runtime: Arc<Runtime>,
    /// None: the embedded config, which cannot change.
    file: Option<PathBuf>,
    certificates: BTreeMap<String, Arc<LiveCertificate>>,
    prints: Fingerprints,
    /// The files of the config read last, good or not: those that may make it good change, too.
    watched: Vec<PathBuf>,
    seen: [u8; 32],
    number: u64,
    /// What the process began with: what differs from it and is not live needs a restart.
    booted: Config,
}

impl Reloader {
    /// For a runtime whose first snapshot is live.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        file: Option<PathBuf>,
        certificates: BTreeMap<String, Arc<LiveCertificate>>,
    ) -> Self {
        let live = runtime.snapshot();
        let watched = file
            .as_deref()
            .map(|file| files(file, &Origin::of(file).folder, &live.config));
        let mut reloader = Self {
            runtime,
            file,
            certificates,
            prints: Fingerprints::default(),
            watched: watched.unwrap_or_default(),
            seen: [0; 32],
            number: live.number,
            booted: live.config.clone(),
        };
        reloader.seen = reloader.fingerprint();
        reloader
    }

    /// Serves asks until the process ends.
    pub(crate) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Look => {
                    if self.changed().await {
                        self.reload("file").await;
                    }
                }
                Ask::Force { why, reply } => {
                    self.seen = self.fingerprint();
                    let outcome = self.reload(why).await;
                    answer(reply, outcome);
                }
                Ask::Rollback { number, reply } => {
                    let outcome = self.roll_back(number, "rollback");
                    answer(reply, outcome);
                }
                Ask::Edit { editor, reply } => {
                    // Whoever asked may be gone.
                    _ = reply.send(self.edit(editor).await);
                }
                Ask::Tripped { filter } => self.tripped(&filter),
            }
        }
    }

    fn fingerprint(&mut self) -> [u8; 32] {
        self.prints.of(&self.watched)
    }

    /// Whether the files differ from those seen last, once they have come to rest.
    async fn changed(&mut self) -> bool {
        let mut print = self.fingerprint();
        if print == self.seen {
            return false;
        }
        for _ in 0..SETTLE_LOOKS_MAX {
            tokio::time::sleep(SETTLE).await;
            let again = self.fingerprint();
            if again == print {
                break;
            }
            print = again;
        }
        let same = print == self.seen;
        self.seen = print;
        !same && self.runtime.history.lock().bad != Some(print)
    }

    async fn reload(&mut self, why: &'static str) -> Reply {
        let Some(file) = self.file.clone() else {
            return Reply::Unchanged {
                number: self.number,
            };
        };
        let origin = Origin::of(&file);
        let runtime = Arc::clone(&self.runtime);
        let number = self.number + 1;
        let certificates = self.certificates.clone();
        let mut prints = std::mem::take(&mut self.prints);
        // Compiling takes its time and must not hold up exchanges.
        let built = tokio::task::spawn_blocking(move || {
            let loaded = load(&file, &origin, &mut prints);
            let (watched, seen) = (loaded.watched, loaded.seen);
            let compiled = loaded.config.and_then(|(config, text)| {
                compile(&runtime, &certificates, &origin, config, text, number)
            });
            (prints, watched, seen, compiled)
        });
        let (prints, watched, seen, compiled) = match built.await {
            Ok(built) => built,
            Err(error) => {
                return self.reject(vec![format!("the config could not be compiled: {error}")]);
            }
        };
        self.prints = prints;
        if let Some(watched) = watched {
            self.watched = watched;
            self.seen = seen;
        }
        match compiled {
            Ok(snapshot) => self.go_live(Arc::new(snapshot), why),
            Err(errors) => self.reject(errors.iter().map(ToString::to_string).collect()),
        }
    }

    /// Carries an edit out: what it makes is compiled before it is written.
    async fn edit(&mut self, editor: Editor) -> Edited {
        let Some(file) = self.file.clone() else {
            return Edited::NoFile;
        };
        let print = self.fingerprint();
        if self.runtime.history.lock().bad == Some(print) {
            return Edited::RolledBack;
        }
        let runtime = Arc::clone(&self.runtime);
        let number = self.number + 1;
        let certificates = self.certificates.clone();
        let mut prints = std::mem::take(&mut self.prints);
        let worked = tokio::task::spawn_blocking(move || {
            let written = write(&file, editor, &mut prints, |origin, config, text| {
                compile(&runtime, &certificates, origin, config, text, number)
            });
            (prints, written)
        });
        match worked.await {
            Ok((prints, Ok(written))) => {
                self.prints = prints;
                self.watched = written.watched;
                self.seen = written.seen;
                let snapshot = Arc::new(written.snapshot);
                self.go_live(Arc::clone(&snapshot), "functions");
                Edited::Applied(snapshot)
            }
            Ok((prints, Err(why_not))) => {
                self.prints = prints;
                why_not
            }
            Err(error) => {
                Edited::Rejected(vec![format!("the config could not be compiled: {error}")])
            }
        }
    }

    fn go_live(&mut self, snapshot: Arc<Snapshot>, why: &'static str) -> Reply {
        let live = self.runtime.snapshot();
        let mut changes = weir_config::diff(&live.config, &snapshot.config).lines;
        let needs_restart = weir_config::diff(&self.booted, &snapshot.config).boot;
        for (name, filter) in &snapshot.filters {
            let other_module = live
                .filters
                .get(name)
                .is_some_and(|old| old.module_sha256() != filter.module_sha256());
            if other_module {
                changes.push(format!("filters.{name}: module changed"));
            }
        }
        self.number = snapshot.number;
        publish(&self.runtime, &snapshot);
        {
            let mut history = self.runtime.history.lock();
            history.push(&snapshot, changes.clone(), why);
            history.needs_restart.clone_from(&needs_restart);
            history.bad = None;
        }
        self.runtime.metrics.reloaded("applied", snapshot.number);
        tracing::info!(
            number = snapshot.number,
            why,
            ?changes,
            ?needs_restart,
            "config is live"
        );
        shrink_replaced(&live, &snapshot);
        Reply::Applied {
            number: snapshot.number,
            changes,
            needs_restart,
        }
    }

    fn reject(&mut self, errors: Vec<String>) -> Reply {
        tracing::error!(
            ?errors,
            serving = self.runtime.snapshot().number,
            "config refused; the last good one serves on"
        );
        self.runtime.history.lock().rejected = Some(Rejected {
            at_unix_ms: unix_ms(),
            errors: errors.clone(),
        });
        self.runtime
            .metrics
            .reloaded("rejected", self.runtime.snapshot().number);
        Reply::Rejected { errors }
    }

    fn roll_back(&mut self, number: Option<u64>, why: &'static str) -> Reply {
        let chosen = {
            let history = self.runtime.history.lock();
            let past = match number {
                Some(number) => history.find(number),
                None => history.previous(),
            };
            past.map(|past| Arc::clone(&past.snapshot))
        };
        let Some(snapshot) = chosen else {
            let wanted = number.map_or_else(
                || "an earlier configuration".into(),
                |number| format!("number {number}"),
            );
            return Reply::Rejected {
                errors: vec![format!(
                    "{wanted} is not in the history; GET /config/history lists it"
                )],
            };
        };
        let live = self.runtime.snapshot();
        let changes = weir_config::diff(&live.config, &snapshot.config).lines;
        publish(&self.runtime, &snapshot);
        let mut history = self.runtime.history.lock();
        history.push(&snapshot, changes.clone(), why);
        // The files still say what was rolled back: not taken again until they change.
        history.bad = Some(self.seen);
        drop(history);
        self.runtime
            .metrics
            .reloaded("rolled_back", snapshot.number);
        tracing::warn!(number = snapshot.number, why, ?changes, "rolled back");
        Reply::Applied {
            number: snapshot.number,
            changes,
            needs_restart: Vec::new(),
        }
    }

    /// A filter that is new or changed in the live configuration and trips soon after takes the
    /// configuration back.
    fn tripped(&mut self, filter: &Arc<str>) {
        let blamed = {
            let history = self.runtime.history.lock();
            let (Some(live), Some(before)) = (history.live(), history.previous()) else {
                return;
            };
            let age_ms = unix_ms().saturating_sub(live.since_unix_ms);
            let window_ms = live.snapshot.config.reload.rollback_window_ms;
            let fresh = window_ms > 0 && age_ms <= window_ms;
            let of = |snapshot: &Snapshot| snapshot.filters.get(&**filter).cloned();
            let changed = match (of(&live.snapshot), of(&before.snapshot)) {
                (Some(now), Some(then)) => !Arc::ptr_eq(&now, &then),
                (now, _) => now.is_some(),
            };
            fresh && changed && live.why != "rollback" && live.why != "breaker"
        };
        if blamed {
            let reason = format!("filter `{filter}` tripped its breaker soon after it went live");
            self.roll_back(None, "breaker");
            self.runtime.history.lock().rejected = Some(Rejected {
                at_unix_ms: unix_ms(),
                errors: vec![reason],
            });
        }
    }
}

/// A config as it was read.
struct Loaded {
    config: Result<(Config, String), Vec<ConfigError>>,
    /// The files it is made of; none when it has no form to tell them.
    watched: Option<Vec<PathBuf>>,
    /// Their fingerprint from before modules and keys are read: what changes from then on is seen
    /// at the next look.
    seen: [u8; 32],
}

fn load(file: &Path, origin: &Origin, prints: &mut Fingerprints) -> Loaded {
    let mut looks = 0;
    loop {
        let read = Sources::read(file).and_then(|sources| Ok((sources.parse()?, sources)));
        let (config, sources) = match read {
            Ok(read) => read,
            Err(errors) => {
                return Loaded {
                    config: Err(errors),
                    watched: None,
                    seen: [0; 32],
                };
            }
        };
        let watched = files(file, &origin.folder, &config);
        let seen = prints.of(&watched);
        looks += 1;
        // Otherwise one was written in between, and the fingerprint is not of what was read.
        let same = Sources::read(file).is_ok_and(|now| now == sources);
        if same || looks >= SETTLE_LOOKS_MAX {
            return Loaded {
                config: Ok((config, sources.text)),
                watched: Some(watched),
                seen,
            };
        }
    }
}

fn compile(
    runtime: &Runtime,
    certificates: &BTreeMap<String, Arc<LiveCertificate>>,
    origin: &Origin,
    config: Config,
    text: String,
    number: u64,
) -> Result<Snapshot, Vec<ConfigError>> {
    let live = runtime.snapshot();
    let compiler = Compiler {
        host: &runtime.host,
        fleet: &runtime.fleet,
        workers: &runtime.workers,
        names: &runtime.names,
        idle: &runtime.idle,
        origin,
        previous: Some(&live),
    };
    let snapshot = compiler.compile(config, Arc::from(text), number)?;
    renew(certificates, &snapshot, origin)?;
    Ok(snapshot)
}

/// An edit that is on disk.
struct Written {
    snapshot: Snapshot,
    watched: Vec<PathBuf>,
    seen: [u8; 32],
}

fn write(
    file: &Path,
    editor: Editor,
    prints: &mut Fingerprints,
    compile: impl FnOnce(&Origin, Config, String) -> Result<Snapshot, Vec<ConfigError>>,
) -> Result<Written, Edited> {
    let mut sources = Sources::read(file).map_err(Edited::rejected)?;
    let config = sources.parse().map_err(Edited::rejected)?;
    let change = editor(&sources, &config).ok_or(Edited::Unwilling)?;
    let (path, before, text) = change.put(&mut sources);
    let config = sources.parse().map_err(Edited::rejected)?;
    let origin = Origin::of(file);
    let watched = files(file, &origin.folder, &config);
    let others: Vec<PathBuf> = watched
        .iter()
        .filter(|watched| **watched != path)
        .cloned()
        .collect();
    let others_before = prints.of(&others);
    let snapshot = compile(&origin, config, sources.text).map_err(Edited::rejected)?;
    replace(&path, before.as_deref(), &text)?;
    // What others changed meanwhile is seen at the next look: nothing has this fingerprint.
    let alone = prints.of(&others) == others_before
        && std::fs::read_to_string(&path).is_ok_and(|now| now == text);
    let seen = if alone { prints.of(&watched) } else { [0; 32] };
    Ok(Written {
        snapshot,
        watched,
        seen,
    })
}

/// Filters that only the history still holds need no more than one instance.
fn shrink_replaced(before: &Snapshot, after: &Snapshot) {
    for (name, filter) in &before.filters {
        let kept = after
            .filters
            .get(name)
            .is_some_and(|now| Arc::ptr_eq(now, filter));
        if !kept {
            filter.shrink();
        }
    }
}

/// Makes a snapshot, its key tables and its key sets live.
fn publish(runtime: &Runtime, snapshot: &Arc<Snapshot>) {
    runtime
        .host
        .services()
        .key_tables
        .store(Arc::clone(&snapshot.key_tables));
    runtime
        .host
        .services()
        .key_sets
        .store(Arc::clone(&snapshot.key_sets));
    runtime.swap(Arc::clone(snapshot));
    runtime.fleet.forget_unused();
    runtime.metrics.forget_unused(snapshot);
}

fn renew(
    certificates: &BTreeMap<String, Arc<LiveCertificate>>,
    snapshot: &Snapshot,
    origin: &Origin,
) -> Result<(), Vec<ConfigError>> {
    let config: &Config = &snapshot.config;
    let mut errors = Vec::new();
    for (place, listener) in config.listeners.iter().enumerate() {
        let (Some(live), Some(tls)) = (certificates.get(&listener.name), &listener.tls) else {
            continue;
        };
        let cert = weir_config::resolve(&origin.folder, &tls.cert);
        let key = weir_config::resolve(&origin.folder, &tls.key);
        if let Err(error) = live.renew(&cert, &key) {
            let at = format!("listeners[{place}].tls");
            errors.push(located(
                &snapshot.text,
                &origin.file,
                &at,
                error.to_string(),
                "give the PEM files of a certificate chain and its key",
            ));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn answer(reply: Option<oneshot::Sender<Reply>>, outcome: Reply) {
    if let Some(reply) = reply {
        // Whoever asked may be gone.
        _ = reply.send(outcome);
    }
}
