//! What a request's body must say otherwise to the upstream, besides the model's name.

use std::ops::Range;

use crate::Api;
use crate::edit::{append_member, member_cuts, set_member};
use crate::members::is_extra_headers;
use crate::peek::Peek;

impl Peek {
    /// The changes that the upstream's body needs: a streamed chat completion asks for usage, and
    /// a `service_tier` nobody knows becomes `auto`; responses stream when `force_stream` says so;
    /// messages lose members that carry headers.
    ///
    /// `body` is the body peeked at, `self` what [`crate::peek`] said of it for `api`. Give them to
    /// [`crate::splice`], together with the change of the model: they touch neither it nor each
    /// other.
    #[must_use]
    pub fn upstream_edits(
        &self,
        api: Api,
        body: &[u8],
        force_stream: bool,
    ) -> Vec<(Range<usize>, Vec<u8>)> {
        match api {
            Api::ChatCompletions => {
                let tier = self.spans.unknown_tier.clone();
                let tier = tier.map(|span| (span, b"\"auto\"".to_vec()));
                self.usage_edit(body).into_iter().chain(tier).collect()
            }
            Api::Responses if force_stream && !self.stream => {
                let stream = set_top(body, self.spans.stream.as_ref(), "stream", b"true");
                stream.into_iter().collect()
            }
            Api::Messages if self.spans.has_extra_headers => {
                let cuts = member_cuts(body, &whole(body), is_extra_headers);
                cuts.into_iter().map(|cut| (cut, Vec::new())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// `None` when usage is asked for already, or there is no stream.
    fn usage_edit(&self, body: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
        if !self.stream || self.include_usage == Some(true) {
            return None;
        }
        let given = self.spans.stream_options.as_ref();
        let inside = given.and_then(|span| {
            let (range, text) = set_member(body.get(span.clone())?, "include_usage", b"true")?;
            Some((range.start + span.start..range.end + span.start, text))
        });
        let asking = br#"{"include_usage":true}"#;
        inside.or_else(|| set_top(body, given, "stream_options", asking))
    }
}

/// Replaces the value of a top-level member, or adds the member when it is not there.
fn set_top(
    body: &[u8],
    given: Option<&Range<usize>>,
    name: &str,
    value: &[u8],
) -> Option<(Range<usize>, Vec<u8>)> {
    match given {
        Some(span) => Some((span.clone(), value.to_vec())),
        None => append_member(body, &whole(body), name, value),
    }
}

/// The object that is the body, without the white space around it.
fn whole(body: &[u8]) -> Range<usize> {
    let start = body.iter().position(|byte| !byte.is_ascii_whitespace());
    let end = body.iter().rposition(|byte| !byte.is_ascii_whitespace());
    start.unwrap_or_default()..end.map_or(0, |last| last + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[path = "upstream_tests.rs"]
mod tests;
