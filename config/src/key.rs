//! Dotted keys: how a place in the file is named, and finding it again.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The dotted key of `name` below `parent`. Names which are not bare TOML keys are quoted.
pub(crate) fn join(parent: &str, name: &str) -> String {
    let name = segment(name);
    if parent.is_empty() {
        name
    } else {
        format!("{parent}.{name}")
    }
}

/// One name as it is written in a dotted key.
pub(crate) fn segment(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

/// The names of a dotted key, in order; `a[0]` and `a.0` both give `a`, `0`.
fn names(key: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut chars = key.chars();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => name.extend(chars.next()),
            '.' | '[' | ']' if !quoted => {
                if !name.is_empty() {
                    names.push(std::mem::take(&mut name));
                }
            }
            c => name.push(c),
        }
    }
    if !name.is_empty() {
        names.push(name);
    }
    names
}

/// The dotted key a JSON pointer (RFC 6901) below `parent` stands for.
pub(crate) fn below(parent: &str, pointer: &str) -> String {
    pointer
        .split('/')
        .skip(1)
        .fold(parent.to_owned(), |key, part| {
            join(&key, &part.replace("~1", "/").replace("~0", "~"))
        })
}

/// The byte at which the value of `key` starts, or of its deepest ancestor that the file has;
/// `None` when the file has not even the first name.
pub(crate) fn offset(root: &DeTable<'_>, key: &str) -> Option<usize> {
    let names = names(key);
    let mut names = names.iter();
    let mut value: &Spanned<DeValue<'_>> = root.get(names.next()?.as_str())?;
    for name in names {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(name.as_str()),
            DeValue::Array(array) => name.parse().ok().and_then(|index: usize| array.get(index)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span().start)
}

/// Line and column, both from 1, of a byte of `text`. The column counts characters.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Line and column, both from 1, of the value of a dotted key in a configuration text, so that
/// an error found elsewhere (by a filter's own validation, say) can be placed in the file.
///
/// A key the text has not gives the place of its deepest ancestor that it has; `None` means that
/// not even the first name is there. Names with a dot are quoted: `a."b.c"`; elements of arrays
/// are `a[0]` or `a.0`.
#[must_use]
pub fn locate(text: &str, key: &str) -> Option<(usize, usize)> {
    let (root, _) = DeTable::parse_recoverable(text);
    offset(root.get_ref(), key).map(|at| line_and_column(text, at))
}

/// The error a filter's own validation reports for its `config` table, placed in the file.
/// `pointer` is the JSON pointer below `filters.NAME.config` the filter named.
#[must_use]
pub fn filter_error(
    text: &str,
    file: &str,
    filter: &str,
    pointer: &str,
    message: String,
) -> crate::ConfigError {
    let filter_key = join("filters", filter);
    let key = below(&join(&filter_key, "config"), pointer);
    let (line, column) = locate(text, &key).unwrap_or((1, 1));
    crate::ConfigError {
        file: file.to_owned(),
        line,
        column,
        key,
        message,
        remedy: format!("change it; the documentation of the filter `{filter}` lists its keys"),
    }
}

/// The name among `known` most like `name`, if one is alike at all.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = name.chars().count().div_ceil(3);
    let alike = known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate));
    alike
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many characters must be put in, left out or replaced to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((to, above_left), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            next.push(
                (above_left + usize::from(from != *to))
                    .min(above + 1)
                    .min(left + 1),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locates_values_tables_and_ancestors() {
        let text = "[filters.a.config]\nx = { y = 1 }\n'd.e' = 2\n[[l]]\nn = 1\n[[l]]\n  ü.n = 2\n";
        for (key, expected) in [
            ("filters.a.config", Some((1, 1))),
            ("filters.a.config.x.y", Some((2, 11))),
            ("filters.a.config.x.z", Some((2, 5))),
            ("filters.a.config.\"d.e\"", Some((3, 9))),
            ("l[1]", Some((6, 1))),
            ("l.1.ü.n", Some((7, 9))),
            ("l[7]", Some((4, 1))),
            ("nothing", None),
        ] {
            assert_eq!(locate(text, key), expected, "{key}");
        }
    }

    #[test]
    fn places_an_error_of_a_filter() {
        let text = "[filters.a]\nconfig = { \"b/c\" = [1, 2] }";
        let error = filter_error(text, "f", "a", "/b~1c/1", "too big".into());
        let expected = "f:2:24: filters.a.config.\"b/c\".1: too big; change it; \
            the documentation of the filter `a` lists its keys";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn suggests_only_what_is_alike() {
        let known = ["cluster", "pipeline", "path_prefix"];
        for (name, expected) in [
            ("clustr", Some("cluster")),
            ("pipelines", Some("pipeline")),
            ("path-prefix", Some("path_prefix")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }
}
