//! Messages after the hello, both ways.

use std::collections::BTreeMap;

use weir_tunnel::agent::Notice;
use weir_tunnel::gateway::Event;
use weir_tunnel::{
    CloseCode, Draining, Error, Heartbeat, Loss, Model, ModelStats, Observed, ObservedModel,
    Samples, Status,
};

use crate::rig::{Rig, within};

fn heartbeat(models: usize) -> Heartbeat {
    let stats = ModelStats {
        last_mean_input_tps: Some(1234.5),
        queue_size: Some(0),
        queue_time_estimate_ms_by_priority: BTreeMap::from([(0, 5), (7, 900)]),
        max_engine_concurrency: 64,
        stats_sources: vec!["gateway".to_owned()],
        max_input_tps: Some(2000.0),
        ..ModelStats::default()
    };
    let model = Model {
        status: Status::Active.into(),
        stats: Some(stats),
    };
    Heartbeat {
        cluster_id: "cluster".to_owned(),
        region: "eu-north".to_owned(),
        models: (0..models)
            .map(|n| (format!("org/model-{n}"), model.clone()))
            .collect(),
    }
}

#[tokio::test]
async fn heartbeats_and_draining_reach_the_gateway() {
    let rig = Rig::new();
    let (agent, _tunnel, mut events) = rig.tunnel().await;
    for models in [0, 1, 500] {
        let sent = heartbeat(models);
        agent.link.send_heartbeat(sent.clone()).await.unwrap();
        assert_eq!(within(events.next()).await, Event::Heartbeat(sent));
    }
    let draining = Draining {
        reason: "roll-out".to_owned(),
        timeout_ms: 30_000,
    };
    agent.link.send_draining(draining.clone()).await.unwrap();
    assert_eq!(within(events.next()).await, Event::Draining(draining));
    agent.link.close(CloseCode::Drained, "all done").await;
    let closed = Loss::Closed {
        code: CloseCode::Drained,
        reason: "all done".to_owned(),
    };
    assert_eq!(within(events.next()).await, Event::Closed(closed.clone()));
    assert_eq!(within(events.next()).await, Event::Closed(closed));
}

#[tokio::test]
async fn notices_reach_the_agent() {
    let rig = Rig::new();
    let (mut agent, tunnel, _events) = rig.tunnel().await;
    let observed = Observed {
        models: BTreeMap::from([(
            "m".to_owned(),
            ObservedModel {
                running: 3,
                waiting: 1,
                waiting_input_tokens: 4000,
                waiting_tokens_by_priority: BTreeMap::from([(2, 4000)]),
                running_input_tokens: 9000,
                samples: Some(Samples {
                    count: 2,
                    input_tokens: 5000,
                    prefill_us: 1_000_000,
                    output_tokens: 64,
                    decode_us: 2_000_000,
                }),
            },
        )]),
    };
    tunnel.send_observed(observed.clone()).await.unwrap();
    tunnel.send_peers(vec!["b:1".to_owned()]).await.unwrap();
    tunnel.send_draining(Draining::default()).await.unwrap();
    assert_eq!(
        within(agent.notices.next()).await,
        Notice::Observed(observed)
    );
    assert_eq!(
        within(agent.notices.next()).await,
        Notice::Peers(vec!["b:1".to_owned()])
    );
    assert_eq!(
        within(agent.notices.next()).await,
        Notice::Draining(Draining::default())
    );
    tunnel.close(CloseCode::Superseded, "a newer connection");
    match within(agent.notices.next()).await {
        Notice::Closed(Loss::Closed { code, .. }) => assert_eq!(code, CloseCode::Superseded),
        other => panic!("not closed: {other:?}"),
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_sent() {
    let rig = Rig::new();
    let (agent, _tunnel, mut events) = rig.tunnel().await;
    let mut large = heartbeat(0);
    large.region = "r".repeat(2 << 20);
    let sent = agent.link.send_heartbeat(large).await;
    assert!(matches!(sent, Err(Error::TooLarge { .. })));
    agent.link.send_heartbeat(heartbeat(1)).await.unwrap();
    assert_eq!(
        within(events.next()).await,
        Event::Heartbeat(heartbeat(1)),
        "the tunnel lives on"
    );
}

#[tokio::test]
async fn an_end_that_does_not_read_is_closed() {
    let settings = weir_tunnel::Settings {
        control_wait: std::time::Duration::from_millis(100),
        stream_window_bytes: 64 * 1024,
        ..weir_tunnel::Settings::default()
    };
    let rig = Rig::with(settings);
    let (agent, tunnel, _events) = rig.tunnel().await;
    let error = within(async {
        loop {
            if let Err(error) = agent.link.send_heartbeat(heartbeat(500)).await {
                return error;
            }
        }
    });
    assert!(matches!(error.await, Error::Lost(Loss::Local)));
    match within(tunnel.closed()).await {
        Loss::Closed { code, .. } => assert_eq!(code, CloseCode::Stalled),
        other => panic!("not closed: {other}"),
    }
}
