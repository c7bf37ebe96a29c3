//! What is told to anybody, without TLS: figures and pods on the read-only port, and on the healthz port whether the
//! kubelet is well (follows `ListenAndServeKubeletReadOnlyServer` and the kubelet's healthz server).

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::route::Route;
use super::{Body, Refusal, Server, Way};

/// Whether a route is open.
pub type Offers = fn(&Route) -> bool;

/// Upstream's `InstallAuthNotRequiredHandlers`.
pub fn read_only(route: &Route) -> bool {
    use Route::{
        CadvisorMetrics, Healthz, Metrics, Pods, ProbeMetrics, ResourceMetrics, SliMetrics, Summary,
    };
    let is_figures = matches!(route, Metrics | ResourceMetrics | CadvisorMetrics | ProbeMetrics | SliMetrics);
    is_figures || matches!(route, Healthz(_) | Pods | Summary)
}

pub fn healthz(route: &Route) -> bool {
    matches!(route, Route::Healthz(_))
}

impl Server {
    pub async fn serve_read_only(self, listener: TcpListener) {
        self.accept(listener, Way::Open(read_only)).await;
    }

    pub async fn serve_healthz(self, listener: TcpListener) {
        self.accept(listener, Way::Open(healthz)).await;
    }

    pub(super) async fn route_openly(
        &self,
        request: Request<Incoming>,
        offers: Offers,
    ) -> Result<Response<Body>, Refusal> {
        match Route::parse(request.uri().path()) {
            Some(route) if offers(&route) => self.serve_route(route, request).await,
            Some(route) if route.is_for_debugging() => Err(Refusal::debugging_disabled()),
            _ => Err(Refusal::not_found("404 page not found")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_reaches_into_containers_or_tells_of_the_configuration_is_open() {
        let check = |path: &str, expect: (bool, bool)| {
            let route = Route::parse(path).expect("a route");
            assert_eq!((read_only(&route), healthz(&route)), expect, "{path}");
        };
        check("/healthz", (true, true));
        check("/pods", (true, false));
        check("/stats/summary", (true, false));
        for metrics in
            ["/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes", "/metrics/slis"]
        {
            check(metrics, (true, false));
        }
        for closed in [
            "/configz",
            "/flagz",
            "/statusz",
            "/runningpods/",
            "/debug/pprof/cmdline",
            "/debug/flags/v",
            "/exec/n/p/c",
            "/run/n/p/c",
            "/containerLogs/n/p/c",
            "/checkpoint/n/p/c",
        ] {
            check(closed, (false, false));
        }
    }
}
