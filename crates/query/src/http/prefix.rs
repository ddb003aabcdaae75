//! Behind a reverse proxy: `--web.route-prefix`, `--web.external-prefix`, `--web.prefix-header`, as Thanos has them.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};

/// Where the API lies, and where clients see it.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    /// `--web.route-prefix`: every path lies below it; by default the external prefix.
    pub route: String,
    /// `--web.external-prefix`: what redirects put in front of a path.
    pub external: String,
    /// `--web.prefix-header`: the header in which a proxy says what it stripped; only without an external prefix.
    pub header: String,
}

impl Prefixes {
    /// `/a/b`, or the empty string for the root.
    fn route_prefix(&self) -> String {
        let set = if self.route.is_empty() { &self.external } else { &self.route };
        match set.trim_matches('/') {
            "" => String::new(),
            path => format!("/{path}"),
        }
    }

    /// Puts `app` below the route prefix; the root redirects there.
    pub fn mount(&self, app: Router) -> Router {
        let prefix = self.route_prefix();
        if prefix.is_empty() {
            return app;
        }
        let redirect = get(redirect).with_state(self.clone());
        Router::new().nest(&prefix, app).route("/", redirect)
    }

    fn external_prefix(&self, headers: &HeaderMap) -> String {
        let said = match self.external.trim_matches('/') {
            "" if !self.header.is_empty() => headers
                .get(self.header.as_str())
                .and_then(|v| v.to_str().ok())
                .unwrap_or("")
                .trim_matches('/'),
            set => set,
        };
        if said.is_empty() { self.route_prefix() } else { format!("/{said}") }
    }
}

async fn redirect(State(prefixes): State<Prefixes>, headers: HeaderMap) -> Response {
    let to = format!("{}/", prefixes.external_prefix(&headers));
    match http::HeaderValue::try_from(to) {
        Ok(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn paths_lie_below_the_prefix() {
        let app = Router::new().route("/x", get(async || "here"));
        let prefixes = Prefixes { external: "/thanos/".to_owned(), ..Prefixes::default() };
        let mounted = prefixes.mount(app.clone());
        let ask = async |router: Router, path: &str, header: Option<(&str, &str)>| {
            let mut request = http::Request::get(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let reply = router.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            let to = reply.headers().get("location").map(|v| v.to_str().unwrap().to_owned());
            (reply.status().as_u16(), to)
        };
        assert_eq!(ask(mounted.clone(), "/thanos/x", None).await, (200, None));
        assert_eq!(ask(mounted.clone(), "/x", None).await, (404, None));
        assert_eq!(ask(mounted, "/", None).await, (302, Some("/thanos/".to_owned())));
        let stripped = Prefixes {
            route: "api".to_owned(),
            header: "X-Forwarded-Prefix".to_owned(),
            ..Prefixes::default()
        };
        let header = Some(("x-forwarded-prefix", "/deep"));
        assert_eq!(ask(stripped.mount(app), "/", header).await, (302, Some("/deep/".to_owned())));
    }
}
