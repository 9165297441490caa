//! Changes taken over while the gateway serves: what is edited shows, what is bad is refused.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::caller;
use weir_tests::config_text::ConfigText;
use weir_tests::gateway::Gateway;
use weir_tests::guests::Guest;
use weir_tests::process::Signal;
use weir_tests::simulated::Simulated;

use crate::stage::{
    EVIL, Evil, PIPELINE, alone, beside_others, chat, evil_chat, evil_config, folder_with, logged,
};

/// The status of a plain chat completion with this key.
async fn status_with(gateway: &Gateway, key: Option<&str>) -> u16 {
    let key = key.map(|key| format!("Bearer {key}"));
    let request = caller::with_header(caller::chat(""), "authorization", key.as_deref());
    caller::send(gateway.address(), request).await.status
}

/// Whether requests one after the other take turns between two model servers.
async fn takes_turns(gateway: &Gateway, upstreams: &[Simulated; 2]) -> bool {
    let mut order = Vec::new();
    for _ in 0..24 {
        let before = upstreams[0].chats().await;
        assert_eq!(chat(gateway).await.status, 200);
        order.push(upstreams[0].chats().await > before);
    }
    order.windows(2).all(|pair| pair[0] != pair[1])
}

#[tokio::test]
async fn edits_of_the_config_show() {
    let _guard = beside_others().await;
    let upstreams = [Simulated::start().await, Simulated::start().await];
    let addresses = [upstreams[0].address(), upstreams[1].address()];
    let gateway = Gateway::start(&ConfigText::new(&addresses).text()).await;

    assert_eq!(status_with(&gateway, Some("second-key")).await, 401);
    let second =
        "[[key_tables.demo.keys]]\nid = \"second\"\nkey = \"second-key\"\n\n[filters.auth]";
    gateway.edit(|config| config.replace("[filters.auth]", second));
    let known = async |gateway: &Gateway| status_with(gateway, Some("second-key")).await == 200;
    gateway.wait_for("another key", known).await;

    let limited = "upstream_model = \"sim\"\ntoken_rate_limit = \"1-W\"";
    gateway.edit_in_place(|config| config.replace("upstream_model = \"sim\"", limited));
    gateway
        .wait_for("a limit", async |gateway| chat(gateway).await.status == 429)
        .await;
    gateway.edit(|config| config.replace(limited, "upstream_model = \"sim\""));
    gateway
        .wait_for("no limit", async |gateway| {
            chat(gateway).await.status == 200
        })
        .await;

    assert!(takes_turns(&gateway, &upstreams).await);
    let random = "upstream_model = \"sim\"\nrouting_method = \"random\"";
    gateway.edit(|config| config.replace("upstream_model = \"sim\"", random));
    let by_chance = async |gateway: &Gateway| !takes_turns(gateway, &upstreams).await;
    gateway.wait_for("another routing method", by_chance).await;

    assert_eq!(status_with(&gateway, None).await, 401);
    let open = PIPELINE.replace("\"auth\", ", "");
    gateway.edit(|config| config.replace(PIPELINE, &open));
    let without = async |gateway: &Gateway| status_with(gateway, None).await == 200;
    gateway.wait_for("a filter removed", without).await;
    gateway.edit(|config| config.replace(&open, PIPELINE));
    let with = async |gateway: &Gateway| status_with(gateway, None).await == 401;
    gateway.wait_for("a filter added", with).await;
}

