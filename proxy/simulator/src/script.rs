//! An answer before it is sent: the facts all APIs tell, and the events of a stream made from them.

use bytes::Bytes;

use crate::tool::Tool;
use crate::words::word;

/// The facts of an answer, told by each API in its own JSON.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) roll: u64,
    /// The model asked for, as a JSON string with its quotes.
    pub(crate) model_json: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) tokens: u32,
    /// The caller's limit ended the answer.
    pub(crate) truncated: bool,
    /// Called in the place of saying something.
    pub(crate) tool: Option<Tool>,
    pub(crate) usage: Option<PromptUsage>,
    /// The caller of Chat Completions asked for a usage chunk.
    pub(crate) include_usage: bool,
    /// Tokens after which a stream ends in an error event.
    pub(crate) error_event: Option<u32>,
}

/// Prompt tokens, and how many of them were in the prefix cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptUsage {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
}

impl Reply {
    /// Tokens of a stream: fewer than of the whole answer when it fails on the way.
    pub(crate) fn streamed_tokens(&self) -> u32 {
        self.error_event
            .map_or(self.tokens, |after| after.min(self.tokens))
    }
}

/// The events of a stream, made one by one: an answer of any length takes no memory.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) roll: u64,
    pub(crate) opening: Vec<String>,
    pub(crate) tokens: u32,
    pub(crate) delta: Delta,
    pub(crate) closing: Vec<String>,
}

/// The event of one token: `before`, the word, `after`; with `sequence`, then a number which
/// counts up from it, and `end`.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) sequence: Option<u64>,
    pub(crate) end: &'static str,
}

impl Script {
    pub(crate) fn events(&self) -> u64 {
        self.opening.len() as u64 + u64::from(self.tokens) + self.closing.len() as u64
    }

    /// The token that event number `index` carries.
    pub(crate) fn token(&self, index: u64) -> Option<u32> {
        let token = index.checked_sub(self.opening.len() as u64)?;
        u32::try_from(token)
            .ok()
            .filter(|token| *token < self.tokens)
    }

    /// Event number `index` in wire form, `None` after the last.
    pub(crate) fn event(&self, index: u64) -> Option<Bytes> {
        if let Some(token) = self.token(index) {
            return Some(self.delta.event(self.roll, token));
        }
        let position = usize::try_from(index).ok()?;
        let fixed = match position.checked_sub(self.opening.len()) {
            None => self.opening.get(position),
            Some(rest) => self.closing.get(rest.checked_sub(self.tokens as usize)?),
        };
        fixed.map(|event| Bytes::copy_from_slice(event.as_bytes()))
    }
}

impl Delta {
    fn event(&self, roll: u64, token: u32) -> Bytes {
        let mut event = String::with_capacity(self.before.len() + self.after.len() + DELTA_EXTRA);
        event.push_str(&self.before);
        event.push_str(word(roll, token));
        event.push_str(&self.after);
        if let Some(first) = self.sequence {
            event.push_str(&(first + u64::from(token)).to_string());
            event.push_str(self.end);
        }
        Bytes::from(event)
    }
}

/// Room for a word, a number and the end of an event.
const DELTA_EXTRA: usize = 32;
