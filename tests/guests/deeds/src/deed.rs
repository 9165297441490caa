//! The misdeeds themselves.

use std::hint::black_box;

use serde::Deserialize;
use weir_sdk::host::{self, Level};
use weir_sdk::{Edits, LocalResponse, Outcome};

/// What a request can ask a hostile filter to do.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Nothing.
    #[default]
    Ok,
    /// Never comes back.
    Loop,
    /// Wants 256 MiB.
    Grow,
    /// Executes `unreachable`.
    Trap,
    /// The same, unless the instance is new.
    TrapUnlessFresh,
    /// Calls itself for ever.
    Recurse,
    /// Panics with a text.
    Panic,
    /// Edits what it has no grant for, beside something that would be fine.
    ForbiddenEdit,
    /// More edits than it may return.
    ManyEdits,
    /// An attribute of 1 MiB.
    HugeAttribute,
    /// Writes thousands of lines into the log.
    LogFlood,
    /// Refuses the request, as it may.
    Respond,
    /// Answers with a status that there is not.
    BadStatus,
    /// Picks a candidate that there is not.
    BadPick,
    /// Gives more verdicts than there are events.
    ManyVerdicts,
}

impl Deed {
    /// By the name in configs and headers.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter()
            .find_map(|(known, deed)| (known == name).then_some(deed))
    }

    /// Does what can be done in any phase. Most of it does not come back.
    pub fn commit(self, used: bool) {
        match self {
            Self::Loop => loop {
                black_box(());
            },
            Self::Grow => grow(),
            Self::Trap => std::process::abort(),
            Self::TrapUnlessFresh if used => std::process::abort(),
            Self::Recurse => drop(black_box(recurse(black_box(1)))),
            Self::Panic => panic!("a hostile panic"),
            Self::LogFlood => flood(),
            _ => {}
        }
    }

    /// What is left to do for phases that return an outcome.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::ForbiddenEdit => Edits::new()
                .attribute("fine", "1")
                .set_header("x-forbidden", "1")
                .into(),
            Self::ManyEdits => {
                let edits = Edits::new();
                (0..1_000)
                    .fold(edits, |edits, nth| edits.attribute(&format!("a{nth}"), "1"))
                    .into()
            }
            Self::HugeAttribute => Edits::new().attribute("huge", "x".repeat(1 << 20)).into(),
            Self::Respond => refusal(418).into(),
            Self::BadStatus => refusal(42).into(),
            _ => Outcome::Pass,
        }
    }
}

/// An answer of the filter's own.
pub(crate) fn refusal(status: u16) -> LocalResponse {
    LocalResponse::error(status, "teapot_error", "teapot", "the filter refuses")
}

fn grow() {
    let mut memory: Vec<u8> = Vec::new();
    memory.reserve_exact(256 << 20);
    memory.resize(256 << 20, 1);
    black_box(memory);
}

fn recurse(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    // Never 0, but the compiler cannot know.
    let deeper = if depth == 0 { 0 } else { recurse(depth + 1) };
    deeper + here.iter().sum::<u64>()
}

fn flood() {
    let text = "flood ".repeat(20);
    for line in 0..2_000 {
        host::log(Level::Warn, &format!("{line} {text}"));
    }
}

const ALL: [(&str, Deed); 15] = [
    ("ok", Deed::Ok),
    ("loop", Deed::Loop),
    ("grow", Deed::Grow),
    ("trap", Deed::Trap),
    ("trap-unless-fresh", Deed::TrapUnlessFresh),
    ("recurse", Deed::Recurse),
    ("panic", Deed::Panic),
    ("forbidden-edit", Deed::ForbiddenEdit),
    ("many-edits", Deed::ManyEdits),
    ("huge-attribute", Deed::HugeAttribute),
    ("log-flood", Deed::LogFlood),
    ("respond", Deed::Respond),
    ("bad-status", Deed::BadStatus),
    ("bad-pick", Deed::BadPick),
    ("many-verdicts", Deed::ManyVerdicts),
];
