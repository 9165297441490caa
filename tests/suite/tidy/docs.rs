//! What the documentation owes: examples that are whole, codes that are explained, links that lead
//! somewhere.

use crate::repository::{File, file};

pub(crate) fn examples(paths: &[&str]) -> Vec<String> {
    let mut folders: Vec<&str> = paths
        .iter()
        .filter_map(|path| path.strip_prefix("examples/")?.split_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    folders.dedup();
    let missing = |folder: &str, file: &str| {
        let path = format!("examples/{folder}/{file}");
        (!paths.contains(&path.as_str())).then(|| format!("{path} is missing"))
    };
    let wanted = folders.iter().flat_map(|folder| {
        ["README.md", "config.toml"]
            .into_iter()
            .filter_map(|file| missing(folder, file))
    });
    wanted.collect()
}

/// Codes are the snake-case string literals of the files that refuse.
pub(crate) fn unexplained(file: &File, docs: &str) -> Vec<String> {
    let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let literals = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_code = |text: &&str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        text.contains('_') && text.bytes().all(plain)
    };
    let missing = literals
        .filter(is_code)
        .filter(|code| !docs.contains(&format!("`{code}`")));
    missing
        .map(|code| format!("{}: `{code}` is not in docs/errors.md", file.path))
        .collect()
}

pub(crate) fn dead_links(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let targets = file
        .text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let local = targets.map(|target| target.split('#').next().unwrap_or_default());
    let local = local.filter(|target| !target.is_empty() && !target.contains(':'));
    let path = |target: &str| match folder {
        "" => target.to_owned(),
        folder => format!("{folder}/{target}"),
    };
    let dead = local.filter(|target| !exists(&path(target)));
    dead.map(|target| format!("{}: the link `{target}` leads nowhere", file.path))
        .collect()
}

#[test]
fn gaps_in_the_docs_are_complained_about() {
    let bare = [
        "examples/a/README.md",
        "examples/b/README.md",
        "examples/b/config.toml",
    ];
    assert_eq!(examples(&bare), ["examples/a/config.toml is missing"]);

    let refuse = "// \"not_this\"\nf(\"too_big\", \"a text\", \"Other_Case\");\n#[cfg(test)]\n\"not_that\"\n";
    let refuse = file("proxy/server/src/refuse.rs", refuse);
    assert_eq!(
        unexplained(&refuse, "`too_big`: the body"),
        Vec::<String>::new()
    );
    assert_eq!(unexplained(&refuse, "too_bigger").len(), 1);

    let docs = file(
        "docs/a.md",
        "[b](b.md#c) [d](../d.md) [e](https://e.example) [f](#f)",
    );
    assert_eq!(
        dead_links(&docs, |path| path == "docs/b.md" || path == "docs/../d.md"),
        Vec::<String>::new()
    );
    assert_eq!(dead_links(&docs, |_| false).len(), 2);
    assert_eq!(
        dead_links(&file("README.md", "[a](docs/a.md)"), |path| path
            == "docs/a.md")
        .len(),
        0
    );
}
