//! What vLLM and SGLang say of themselves on `/metrics`, as figures of one meaning.

use std::collections::BTreeMap;

use crate::exposition::{Sample, samples};

/// What an engine says of one model. What it does not say is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct EngineFigures {
    /// Requests the engine works on.
    pub(crate) running: Option<f64>,
    /// Requests it has not begun.
    pub(crate) waiting: Option<f64>,
    /// Tokens the KV cache can hold.
    pub(crate) kv_capacity: Option<f64>,
    /// Share of it that is in use, 0 to 1.
    pub(crate) kv_usage: Option<f64>,
    /// Tokens of it that are in use.
    pub(crate) kv_used: Option<f64>,
    /// Prompt tokens since the engine began.
    pub(crate) prompt_tokens: Option<f64>,
    /// Tokens generated since it began.
    pub(crate) generated_tokens: Option<f64>,
    /// Tokens generated per second, by its own measure.
    pub(crate) output_tps: Option<f64>,
}

/// The figures by model. Series of one model (its ranks and replicas) are added, shares averaged.
pub(crate) fn figures(text: &str) -> BTreeMap<String, EngineFigures> {
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    let mut engine = Sums::default();
    for sample in samples(text) {
        let Some(name) = ["vllm:", "sglang:", "vllm_", "sglang_"]
            .iter()
            .find_map(|prefix| sample.name.strip_prefix(prefix))
        else {
            continue;
        };
        let model = sample.label("model_name");
        match model {
            Some(model) if sums.len() < MODELS_MAX || sums.contains_key(model) => {
                sums.entry(model.to_owned()).or_default().add(name, &sample);
            }
            Some(_) => {}
            // The configuration of the cache is told for the engine.
            None => engine.add(name, &sample),
        }
    }
    let figures = sums.into_iter().map(|(model, mut sums)| {
        sums.kv_capacity.value += engine.kv_capacity.value;
        sums.kv_capacity.count += engine.kv_capacity.count;
        (model, sums.figures())
    });
    figures.collect()
}

/// The figures for `model`: its own, or those of the whole engine if it has another name there.
pub(crate) fn of(figures: &BTreeMap<String, EngineFigures>, model: &str) -> Option<EngineFigures> {
    if let Some(own) = figures.get(model) {
        return Some(*own);
    }
    // A model served under another name, or an adapter: the engine is the same.
    (figures.len() == 1).then(|| figures.values().next().copied())?
}

#[derive(Default)]
struct Sum {
    value: f64,
    count: u32,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.value += value;
        self.count += 1;
    }

    fn total(&self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.value / f64::from(self.count))
    }
}

#[derive(Default)]
struct Sums {
    running: Sum,
    waiting: Sum,
    kv_capacity: Sum,
    kv_usage: Sum,
    kv_used: Sum,
    prompt_tokens: Sum,
    generated_tokens: Sum,
    output_tps: Sum,
}

impl Sums {
    fn add(&mut self, name: &str, sample: &Sample<'_>) {
        if !sample.value.is_finite() || sample.value < 0.0 {
            return;
        }
        match name {
            "num_requests_running" | "num_running_reqs" => self.running.add(sample.value),
            "num_requests_waiting" | "num_queue_reqs" => self.waiting.add(sample.value),
            "kv_cache_usage_perc" | "gpu_cache_usage_perc" | "token_usage" => {
                self.kv_usage.add(sample.value.min(1.0));
            }
            "num_used_tokens" => self.kv_used.add(sample.value),
            "max_total_num_tokens" => self.kv_capacity.add(sample.value),
            "cache_config_info" => {
                let number = |name| sample.label(name).and_then(|text| text.parse::<f64>().ok());
                if let (Some(size), Some(blocks)) = (number("block_size"), number("num_gpu_blocks"))
                {
                    self.kv_capacity.add(size * blocks);
                }
            }
            "prompt_tokens_total" => self.prompt_tokens.add(sample.value),
            "generation_tokens_total" => self.generated_tokens.add(sample.value),
            "gen_throughput" => self.output_tps.add(sample.value),
            _ => {}
        }
    }

