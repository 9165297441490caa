//! Where a caller stands with a budget: what limiters leave in the ledger for the answer's headers.

use std::sync::Arc;

use http::HeaderValue;

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Requests.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
}

impl Dimension {
    /// All, in the order in which headers name them.
    pub const ALL: [Self; 4] = [
        Self::Requests,
        Self::Tokens,
        Self::InputTokens,
        Self::OutputTokens,
    ];

    /// In names of headers and policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input-tokens",
            Self::OutputTokens => "output-tokens",
        }
    }
}

/// How a limiter is told to callers; made once per limiter and instance of a filter.
#[derive(Debug)]
pub struct Announcement {
    /// What it counts.
    pub dimension: Dimension,
    /// The `x-ratelimit-*` headers of OpenAI and NVCF, `anthropic-ratelimit-*` for that API.
    pub x_ratelimit: bool,
    /// The `RateLimit` fields of the IETF.
    pub ratelimit: bool,
    /// `RateLimit-Policy` of all its windows.
    pub policy: HeaderValue,
    /// What its windows are called there, by their spans in seconds.
    names: Vec<(u32, String)>,
}

impl Announcement {
    /// Windows are pairs of a budget and its span in seconds.
    #[must_use]
    pub fn new(
        dimension: Dimension,
        x_ratelimit: bool,
        ratelimit: bool,
        windows: impl IntoIterator<Item = (u64, u32)>,
    ) -> Self {
        // "requests" is the unit where none is named; there is no registered one for tokens.
        let unit = match dimension {
            Dimension::Requests => "",
            Dimension::Tokens => ";qu=\"tokens\"",
            Dimension::InputTokens => ";qu=\"input-tokens\"",
            Dimension::OutputTokens => ";qu=\"output-tokens\"",
        };
        let mut names = Vec::new();
        let policy = |(budget, seconds): (u64, u32)| {
            let quota = budget.min(INTEGER_MAX);
            let name = policy_name(dimension, seconds);
            let policy = format!("\"{name}\";q={quota};w={seconds}{unit}");
            names.push((seconds, name));
            policy
        };
        let policies: Vec<String> = windows.into_iter().map(policy).collect();
        let policy = HeaderValue::try_from(policies.join(", "));
        Self {
            dimension,
            x_ratelimit,
            ratelimit,
            policy: policy.unwrap_or(HeaderValue::from_static("")),
            names,
        }
    }

    /// What the window of this span is called in `RateLimit-Policy` and `RateLimit`.
    #[must_use]
    pub fn window_name(&self, seconds: u32) -> &str {
        let named = self.names.iter().find(|(known, _)| *known == seconds);
        named.map_or(self.dimension.name(), |(_, name)| name)
    }
}

fn policy_name(dimension: Dimension, seconds: u32) -> String {
    let dimension = dimension.name();
    match seconds {
        1 => format!("{dimension}-second"),
        60 => format!("{dimension}-minute"),
        3_600 => format!("{dimension}-hour"),
        86_400 => format!("{dimension}-day"),
        604_800 => format!("{dimension}-week"),
        other => format!("{dimension}-{other}s"),
    }
}

/// One budget of one caller, at the window that holds it back most.
#[derive(Clone, Debug)]
pub struct Notice {
    /// How it is to be told.
    pub of: Arc<Announcement>,
    /// Span of that window.
    pub window_seconds: u32,
    /// Its budget.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// Milliseconds until it is full again if nothing else is taken.
    pub reset_ms: u64,
    /// What this exchange has taken.
    pub taken: u64,
    /// When it refused: milliseconds until the same would be granted.
    pub refused_ms: Option<u64>,
}

impl Notice {
    /// As it stands once the exchange has given back what it took.
    #[must_use]
    pub fn given_back(&self) -> Self {
        let refill_ms = u128::from(self.taken) * u128::from(self.window_seconds) * 1_000;
        let refill_ms = refill_ms.div_ceil(u128::from(self.limit.max(1)));
        let refill_ms = u64::try_from(refill_ms).unwrap_or(u64::MAX);
        Self {
            remaining: self.limit.min(self.remaining.saturating_add(self.taken)),
            reset_ms: self.reset_ms.saturating_sub(refill_ms),
            taken: 0,
            ..self.clone()
        }
    }

