//! The agent's own page: `/metrics`, `/healthz` and `/readyz`.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use weir_tunnel::{ModelStats, Status};

use crate::roster::Roster;
use crate::worker::Worker;

/// Serves on `listener`.
pub(crate) async fn serve(listener: TcpListener, worker: Arc<Worker>, roster: Arc<Roster>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(answer(socket, Arc::clone(&worker), Arc::clone(&roster)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin address cannot accept");
                    sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(socket: TcpStream, worker: Arc<Worker>, roster: Arc<Roster>) {
    let service = service_fn(|request| {
        let response = respond(&request, &worker, &roster);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection broke");
    }
}

fn respond(request: &Request<Incoming>, worker: &Worker, roster: &Roster) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => ready(worker, roster),
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics(worker, roster)),
        _ => (
            StatusCode::NOT_FOUND,
            "there is /metrics, /healthz and /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Ready means that requests can come: a tunnel is up and a model is active.
fn ready(worker: &Worker, roster: &Roster) -> (StatusCode, String) {
    let active = |model: &weir_tunnel::Model| model.status() == Status::Active;
    let missing = if worker.drains_until().is_some() {
        "draining\n"
    } else if roster.connected().is_empty() {
        "no tunnel is up\n"
    } else if !worker.heartbeat().models.values().any(active) {
        "no model is active\n"
    } else {
        return (StatusCode::OK, "ready\n".to_owned());
    };
    (StatusCode::SERVICE_UNAVAILABLE, missing.to_owned())
}

/// The metrics as text. Labels are bounded as gateways and models are.
fn metrics(worker: &Worker, roster: &Roster) -> String {
    let mut text = String::new();
    let mut last = "";
    for (name, label, value) in worker.counters.rows() {
        if name != last {
            line(&mut text, format_args!("# TYPE {name} counter"));
            last = name;
        }
        match label {
            "" => line(&mut text, format_args!("{name} {value}")),
            label => line(&mut text, format_args!("{name}{{{label}}} {value}")),
        }
    }
    let carried = worker.settings.streams_max - worker.streams.available_permits();
    line(&mut text, format_args!("# TYPE weir_agent_streams gauge"));
    line(&mut text, format_args!("weir_agent_streams {carried}"));
    line(&mut text, format_args!("# TYPE weir_agent_tunnel_up gauge"));
    for (gateway, address) in roster.connected() {
        let (gateway, address) = (escaped(&gateway), escaped(&address));
        let labels = format_args!("gateway=\"{gateway}\",address=\"{address}\"").to_string();
        line(
            &mut text,
            format_args!("weir_agent_tunnel_up{{{labels}}} 1"),
        );
    }
    let heartbeat = worker.heartbeat();
    for (name, figure) in FIGURES {
        line(
            &mut text,
            format_args!("# TYPE weir_agent_model_{name} gauge"),
        );
        for (model, state) in &heartbeat.models {
            let value = match name {
                "active" => Some(f64::from(u8::from(state.status() == Status::Active))),
                _ => state.stats.as_ref().and_then(figure),
            };
            if let Some(value) = value {
                let model = escaped(model);
                line(
                    &mut text,
                    format_args!("weir_agent_model_{name}{{model=\"{model}\"}} {value}"),
                );
            }
        }
    }
    text
}

type Figure = fn(&ModelStats) -> Option<f64>;

const FIGURES: [(&str, Figure); 8] = [
    ("active", |_| None),
    ("input_tokens_per_second", |stats| stats.last_mean_input_tps),
    ("output_tokens_per_second", |stats| stats.output_tps),
    ("queue_requests", |stats| stats.queue_size.map(|n| n as f64)),
    ("queue_input_tokens", |stats| {
        stats.queued_input_size.map(|n| n as f64)
    }),
    ("running_requests", |stats| {
        stats.num_running_queries.map(|n| n as f64)
    }),
    ("kv_capacity_tokens", |stats| {
        stats.kv_cache_capacity_tokens.map(|n| n as f64)
    }),
    ("kv_used_tokens", |stats| {
        stats.kv_cache_used_tokens.map(|n| n as f64)
    }),
];

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{content}");
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

const CONNECTIONS_MAX: usize = 64;
