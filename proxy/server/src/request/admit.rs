//! Step 2: the chain forward. Each call moves the facts into the chain and takes them back.

use weir_pipeline::facts::Facts;
use weir_pipeline::verdict::End;

use crate::request::exchange::Exchange;
use crate::request::hints::Hints;
use crate::request::refuse::Refusal;

/// Header phases, then who calls. With no chain at all nobody is asked.
pub(crate) async fn authorize(exchange: &mut Exchange) -> Result<(), Refusal> {
    let Some(chain) = exchange.chain() else {
        return Ok(());
    };
    let (facts, result) = chain.request_headers(exchange.take_facts()?).await;
    exchange.facts = Some(facts);
    result.map_err(|stop| Refusal::stopped(stop, End::Denied))?;
    let (mut facts, result) = chain.authorize(exchange.take_facts()?).await;
    if facts.view.priority.is_none() {
        facts.view.priority = priority(exchange, &facts);
    }
    exchange.facts = Some(facts);
    result.map_err(|stop| Refusal::stopped(stop, End::Denied))?;
    prioritize(exchange);
    exchange.hints = Hints::read(exchange)?;
    Ok(())
}

/// A caller whose key says no priority has the one its function gives the tenant.
fn prioritize(exchange: &mut Exchange) {
    let (Some(call), Some(facts)) = (&exchange.call, &mut exchange.facts) else {
        return;
    };
    if let (None, Some(priority)) = (facts.view.priority, &call.target.priority) {
        let tenant = facts.principal.as_ref().map_or("", |who| &who.tenant);
        facts.view.priority = priority.of(tenant);
    }
}

/// What the function says of callers who have no priority of their own.
fn priority(exchange: &Exchange, facts: &Facts) -> Option<u32> {
    let functions = &exchange.snapshot.config.functions;
    let priority = functions.get(&*facts.routing_key)?.priority.as_ref()?;
    let tenant = facts.principal.as_ref().map_or("", |who| &who.tenant);
    priority.of(tenant)
}

/// Limits, validation, edits of the body.
pub(crate) async fn request(exchange: &mut Exchange) -> Result<(), Refusal> {
    let Some(chain) = exchange.chain() else {
        return Ok(());
    };
    let (facts, result) = chain.request(exchange.take_facts()?).await;
    exchange.facts = Some(facts);
    result.map_err(|stop| Refusal::stopped(stop, End::Limited))
}

/// What keeps the conversation together.
pub(crate) async fn affinity(exchange: &mut Exchange) -> Result<(), Refusal> {
    let Some(chain) = exchange.chain() else {
        return Ok(());
    };
    let (facts, result) = chain.affinity(exchange.take_facts()?).await;
    exchange.facts = Some(facts);
    exchange.affinity = result.map_err(|stop| Refusal::stopped(stop, End::Denied))?;
    Ok(())
}