#[tokio::test]
async fn edits_show_within_two_seconds_by_default() {
    let _alone = alone().await;
    let upstream = Simulated::start().await;
    let config = ConfigText::new(&[upstream.address()]).text();
    let gateway = Gateway::start(&config.replace("poll_ms = 50\n", "")).await;
    let began = Instant::now();
    gateway.edit(|config| config.replace(PIPELINE, &PIPELINE.replace("\"auth\", ", "")));
    let without = async |gateway: &Gateway| status_with(gateway, None).await == 200;
    gateway.wait_for("a filter removed", without).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_new_module_in_place_decides() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("evil", "sign = true")
        .lines("grants = { read_headers = [\"x-evil\"], write_headers = [\"x-guest\"] }");
    let config = evil_config(upstream.address(), &[evil]);
    let gateway = Gateway::start_in(folder_with(Guest::Hostile), &config).await;
    assert_eq!(chat(&gateway).await.header("x-guest"), "hostile");
    // Renamed over the old one.
    gateway.replace(EVIL, Guest::HostileAuth.bytes());
    let auth = async |gateway: &Gateway| chat(gateway).await.header("x-guest") == "hostile-auth";
    gateway
        .wait_for("the module renamed into place", auth)
        .await;
    // Written over it, as cp does.
    Guest::Hostile.put(gateway.folder(), EVIL);
    let hostile = async |gateway: &Gateway| chat(gateway).await.header("x-guest") == "hostile";
    gateway
        .wait_for("the module written in place", hostile)
        .await;
    let history = gateway.admin_json("/config/history").await.to_string();
    assert!(
        history.contains("filters.evil: module changed"),
        "{history}"
    );

    // Half of a module is refused, the rest of it comes, and it serves.
    let whole = Guest::HostileAuth.bytes();
    std::fs::write(gateway.folder().join(EVIL), &whole[..whole.len() / 2]).unwrap();
    let refused =
        async |gateway: &Gateway| gateway.metric("weir_config_rejected", &[]).await == 1.0;
    gateway
        .wait_for("half a module to be refused", refused)
        .await;
    assert_eq!(chat(&gateway).await.header("x-guest"), "hostile");
    std::fs::write(gateway.folder().join(EVIL), &whole).unwrap();
    gateway.wait_for("the whole module", auth).await;
}

#[tokio::test]
async fn a_module_that_comes_after_the_config_that_names_it_is_seen() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("evil", "sign = true")
        .lines("grants = { read_headers = [\"x-evil\"], write_headers = [\"x-guest\"] }");
    let config = evil_config(upstream.address(), &[evil]);
    let gateway = Gateway::start_in(folder_with(Guest::Hostile), &config).await;
    gateway.edit(|config| config.replace(EVIL, "later.wasm"));
    let refused =
        async |gateway: &Gateway| gateway.metric("weir_config_rejected", &[]).await == 1.0;
    gateway
        .wait_for("a missing module to be refused", refused)
        .await;
    assert_eq!(chat(&gateway).await.header("x-guest"), "hostile");
    Guest::HostileAuth.put(gateway.folder(), "later.wasm");
    let auth = async |gateway: &Gateway| chat(gateway).await.header("x-guest") == "hostile-auth";
    gateway.wait_for("the module that came later", auth).await;
    assert_eq!(gateway.metric("weir_config_rejected", &[]).await, 0.0);
}

#[tokio::test]
async fn key_files_are_looked_at() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let file = "[key_tables.demo]\nfile = \"keys.toml\"\n";
    let keys = |id: &str| format!("[[keys]]\nid = \"{id}\"\nkey = \"key-of-{id}\"\n");
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("keys.toml"), keys("one")).unwrap();
    let config = ConfigText::new(&[upstream.address()]).text();
    let config = config.replace(
        "[[key_tables.demo.keys]]",
        &format!("{file}[[key_tables.demo.keys]]"),
    );
    let gateway = Gateway::start_in(folder, &config).await;
    assert_eq!(status_with(&gateway, Some("key-of-one")).await, 200);
    gateway.replace("keys.toml", keys("two"));
    let two = async |gateway: &Gateway| status_with(gateway, Some("key-of-two")).await == 200;
    gateway.wait_for("the new key", two).await;
    assert_eq!(
        status_with(&gateway, Some("key-of-one")).await,
        401,
        "the old one is gone"
    );
    gateway.replace("keys.toml", "[[keys]]\nid = \n");
    let refused =
        async |gateway: &Gateway| gateway.metric("weir_config_rejected", &[]).await == 1.0;
    gateway
        .wait_for("a bad key file to be refused", refused)
        .await;
    let rejected = gateway.admin_json("/config").await["rejected"].to_string();
    assert!(rejected.contains("keys.toml:2"), "{rejected}");
    assert_eq!(status_with(&gateway, Some("key-of-two")).await, 200);
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let folder = gateway.folder();
    let text = std::fs::read_to_string(gateway.config_file()).unwrap();
    let version = |name: &str, text: &str| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("weir.toml"), text).unwrap();
    };
    let link = |to: &str, from: &str| {
        symlink(Path::new(to), folder.join("new")).unwrap();
        std::fs::rename(folder.join("new"), folder.join(from)).unwrap();
    };
    version("..v1", &text);
    link("..v1", "..data");
    link("..data/weir.toml", "weir.toml");
    assert_eq!(status_with(&gateway, None).await, 401);
    version(
        "..v2",
        &text.replace(PIPELINE, &PIPELINE.replace("\"auth\", ", "")),
    );
    link("..v2", "..data");
    std::fs::remove_dir_all(folder.join("..v1")).unwrap();
    let open = async |gateway: &Gateway| status_with(gateway, None).await == 200;
    gateway.wait_for("the link to be followed", open).await;
    assert_eq!(
        gateway.config_number().await,
        2,
        "the same text behind a link was no change"
    );
}

