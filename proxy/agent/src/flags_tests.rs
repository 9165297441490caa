//! Settings out of flags and files, good and bad.

use clap::Parser;

use super::*;

fn read_with(args: &[&str], file: &str) -> Result<Settings, Vec<ConfigError>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, file).unwrap();
    let mut line = vec!["weir-agent", "--config", path.to_str().unwrap()];
    line.extend(args);
    read(Flags::try_parse_from(line).unwrap(), |_| None)
}

const WHOLE: &str = r#"
upstream = "http://127.0.0.1:8000"
gateway = ["gateway.internal:4433"]
worker_id = "gpu-7"
quic_insecure = true
initial_input_tps = 8000
"#;

fn keys(errors: &[ConfigError]) -> Vec<&str> {
    errors.iter().map(|error| error.key.as_str()).collect()
}

#[test]
fn a_file_alone_is_enough() {
    let settings = read_with(&[], WHOLE).unwrap();
    assert_eq!(
        settings.upstream,
        Upstream::Tcp("127.0.0.1:8000".to_owned())
    );
    assert_eq!(settings.gateways, ["gateway.internal:4433"]);
    assert_eq!(settings.start_rate, StartRate::Given(8000.0));
    assert_eq!(settings.stats_stream, StatsStream::Auto);
    assert_eq!(settings.health.paths, ["/health", "/v1/health/ready"]);
    assert_eq!(settings.drain_timeout, Duration::from_secs(30));
    assert!(matches!(settings.trust, Trust::Anyone));
}

#[test]
fn flags_win_over_the_file() {
    let flags = [
        "--gateway",
        "a:1",
        "--gateway",
        "[::1]:2",
        "--calibrate",
        "--worker-id",
        "gpu-8",
        "--stats-stream",
        "off",
        "--model",
        "m",
    ];
    let settings = read_with(&flags, WHOLE).unwrap();
    assert_eq!(settings.gateways, ["a:1", "[::1]:2"]);
    assert_eq!(settings.worker_id, "gpu-8");
    assert_eq!(
        settings.start_rate,
        StartRate::Calibrate,
        "the file's other way does not count"
    );
    assert_eq!(settings.stats_stream, StatsStream::Off);
    assert_eq!(settings.models, ["m"]);
}

#[test]
fn all_errors_are_told_at_once_each_with_its_key() {
    let errors = read_with(
        &["--stats-stream", "maybe", "--admin-address", "here"],
        r#"
upstream = "https://model"
gateway = ["no-port", "a:0"]
worker_id = "two words"
quic_insecure = "yes"
heartbeat_ms = 1
health_path = ["health"]
nonsense = 1
ca = "/does/not/exist.pem"
"#,
    )
    .unwrap_err();
    let mut found = keys(&errors);
    found.sort_unstable();
    let expected = [
        "admin_address",
        "ca",
        "calibrate",
        "gateway",
        "gateway",
        "health_path",
        "heartbeat_ms",
        "nonsense",
        "quic_insecure",
        "stats_stream",
        "upstream",
        "worker_id",
    ];
    assert_eq!(found, expected, "{errors:#?}");
    assert!(errors.iter().all(|error| !error.remedy.is_empty()));
}

#[test]
fn values_out_of_bounds_are_told() {
    let flags = [
        "--stats-stream",
        "maybe",
        "--admin-address",
        "here",
        "--heartbeat-ms",
        "1",
        "--streams-max",
        "0",
        "--metrics-path",
        "metrics",
    ];
    let errors = read_with(&flags, WHOLE).unwrap_err();
    let mut found = keys(&errors);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "admin_address",
            "heartbeat_ms",
            "metrics_path",
            "stats_stream",
            "streams_max"
        ]
    );
}

#[test]
fn tokens_come_from_one_place() {
    let both = read_with(&["--token", "t", "--token-file", "f"], WHOLE).unwrap_err();
    assert_eq!(keys(&both), ["token"]);
    assert!(!format!("{both:?}").contains("\"t\""));

    let given: Given = toml::from_str(WHOLE).unwrap();
    let flags = Flags {
        config: None,
        given,
    };
    let settings = read(flags, |name| {
        (name == "WEIR_AGENT_TOKEN").then(|| "secret".to_owned())
    })
    .unwrap();
    assert!(matches!(&settings.token, Token::Text(text) if text == "secret"));
    assert!(!format!("{settings:?}").contains("secret"));
}

#[test]
fn what_is_no_toml_is_told() {
    assert_eq!(
        keys(&read_with(&[], "upstream = ").unwrap_err()).first(),
        Some(&"config")
    );
}

#[test]
fn addresses_have_a_host_and_a_port() {
    for (address, expected) in [
        ("a:1", Some(("a", 1))),
        ("[::1]:4433", Some(("::1", 4433))),
        ("::1:4433", None),
        ("a", None),
        (":1", None),
        ("a:0", None),
        ("a:70000", None),
    ] {
        assert_eq!(split_address(address), expected, "{address}");
    }
}

#[test]
fn the_guide_names_every_flag_and_its_file_is_right() {
    let guide = include_str!("../../../docs/workers.md");
    let command = <Flags as clap::CommandFactory>::command();
    for flag in command.get_arguments().filter_map(|flag| flag.get_long()) {
        assert!(
            guide.contains(&format!("`--{flag}`")),
            "--{flag} is not in docs/workers.md"
        );
    }
    let file = guide
        .split("```toml agent\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut findings = Findings::default();
    let given = parse(file, &mut findings);
    assert_eq!(findings.0, []);
    assert_eq!(given.worker_id.as_deref(), Some("gpu-7"));
    assert_eq!(given.gateway.len(), 2);
}
