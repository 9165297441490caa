//! `weir filter new`: the crate of a new filter, which builds and passes its tests as it is.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use toml::Value;

use crate::cli::filter::cases::CaseFile;
use crate::cli::output::{OK, complain, misused, say};

/// Writes the folder NAME: Cargo.toml, src/lib.rs with a small filter and its unit test,
/// tests.toml for `weir filter test`, and a README.
#[derive(clap::Args)]
pub(crate) struct NewArgs {
    /// Name of the filter, its crate and its folder: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    /// The phase it decides in
    #[arg(long, value_enum, default_value_t = Start::Route)]
    phase: Start,
    /// The folder of the SDK (`filters/sdk` of Weir); by default found from here or the binary upwards
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What a new filter begins as.
#[derive(Clone, Copy, ValueEnum)]
enum Start {
    /// Which backend answers
    Route,
    /// Who calls
    Authorize,
    /// Limits, checks and edits of the request
    Request,
    /// What keeps a conversation on one backend
    Affinity,
    /// The head of the answer
    ResponseHeaders,
    /// The events of a stream
    Events,
}

impl Start {
    /// The filter, and the table of its cases.
    fn sources(self) -> (&'static str, &'static str) {
        macro_rules! sources {
            ($name:literal) => {
                (
                    include_str!(concat!("../../../templates/filter/", $name, ".rs")),
                    include_str!(concat!("../../../templates/filter/", $name, ".toml")),
                )
            };
        }
        match self {
            Self::Route => sources!("route"),
            Self::Authorize => sources!("authorize"),
            Self::Request => sources!("request"),
            Self::Affinity => sources!("affinity"),
            Self::ResponseHeaders => sources!("response-headers"),
            Self::Events => sources!("events"),
        }
    }
}

/// Carries the command out.
pub(crate) fn new(args: &NewArgs) -> ExitCode {
    let dir = Path::new(&args.name);
    let written = sdk(args.sdk.as_deref()).and_then(|sdk| {
        let files = files(args, &sdk)?;
        write(dir, &files).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("`{}` is there already", dir.display()),
            _ => format!("cannot write `{}`: {error}", dir.display()),
        })
    });
    match written {
        Ok(()) => {
            say(format_args!("{} written. Next:", dir.display()));
            say(format_args!("  weir filter test {}", dir.display()));
            OK
        }
        Err(error) => {
            complain(error);
            misused()
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if plain
        && starts
        && !text.ends_with('-')
        && !text.contains("--")
        && text.len() <= NAME_BYTES_MAX
    {
        return Ok(text.to_owned());
    }
    Err("use lower-case letters, digits and single hyphens, a letter first".to_owned())
}

/// The SDK's folder, absolute.
fn sdk(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(given) = given {
        let found = given.canonicalize().ok().filter(|dir| is_sdk(dir));
        return found.ok_or_else(|| format!("`{}` is not the folder of the SDK", given.display()));
    }
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    let above = starts.iter().flatten().flat_map(|start| start.ancestors());
    let found = above
        .map(|folder| folder.join("filters/sdk"))
        .find(|dir| is_sdk(dir));
    found.ok_or_else(|| {
        "the SDK is not found from here upwards: give its folder with --sdk .../filters/sdk"
            .to_owned()
    })
}

fn is_sdk(dir: &Path) -> bool {
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    manifest.contains("name = \"weir-sdk\"")
}

/// Paths below the new folder, and texts.
fn files(args: &NewArgs, sdk: &Path) -> Result<[(&'static str, String); 5], String> {
    let (source, cases) = args.phase.sources();
    let phase = args
        .phase
        .to_possible_value()
        .map(|value| value.get_name().replace('-', "_"))
        .unwrap_or_default();
    let module = args.name.replace('-', "_");
    let named = |text: &str| {
        let text = text
            .replace("my-filter", &args.name)
            .replace("my_filter", &module);
        text.replace("MyFilter", &type_name(&args.name))
    };
    let sdk = sdk.to_str().ok_or("the SDK's path is no text")?;
    let manifest = named(include_str!("../../../templates/filter/Cargo.toml.in"));
    let readme = named(include_str!("../../../templates/filter/README.md.in"));
    Ok([
        // A path may hold what TOML escapes.
        (
            "Cargo.toml",
            manifest.replace("\"SDK_PATH\"", &Value::String(sdk.to_owned()).to_string()),
        ),
        ("src/lib.rs", named(source)),
        ("tests.toml", cases.to_owned()),
        (
            "README.md",
            readme
                .replace("PHASE", &phase)
                .replace("CONFIG", &settings(cases)?),
        ),
        (".gitignore", "target/\n".to_owned()),
    ])
}

/// The grants and the table that the cases give the filter.
fn settings(cases: &str) -> Result<String, String> {
    let file = CaseFile::parse(cases)?;
    let tables = [("grants", file.grants), ("config", file.config)];
    let lines = tables.into_iter().filter(|(_, table)| !table.is_empty());
    let lines = lines.map(|(key, table)| format!("{key} = {}", Value::Table(table)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// `my-filter` as `MyFilter`.
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    };
    name.split('-').map(word).collect()
}

fn write(dir: &Path, files: &[(&'static str, String)]) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::create_dir(dir.join("src"))?;
    files
        .iter()
        .try_for_each(|(path, text)| fs::write(dir.join(path), text))
}

const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for (text, good) in [
            ("spill-over", true),
            ("a1", true),
            ("1a", false),
            ("A", false),
            ("a-", false),
            ("", false),
        ] {
            assert_eq!(name(text).is_ok(), good, "{text}");
        }
        assert_eq!(type_name("spill-over-2"), "SpillOver2");
    }

    #[test]
    fn every_start_is_complete() {
        for phase in Start::value_variants() {
            let args = NewArgs {
                name: "spill-over".to_owned(),
                phase: *phase,
                sdk: None,
            };
            let files = files(&args, Path::new("some/\"sdk\"")).unwrap();
            let [manifest, source, cases, readme, _] = &files;
            assert!(manifest.1.parse::<toml::Table>().is_ok(), "{}", manifest.1);
            assert!(source.1.contains("export!(SpillOver: "), "{}", source.1);
            let word = phase
                .to_possible_value()
                .unwrap()
                .get_name()
                .replace('-', "_");
            for case in CaseFile::parse(&cases.1).unwrap().cases {
                assert_eq!(case.phase.as_str(), word);
            }
            for (path, text) in &files {
                let left = [
                    "my-filter",
                    "my_filter",
                    "MyFilter",
                    "SDK_PATH",
                    "CONFIG\n",
                    "PHASE",
                ];
                assert!(
                    !left.iter().any(|word| text.contains(word)),
                    "{path}: {text}"
                );
            }
            assert!(readme.1.contains("config = {"), "{}", readme.1);
        }
    }
}
