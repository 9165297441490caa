//! The official OpenAI client for Python against the gateway: `tests/clients/suite.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_tests::gateway::binary;

/// Set where tests may not be left out.
const CI: &str = "CI";
/// A Python with the packages of `tests/clients/requirements.txt`.
const PYTHON: &str = "WEIR_CLIENTS_PYTHON";

#[test]
fn the_official_openai_client() {
    let Some(python) = python() else {
        let missing = format!(
            "no Python with the OpenAI client: `make setup-test` makes one, {PYTHON} names one"
        );
        assert!(std::env::var_os(CI).is_none(), "{missing}");
        eprintln!("SKIPPED: {missing}");
        return;
    };
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/suite.py");
    let run = Command::new(&python).arg(suite).arg(binary()).output();
    let run = run.unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    // A suite that ran nothing has shown nothing.
    assert!(
        said.contains("\nOK") && !said.contains("Ran 0 tests"),
        "{said}"
    );
}

fn python() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PYTHON) {
        return Some(PathBuf::from(named));
    }
    // The folder of the profile is in the target folder, where `make setup-test` puts it.
    let test = std::env::current_exe().ok()?;
    let made = |folder: &Path| folder.join("venv/bin/python");
    test.ancestors().map(made).find(|python| python.exists())
}
