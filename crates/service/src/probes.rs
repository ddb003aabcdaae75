//! Liveness and readiness: `/-/healthy` and `/-/ready`.
//!
//! Each role of a process registers a [`Probe`] and moves it; the process is ready when all of them are. gRPC health
//! follows the same state (see [`crate::grpc`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Why a role is not ready; `None` when it is.
type States = BTreeMap<&'static str, Option<String>>;

#[derive(Debug)]
struct Shared {
    states: Mutex<States>,
    ready: watch::Sender<bool>,
}

/// The probes of one process. Clones share the state.
#[derive(Clone, Debug)]
pub struct Probes(Arc<Shared>);

impl Default for Probes {
    fn default() -> Self {
        Probes(Arc::new(Shared { states: Mutex::default(), ready: watch::Sender::new(true) }))
    }
}

impl Probes {
    /// A process without roles: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a role, which is not ready until it says so.
    pub fn register(&self, role: &'static str) -> Probe {
        let probe = Probe { probes: self.clone(), role };
        probe.not_ready("starting");
        probe
    }

    /// True when every role is ready.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// The reasons of the roles that are not ready.
    pub fn reasons(&self) -> Vec<String> {
        let states = self.0.states.lock();
        states.iter().filter_map(|(role, why)| why.as_ref().map(|w| format!("{role}: {w}"))).collect()
    }

    /// Follows [`Probes::is_ready`].
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// `/-/healthy` and `/-/ready`, for GET and HEAD.
    pub fn router(&self) -> Router {
        let probes = self.clone();
        Router::new()
            .route("/-/healthy", get(|| async { (StatusCode::OK, "chronolith is healthy\n") }))
            .route(
                "/-/ready",
                get(move || async move {
                    if probes.is_ready() {
                        (StatusCode::OK, "chronolith is ready\n".to_owned())
                    } else {
                        let text = format!("chronolith is not ready: {}\n", probes.reasons().join(", "));
                        (StatusCode::SERVICE_UNAVAILABLE, text)
                    }
                }),
            )
    }

    fn set(&self, role: &'static str, state: Option<String>) {
        let mut states = self.0.states.lock();
        states.insert(role, state);
        let ready = states.values().all(Option::is_none);
        // Under the lock, so that two roles' changes are published in order.
        self.0.ready.send_if_modified(|now| std::mem::replace(now, ready) != ready);
    }
}

/// One role's say in its process's readiness.
#[derive(Clone, Debug)]
pub struct Probe {
    probes: Probes,
    role: &'static str,
}

impl Probe {
    /// From now on the role serves.
    pub fn ready(&self) {
        self.probes.set(self.role, None);
    }

    /// From now on it does not, and why.
    pub fn not_ready(&self, why: &str) {
        self.probes.set(self.role, Some(why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_role_is() {
        let probes = Probes::new();
        assert!(probes.is_ready());
        let (a, b) = (probes.register("store"), probes.register("receive"));
        a.ready();
        b.not_ready("replaying the WAL");
        assert!(!probes.is_ready());
        assert_eq!(probes.reasons(), ["receive: replaying the WAL"]);
        b.ready();
        assert!(probes.is_ready() && *probes.watch().borrow());
        a.not_ready("shutting down");
        assert!(!probes.is_ready());
    }
}
