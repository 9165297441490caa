//! The paths of the functions API and their answers.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use weir_config::{Config, FunctionTable, Sources};

use crate::admin::answer;
use crate::admin::functions::payload::{NewVersion, Update};
use crate::admin::functions::plan::{self, Planned, Stamp, Subject};
use crate::admin::functions::refusal::Problem;
use crate::admin::functions::view;
use crate::reload::{Ask, Edited, unix_ms};
use crate::request::headers::uuid_v4;
use crate::runtime::Runtime;
use crate::snapshot::Snapshot;

/// Where it begins.
pub(crate) const PATH: &str = "/v2/nvcf/functions";

/// One request.
pub(crate) struct Request<'r> {
    /// Its method.
    pub(crate) method: &'r Method,
    /// Its path.
    pub(crate) path: &'r str,
    /// Whether it declares its body as JSON.
    pub(crate) is_json: bool,
    /// Its body.
    pub(crate) body: &'r [u8],
}

/// Answers one request below [`PATH`].
pub(crate) async fn serve(
    runtime: &Runtime,
    asks: &mpsc::Sender<Ask>,
    request: Request<'_>,
) -> Response<Vec<u8>> {
    let below = request.path.strip_prefix(PATH).unwrap_or_default();
    let names: Vec<&str> = below.split('/').skip(1).collect();
    let result = match (names.as_slice(), request.method) {
        ([], &Method::GET) => Ok(json!({ "functions": view::all(&runtime.snapshot().config) })),
        (["ids"], &Method::GET) => {
            let snapshot = runtime.snapshot();
            let ids: Vec<&String> = snapshot.config.functions.keys().collect();
            Ok(json!({ "functionIds": ids }))
        }
        ([id], &Method::GET) => one(&runtime.snapshot().config, id, None),
        ([id, "versions"], &Method::GET) => function(&runtime.snapshot().config, id)
            .map(|(id, function)| json!({ "functions": view::versions(id, function) })),
        ([id, "versions", version], &Method::GET) => {
            one(&runtime.snapshot().config, id, Some(version))
        }
        ([], &Method::POST) => create(asks, &request, None).await,
        ([id, "versions"], &Method::POST) => create(asks, &request, Some(id)).await,
        ([id], &Method::PUT) => update(asks, &request, id, None).await,
        ([id, "versions", version], &Method::PUT) => {
            update(asks, &request, id, Some(version)).await
        }
        ([id], &Method::DELETE) => match delete(asks, id, None).await {
            Ok(()) => return answer::empty(),
            Err(problem) => Err(problem),
        },
        ([id, "versions", version], &Method::DELETE) => {
            match delete(asks, id, Some(version)).await {
                Ok(()) => return answer::empty(),
                Err(problem) => Err(problem),
            }
        }
        (names, _) => match allowed(names) {
            Some(allow) => return answer::with_allow(refused(&Problem::method(), &request), allow),
            None => Err(Problem::path()),
        },
    };
    match result {
        Ok(document) => answer::json(StatusCode::OK, &document),
        Err(problem) => refused(&problem, &request),
    }
}

fn allowed(names: &[&str]) -> Option<&'static str> {
    match names {
        ["ids"] => Some("GET"),
        [] | [_, "versions"] => Some("GET, POST"),
        [_] | [_, "versions", _] => Some("GET, PUT, DELETE"),
        _ => None,
    }
}

fn refused(problem: &Problem, request: &Request<'_>) -> Response<Vec<u8>> {
    answer::problem(problem.status(), &problem.document(request.path))
}

fn function<'c>(config: &'c Config, id: &str) -> Result<(&'c str, &'c FunctionTable), Problem> {
    plan::find(config, id).ok_or_else(|| Problem::no_function(id))
}

fn one(config: &Config, id: &str, version: Option<&str>) -> Result<Value, Problem> {
    let (id, function) = function(config, id)?;
    view::version(id, function, version)
        .map(|shown| json!({ "function": shown }))
        .ok_or_else(|| Problem::no_version(id, version.unwrap_or_default()))
}