#[tokio::test]
async fn a_bad_config_is_refused_with_all_its_errors() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let good = std::fs::read_to_string(gateway.config_file()).unwrap();
    let bad = good
        .replace("cluster = \"sim\"", "cluster = \"nowhere\"")
        .replace("default = \"1000000000-S\"", "default = \"some\"")
        .replace("threads = 2", "threads = 2\nthraeds = 3");
    let without_form = "threads = 2\nthraeds = 3";
    // What is wrong in form hides what only the filters can tell: first both, then the rest.
    for (text, errors) in [
        (bad.clone(), &["thraeds", "nowhere"][..]),
        (
            good.replace("default = \"1000000000-S\"", "default = \"some\"")
                .replace("default = \"round_robin\"", "defualt = 1"),
            &[
                "filters.token-limit.config.default",
                "filters.routing-method.config.defualt",
            ][..],
        ),
        ("listeners = 7\n[".to_owned(), &["weir.toml:2"][..]),
    ] {
        gateway.replace("weir.toml", &text);
        let said = async |gateway: &Gateway| {
            let rejected = gateway.admin_json("/config").await["rejected"].to_string();
            errors.iter().all(|error| rejected.contains(error))
        };
        gateway
            .wait_for(&format!("{errors:?} in what was rejected"), said)
            .await;
        for error in errors {
            logged(&gateway, error).await;
        }
        assert_eq!(gateway.metric("weir_config_rejected", &[]).await, 1.0);
        let answer = gateway.admin_post("/reload", "").await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert_eq!(gateway.config_number().await, 1);
        assert_eq!(
            chat(&gateway).await.status,
            200,
            "the last good one serves on"
        );
    }
    assert!(bad.contains(without_form));
    gateway.replace("weir.toml", &good);
    let cleared =
        async |gateway: &Gateway| gateway.metric("weir_config_rejected", &[]).await == 0.0;
    gateway.wait_for("a good one to clear it", cleared).await;
    assert_eq!(gateway.admin_json("/config").await["rejected"], Value::Null);
    assert_eq!(chat(&gateway).await.status, 200);
}

#[tokio::test]
async fn reloads_are_forced_by_api_and_signal() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let config = ConfigText::new(&[upstream.address()]).text();
    let mut gateway = Gateway::start(&config.replace("poll_ms = 50", "poll_ms = 3600000")).await;
    let body_max = |bytes: u32| format!("[limits]\nbody_max_bytes = {bytes}\n[[listeners]]");
    gateway.edit(|config| config.replace("[[listeners]]", &body_max(10_000)));
    let answer = gateway.admin_post("/reload", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let reply = answer.json();
    assert_eq!(
        (reply["result"].as_str(), reply["number"].as_u64()),
        (Some("applied"), Some(2))
    );
    assert!(
        reply["changes"].to_string().contains("body_max_bytes"),
        "{reply}"
    );
    gateway.edit(|config| config.replace(&body_max(10_000), &body_max(20_000)));
    gateway.process().signal(Signal::HUP).unwrap();
    gateway
        .wait_for("the signal to be heard", async |gateway| {
            gateway.config_number().await == 3
        })
        .await;
    let history = gateway.admin_json("/config/history").await;
    let why: Vec<_> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|past| past["why"].clone())
        .collect();
    assert_eq!(why, ["signal", "api", "start"]);
}

