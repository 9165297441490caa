//! Step 3: what the gateway answers itself.

use http::StatusCode;
use pingora::protocols::http::ServerSession;
use weir_dialect::{Api, model_object, models_list};

use crate::request::exchange::Exchange;
use crate::request::refuse::{self, Refusal};
use crate::request::serve::Connection;

/// `GET /v1/models` and `GET /v1/models/{id}`: the models this caller may use.
pub(crate) async fn models(
    exchange: &mut Exchange,
    downstream: &mut ServerSession,
) -> Result<Connection, Refusal> {
    let snapshot = exchange.snapshot.clone();
    let allowed = exchange
        .facts
        .as_ref()
        .and_then(|facts| facts.principal.clone());
    let visible = |id: &str| allowed.as_ref().is_none_or(|who| who.may_call(id));
    let mut ids: Vec<&str> = snapshot
        .functions
        .values()
        .flat_map(std::collections::HashMap::values)
        .map(|target| &*target.full_name)
        .filter(|id| visible(id))
        .collect();
    ids.sort_unstable();
    let created = exchange.runtime.metrics.started_unix_s();
    let path = exchange
        .facts
        .as_ref()
        .map(|facts| facts.path.clone())
        .unwrap_or_default();
    let body = match Api::model_id(&path) {
        None => models_list(ids.iter().map(|id| (*id, created, "weir"))),
        Some(wanted) => {
            let known = ids.iter().any(|id| *id == wanted);
            if !known {
                return Err(Refusal::model_not_found(&wanted));
            }
            model_object(&wanted, created, "weir")
        }
    };
    Ok(refuse::write_json(exchange, downstream, StatusCode::OK, Vec::new(), body).await)
}
