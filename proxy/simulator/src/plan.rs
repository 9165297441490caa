//! What will happen to one request, decided before anything is sent.

use std::time::Duration;

use http::StatusCode;

use crate::ask::Ask;
use crate::controls::Controls;
use crate::settings::Settings;

/// The decisions for one request: a pure function of settings, request and roll.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) roll: u64,
    pub(crate) ttft: Duration,
    /// Time between tokens before jitter; `None` for no timer at all.
    pub(crate) interval: Option<Duration>,
    pub(crate) tokens: u32,
    /// The caller's limit ended the answer.
    pub(crate) truncated: bool,
    pub(crate) error: Option<StatusCode>,
    pub(crate) cut: Cut,
    pub(crate) error_event: Option<u32>,
    pub(crate) usage: bool,
    jitter: f64,
    random: fastrand::Rng,
}

/// How an answer ends too early. Counts are events of a stream or bytes of a unary body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    Never,
    Disconnect(u64),
    /// At the middle of whatever is sent.
    DisconnectHalfway,
    Stall(u64),
}

impl Plan {
    pub(crate) fn new(settings: &Settings, roll: u64, ask: &Ask, controls: &Controls) -> Self {
        let mut random = fastrand::Rng::with_seed(roll);
        let fails = random.f64() < settings.error_rate;
        let disconnects = random.f64() < settings.disconnect_rate;
        let wanted = controls.tokens.unwrap_or(settings.output_tokens);
        let tokens = ask.tokens_max.map_or(wanted, |max| wanted.min(max));
        let tps = controls.tps.unwrap_or(settings.tokens_per_second);
        let interval =
            (tps > 0.0).then(|| Duration::try_from_secs_f64(1.0 / tps).unwrap_or(Duration::MAX));
        let cut = match (controls.disconnect_after, controls.stall_after) {
            (Some(after), _) => Cut::Disconnect(after),
            (None, Some(after)) => Cut::Stall(after),
            (None, None) if disconnects => Cut::DisconnectHalfway,
            (None, None) => Cut::Never,
        };
        Self {
            roll,
            ttft: Duration::from_millis(controls.ttft_ms.unwrap_or(settings.ttft_ms)),
            interval,
            tokens,
            truncated: tokens < wanted,
            error: controls
                .error
                .or(fails.then_some(StatusCode::INTERNAL_SERVER_ERROR)),
            cut,
            error_event: controls.error_event,
            usage: settings.usage && !controls.no_usage,
            jitter: settings.jitter.clamp(0.0, 1.0),
            random,
        }
    }

    /// `delay` varied by the jitter; each call draws anew. Never longer than a year.
    pub(crate) fn jittered(&mut self, delay: Duration) -> Duration {
        let delay = delay.min(DELAY_MAX);
        if self.jitter == 0.0 {
            return delay;
        }
        delay.mul_f64(1.0 + self.jitter * (2.0 * self.random.f64() - 1.0))
    }

    /// Time to produce the whole answer at once, after its first token.
    pub(crate) fn rest(&mut self) -> Duration {
        let Some(interval) = self.interval else {
            return Duration::ZERO;
        };
        let total = interval
            .min(DELAY_MAX)
            .saturating_mul(self.tokens.saturating_sub(1));
        self.jittered(total)
    }
}

const DELAY_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ask::Api;

    fn ask(extra: &str) -> Ask {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}]{extra}}}"#);
        Ask::parse(Api::ChatCompletions, body.as_bytes()).unwrap()
    }

    #[test]
    fn the_smaller_token_limit_counts() {
        let table = [
            ("", None, 16, false),
            (r#","max_tokens":4"#, None, 4, true),
            (r#","max_tokens":40"#, None, 16, false),
        ];
        let more = [
            ("", Some(3), 3, false),
            (r#","max_completion_tokens":2"#, Some(3), 2, true),
        ];
        for (extra, tokens, expected, truncated) in table.into_iter().chain(more) {
            let controls = Controls {
                tokens,
                ..Controls::default()
            };
            let plan = Plan::new(&Settings::default(), 1, &ask(extra), &controls);
            assert_eq!(
                (plan.tokens, plan.truncated),
                (expected, truncated),
                "{extra} {tokens:?}"
            );
        }
    }

    #[test]
    fn failures_follow_their_rates_and_the_roll() {
        let settings = Settings {
            error_rate: 0.3,
            disconnect_rate: 0.5,
            jitter: 0.5,
            ..Settings::default()
        };
        let plan = |roll| Plan::new(&settings, roll, &ask(""), &Controls::default());
        let failed = (0..1000).filter(|roll| plan(*roll).error.is_some()).count();
        let cut = (0..1000)
            .filter(|roll| plan(*roll).cut != Cut::Never)
            .count();
        assert!((250..350).contains(&failed), "{failed}");
        assert!((440..560).contains(&cut), "{cut}");
        let second = Duration::from_secs(1);
        assert_eq!(plan(5).jittered(second), plan(5).jittered(second));
        for roll in 0..100 {
            let delay = plan(roll).jittered(second).as_millis();
            assert!((500..=1500).contains(&delay), "{delay}");
        }
    }
}
