//! `web-json`: the answer of Thanos's `GET /api/v1/blocks?view=global`, once.

use serde_json::json;

use super::{Ignored, Place, TimeArgs};
use crate::Result;
use crate::listing::Listing;
use crate::output::{self, moment};

/// Flags of `web-json`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// External label whose value names a group of blocks.
    #[arg(long = "label", default_value = "", value_name = "NAME")]
    label: String,
    #[command(flatten)]
    times: TimeArgs,
    #[command(flatten)]
    ignored: Ignored,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let listing = Listing::read(place.bucket).await?;
    let blocks: Vec<_> = listing.with_meta().filter(|(_, m)| args.times.takes(m, place.now_ms)).collect();
    let metas: Vec<_> = blocks.iter().map(|(_, meta)| meta).collect();
    let marks: serde_json::Map<_, _> = blocks
        .iter()
        .filter(|(b, _)| !super::ls::mark_names(b).is_empty())
        .map(|(b, _)| (b.id.to_string(), json!(b.marks())))
        .collect();
    let errors: serde_json::Map<_, _> = listing
        .blocks
        .values()
        .filter_map(|b| Some((b.id.to_string(), json!(b.meta.as_ref().err()?))))
        .collect();
    let answer = json!({
        "status": "success",
        "data": {
            "label": args.label,
            "blocks": metas,
            "marks": marks,
            "errors": errors,
            "refreshedAt": moment(place.now_ms),
            "err": null,
        },
    });
    output::json(place.out, &answer)
}
