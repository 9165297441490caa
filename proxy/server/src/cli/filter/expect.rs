//! What a case expects of a call, compared with what came of it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use http::HeaderMap;
use serde::Deserialize;

/// What is expected; what is not named may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) outcome: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) message_contains: Option<String>,
    pub(crate) headers: BTreeMap<String, HeaderRow>,
    pub(crate) body_contains: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) pick: Option<u32>,
    pub(crate) address: Option<String>,
    pub(crate) ranked: Option<Vec<u32>>,
    pub(crate) wait_ms: Option<u32>,
    pub(crate) key: Option<String>,
    pub(crate) ttl_ms: Option<u32>,
    pub(crate) strict: Option<bool>,
    pub(crate) subject: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) verdicts: Option<Vec<String>>,
}

/// A header's first value, or whether there is one at all.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum HeaderRow {
    Is(bool),
    Value(String),
}

/// What came of a call, in the words of [`Expect`].
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) outcome: &'static str,
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) pick: Option<u32>,
    pub(crate) address: Option<String>,
    pub(crate) ranked: Option<Vec<u32>>,
    pub(crate) wait_ms: Option<u32>,
    pub(crate) key: Option<String>,
    pub(crate) ttl_ms: Option<u32>,
    pub(crate) strict: Option<bool>,
    pub(crate) subject: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) verdicts: Option<Vec<String>>,
}

impl Expect {
    /// One line for each expectation that is not met.
    pub(crate) fn mismatches(&self, got: &Got) -> Vec<String> {
        let mut lines = Vec::new();
        let outcome = Some(got.outcome.to_owned());
        compare(
            &mut lines,
            "outcome",
            self.outcome.as_ref(),
            outcome.as_ref(),
        );
        compare(
            &mut lines,
            "status",
            self.status.as_ref(),
            got.status.as_ref(),
        );
        compare(&mut lines, "code", self.code.as_ref(), got.code.as_ref());
        compare(&mut lines, "pick", self.pick.as_ref(), got.pick.as_ref());
        compare(
            &mut lines,
            "address",
            self.address.as_ref(),
            got.address.as_ref(),
        );
        compare(
            &mut lines,
            "ranked",
            self.ranked.as_ref(),
            got.ranked.as_ref(),
        );
        compare(
            &mut lines,
            "wait_ms",
            self.wait_ms.as_ref(),
            got.wait_ms.as_ref(),
        );
        compare(&mut lines, "key", self.key.as_ref(), got.key.as_ref());
        compare(
            &mut lines,
            "ttl_ms",
            self.ttl_ms.as_ref(),
            got.ttl_ms.as_ref(),
        );
        compare(
            &mut lines,
            "strict",
            self.strict.as_ref(),
            got.strict.as_ref(),
        );
        compare(
            &mut lines,
            "subject",
            self.subject.as_ref(),
            got.subject.as_ref(),
        );
        compare(
            &mut lines,
            "tenant",
            self.tenant.as_ref(),
            got.tenant.as_ref(),
        );
        compare(&mut lines, "plan", self.plan.as_ref(), got.plan.as_ref());
        compare(
            &mut lines,
            "verdicts",
            self.verdicts.as_ref(),
            got.verdicts.as_ref(),
        );
        for (name, value) in &self.attributes {
            compare(
                &mut lines,
                &format!("attribute {name}"),
                Some(value),
                got.attributes.get(name),
            );
        }
        for (name, expected) in &self.headers {
            header(&mut lines, name, expected, &got.headers);
        }
        let message = got.message.as_deref().unwrap_or_default();
        contains(
            &mut lines,
            "message",
            self.message_contains.as_deref(),
            message,
        );
        contains(
            &mut lines,
            "body",
            self.body_contains.as_deref(),
            &String::from_utf8_lossy(&got.body),
        );
        // A case that is about something else says nothing about a call that failed or was
        // refused; the reason is what one looks for then.
        if !lines.is_empty() && !message.is_empty() && self.message_contains.is_none() {
            lines.push(format!("message: {message}"));
        }
        lines
    }
}

fn compare<T: Debug + PartialEq>(
    lines: &mut Vec<String>,
    what: &str,
    expected: Option<&T>,
    got: Option<&T>,
) {
    let Some(expected) = expected else { return };
    match got {
        Some(got) if got == expected => {}
        Some(got) => lines.push(format!("{what}: expected {expected:?}, got {got:?}")),
        None => lines.push(format!("{what}: expected {expected:?}, got none")),
    }
}

fn header(lines: &mut Vec<String>, name: &str, expected: &HeaderRow, headers: &HeaderMap) {
    let found = headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match expected {
        HeaderRow::Value(value) => compare(
            lines,
            &format!("header {name}"),
            Some(value),
            found.as_ref(),
        ),
        HeaderRow::Is(present) if *present == found.is_some() => {}
        HeaderRow::Is(true) => lines.push(format!("header {name}: expected one, got none")),
        HeaderRow::Is(false) => lines.push(format!("header {name}: expected none, got {found:?}")),
    }
}

fn contains(lines: &mut Vec<String>, what: &str, expected: Option<&str>, got: &str) {
    if let Some(expected) = expected.filter(|part| !got.contains(*part)) {
        lines.push(format!(
            "{what}: expected to contain {expected:?}, got {got:?}"
        ));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn got() -> Got {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", "1".parse().unwrap());
        Got {
            outcome: "respond",
            status: Some(401),
            code: Some("no_key".into()),
            message: Some("no key was sent".into()),
            headers,
            body: b"{\"a\":1}".to_vec(),
            attributes: [("tier".to_owned(), "gold".to_owned())].into(),
            ranked: Some(vec![1, 0]),
            ..Got::default()
        }
    }

    #[test]
    fn only_what_is_named_is_compared() {
        let table = [
            ("", ""),
            ("outcome = 'respond'\nstatus = 401\ncode = 'no_key'", ""),
            (
                "outcome = 'pass'",
                "outcome: expected \"pass\", got \"respond\"",
            ),
            ("status = 403", "status: expected 403, got 401"),
            ("pick = 1", "pick: expected 1, got none"),
            ("ranked = [1, 0]", ""),
            ("ranked = [0, 1]", "ranked: expected [0, 1], got [1, 0]"),
            ("headers = { X-A = '1', x-b = false }", ""),
            (
                "headers = { x-a = '2' }",
                "header x-a: expected \"2\", got \"1\"",
            ),
            (
                "headers = { x-a = false }",
                "header x-a: expected none, got Some(\"1\")",
            ),
            (
                "headers = { x-b = true }",
                "header x-b: expected one, got none",
            ),
            ("attributes = { tier = 'gold' }", ""),
            (
                "attributes = { plan = 'x' }",
                "attribute plan: expected \"x\", got none",
            ),
            ("body_contains = '\"a\"'", ""),
            (
                "body_contains = 'b'",
                "body: expected to contain \"b\", got \"{\\\"a\\\":1}\"",
            ),
            ("message_contains = 'key'", ""),
            (
                "message_contains = 'lock'",
                "message: expected to contain \"lock\", got \"no key was sent\"",
            ),
        ];
        for (text, expected) in table {
            let expect: Expect = toml::from_str(text).unwrap();
            let lines = expect.mismatches(&got());
            assert_eq!(lines.first().map_or("", String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn a_mismatch_comes_with_the_reason() {
        let expect = Expect {
            outcome: Some("pass".into()),
            ..Expect::default()
        };
        assert_eq!(
            expect.mismatches(&got()).last().unwrap(),
            "message: no key was sent"
        );
    }
}
