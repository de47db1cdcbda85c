//! What a server serves: functions, or something else that is asked for by method and path.

use std::convert::Infallible;
use std::fmt;
#[cfg(feature = "playground")]
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use super::body::BodyLimits;
#[cfg(feature = "playground")]
use super::pages::{self, Pages};
use super::response::ResponseBody;
use super::service::HttpService;

/// What a server serves.
#[derive(Clone)]
pub(super) enum Served {
    Functions(HttpService),
    #[cfg(feature = "playground")]
    Pages(Arc<dyn Pages>, BodyLimits),
}

impl Served {
    pub(super) fn limits(&self) -> &BodyLimits {
        match self {
            Served::Functions(service) => &service.limits,
            #[cfg(feature = "playground")]
            Served::Pages(_, limits) => limits,
        }
    }

    pub(super) fn limits_mut(&mut self) -> &mut BodyLimits {
        match self {
            Served::Functions(service) => &mut service.limits,
            #[cfg(feature = "playground")]
            Served::Pages(_, limits) => limits,
        }
    }

    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        match self {
            Served::Functions(service) => {
                let response = service.clone().call(request).await;
                response.unwrap_or_else(|never: Infallible| match never {})
            }
            #[cfg(feature = "playground")]
            Served::Pages(pages, limits) => pages::respond(pages, request, limits).await,
        }
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Served::Functions(service) => service.fmt(f),
            #[cfg(feature = "playground")]
            Served::Pages(_, limits) => limits.fmt(f),
        }
    }
}
