//! The routes of the admin door. None can be added without saying what it needs of a token, or that it needs none.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};

use super::access::{Needs, authenticate, authorize};
use super::api::{AdminState, keep_room};
use super::audit;
use super::reply::ApiError;
use crate::telemetry::in_current_request;

/// Routes that are being put together.
pub(super) struct Routes {
    state: Arc<AdminState>,
    guarded: Router<Arc<AdminState>>,
    open: Router<Arc<AdminState>>,
}

impl Routes {
    pub(super) fn new(state: Arc<AdminState>) -> Self {
        Self { state, guarded: Router::new(), open: Router::new() }
    }

    pub(super) fn get<T: 'static>(
        self,
        path: &str,
        needs: Needs,
        handler: impl Handler<T, Arc<AdminState>>,
    ) -> Self {
        self.guarded(MethodFilter::GET, path, needs, handler)
    }

    pub(super) fn post<T: 'static>(
        self,
        path: &str,
        needs: Needs,
        handler: impl Handler<T, Arc<AdminState>>,
    ) -> Self {
        self.guarded(MethodFilter::POST, path, needs, handler)
    }

    pub(super) fn put<T: 'static>(
        self,
        path: &str,
        needs: Needs,
        handler: impl Handler<T, Arc<AdminState>>,
    ) -> Self {
        self.guarded(MethodFilter::PUT, path, needs, handler)
    }

    pub(super) fn delete<T: 'static>(
        self,
        path: &str,
        needs: Needs,
        handler: impl Handler<T, Arc<AdminState>>,
    ) -> Self {
        self.guarded(MethodFilter::DELETE, path, needs, handler)
    }

    /// A page that everybody may read.
    pub(super) fn open<T: 'static>(mut self, path: &str, handler: impl Handler<T, Arc<AdminState>>) -> Self {
        self.open = self.open.route(path, on(MethodFilter::GET, handler));
        self
    }

    fn guarded<T: 'static>(
        mut self,
        method: MethodFilter,
        path: &str,
        needs: Needs,
        handler: impl Handler<T, Arc<AdminState>>,
    ) -> Self {
        let gate = from_fn_with_state((self.state.clone(), needs), authorize);
        let mut route = on(method, handler);
        if method != MethodFilter::GET {
            route = route.route_layer(from_fn_with_state(self.state.clone(), audit::record));
        }
        let route = route.route_layer(from_fn(to_the_end)).route_layer(gate);
        self.guarded = self.guarded.route(path, route);
        self
    }

    pub(super) fn into_router(self) -> Router {
        let guarded = self
            .guarded
            .fallback(|| async { ApiError::NotFound })
            .method_not_allowed_fallback(|| async { ApiError::NotFound })
            .layer(from_fn_with_state(self.state.clone(), keep_room))
            .layer(from_fn_with_state(self.state.clone(), authenticate));
        self.open.fallback_service(guarded.with_state(self.state.clone())).with_state(self.state)
    }
}

/// Carries a request out to its end, whether its client waits or not: a change of the control data and what follows
/// from it must not be torn apart.
async fn to_the_end(request: Request, next: Next) -> Response {
    match tokio::spawn(in_current_request(next.run(request))).await {
        Ok(response) => response,
        Err(error) => ApiError::Internal(error.to_string()).into_response(),
    }
}
