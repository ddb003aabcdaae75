//! Stopping: signals become one token, and a drain has a deadline.
//!
//! SIGTERM and SIGINT cancel the token; a second one ends the process at once, for the person who cannot wait.
//! Roles pass the token (or child tokens) down; what they started they also await.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
pub use tokio_util::sync::CancellationToken;

/// How long a drain may take before the process ends without it. A Kubernetes pod has 30 s by default; uploads of
/// `--drain` are given more by their caller.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// Cancels the returned token on the first SIGTERM or SIGINT and exits with code 130 on the second.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // SIGHUP means "read the files again" to whoever watches some (`watched`); left alone it would end the process.
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: watched configuration files are read again");
        }
    });
    let token = CancellationToken::new();
    let cancel = token.clone();
    // Owned by the process itself: it waits for signals as long as there is a process.
    tokio::spawn(async move {
        let name = next_signal(&mut term, &mut int).await;
        tracing::info!(signal = name, "shutting down");
        cancel.cancel();
        let name = next_signal(&mut term, &mut int).await;
        tracing::warn!(signal = name, "second signal, ending at once");
        std::process::exit(130);
    });
    Ok(token)
}

async fn next_signal(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

/// Runs a step of the drain up to a deadline; `None` and a warning when it took longer.
pub async fn within<T>(step: &'static str, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => Some(done),
        Err(_) => {
            tracing::warn!(step, deadline_seconds = deadline.as_secs_f64(), "shutdown step ran out of time");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_that_hangs_is_left() {
        assert_eq!(within("quick", Duration::from_secs(5), async { 1 }).await, Some(1));
        assert_eq!(within("slow", Duration::from_millis(1), std::future::pending::<()>()).await, None);
    }
}