    /// Whether this holds the caller back more than `other`, of the same dimension.
    fn is_tighter_than(&self, other: &Self) -> bool {
        let order = |notice: &Self| {
            (
                std::cmp::Reverse(notice.refused_ms),
                notice.remaining,
                std::cmp::Reverse(notice.reset_ms),
            )
        };
        order(self) < order(other)
    }
}

/// At most one notice for each dimension: that of the tightest budget.
#[derive(Clone, Debug, Default)]
pub struct Notices([Option<Notice>; Dimension::ALL.len()]);

impl Notices {
    /// Takes a notice in.
    pub fn add(&mut self, notice: Notice) {
        let Some(known) = self.0.get_mut(notice.of.dimension as usize) else {
            return;
        };
        if known
            .as_ref()
            .is_none_or(|known| notice.is_tighter_than(known))
        {
            *known = Some(notice);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Whether a budget has refused.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.iter().any(|notice| notice.refused_ms.is_some())
    }

    /// Each, in the order of [`Dimension::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = &Notice> {
        self.0.iter().flatten()
    }
}

/// Most that an integer of a structured field holds (RFC 9651, 3.3.1).
pub const INTEGER_MAX: u64 = 999_999_999_999_999;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn notice(dimension: Dimension, remaining: u64, refused_ms: Option<u64>) -> Notice {
        let windows = [(600, 60)];
        Notice {
            of: Arc::new(Announcement::new(dimension, true, true, windows)),
            window_seconds: 60,
            limit: 600,
            remaining,
            reset_ms: (600 - remaining) * 100,
            taken: 100,
            refused_ms,
        }
    }

    #[test]
    fn policies_name_every_window() {
        type Row = (Dimension, &'static [(u64, u32)], &'static str);
        let table: [Row; 4] = [
            (
                Dimension::Tokens,
                &[(1000, 1), (50_000, 60)],
                r#""tokens-second";q=1000;w=1;qu="tokens", "tokens-minute";q=50000;w=60;qu="tokens""#,
            ),
            (
                Dimension::Requests,
                &[(5, 3_600)],
                r#""requests-hour";q=5;w=3600"#,
            ),
            (
                Dimension::InputTokens,
                &[(u64::MAX, 86_400)],
                r#""input-tokens-day";q=999999999999999;w=86400;qu="input-tokens""#,
            ),
            (
                Dimension::OutputTokens,
                &[(7, 604_800), (8, 42)],
                r#""output-tokens-week";q=7;w=604800;qu="output-tokens", "output-tokens-42s";q=8;w=42;qu="output-tokens""#,
            ),
        ];
        for (dimension, windows, expected) in table {
            let told = Announcement::new(dimension, true, true, windows.iter().copied());
            assert_eq!(told.policy, expected);
        }
    }

    #[test]
    fn the_tightest_of_a_dimension_is_told() {
        // (earlier, later) as (remaining, refused), and which is kept.
        let table = [
            ((500, None), (400, None), 400),
            ((400, None), (500, None), 400),
            ((500, Some(10)), (400, None), 500),
            ((400, None), (500, Some(10)), 500),
            ((400, Some(10)), (500, Some(20)), 500),
            ((400, Some(20)), (500, Some(10)), 400),
        ];
        for (earlier, later, kept) in table {
            let mut notices = Notices::default();
            assert!(notices.is_empty());
            for (remaining, refused) in [earlier, later] {
                notices.add(notice(Dimension::Tokens, remaining, refused));
            }
            notices.add(notice(Dimension::Requests, 1, None));
            let seen: Vec<_> = notices.iter().map(|notice| notice.remaining).collect();
            assert_eq!(seen, [1, kept], "{earlier:?} {later:?}");
            let refused = earlier.1.is_some() || later.1.is_some();
            assert_eq!(notices.refused(), refused);
        }
    }

    #[test]
    fn what_is_given_back_counts_as_left() {
        let back = notice(Dimension::Tokens, 450, None).given_back();
        assert_eq!((back.remaining, back.reset_ms, back.taken), (550, 5_000, 0));
        let back = notice(Dimension::Tokens, 550, None).given_back();
        assert_eq!((back.remaining, back.reset_ms), (600, 0));
    }
}