    fn figures(&self) -> EngineFigures {
        let usage = self.kv_usage.mean();
        let used = self.kv_used.total();
        let told = self.kv_capacity.total().filter(|capacity| *capacity > 0.0);
        let capacity = told.or_else(|| match (used, usage) {
            // Two roundings make the quotient of small shares worthless.
            (Some(used), Some(usage)) if usage >= 0.01 => Some((used / usage).round()),
            _ => None,
        });
        EngineFigures {
            running: self.running.total(),
            waiting: self.waiting.total(),
            kv_capacity: capacity,
            kv_usage: usage,
            kv_used: used.or_else(|| Some(capacity? * usage?)),
            prompt_tokens: self.prompt_tokens.total(),
            generated_tokens: self.generated_tokens.total(),
            output_tps: self.output_tps.total(),
        }
    }
}

/// Models told apart in one text.
const MODELS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &str = r#"
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 3.0
vllm:num_requests_running{engine="1",model_name="llama"} 2.0
vllm:num_requests_waiting{engine="0",model_name="llama"} 7.0
vllm:num_requests_waiting{engine="1",model_name="llama"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.25
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000",cache_dtype="auto"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1000",cache_dtype="auto"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="llama"} 12000.0
vllm:generation_tokens_total{engine="0",model_name="llama"} 3400.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="llama"} 40.0
"#;

    const SGLANG: &str = r#"
sglang:num_running_reqs{engine_type="unified",model_name="qwen",tp_rank="0"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="qwen",tp_rank="0"} 1.0
sglang:num_used_tokens{engine_type="unified",model_name="qwen",tp_rank="0"} 3000.0
sglang:token_usage{engine_type="unified",model_name="qwen",tp_rank="0"} 0.3
sglang:gen_throughput{engine_type="unified",model_name="qwen",tp_rank="0"} 512.5
sglang:prompt_tokens_total{model_name="qwen"} 900.0
sglang:generation_tokens_total{model_name="qwen"} 70.0
process_cpu_seconds_total 12.0
"#;

    #[test]
    fn vllm_is_understood() {
        let all = figures(VLLM);
        let expected = EngineFigures {
            running: Some(5.0),
            waiting: Some(7.0),
            kv_capacity: Some(32_000.0),
            kv_usage: Some(0.375),
            kv_used: Some(12_000.0),
            prompt_tokens: Some(12_000.0),
            generated_tokens: Some(3400.0),
            output_tps: None,
        };
        assert_eq!(of(&all, "llama"), Some(expected));
        assert_eq!(
            of(&all, "llama-adapter"),
            Some(expected),
            "one engine, another name"
        );
    }

    #[test]
    fn sglang_is_understood() {
        let expected = EngineFigures {
            running: Some(4.0),
            waiting: Some(1.0),
            kv_capacity: Some(10_000.0),
            kv_usage: Some(0.3),
            kv_used: Some(3000.0),
            prompt_tokens: Some(900.0),
            generated_tokens: Some(70.0),
            output_tps: Some(512.5),
        };
        assert_eq!(of(&figures(SGLANG), "qwen"), Some(expected));
    }

    #[test]
    fn names_before_the_rename_and_nonsense_do_no_harm() {
        let text = concat!(
            "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.1\n",
            "vllm:num_requests_running{model_name=\"m\"} NaN\n",
            "vllm:num_requests_waiting{model_name=\"m\"} -1\n",
            "sglang:num_running_reqs{model_name=\"n\"} 2\n",
        );
        let all = figures(text);
        assert_eq!(of(&all, "m").unwrap().kv_usage, Some(0.1));
        assert_eq!(of(&all, "m").unwrap().running, None);
        assert_eq!(
            of(&all, "other"),
            None,
            "two engines: it cannot be told which"
        );
        assert_eq!(figures("").len(), 0);
    }
}
