//! docs/filters.md is followed to the letter: its files are written, its steps run as they stand
//! there but for the ports, and the filter it makes decides requests. Every table of the
//! documentation is one the gateway takes.
//!
//! What a block of the guide is for is said in a comment before it, see [`Deed`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::caller;
use weir_tests::gateway::{self, free_address, wait_until};
use weir_tests::guests::target_folder;
use weir_tests::process::Process;

/// What a reader does with a block of code.
#[derive(Debug, PartialEq)]
enum Deed {
    /// `<!-- step -->`: runs it.
    Run,
    /// `<!-- step, until it prints TEXT -->`: runs it when the gateway has had a second.
    RunUntil(String),
    /// `<!-- gateway -->`: runs it and leaves it running.
    Gateway,
    /// `<!-- file: PATH -->`: saves it.
    File(String),
    /// `<!-- tables: PATH -->`: puts its tables into a file, in the place of those so named.
    Tables(String),
    /// `<!-- in: PATH -->`: finds it there.
    In(String),
    /// `<!-- cases -->`: a table of cases.
    Cases,
    /// Nothing is said: looks at it.
    Look,
}

struct Block {
    deed: Deed,
    language: String,
    text: String,
}

impl Deed {
    fn of(line: &str) -> Self {
        let comment = line
            .strip_prefix("<!-- ")
            .and_then(|l| l.strip_suffix(" -->"));
        let Some(comment) = comment else {
            return Self::Look;
        };
        let (word, rest) = comment.split_once(": ").unwrap_or((comment, ""));
        match (word, rest) {
            ("step", "") => Self::Run,
            ("gateway", "") => Self::Gateway,
            ("cases", "") => Self::Cases,
            ("file", path) => Self::File(path.to_owned()),
            ("tables", path) => Self::Tables(path.to_owned()),
            ("in", path) => Self::In(path.to_owned()),
            (word, "") if word.starts_with(UNTIL) => Self::RunUntil(word[UNTIL.len()..].to_owned()),
            _ => panic!("nobody knows what to do with {line}"),
        }
    }
}

/// The fenced blocks of a page, in order.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```");
            blocks.push(Block {
                deed: Deed::of(before),
                language: language.to_owned(),
                text: text.map(|line| format!("{line}\n")).collect(),
            });
        }
        before = line;
    }
    blocks
}

/// A configuration with the tables of `fragment`, each in the place of the one of the same name.
fn with_tables(config: &str, fragment: &str) -> String {
    let mut tables = tables(config);
    for table in self::tables(fragment) {
        let name = table.lines().next().unwrap();
        match tables
            .iter_mut()
            .find(|known| known.lines().next() == Some(name))
        {
            Some(known) if !name.starts_with("[[") => *known = table,
            _ => tables.push(table),
        }
    }
    tables.concat()
}

fn tables(text: &str) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') || tables.is_empty() {
            tables.push(String::new());
        }
        tables.last_mut().unwrap().push_str(&format!("{line}\n"));
    }
    tables
}

/// The folder the reader works in, and the gateway that runs there.
struct Reader {
    folder: TempDir,
    /// What the guide calls a port, and what is free.
    ports: Vec<(&'static str, SocketAddr)>,
    gateway: Option<Process>,
}

impl Reader {
    fn new() -> Self {
        let ports = PORTS.map(|port| (port, free_address()));
        Self {
            folder: TempDir::new().unwrap(),
            ports: ports.to_vec(),
            gateway: None,
        }
    }

    fn address(&self, port: &str) -> SocketAddr {
        let found = self.ports.iter().find(|(known, _)| *known == port);
        found.unwrap().1
    }

