//! The rules of CONTRIBUTING.md and docs/architecture.md that a program can check.
//!
//! Each check is a function over a path and a text. It is tried on made-up bad text in its own file,
//! and let loose on the repository here.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rust;

mod floors;

mod docs;

mod repository;

use crate::docs::{dead_links, examples, unexplained};
use crate::floors::floor;
use crate::repository::{File, none, repository, top};
use crate::rust::{
    Check, file_name, first_line, length, machine_path, no_async_in_pure_crates, open_ends,
    root_declares,
};

#[test]
fn rust_files_are_tidy() {
    let checks: [Check; 6] = [
        first_line,
        length,
        root_declares,
        file_name,
        open_ends,
        no_async_in_pure_crates,
    ];
    let files = repository();
    let rust: Vec<&File> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .collect();
    assert!(rust.len() > 50, "only {} Rust files found", rust.len());
    let complaints: Vec<_> = rust
        .iter()
        .flat_map(|file| checks.iter().flat_map(|check| check(file)))
        .collect();
    none(&complaints);
}

#[test]
fn no_file_knows_a_machine() {
    none(
        &repository()
            .iter()
            .flat_map(machine_path)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn crates_keep_to_their_floor() {
    let files = repository();
    let manifest = |file: &&File| file.path.ends_with("Cargo.toml");
    // Guests of tests and benches stand where `filters/` does, beside the floors.
    let guest = |path: &str| path.contains("/benches/") || path.starts_with("tests/guests/");
    let ours = |file: &&File| {
        let top = ["config/", "proxy/", "tests/"];
        top.iter().any(|f| file.path.starts_with(f)) && !guest(&file.path)
    };
    let manifests: Vec<&File> = files.iter().filter(manifest).filter(ours).collect();
    assert!(
        manifests.len() >= 9,
        "only {} crates found",
        manifests.len()
    );
    none(&manifests.into_iter().flat_map(floor).collect::<Vec<_>>());
}

#[test]
fn examples_can_be_read_and_run() {
    let files = repository();
    none(&examples(
        &files
            .iter()
            .map(|file| file.path.as_str())
            .collect::<Vec<_>>(),
    ));
}

#[test]
fn every_code_is_explained() {
    let files = repository();
    let docs = files.iter().find(|file| file.path == "docs/errors.md");
    let docs = docs.map(|file| file.text.as_str()).unwrap_or_default();
    let refusing = |file: &&File| {
        let name = file.path.rsplit('/').next();
        matches!(name, Some("refuse.rs" | "refusal.rs")) && !file.path.starts_with("examples/")
    };
    none(
        &files
            .iter()
            .filter(refusing)
            .flat_map(|file| unexplained(file, docs))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn links_of_the_docs_lead_somewhere() {
    let files = repository();
    let exists = |path: &str| top().join(path).exists();
    let markdown = files.iter().filter(|file| file.path.ends_with(".md"));
    none(
        &markdown
            .flat_map(|file| dead_links(file, exists))
            .collect::<Vec<_>>(),
    );
}