#[tokio::test]
async fn what_was_live_can_be_brought_back() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    let open = PIPELINE.replace("\"auth\", ", "");
    let status = async || status_with(&gateway, None).await;
    let rollback = async |body: &str| gateway.admin_post("/config/rollback", body).await;
    assert_eq!(
        rollback("").await.status,
        422,
        "there is nothing before the first"
    );
    gateway.edit(|config| config.replace(PIPELINE, &open));
    gateway
        .wait_for("number 2", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    assert_eq!(status().await, 200);
    assert_eq!(rollback("").await.status, 200);
    assert_eq!((gateway.config_number().await, status().await), (1, 401));
    assert_eq!(rollback("{\"number\": 2}").await.status, 200);
    assert_eq!((gateway.config_number().await, status().await), (2, 200));
    assert_eq!(rollback("{\"number\": 1}").await.status, 200);
    assert_eq!(rollback("{\"number\": 99}").await.status, 422);
    assert_eq!(rollback("{\"nummer\": 1}").await.status, 400);
    // What the file says is not taken again until the file changes.
    let looks = async || gateway.metric("weir_config_reloads_total", &[]).await;
    let before = looks().await;
    for _ in 0..5 {
        chat(&gateway).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((gateway.config_number().await, status().await), (1, 401));
    assert_eq!(looks().await, before);
    gateway.edit(|config| config.replace(&open, PIPELINE) + "\n# changed\n");
    gateway
        .wait_for("number 3", async |gateway| {
            gateway.config_number().await == 3
        })
        .await;
    let history = gateway.admin_json("/config/history").await;
    let numbers: Vec<_> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|past| past["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [3, 1, 2, 1, 2, 1]);
    assert_eq!(history["history"][0]["live"], true);
}

#[tokio::test]
async fn a_new_filter_that_keeps_failing_is_taken_back() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let evil = Evil::new("evil", "phase = \"request\"").lines("limits = { request_ms = 200 }");
    let config = evil_config(upstream.address(), &[evil]);
    let gateway = Gateway::start_in(folder_with(Guest::Hostile), &config).await;
    gateway.edit(|config| {
        config.replace(
            "phase = \"request\"",
            "phase = \"request\", always = \"trap\"",
        )
    });
    gateway
        .wait_for("the bad table to be live", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    let mut refused = 0;
    while gateway.config_number().await == 2 {
        let answer = chat(&gateway).await;
        refused += usize::from(answer.status == 503);
        assert!(refused < 50, "it is never taken back");
    }
    assert!(refused >= 5, "{refused} requests were refused");
    assert_eq!(gateway.config_number().await, 1);
    assert_eq!(chat(&gateway).await.status, 200);
    assert_eq!(gateway.metric("weir_config_rejected", &[]).await, 1.0);
    let rejected = gateway.admin_json("/config").await["rejected"].to_string();
    assert!(rejected.contains("`evil`"), "{rejected}");
    let history = gateway.admin_json("/config/history").await;
    assert_eq!(history["history"][0]["why"], "breaker");

    // The old one that trips has nobody to go back to blame on.
    for _ in 0..5 {
        evil_chat(&gateway, "trap").await;
    }
    assert_eq!(gateway.config_number().await, 1);
    gateway.edit(|config| config.replace("always = \"trap\"", "always = \"ok\""));
    gateway
        .wait_for("a better table", async |gateway| {
            gateway.config_number().await == 3
        })
        .await;
    assert_eq!(chat(&gateway).await.status, 200);
}

#[tokio::test]
async fn boot_keys_wait_for_a_restart() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    gateway.edit(|config| {
        config
            .replace("threads = 2", "threads = 3")
            .replace("name = \"main\"", "name = \"main\"\nidle_timeout_ms = 1000")
    });
    gateway
        .wait_for("number 2", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    let config = gateway.admin_json("/config").await;
    let restart = config["needs_restart"].to_string();
    assert!(
        restart.contains("server.threads") && restart.contains("listeners"),
        "{restart}"
    );
    logged(&gateway, "server.threads").await;
    assert_eq!(chat(&gateway).await.status, 200);
    // A later change of something else does not make the restart needless.
    gateway.edit(|config| format!("{config}\n[limits]\nbody_max_bytes = 1000000\n"));
    gateway
        .wait_for("number 3", async |gateway| {
            gateway.config_number().await == 3
        })
        .await;
    let config = gateway.admin_json("/config").await;
    let restart = config["needs_restart"].to_string();
    assert!(restart.contains("server.threads"), "{restart}");
}

#[tokio::test]
async fn what_has_not_changed_stays_warm() {
    let _guard = beside_others().await;
    let upstream = Simulated::start().await;
    let gateway = Gateway::start(&ConfigText::new(&[upstream.address()]).text()).await;
    for _ in 0..10 {
        chat(&gateway).await;
    }
    let started = async |filter: &str| {
        gateway
            .metric(
                "weir_filter_instantiations_total",
                &[&format!("filter=\"{filter}\"")],
            )
            .await
    };
    let calls = async |filter: &str| {
        let filters = gateway.admin_json("/filters").await;
        filters[filter]["stats"]["calls"].as_u64().unwrap()
    };
    let before = (
        started("auth").await,
        started("token-limit").await,
        calls("auth").await,
    );
    assert!(before.2 >= 10);
    gateway.edit(|config| config.replace("1000000000-S", "999999999-S"));
    gateway
        .wait_for("number 2", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    chat(&gateway).await;
    assert_eq!(started("auth").await, before.0, "auth keeps its instances");
    assert_eq!(calls("auth").await, before.2 + 1, "and its figures");
    assert!(
        started("token-limit").await > before.1,
        "token-limit begins anew"
    );
    let requests = gateway
        .metric("weir_requests_total", &["status=\"200\""])
        .await;
    assert_eq!(requests, 11.0, "counters go on");
}

#[tokio::test]
async fn limits_cursors_and_affinity_carry_over() {
    let _guard = beside_others().await;
    let upstreams = [Simulated::start().await, Simulated::start().await];
    let addresses = [upstreams[0].address(), upstreams[1].address()];
    let config = ConfigText::new(&addresses).text();
    let counting = "default_requests = \"61-W\"";
    let gateway = Gateway::start(&config.replace("default = \"1000000000-S\"", counting)).await;
    let first = async |session: Option<&str>| {
        let before = upstreams[0].chats().await;
        let request = caller::with_header(caller::chat(""), "x-multi-turn-session-id", session);
        let answer = caller::send(gateway.address(), request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        upstreams[0].chats().await > before
    };
    let touch = async |number: u64| {
        // Every table that has state changes a little: filter, cluster and model.
        gateway.edit(|config| {
            config
                .replace(
                    "default_requests",
                    &format!("assumed_output_tokens = {number}, default_requests"),
                )
                .replace(
                    "[clusters.sim]\n",
                    &format!("[clusters.sim]\nretries = {number}\n"),
                )
                .replace("default = \"round_robin\"", "default = \"random\"")
        });
        gateway
            .wait_for("the change", async |gateway| {
                gateway.config_number().await == number
            })
            .await;
    };
    // So many that they hardly ever fall to one backend, whatever the addresses hash to.
    let sessions: Vec<_> = (0..24).map(|nth| format!("session-{nth}")).collect();
    let mut places = Vec::new();
    for session in &sessions {
        places.push(first(Some(session)).await);
    }
    assert!(
        places.contains(&true) && places.contains(&false),
        "{places:?}"
    );
    let model = "upstream_model = \"sim\"";
    gateway.edit(|config| {
        config.replace(model, &format!("{model}\nrouting_method = \"round_robin\""))
    });
    gateway
        .wait_for("number 2", async |gateway| {
            gateway.config_number().await == 2
        })
        .await;
    let mut turns = vec![first(None).await];
    touch(3).await;
    for nth in 0..4 {
        turns.push(first(None).await);
        if nth == 1 {
            gateway.admin_post("/reload", "").await;
        }
    }
    let moved = turns.windows(2).all(|pair| pair[0] != pair[1]);
    assert!(moved, "turns go on where they were: {turns:?}");
    for (session, place) in sessions.iter().zip(&places) {
        assert_eq!(first(Some(session)).await, *place, "{session}");
    }
    // 24 + 5 + 24 so far.
    for _ in 0..8 {
        assert_eq!(chat(&gateway).await.status, 200);
    }
    assert_eq!(
        chat(&gateway).await.status,
        429,
        "the budget was not given out again"
    );
}
