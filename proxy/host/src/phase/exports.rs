//! The typed functions of one instance.

use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc,
};

use crate::guest_state::GuestState;
use crate::module::Indices;
use crate::phase::{
    Affine, Authorize, Complete, Events, Phase, Request, RequestHeaders, ResponseHeaders, Route,
    Tick,
};

type Func<P> = TypedFunc<<P as Phase>::Params, <P as Phase>::Return>;

/// Looked up and type-checked once per instance.
pub(crate) struct Exports {
    pub(crate) request_headers: Option<Func<RequestHeaders>>,
    pub(crate) authorize: Option<Func<Authorize>>,
    pub(crate) request: Option<Func<Request>>,
    pub(crate) affinity: Option<Func<Affine>>,
    pub(crate) route: Option<Func<Route>>,
    pub(crate) response_headers: Option<Func<ResponseHeaders>>,
    pub(crate) events: Option<Func<Events<'static>>>,
    pub(crate) complete: Option<Func<Complete<'static>>>,
    pub(crate) tick: Option<Func<Tick>>,
}

impl Exports {
    pub(crate) fn find(
        store: &mut Store<GuestState>,
        instance: &Instance,
        at: &Indices,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            request_headers: typed(store, instance, at.request_headers.as_ref())?,
            authorize: typed(store, instance, at.authorize.as_ref())?,
            request: typed(store, instance, at.request.as_ref())?,
            affinity: typed(store, instance, at.affinity.as_ref())?,
            route: typed(store, instance, at.route.as_ref())?,
            response_headers: typed(store, instance, at.response_headers.as_ref())?,
            events: typed(store, instance, at.events.as_ref())?,
            complete: typed(store, instance, at.complete.as_ref())?,
            tick: typed(store, instance, at.tick.as_ref())?,
        })
    }
}

fn typed<P, R>(
    store: &mut Store<GuestState>,
    instance: &Instance,
    index: Option<&ComponentExportIndex>,
) -> wasmtime::Result<Option<TypedFunc<P, R>>>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    index
        .map(|index| instance.get_typed_func(store, index))
        .transpose()
}
