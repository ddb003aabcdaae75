//! Reading the limits file again.

use std::sync::Arc;

use chronolith_service::shutdown::CancellationToken;
use chronolith_service::watched::WatchedFile;

use super::config::LimitsConfig;
use super::tenant_state::Limits;

/// Takes every new content of the file until `stop`; `taken` is called after each. A content that is wrong changes nothing.
pub async fn watch(
    limits: Arc<Limits>,
    mut file: WatchedFile,
    tenant_label: String,
    taken: impl Fn() + Send,
    stop: CancellationToken,
) {
    loop {
        let content = tokio::select! {
            content = file.changed() => content,
            () = stop.cancelled() => return,
        };
        let origin = file.path().display().to_string();
        match content.and_then(|text| LimitsConfig::parse(&origin, &text, &tenant_label)) {
            Ok(config) => {
                tracing::info!(file = origin, tenants = config.tenants.len(), "limits read again");
                limits.set(config);
                taken();
            }
            Err(error) => {
                limits.set_failed();
                let err = &error as &dyn std::error::Error;
                tracing::error!(err, "the limits file is refused, the old limits stay");
            }
        }
    }
}