    fn with_free_ports(&self, text: &str) -> String {
        // In two turns: a free one may be one of the guide's.
        let places = (0..).zip(&self.ports);
        let text = places
            .clone()
            .fold(text.to_owned(), |text, (place, (port, _))| {
                text.replace(port, &format!("{{port {place}}}"))
            });
        places.fold(text, |text, (place, (_, free))| {
            text.replace(&format!("{{port {place}}}"), &free.to_string())
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shell(&self, script: &str) -> Command {
        let weir = gateway::binary();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.folder.path())
            .env(
                "PATH",
                format!("{}:{path}", weir.parent().unwrap().display()),
            )
            .env("WEIR", repository())
            .env("XDG_CACHE_HOME", target_folder().join("test-cache"))
            // The guide's crate builds into its own folder.
            .env_remove("CARGO_TARGET_DIR");
        command
    }

    fn run(&self, script: &str) -> Output {
        self.shell(&self.with_free_ports(script)).output().unwrap()
    }

    fn log(&self) -> String {
        self.gateway.as_ref().map_or_else(String::new, Process::log)
    }

    async fn does(&mut self, block: &Block) {
        let text = self.with_free_ports(&block.text);
        match &block.deed {
            Deed::Run => {
                let output = self.run(&block.text);
                assert!(
                    output.status.success(),
                    "{text}\n{output:?}\n{}",
                    self.log()
                );
                self.share_target();
            }
            Deed::RunUntil(expected) => {
                wait_until(expected, async || {
                    let output = self.run(&block.text);
                    String::from_utf8_lossy(&output.stdout).contains(expected)
                })
                .await;
            }
            Deed::Gateway => self.start(&text).await,
            Deed::File(path) => fs::write(self.path(path), text).unwrap(),
            Deed::Tables(path) => {
                let before = self.config_number().await;
                let config = fs::read_to_string(self.path(path)).unwrap();
                fs::write(self.path(path), with_tables(&config, &text)).unwrap();
                wait_until("the change to be live", async || {
                    self.config_number().await > before
                })
                .await;
            }
            Deed::In(path) => {
                let file = fs::read_to_string(self.path(path)).unwrap();
                assert!(file.contains(&text), "{path} is:\n{file}");
            }
            Deed::Cases | Deed::Look => {}
        }
    }

    async fn start(&mut self, script: &str) {
        let command = &mut self.shell(&format!("exec {script}"));
        let mut process = Process::spawn(command).unwrap();
        let ready = process.wait_until_answers(self.address(ADMIN), "/readyz", START_DEADLINE);
        ready.await.unwrap();
        self.gateway = Some(process);
    }

    /// A new crate builds into the tests' target folder, where its dependencies are built already.
    fn share_target(&self) {
        let target = self.path("my-route/target");
        if self.path("my-route").is_dir() && !target.exists() {
            let shared = target_folder().join("guests");
            fs::create_dir_all(&shared).unwrap();
            std::os::unix::fs::symlink(shared, target).unwrap();
        }
    }

    async fn admin(&self, path: &str) -> Value {
        caller::send(self.address(ADMIN), caller::get(path))
            .await
            .json()
    }

    async fn config_number(&self) -> u64 {
        self.admin("/config").await["number"].as_u64().unwrap()
    }

    /// Calls of the phase `route` of a filter.
    async fn route_calls(&self, filter: &str) -> u64 {
        let filters = self.admin("/filters").await;
        let calls = &filters[filter]["stats"]["phases"]["route"]["calls"];
        calls.as_u64().unwrap_or(0)
    }

    /// Requests answered by each backend, in the order of the guide.
    async fn answered(&self) -> [u64; 2] {
        let clusters = self.admin("/clusters").await;
        let backends = clusters["sim"]["backends"].as_array().unwrap();
        [FIRST, SECOND].map(|port| {
            let address = self.address(port).to_string();
            let backend = backends
                .iter()
                .find(|backend| backend["address"] == address.as_str());
            backend.unwrap()["successes"].as_u64().unwrap()
        })
    }

    /// Waits until the backends have answered so many; answers are counted when they have ended.
    async fn sees(&self, expected: [u64; 2]) {
        let mut answered = [0; 2];
        let end = Instant::now() + gateway::DEADLINE;
        while answered != expected {
            assert!(
                Instant::now() < end,
                "expected {expected:?}, got {answered:?}\n{}",
                self.log()
            );
            answered = self.answered().await;
        }
    }

    async fn ask(&self, tier: Option<&str>) {
        let chat = caller::with_header(caller::chat(""), "x-tier", tier);
        let answer = caller::send(self.address(CALLERS), chat).await;
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), self.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_leads_to_a_filter_that_decides() {
    let mut reader = Reader::new();
    let blocks = blocks(&page("docs/filters.md"));
    let deeds = blocks.iter().filter(|block| block.deed != Deed::Look);
    assert!(deeds.count() > 15, "the guide has lost its steps");
    for block in &blocks {
        reader.does(block).await;
    }
    // Turns, twice the first, one each.
    reader.sees([4, 2]).await;
    assert_eq!(
        reader.route_calls("my-route").await,
        2,
        "since its last build"
    );

    let others = reader.route_calls("routing-method").await;
    for _ in 0..REQUESTS {
        reader.ask(None).await;
        reader.ask(Some("batch")).await;
    }
    assert_eq!(reader.route_calls("my-route").await, 2 + 2 * REQUESTS);
    reader.sees([4 + REQUESTS, 2 + REQUESTS]).await;
    for _ in 0..REQUESTS {
        reader.ask(None).await;
    }
    reader.sees([4 + 2 * REQUESTS, 2 + REQUESTS]).await;
    assert_eq!(reader.route_calls("routing-method").await, others);
}

#[test]
fn tables_in_the_documentation_are_good() {
    let reader = Reader::new();
    let all = blocks(&page("docs/filters.md"));
    let is_base = |block: &&Block| block.deed == Deed::File("weir.toml".to_owned());
    let base = all.iter().find(is_base).unwrap().text.clone();
    let mut checked = 0;
    for path in pages() {
        let blocks = blocks(&page(&path));
        let blocks = blocks.iter().filter(|block| block.language == "toml");
        for block in blocks {
            checked += 1;
            if block.text.contains("[[case]]") {
                fs::write(reader.path("cases.toml"), &block.text).unwrap();
                let output =
                    reader.run("weir filter test builtin:routing-method --cases cases.toml");
                let said = String::from_utf8_lossy(&output.stderr);
                assert_ne!(
                    output.status.code(),
                    Some(2),
                    "{path}: {}\n{said}",
                    block.text
                );
                continue;
            }
            let config = if block.text.contains("[[listeners]]") {
                block.text.clone()
            } else {
                with_tables(&base, &block.text)
            };
            fs::write(reader.path("weir.toml"), &config).unwrap();
            let output = reader.run("weir check --config weir.toml");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            // A module that nobody has built and a host made up for the page are all that may be
            // wrong.
            let may_be = |text: &str| text.contains(".wasm") || text.contains("does not resolve");
            let errors = said.lines().filter(|line| line.starts_with("weir.toml:"));
            let wrong: Vec<_> = errors.filter(|line| !may_be(line)).collect();
            let known = output.status.success() || may_be(&said);
            assert!(wrong.is_empty() && known, "{path}:\n{config}\n{said}");
        }
    }
    assert!(checked >= 10, "only {checked} tables found");
}

#[test]
fn blocks_and_tables_are_found() {
    let page =
        "a\n<!-- step -->\n```sh\nx\ny\n```\n<!-- file: b -->\n```toml\nz\n```\n```text\n```\n";
    let found = blocks(page);
    let found: Vec<_> = found
        .iter()
        .map(|block| (&block.deed, &*block.text))
        .collect();
    let file = Deed::File("b".to_owned());
    assert_eq!(
        found,
        [(&Deed::Run, "x\ny\n"), (&file, "z\n"), (&Deed::Look, "")]
    );
    let until = Deed::of("<!-- step, until it prints x-tier -->");
    assert_eq!(until, Deed::RunUntil("x-tier".to_owned()));
    assert_eq!(
        with_tables("[a]\nx = 1\n[b]\n", "[c]\n[a]\nx = 2\n"),
        "[a]\nx = 2\n[b]\n[c]\n"
    );
}

/// The pages of the documentation, relative to the repository.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/decisions"] {
        for entry in fs::read_dir(repository().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    for entry in fs::read_dir(repository().join("filters")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let readme = format!("filters/{name}/README.md");
        if repository().join(&readme).exists() {
            pages.push(readme);
        }
    }
    pages
}

fn page(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

fn repository() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    above.canonicalize().unwrap()
}

const UNTIL: &str = "step, until it prints ";
const CALLERS: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";
const FIRST: &str = "127.0.0.1:18081";
const SECOND: &str = "127.0.0.1:18082";
const PORTS: [&str; 4] = [CALLERS, ADMIN, FIRST, SECOND];
/// Of each kind, in turn.
const REQUESTS: u64 = 5;
/// Filters may have to be compiled first, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
