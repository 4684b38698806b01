//! Keeps the API server believing the webhook's certificate: the roots of the mesh stand in `caBundle` of each webhook of
//! the configuration, also while they change, and whoever overwrites them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::api::Cluster;
use super::figures::Figures;

/// The configuration that is kept.
pub(super) const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrigger-injector";
/// So often it is looked at: a root is believed long before anything is signed with it.
const LOOK: Duration = Duration::from_secs(10);

/// Looks and puts right for as long as it is let. `roots` gives those of the moment, PEM.
pub(super) async fn keep(
    cluster: Arc<dyn Cluster>,
    figures: Arc<Figures>,
    roots: impl Fn() -> String + Send + 'static,
) {
    let mut last = String::new();
    loop {
        let outcome = put_right(&*cluster, &roots()).await;
        figures.in_step.store(outcome.is_ok(), Relaxed);
        match outcome {
            Ok(0) => last.clear(),
            Ok(changed) => tracing::info!(changed, "the API server is told whom to believe for the webhook"),
            // Said once, not every ten seconds.
            Err(why) if why != last => {
                tracing::warn!(why, "the API server may not believe the webhook's certificate");
                last = why;
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

/// Changes what is not as it must be. Returns how many webhooks were not.
pub(super) async fn put_right(cluster: &dyn Cluster, roots: &str) -> Result<usize, String> {
    let found = cluster.get(CONFIGURATION).await?;
    let found = found
        .ok_or("there is no MutatingWebhookConfiguration outrigger-injector: is the chart installed?")?;
    let steps = steps(&found, &STANDARD.encode(roots));
    if !steps.is_empty() {
        cluster.patch(CONFIGURATION, &Json::Array(steps.clone())).await?;
    }
    // Of each webhook a test of its name and the bundle.
    Ok(steps.len() / 2)
}

/// The webhooks are known by their numbers, so each step is preceded by a test that it is still the same one.
fn steps(configuration: &Json, bundle: &str) -> Vec<Json> {
    let webhooks = configuration["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    let wrong =
        webhooks.iter().enumerate().filter(|(_, webhook)| webhook["clientConfig"]["caBundle"] != bundle);
    wrong
        .flat_map(|(at, webhook)| {
            let name =
                json!({"op": "test", "path": format!("/webhooks/{at}/name"), "value": webhook["name"]});
            let path = format!("/webhooks/{at}/clientConfig/caBundle");
            [name, json!({"op": "add", "path": path, "value": bundle})]
        })
        .collect()
}
