//! What every Rust file, and every file at all, must be like.

use crate::repository::{File, complain, file};

pub(crate) type Check = fn(&File) -> Vec<String>;

pub(crate) fn first_line(file: &File) -> Vec<String> {
    let said = file.text.lines().next().is_some_and(|line| {
        line.strip_prefix("//! ")
            .is_some_and(|said| said.trim().len() >= FIRST_LINE_BYTES_MIN)
    });
    complain(
        !said,
        file,
        "the first line does not say what the file is (`//! ...`)",
    )
}

pub(crate) fn length(file: &File) -> Vec<String> {
    let is_test = file.path.contains("/tests/") || file.path.ends_with("_tests.rs");
    let lines = file.text.lines().count();
    let message = format!("{lines} lines, at most {LINES_MAX}");
    complain(!is_test && lines > LINES_MAX, file, &message)
}

pub(crate) fn root_declares(file: &File) -> Vec<String> {
    let is_root = file.path.ends_with("/lib.rs") || file.path.ends_with("/mod.rs");
    // An example or a guest of a bench is read as one page, and `tests/NAME/mod.rs` is how Cargo
    // wants a file that is no test of its own; everything else has a place for its definitions.
    let is_page = ["/benches/", "/tests/"]
        .iter()
        .any(|part| file.path.contains(part));
    if !is_root || is_page || file.path.starts_with("examples/") {
        return Vec::new();
    }
    let defines = file
        .text
        .lines()
        .filter(|line| defined_kind(line).is_some());
    defines
        .map(|line| format!("{}: a module root defines `{line}`", file.path))
        .collect()
}

/// What an unindented line begins to define.
fn defined_kind(line: &str) -> Option<&str> {
    const KINDS: [&str; 9] = [
        "fn", "struct", "enum", "trait", "type", "union", "impl", "static", "const",
    ];
    if line.starts_with(char::is_whitespace) {
        return None;
    }
    let mut words = line
        .split(|c: char| c.is_whitespace() || c == '<')
        .skip_while(|word| {
            word.starts_with("pub") || matches!(*word, "async" | "unsafe" | "extern" | "\"C\"")
        });
    words.next().filter(|word| KINDS.contains(word))
}

pub(crate) fn file_name(file: &File) -> Vec<String> {
    const FORBIDDEN: [&str; 9] = [
        "util", "utils", "helper", "helpers", "common", "misc", "shared", "manager", "base",
    ];
    let mut parts = file.path.trim_end_matches(".rs").split('/');
    let bad = parts.any(|part| FORBIDDEN.contains(&part));
    complain(
        bad,
        file,
        "named for being shared: name it for what it does",
    )
}

pub(crate) fn open_ends(file: &File) -> Vec<String> {
    const MARKS: [&str; 4] = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    let open = |line: &&str| {
        MARKS.iter().any(|mark| {
            line.match_indices(mark).any(|(at, _)| {
                let rest = line.get(at + mark.len()..).unwrap_or_default();
                !rest.starts_with("(#")
            })
        })
    };
    let lines = file.text.lines().filter(open);
    lines
        .map(|line| format!("{}: an open end without issue: {}", file.path, line.trim()))
        .collect()
}

pub(crate) fn no_async_in_pure_crates(file: &File) -> Vec<String> {
    const PURE: [&str; 3] = ["config/src/", "proxy/dialect/src/", "proxy/routing/src/"];
    const MARKS: [&str; 5] = ["async fn", "async move", "async {", ".await;", ".await?"];
    if !PURE.iter().any(|folder| file.path.starts_with(folder)) {
        return Vec::new();
    }
    let code = file
        .text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let asynchronous = code.filter(|code| MARKS.iter().any(|mark| code.contains(mark)));
    asynchronous
        .map(|code| format!("{}: async in a pure crate: {}", file.path, code.trim()))
        .collect()
}

pub(crate) fn machine_path(file: &File) -> Vec<String> {
    const PLACES: [&str; 5] = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/tm", "p/"),
        concat!("/fa", "rm/"),
    ];
    let begins_path = |line: &str, at: usize| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "_.-}*)".contains(c))
    };
    let names_one = |line: &&str| {
        PLACES.iter().any(|place| {
            line.match_indices(place)
                .any(|(at, _)| begins_path(line, at))
        })
    };
    let lines = file.text.lines().filter(names_one);
    lines
        .map(|line| format!("{}: a path of one machine: {}", file.path, line.trim()))
        .collect()
}

const LINES_MAX: usize = 600;
const FIRST_LINE_BYTES_MIN: usize = 6;

#[test]
fn bad_rust_is_complained_about() {
    let long = "//! a file that is long\n".repeat(LINES_MAX + 1);
    let mark = concat!("// TO", "DO later");
    let issue = concat!("// TO", "DO(#12): later");
    let table: [(Check, &str, &str, usize); 19] = [
        (first_line, "a.rs", "use std::io;\n", 1),
        (first_line, "a.rs", "//! x\n", 1),
        (first_line, "a.rs", "//! What this file is.\n", 0),
        (length, "proxy/a/src/b.rs", &long, 1),
        (length, "proxy/a/src/b_tests.rs", &long, 0),
        (
            root_declares,
            "proxy/a/src/lib.rs",
            "//! x\npub mod a;\npub(crate) async fn f() {}\n",
            1,
        ),
        (
            root_declares,
            "proxy/a/src/b/mod.rs",
            "struct A;\nimpl<T> B for A {}\n",
            2,
        ),
        (
            root_declares,
            "proxy/a/src/lib.rs",
            "mod a;\npub use a::B;\npub mod c {\n    fn f() {}\n}\n",
            0,
        ),
        (root_declares, "proxy/a/src/b.rs", "struct A;\n", 0),
        (file_name, "proxy/a/src/utils.rs", "", 1),
        (file_name, "proxy/helper/src/a.rs", "", 1),
        (file_name, "proxy/a/src/utility_of_a_choice.rs", "", 0),
        (open_ends, "a.rs", mark, 1),
        (open_ends, "a.rs", concat!("    to", "do!()"), 1),
        (open_ends, "a.rs", issue, 0),
        (
            no_async_in_pure_crates,
            "config/src/a.rs",
            "x.await;\npub async fn f() {}\ny.await_it();\n",
            2,
        ),
        (
            no_async_in_pure_crates,
            "proxy/host/src/a.rs",
            "x.await;\n",
            0,
        ),
        (
            machine_path,
            "a.md",
            concat!("see /ro", "ot/x and ../shared\n"),
            1,
        ),
        (machine_path, "a.md", concat!("frame/wo", "rk/x\n"), 0),
    ];
    for (check, path, text, expected) in table {
        let complaints = check(&file(path, text));
        assert_eq!(
            complaints.len(),
            expected,
            "{path}: {text:.80}: {complaints:?}"
        );
    }
}