async fn create(
    asks: &mpsc::Sender<Ask>,
    request: &Request<'_>,
    id: Option<&str>,
) -> Result<Value, Problem> {
    let new = NewVersion::read(declared(request)?)?;
    let stamp = Stamp {
        function_id: uuid_v4(fastrand::u128(..)),
        version_id: uuid_v4(fastrand::u128(..)),
        created_at: now(),
    };
    let id = id.map(str::to_owned);
    let (snapshot, subject) = edit(asks, move |sources, config| match &id {
        None => plan::create(sources, config, &new, &stamp),
        Some(id) => plan::add_version(sources, config, id, &new, &stamp),
    })
    .await?;
    one(&snapshot.config, &subject.id, subject.version.as_deref())
}

/// As RFC 3339 writes it.
fn now() -> String {
    let now = i64::try_from(unix_ms()).ok();
    let now = now.and_then(chrono::DateTime::from_timestamp_millis);
    now.unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

async fn update(
    asks: &mpsc::Sender<Ask>,
    request: &Request<'_>,
    id: &str,
    version: Option<&str>,
) -> Result<Value, Problem> {
    let wanted = Update::read(declared(request)?)?;
    let (id, version) = (id.to_owned(), version.map(str::to_owned));
    let (snapshot, subject) = edit(asks, move |sources, config| {
        plan::update(sources, config, &id, version.as_deref(), &wanted)
    })
    .await?;
    one(&snapshot.config, &subject.id, subject.version.as_deref())
}

async fn delete(asks: &mpsc::Sender<Ask>, id: &str, version: Option<&str>) -> Result<(), Problem> {
    let (id, version) = (id.to_owned(), version.map(str::to_owned));
    edit(asks, move |sources, config| {
        plan::delete(sources, config, &id, version.as_deref())
    })
    .await
    .map(drop)
}

/// The body of a request that says what it is. A page of another origin cannot: it would have to ask
/// first, and nobody answers that.
fn declared<'r>(request: &Request<'r>) -> Result<&'r [u8], Problem> {
    if request.is_json {
        Ok(request.body)
    } else {
        Err(Problem::media_type())
    }
}

/// Has the reloader carry a plan out, after all others and before the next.
async fn edit(
    asks: &mpsc::Sender<Ask>,
    plan: impl FnOnce(&Sources, &Config) -> Planned + Send + 'static,
) -> Result<(Arc<Snapshot>, Subject), Problem> {
    let (planned, mut plans) = oneshot::channel();
    let editor = Box::new(move |sources: &Sources, config: &Config| {
        let (change, subject) = match plan(sources, config) {
            Ok((change, subject)) => (Some(change), Ok(subject)),
            Err(problem) => (None, Err(problem)),
        };
        // Whoever asked may be gone; then nothing is changed for them.
        planned.send(subject).ok().and(change)
    });
    let (reply, replied) = oneshot::channel();
    let ask = Ask::Edit { editor, reply };
    asks.send(ask).await.map_err(|_| Problem::ending())?;
    let edited = replied.await.map_err(|_| Problem::ending())?;
    match edited {
        Edited::Applied(snapshot) => {
            let subject = plans.try_recv().map_err(|_| Problem::ending())??;
            Ok((snapshot, subject))
        }
        Edited::Unwilling => match plans.try_recv() {
            Ok(Err(problem)) => Err(problem),
            _ => Err(Problem::ending()),
        },
        Edited::Rejected(errors) => Err(Problem::rejected(errors)),
        Edited::NoFile => Err(Problem::no_file()),
        Edited::RolledBack => Err(Problem::rolled_back()),
        Edited::Raced => Err(Problem::raced()),
        Edited::Unwritable(why) => Err(Problem::unwritable(why)),
    }
}
