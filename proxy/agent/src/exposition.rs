//! The Prometheus text format, as far as figures of an engine need it: name, labels, value.

/// One sample of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: Vec<(&'a str, String)>,
    pub(crate) value: f64,
}

impl Sample<'_> {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| *label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The samples of `text`; lines that are none are passed over.
pub(crate) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().take(LINES_MAX).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // A time stamp may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some(Sample {
        name,
        labels,
        value,
    })
}

type Labels<'a> = Vec<(&'a str, String)>;

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start().strip_prefix('"')?;
        let (value, after) = quoted(after)?;
        labels.push((name.trim(), value));
        rest = after;
    }
}

/// The text up to the closing quote, unescaped, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// Lines looked at; an engine has some hundreds.
const LINES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_samples_or_passed_over() {
        let text = concat!(
            "# HELP a help\n",
            "# TYPE a gauge\n",
            "a 1\n",
            "b{} 2.5 1700000000000\n",
            "c{x=\"1\",y=\"a\\\"b\\\\c\\nd, {}\"} 1e3\n",
            "d { z = \"q\" , } NaN\n",
            "broken{x=\"1\n",
            "none\n",
            "\n",
        );
        let found: Vec<_> = samples(text).collect();
        let names: Vec<_> = found.iter().map(|sample| sample.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(found[1].value, 2.5);
        assert_eq!(found[2].value, 1000.0);
        assert_eq!(found[2].label("x"), Some("1"));
        assert_eq!(found[2].label("y"), Some("a\"b\\c\nd, {}"));
        assert_eq!(found[2].label("z"), None);
    }
}
